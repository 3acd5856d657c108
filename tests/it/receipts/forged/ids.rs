//! Message ids (`Nats-Msg-Id`) that a stranger used first suppress no job and no status.

use lamda_node::bus::{MessageIds, Target};
use lamda_node::secret::Secret;

use super::STRANGER;
use crate::support::bus::prepared;
use crate::support::nats::Nats;
use crate::support::network::{Network, events};
use crate::support::program::ACCOUNT;

/// Publishes on a subject (`args[0]`) once under each of the ids (`args[1:]`).
const SQUAT: &str = "
for id in args[1:]:
    await js.publish(args[0], b'squatted', headers={'Nats-Msg-Id': id})";

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_id_a_stranger_used_first_is_sent_under_another() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let agent = ACCOUNT.parse().expect("an address");
    let target = Target::Agent(agent);
    nats.python(SQUAT, &[&format!("jobs.dispatch.{STRANGER}"), "guessed"]);
    let published = bus.publish_job(&target, "job".into(), "guessed").await.expect("published");
    assert!(!published.duplicate, "{published:?}");
    // The message was stored under another id.
    let told = nats.python(
        "m = await js.get_msg('JOBS', int(args[0]))\nprint(m.subject, m.data.decode())",
        &[&published.stream_seq.expect("a number").to_string()],
    );
    assert_eq!(told, format!("jobs.dispatch.{ACCOUNT} job"));

    // An id that became known, for example by a publish that was not stored, can't be used up either.
    let ids = MessageIds::new(Secret::new("the key of this test"));
    let job = "learned".parse().expect("an id");
    bus.publish_status(&ids, agent, &job, 1, "x".into()).await.expect("published");
    let id = nats.python("print((await js.get_msg('STATUS', 1)).headers['Nats-Msg-Id'])", &[]);
    nats.python(
        "await js.delete_stream('STATUS')\n\
         await js.add_stream(name='STATUS', subjects=['jobs.status.*.*'])",
        &[],
    );
    nats.python(SQUAT, &[&format!("jobs.status.{STRANGER}.other"), &id]);
    for _ in 0..2 {
        bus.publish_status(&ids, agent, &job, 1, "x".into()).await.expect("published");
    }
    let told = nats.python(
        "for n in range(1, (await js.stream_info('STATUS')).state.messages + 1):\n    \
             m = await js.get_msg('STATUS', n)\n    \
             print(m.subject, m.data.decode())",
        &[],
    );
    let ours = format!("jobs.status.{ACCOUNT}.learned x");
    assert_eq!(told, format!("jobs.status.{STRANGER}.other squatted\n{ours}"));
}

#[test]
fn a_stranger_who_guesses_a_jobs_ids_suppresses_none_of_its_statuses() {
    let network = Network::start();
    let program = &network.program;
    let first = program.run(&["submit", "--image", "img", "--job-id", "before", "--follow"]);
    first.succeeds();
    let ids: Vec<String> = (1..=8).map(|seq| format!("{ACCOUNT}:quiet:{seq}")).collect();
    let subject = format!("jobs.status.{STRANGER}.mine");
    let args: Vec<&str> =
        std::iter::once(subject.as_str()).chain(ids.iter().map(String::as_str)).collect();
    network.nats.python(SQUAT, &args);
    let args = ["submit", "--image", "img", "--job-id", "quiet", "--follow", "--json"];
    let told = program.run(&args).succeeds().objects();
    let stages: Vec<&str> = events(&told, "status")
        .into_iter()
        .filter_map(|event| event["status"]["stage"].as_str())
        .collect();
    assert_eq!(stages.first(), Some(&"accepted"));
    assert_eq!(stages.last(), Some(&"completed"));
}
