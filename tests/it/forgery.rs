//! A stranger on the NATS server, who may publish what he likes under his own name or under any, and
//! what a requester comes to believe. The stranger is nats-py: nothing of ours holds him back.

use lamda_node::bus::{Bus, Config, Credentials, DeliveryMode, MessageIds, Target};
use lamda_node::secret::Secret;

use super::cli::{ACCOUNT, Network, events};
use super::support::nats::Nats;

/// Whose name the stranger publishes under.
const STRANGER: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// Publishes to a subject under each of these ids.
const SQUAT: &str = "
for id in args[1:]:
    await js.publish(args[0], b'squatted', headers={'Nats-Msg-Id': id})";

async fn connect(nats: &Nats) -> Bus {
    let config = Config {
        url: nats.url(),
        credentials: Credentials::None,
        tls_ca: None,
        name: "test".to_owned(),
        manage_streams: true,
        mode: DeliveryMode::JetStream,
    };
    let bus = Bus::connect(&config).await.expect("the server is there");
    bus.prepare().await.expect("streams");
    bus
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_id_a_stranger_used_first_is_sent_under_another() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let agent = ACCOUNT.parse().expect("an address");
    let target = Target::Agent(agent);
    nats.python(SQUAT, &[&format!("jobs.dispatch.{STRANGER}"), "guessed"]);
    let published = bus.publish_job(&target, "job".into(), "guessed").await.expect("published");
    assert!(!published.duplicate, "{published:?}");
    // Its own repeat is known again, also under the id that is not in the stranger's hands.
    let told = nats.python(
        "m = await js.get_msg('JOBS', int(args[0]))\nprint(m.subject, m.data.decode())",
        &[&published.stream_seq.expect("a number").to_string()],
    );
    assert_eq!(told, format!("jobs.dispatch.{ACCOUNT} job"));

    // Where an id became known, as by a publish that was heard and not stored, it is no use either.
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
