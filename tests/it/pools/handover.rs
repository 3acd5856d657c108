//! A job goes to another node only if its own is gone, cut off or shutting down.

use std::time::{Duration, Instant};

use lamda_node::ids::Address;
use serde_json::{Value, json};

use super::{HELD, Happened, Pool, SHORT, address, is_end, last};
use crate::support::nats::Nats;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, job, shell};

#[tokio::test]
async fn the_job_of_a_node_that_was_killed_is_run_by_another() {
    let pool = Pool::start(5).await;
    let mut first = pool.agent(1, &[]);
    pool.publish("inherited", &shell(HELD));
    pool.wait_until_held(1, "inherited");
    let second = pool.agent(2, &[]);
    first.kill();
    pool.wait_until_held(2, "inherited");
    // It comes back to a running container of a job that another node has taken over.
    let first = pool.agent(1, &[]);
    first.wait_for("job inherited went to another agent of its pool: it stops here");
    first.wait_for("job inherited: waiting");
    let stopped = Happened { action: "die".to_owned(), node: address(1) };
    assert!(pool.happened("inherited").await.contains(&stopped));
    pool.release(2, "inherited");
    let said = pool.outcome("inherited").await;
    assert_eq!(last(&said, 1), json!(["interrupted", "lease_lost"]));
    assert_eq!(last(&said, 2), json!(["completed", null]));
    assert_eq!(pool.starts("inherited").await, [address(1), address(2)]);
    assert!(!second.log().contains("ERROR"), "{}", second.log());
}

#[tokio::test]
async fn a_node_that_is_cut_off_stops_its_pools_job_before_another_starts_it() {
    let pool = Pool::start(10).await;
    let proxy = TcpProxy::start(pool.world.nats.port());
    let url = format!("nats://{}", proxy.address());
    let first = pool.agent(1, &[("NATS_URL", &url), ("JOB_SLOTS", "2")]);
    pool.world.publish_to(
        &format!("jobs.dispatch.{}", address(1)),
        &job("own", &shell(HELD)).to_string(),
    );
    pool.wait_until_held(1, "own");
    for id in ["cut", "silent"] {
        let before = pool.world.queued();
        pool.publish(id, &shell(HELD));
        pool.wait_until_held(1, id);
        let _second = pool.agent(2, &[]);
        if id == "cut" {
            proxy.cut();
        } else {
            proxy.silence();
        }
        pool.wait_until_held(2, id);
        let happened = pool.happened(id).await;
        let at = |action: &str, account| {
            let what = Happened { action: action.to_owned(), node: address(account) };
            happened.iter().position(|one| *one == what)
        };
        let (stopped, taken) = (at("die", 1), at("start", 2));
        assert!(stopped.is_some_and(|at| Some(at) < taken), "{happened:?}");
        assert!(pool.held(1, "own").exists(), "its own job was stopped");
        proxy.mend();
        pool.release(2, id);
        first.wait_for(&format!("job {id}: waiting"));
        eventually("the job's end is published", PATIENCE, || {
            pool.world.statuses(id).iter().any(is_end).then_some(())
        });
        // Killed before that, the second agent would leave the message to a later delivery.
        eventually("the job's message is answered", PATIENCE, || {
            (pool.world.queued() <= before).then_some(())
        });
    }
    pool.release(1, "own");
    let own = pool.outcome("own").await;
    assert_eq!(last(&own, 1), json!(["completed", null]));
    assert_eq!(pool.starts("own").await, [address(1)], "the bus stops no job of its own");
    for id in ["cut", "silent"] {
        let said = pool.outcome(id).await;
        assert_eq!(last(&said, 1), json!(["interrupted", "lease_lost"]), "{id}");
        assert_eq!(last(&said, 2), json!(["completed", null]), "{id}");
    }
}

#[tokio::test]
async fn an_ack_wait_that_is_edited_makes_no_job_go_from_hand_to_hand() {
    let pool = Pool::start(600).await;
    let first = pool.agent(1, &[]);
    pool.publish("edited", &shell(HELD));
    pool.wait_until_held(1, "edited");
    let second = pool.agent(2, &[]);
    let script = "
info = await js.consumer_info('JOBS', 'pool-it')
info.config.ack_wait = 10
await js.add_consumer('JOBS', info.config)";
    pool.world.nats.python(script, &[]);
    // The job is delivered to the second node, which asks the first: so the first learns of the edit.
    second.wait_for("job edited of the pool it is kept by");
    let given = pool.given();
    // With the old ack wait the next renewal would be minutes away.
    let renewals = "
sub = await nc.subscribe('$JS.ACK.JOBS.pool-it.>')
for _ in range(3):
    assert (await sub.next_msg(timeout=30)).data == b'+WPI'";
    pool.world.nats.python(renewals, &[]);
    assert_eq!(pool.given(), given, "it is renewed in time for the new ack wait");
    let claim = pool.claim("edited").expect("a claim");
    assert_eq!((&claim["agent"], &claim["starts"]), (&json!(address(1)), &json!(1)));
    pool.release(1, "edited");
    let said = pool.outcome("edited").await;
    assert_eq!(last(&said, 1), json!(["completed", null]));
    assert_eq!(last(&said, 2), Value::Null, "the second node has nothing to say");
    assert_eq!(pool.starts("edited").await, [address(1)]);
    assert!(!first.log().contains("it stops here"), "{}", first.log());
}

/// Long enough for a server to notice that it lost the others.
const CLUSTER_ACK_WAIT_S: u64 = 30;

/// Two of a cluster's three servers are down for longer than the ack wait, so JetStream has no leader.
pub(crate) async fn an_outage_of_jetstream_stops_no_job_of_a_pool() {
    let mut world = World::start().await;
    let [first, mut second, mut third] = Nats::cluster();
    world.nats = first;
    let script = "
async def until_made(make):
    while True:
        try:
            return await make()
        except Exception as err:
            await asyncio.sleep(0.2)
for name, subjects in [('JOBS', ['jobs.dispatch.*', 'jobs.pool.*']), ('STATUS', ['jobs.status.*.*']),
                       ('DEAD', ['jobs.dead.*'])]:
    kind = 'workqueue' if name == 'JOBS' else 'limits'
    await until_made(lambda: js.add_stream(name=name, subjects=subjects, retention=kind, num_replicas=3))
await until_made(lambda: js.create_key_value(bucket='JOB_CLAIMS', replicas=3))
await until_made(lambda: js.add_consumer('JOBS', ConsumerConfig(durable_name='pool-it',
    ack_wait=int(args[0]), ack_policy=AckPolicy.EXPLICIT, filter_subject='jobs.pool.it')))";
    world.nats.python(script, &[&CLUSTER_ACK_WAIT_S.to_string()]);
    let pool = Pool { world };
    let one = pool.agent(1, &[]);
    pool.publish("through", &shell(HELD));
    pool.wait_until_held(1, "through");
    let other = pool.agent(2, &[]);
    second.kill();
    third.kill();
    let (began, outage) = (Instant::now(), Duration::from_secs(2 * CLUSTER_ACK_WAIT_S));
    eventually("there is no leader for two ack waits", PATIENCE + outage, || {
        (began.elapsed() > outage).then_some(())
    });
    assert!(pool.held(1, "through").exists() && !one.log().contains("it stops here"));
    second.restart();
    third.restart();
    // The server delivers at once every job that was not renewed during the outage.
    other.wait_for("job through of the pool it is kept by");
    pool.release(1, "through");
    let said = pool.outcome("through").await;
    assert_eq!(last(&said, 1), json!(["completed", null]));
    assert_eq!(last(&said, 2), Value::Null, "the other node has nothing to say");
    assert_eq!(pool.starts("through").await, [address(1)]);
}

/// Between the claim and the journal; between the journal and the container; before the claim of the
/// end; between that claim and the end.
const PLACES: [&str; 4] = ["starting.before", "starting.after", "concluding.after", "ended.before"];

#[tokio::test]
async fn a_node_that_is_killed_around_its_claims_goes_on_with_them() {
    let pool = Pool::start(120).await;
    for place in PLACES {
        let id = place.replace('.', "-");
        let mut agent = pool.start_agent(1, &[("LAMDA_FAILPOINT", place)]);
        agent.wait_for("waiting for jobs on jobs.pool.it");
        pool.publish(&id, &shell(SHORT));
        assert!(!agent.wait_for_end().success());
        let _agent = pool.agent(1, &[]);
        let said = pool.outcome(&id).await;
        assert_eq!(last(&said, 1), json!(["completed", null]), "{place}");
        assert_eq!(pool.starts(&id).await, [address(1)], "{place}");
        let claim = pool.claim(&id).expect("a claim");
        assert_eq!((&claim["state"], &claim["starts"]), (&json!("done"), &json!(1)), "{place}");
    }
}

#[tokio::test]
async fn what_a_node_was_killed_with_is_ended_by_one_of_two() {
    let pool = Pool::start(3).await;
    for place in PLACES {
        let id = place.replace('.', "-");
        let mut first = pool.agent(1, &[("LAMDA_FAILPOINT", place)]);
        pool.publish(&id, &shell(SHORT));
        assert!(!first.wait_for_end().success());
        let second = pool.agent(2, &[]);
        let claimed_end = place == "ended.before";
        if claimed_end {
            // Only the first may publish the end; the job is delivered to the second before it does.
            eventually("the job is given out again", PATIENCE, || {
                (pool.redelivered() > 0).then_some(())
            });
        } else {
            second.wait_for(&format!("job {id} completed"));
        }
        let _first = pool.agent(1, &[]);
        let said = pool.outcome(&id).await;
        let (one, other) = (last(&said, 1), last(&said, 2));
        if claimed_end {
            assert_eq!((one, other), (json!(["completed", null]), Value::Null), "{place}");
        } else {
            assert_eq!(one, json!(["interrupted", "lease_lost"]), "{place}");
            assert_eq!(other, json!(["completed", null]), "{place}");
        }
        if place.starts_with("starting") {
            assert_eq!(pool.starts(&id).await, [address(2)], "{place}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_gives_its_pools_job_to_another_at_once() {
    // Long enough that the job is not delivered again unless the first node hands it on.
    let pool = Pool::start(600).await;
    let mut first = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
    pool.publish("handed-on", &shell(HELD));
    pool.wait_until_held(1, "handed-on");
    let _second = pool.agent(2, &[]);
    first.ask_to_end();
    pool.wait_until_held(2, "handed-on");
    assert!(first.wait_for_end().success());
    let claim = pool.claim("handed-on").expect("a claim");
    assert_eq!(claim["agent"], json!(address(2)));
    assert_eq!(claim["starts"], 1, "a start that a shutdown interrupted does not count");
    pool.release(2, "handed-on");
    let said = pool.outcome("handed-on").await;
    assert_eq!(last(&said, 1), json!(["interrupted", "node_shutdown"]));
    assert_eq!(last(&said, 2), json!(["completed", null]));
    let happened = pool.happened("handed-on").await;
    let order: Vec<&Happened> =
        happened.iter().filter(|one| ["start", "die"].contains(&one.action.as_str())).collect();
    let nodes: Vec<Address> = order.iter().map(|one| one.node).collect();
    assert_eq!(nodes, [address(1), address(1), address(2), address(2)], "{order:?}");
}

#[tokio::test]
async fn a_job_that_was_given_back_and_is_in_no_queue_any_more_is_run_by_who_gave_it_back() {
    let pool = Pool::start(120).await;
    let mut agent = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
    for id in ["purged", "swept"] {
        pool.publish(id, &shell(HELD));
        pool.wait_until_held(1, id);
        agent.ask_to_end();
        assert!(agent.wait_for_end().success());
        let said = pool.world.statuses(id);
        assert_eq!(said.last().expect("a status")["stage"], "interrupted");
        let script = "await js.purge_stream('JOBS')";
        let anew = "await js.delete_stream('JOBS')";
        pool.world.nats.python(if id == "purged" { script } else { anew }, &[]);
        agent = pool.agent(1, &[("SHUTDOWN_GRACE_S", "0")]);
        let held = pool.world.dir.path().join(format!("data-1/jobs/{id}/2/output/held"));
        eventually(&format!("{id} runs again"), PATIENCE, || held.exists().then_some(()));
        std::fs::remove_file(held).expect("it is held");
        let said = pool.outcome(id).await;
        assert_eq!(last(&said, 1), json!(["completed", null]));
        let claim = pool.claim(id).expect("a claim");
        assert_eq!((&claim["state"], &claim["starts"]), (&json!("done"), &json!(1)), "{claim}");
    }
}
