//! bus: against a real nats-server, with nats-py on the other side.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use bytes::Bytes;
use lamda_node::bus::{
    AckHandle, Bus, Config, Credentials, Delivery, DeliveryMode, Error, Intake, Kept, MessageIds,
    Settle, Source, StatusFilter,
};
use lamda_node::ids::{Address, JobId};
use lamda_node::secret::Secret;
use tokio::time::timeout;

use crate::support::nats::Nats;
use crate::support::tools::{eventually, free_port};

const AGENT: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

/// Longer than any healthy step takes on a machine with other work, and shorter than the silence
/// (20 s) or the ack wait (30 s) that would hide a loss that was not noticed.
const LIMIT: Duration = Duration::from_secs(18);

/// Long enough that what is on its way has come.
const QUIET: Duration = Duration::from_millis(400);

const PUBLISH: &str = "for body in args[1:]: await js.publish(args[0], body.encode())";
const PENDING: &str = "print((await js.consumer_info('JOBS', args[0])).num_ack_pending)";
const STORED: &str = "print((await js.stream_info(args[0])).state.messages)";

fn agent() -> Address {
    AGENT.parse().expect("an address")
}

fn job(id: &str) -> JobId {
    id.parse().expect("a job's id")
}

fn ids() -> MessageIds {
    MessageIds::new(Secret::new("a key"))
}

fn source() -> Source {
    Source::Agent(agent())
}

fn dispatch() -> String {
    source().subject()
}

fn consumer() -> String {
    format!("agent-{}", AGENT.to_lowercase())
}

fn config(url: String) -> Config {
    Config {
        url,
        credentials: Credentials::None,
        tls_ca: None,
        tls_first: false,
        name: "test".to_owned(),
        inbox_prefix: None,
        manage_streams: true,
        mode: DeliveryMode::JetStream,
    }
}

async fn connect(nats: &Nats) -> Bus {
    Bus::connect(&config(nats.url())).await.expect("the server is there")
}

/// A connection with its streams made.
async fn prepared(nats: &Nats) -> Bus {
    let bus = connect(nats).await;
    bus.prepare().await.expect("streams");
    bus
}

async fn with_intake(nats: &Nats) -> (Bus, Intake) {
    let bus = prepared(nats).await;
    let intake = bus.intake(&source()).await.expect("a consumer");
    (bus, intake)
}

async fn next(intake: &mut Intake, room: usize) -> Delivery {
    timeout(LIMIT, intake.next(room)).await.expect("a job comes").expect("no lasting trouble")
}

async fn ack(bus: &Bus, delivery: &Delivery) {
    settle_until_done(bus, delivery.ack.as_ref().expect("JetStream"), Settle::Ack).await;
}

/// As the agent does: what is transient is tried again.
async fn settle_until_done(bus: &Bus, ack: &AckHandle, how: Settle) {
    let settled = async {
        loop {
            match bus.settle(ack, how).await {
                Ok(()) => return,
                Err(err) if err.is_transient() => tokio::task::yield_now().await,
                Err(err) => panic!("{how:?}: {err}"),
            }
        }
    };
    timeout(LIMIT, settled).await.expect("the server takes the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_another_client_arrive_in_both_spellings_of_the_address() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    let lower = format!("jobs.dispatch.{}", AGENT.to_lowercase());
    nats.python(PUBLISH, &[&dispatch(), "eip55"]);
    nats.python(PUBLISH, &[&lower, "lower"]);
    for (subject, body) in [(dispatch(), "eip55"), (lower, "lower")] {
        let delivery = next(&mut intake, 2).await;
        assert_eq!((delivery.subject.as_str(), &delivery.body[..]), (&*subject, body.as_bytes()));
        assert_eq!(Source::of_subject(&delivery.subject), Some(source()));
        assert_eq!(delivery.delivered, 1);
        ack(&bus, &delivery).await;
    }
    assert_eq!(nats.python(STORED, &["JOBS"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_streams_and_the_consumer_are_as_the_protocol_says() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    let shared = Source::Pool("a100".parse().unwrap());
    let mut pool = bus.intake(&shared).await.unwrap();
    for (to, intake, seconds) in [(source(), &mut intake, 30), (shared, &mut pool, 120)] {
        bus.publish_job(&to, "a".into(), &to.to_string()).await.unwrap();
        let delivery = next(intake, 1).await;
        assert_eq!(delivery.ack.as_ref().unwrap().ack_wait(), Duration::from_secs(seconds));
        ack(&bus, &delivery).await;
    }
    let shown = nats.python(
        "for name in ['JOBS', 'STATUS', 'DEAD']:\n    \
             c = (await js.stream_info(name)).config\n    \
             print(c.name, c.subjects, c.retention, c.storage, c.max_age, c.max_bytes, c.discard, \
                   c.max_msg_size)\n\
         for name in [args[0], 'pool-a100']:\n    \
             c = (await js.consumer_info('JOBS', name)).config\n    \
             print(c.ack_policy, c.deliver_policy, c.ack_wait, c.max_deliver, c.max_ack_pending, \
                   c.filter_subject, len(c.filter_subjects or []), c.backoff)",
        &[&consumer()],
    );
    assert_eq!(
        shown,
        "JOBS ['jobs.dispatch.*', 'jobs.pool.*'] workqueue file 604800.0 1073741824 new -1\n\
         STATUS ['jobs.status.*.*'] limits file 2592000.0 1073741824 old -1\n\
         DEAD ['jobs.dead.*'] limits file 2592000.0 -1 old -1\n\
         explicit all 30.0 -1 10000 None 2 None\n\
         explicit all 120.0 -1 10000 jobs.pool.a100 0 None"
    );
    bus.prepare().await.expect("again, nothing changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_reaches_agent_status_and_once_the_stream() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let mut subscriber = nats.python_beside(
        "sub = await nc.subscribe('agent.status')\n\
         await nc.flush()\n\
         print('ready')\n\
         for _ in range(2): print((await sub.next_msg(30)).data.decode())\n\
         m = await js.get_msg('STATUS', 1)\n\
         print(m.subject, len(m.headers['Nats-Msg-Id']), m.data.decode())",
        &[],
    );
    assert_eq!(subscriber.line(), "ready");
    let body = Bytes::from_static(b"{\"seq\":3}");
    for _ in 0..2 {
        bus.publish_status(&ids(), agent(), &job("j-1"), 3, body.clone()).await.unwrap();
    }
    assert_eq!([subscriber.line(), subscriber.line()], ["{\"seq\":3}", "{\"seq\":3}"]);
    let stored = format!("jobs.status.{AGENT}.j-1 64 {{\"seq\":3}}");
    assert_eq!(subscriber.line(), stored);
    assert_eq!(nats.python(STORED, &["STATUS"]), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_by_its_stored_form_works_from_a_new_connection_and_again() {
    let nats = Nats::start();
    let stored = {
        let (bus, mut intake) = with_intake(&nats).await;
        bus.publish_job(&source(), "a".into(), "a").await.unwrap();
        let stored = serde_json::to_string(&next(&mut intake, 1).await.ack).unwrap();
        bus.drain().await.unwrap();
        stored
    };
    let ack: AckHandle = serde_json::from_str(&stored).unwrap();
    let bus = connect(&nats).await;
    bus.settle(&ack, Settle::Progress).await.unwrap();
    assert_eq!(nats.python(STORED, &["JOBS"]), "1");
    bus.settle(&ack, Settle::Ack).await.unwrap();
    assert_eq!(nats.python(STORED, &["JOBS"]), "0");
    bus.settle(&ack, Settle::Ack).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_progress_is_not_delivered_again() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let lower = format!("jobs.dispatch.{}", AGENT.to_lowercase());
    nats.python(
        "await js.add_consumer('JOBS', ConsumerConfig(durable_name=args[0], ack_wait=3, \
         ack_policy=AckPolicy.EXPLICIT, filter_subjects=[args[1], args[2]]))",
        &[&consumer(), &dispatch(), &lower],
    );
    let mut intake = bus.intake(&source()).await.unwrap();
    bus.publish_job(&source(), "a".into(), "a").await.unwrap();
    let delivery = next(&mut intake, 1).await;
    let known = delivery.ack.as_ref().unwrap().ack_wait();
    assert_eq!(known, Duration::from_secs(3), "what exists is not changed");
    for _ in 0..12 {
        bus.settle(delivery.ack.as_ref().unwrap(), Settle::Progress).await.unwrap();
        assert!(timeout(QUIET, intake.next(1)).await.is_err(), "it came a second time");
    }
    ack(&bus, &delivery).await;
    assert_eq!(nats.python(STORED, &["JOBS"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_put_off_comes_again_and_one_that_is_ended_does_not() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    bus.publish_job(&source(), "a".into(), "a").await.unwrap();
    let first = next(&mut intake, 1).await;
    let later = Settle::Nak(Duration::from_millis(200));
    bus.settle(first.ack.as_ref().unwrap(), later).await.unwrap();
    let second = next(&mut intake, 1).await;
    assert_eq!((second.body, second.delivered), (first.body, 2));
    bus.settle(second.ack.as_ref().unwrap(), Settle::Ack).await.unwrap();
    assert_eq!(nats.python(STORED, &["JOBS"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_are_taken_than_there_is_room_for() {
    let nats = Nats::start();
    let (_bus, mut intake) = with_intake(&nats).await;
    nats.python(PUBLISH, &[&dispatch(), "1", "2", "3", "4", "5"]);
    assert_eq!(&next(&mut intake, 1).await.body[..], b"1");
    assert_eq!(nats.python(PENDING, &[&consumer()]), "1");
    assert_eq!(&next(&mut intake, 1).await.body[..], b"2");
    assert_eq!(nats.python(PENDING, &[&consumer()]), "2");
    assert!(timeout(QUIET, intake.next(0)).await.is_err(), "no room, no job");
    assert_eq!(&next(&mut intake, 3).await.body[..], b"3");
    assert_eq!(nats.python(PENDING, &[&consumer()]), "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_job_can_be_broken_off_at_any_time_without_loss() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    let publish = async {
        for n in 0..200 {
            let name = n.to_string();
            bus.publish_job(&source(), name.clone().into(), &name).await.unwrap();
        }
    };
    let take = async {
        let mut taken = Vec::new();
        let mut round = 0_u64;
        while taken.len() < 200 {
            round += 1;
            let brief = Duration::from_micros(round * 37 % 2_000);
            if let Ok(delivery) = timeout(brief, intake.next(3)).await {
                let delivery = delivery.unwrap();
                assert_eq!(delivery.delivered, 1);
                ack(&bus, &delivery).await;
                taken.push(String::from_utf8(delivery.body.to_vec()).unwrap());
            }
        }
        taken
    };
    let (taken, ()) =
        timeout(LIMIT, Box::pin(async { tokio::join!(take, publish) })).await.unwrap();
    assert_eq!(taken, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(nats.python(STORED, &["JOBS"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intake_that_is_closed_gives_back_what_nobody_has_seen() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    nats.python(PUBLISH, &[&dispatch(), "1", "2", "3"]);
    assert_eq!(&next(&mut intake, 3).await.body[..], b"1");
    eventually("all three are on their way", LIMIT, || {
        (nats.python(PENDING, &[&consumer()]) == "3").then_some(())
    });
    intake.close().await;
    let mut intake = bus.intake(&source()).await.unwrap();
    for body in [b"2", b"3"] {
        let delivery = next(&mut intake, 1).await;
        assert_eq!((&delivery.body[..], delivery.delivered), (&body[..], 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_killed_and_is_back_with_its_storage_loses_nothing() {
    let mut nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    nats.python(PUBLISH, &[&dispatch(), "1", "2", "3"]);
    let first = next(&mut intake, 1).await;
    nats.kill();
    eventually("the loss is noticed", LIMIT, || (!bus.is_connected()).then_some(()));
    let refused = bus.publish_status(&ids(), agent(), &job("j"), 1, "x".into()).await.unwrap_err();
    assert!(matches!(refused, Error::Disconnected { .. }) && refused.is_transient());
    nats.restart();
    eventually("the bus is back", LIMIT, || bus.is_connected().then_some(()));
    // A kill may cost the server what it last knew of the consumer, so the first may come again;
    // what nobody has seen yet comes now, not after the ack wait.
    let mut bodies = BTreeSet::from([first.body.clone()]);
    while bodies.len() < 3 {
        let delivery = next(&mut intake, 1).await;
        bodies.insert(delivery.body.clone());
        ack(&bus, &delivery).await;
    }
    ack(&bus, &first).await;
    nats.python(PUBLISH, &[&dispatch(), "4"]);
    while nats.python(STORED, &["JOBS"]) != "0" {
        ack(&bus, &next(&mut intake, 1).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intake_that_waits_through_a_restart_gets_the_next_job() {
    let mut nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    assert!(timeout(QUIET, intake.next(1)).await.is_err(), "its pull is out");
    let restart = tokio::task::spawn_blocking(move || {
        nats.restart();
        nats.python(PUBLISH, &[&dispatch(), "1"]);
        nats
    });
    let (delivery, nats) = tokio::join!(next(&mut intake, 1), restart);
    ack(&bus, &delivery).await;
    assert_eq!(nats.expect("the server is back").python(STORED, &["JOBS"]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_its_storage_gets_its_streams_back_and_takes_no_old_ack() {
    let mut nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    nats.python(PUBLISH, &[&dispatch(), "old"]);
    let old = next(&mut intake, 1).await.ack.unwrap();
    nats.restart_empty();
    // The intake is what makes the stream anew, so it has to be waiting meanwhile.
    let publish = tokio::task::block_in_place(|| {
        nats.python_beside(
            "while True:\n    \
                 try:\n        \
                     await js.publish(args[0], b'new')\n        \
                     break\n    \
                 except nats.js.errors.NoStreamResponseError:\n        \
                     await asyncio.sleep(0.05)\n\
             print('sent')",
            &[&dispatch()],
        )
    });
    let new = next(&mut intake, 1).await;
    drop(publish);
    assert_eq!(&new.body[..], b"new");
    assert_eq!(new.ack.as_ref().unwrap().stream_seq, old.stream_seq, "the trap that this is about");
    for how in [Settle::Ack, Settle::Progress, Settle::Nak(Duration::ZERO)] {
        let refused = bus.settle(&old, how).await.unwrap_err();
        assert!(matches!(refused, Error::StaleAck { .. }), "{how:?}: {refused}");
    }
    assert_eq!(nats.python(STORED, &["JOBS"]), "1");
    bus.publish_status(&ids(), agent(), &job("j"), 1, "x".into()).await.unwrap();
    assert_eq!(nats.python(STORED, &["STATUS"]), "1");
    ack(&bus, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_under_a_live_connection_takes_no_old_ack() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    nats.python(PUBLISH, &[&dispatch(), "old"]);
    let old = next(&mut intake, 1).await.ack.unwrap();
    nats.python(
        "config = (await js.stream_info('JOBS')).config\n\
         await js.delete_stream('JOBS')\n\
         await js.add_stream(config)\n\
         await js.publish(args[0], b'new')",
        &[&dispatch()],
    );
    let new = next(&mut intake, 1).await;
    assert_eq!(&new.body[..], b"new");
    let refused = bus.settle(&old, Settle::Ack).await.unwrap_err();
    assert!(matches!(refused, Error::StaleAck { .. }), "{refused}");
    ack(&bus, &new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_somebody_deletes_is_made_again() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    assert!(timeout(QUIET, intake.next(1)).await.is_err());
    nats.python("await js.delete_consumer('JOBS', args[0])", &[&consumer()]);
    nats.python(PUBLISH, &[&dispatch(), "1"]);
    let delivery = next(&mut intake, 1).await;
    ack(&bus, &delivery).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pools_jobs_go_to_one_agent_each() {
    let nats = Nats::start();
    let pool = Source::Pool("a100".parse().unwrap());
    let (one, two) = (prepared(&nats).await, prepared(&nats).await);
    let mut first = one.intake(&pool).await.unwrap();
    let mut second = two.intake(&pool).await.unwrap();
    nats.python(PUBLISH, &["jobs.pool.a100", "1", "2"]);
    let (a, b) = (next(&mut first, 1).await, next(&mut second, 1).await);
    assert_ne!(a.body, b.body);
    assert!(timeout(QUIET, second.next(1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_shape_is_refused_with_what_differs() {
    let nats = Nats::start();
    nats.python("await js.add_stream(name='JOBS', subjects=['jobs.dispatch.*'])", &[]);
    let bus = connect(&nats).await;
    let refused = bus.prepare().await.unwrap_err();
    assert!(!refused.is_transient());
    let text = refused.to_string();
    assert!(text.contains("JOBS") && text.contains("retention is Limits"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_of_another_shape_is_refused_with_what_differs() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    nats.python(
        "await js.add_consumer('JOBS', ConsumerConfig(durable_name=args[0], \
         ack_policy=AckPolicy.EXPLICIT, filter_subject=args[1]))",
        &[&consumer(), &dispatch()],
    );
    let refused = bus.intake(&source()).await.unwrap_err();
    assert!(matches!(&refused, Error::Stream { problem, .. } if problem.contains("takes")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_gives_jobs_out_without_their_bodies_is_refused_before_and_after() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    let edit = "info = await js.consumer_info('JOBS', args[0])\n\
         info.config.headers_only = True\n\
         await js.add_consumer('JOBS', info.config)";
    nats.python(edit, &[&consumer()]);
    nats.python(PUBLISH, &[&dispatch(), "a job"]);
    let refused = async {
        loop {
            match intake.next(1).await {
                Ok(delivery) => panic!("taken for a job: {delivery:?}"),
                Err(err) if err.is_transient() => {}
                Err(err) => return err,
            }
        }
    };
    let refused = timeout(LIMIT, refused).await.expect("it is noticed").to_string();
    assert!(refused.contains("headers_only"), "{refused}");
    assert_eq!(nats.python(STORED, &["JOBS"]), "1", "nobody has answered for it");
    let refused = bus.intake(&source()).await.unwrap_err().to_string();
    assert!(refused.contains("headers_only"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_wait_that_is_edited_is_read_as_it_is() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    bus.publish_job(&source(), "a".into(), "a").await.unwrap();
    let ack = next(&mut intake, 1).await.ack.unwrap();
    assert_eq!(bus.ack_wait(&ack).await.unwrap(), Duration::from_secs(30));
    let edit = "info = await js.consumer_info('JOBS', args[0])\n\
         info.config.ack_wait = 7\n\
         await js.add_consumer('JOBS', info.config)";
    nats.python(edit, &[&consumer()]);
    assert_eq!(bus.ack_wait(&ack).await.unwrap(), Duration::from_secs(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_streams_are_only_reported_where_they_may_not_be_made() {
    let nats = Nats::start();
    let bus = Bus::connect(&Config { manage_streams: false, ..config(nats.url()) }).await.unwrap();
    let refused = bus.prepare().await.unwrap_err().to_string();
    assert!(refused.contains("STATUS") && refused.contains("does not exist"), "{refused}");
    assert_eq!(nats.python("print(len(await js.streams_info()))", &[]), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_waited_for_where_nobody_decided_to_do_without() {
    let mut nats = Nats::without_jetstream();
    let bus = connect(&nats).await;
    let refused = bus.prepare().await.unwrap_err();
    assert!(matches!(refused, Error::NoJetStream { .. }) && refused.is_transient());
    let text = refused.to_string();
    assert!(text.contains("`-js`") && text.contains("NATS_MODE=core"), "{text}");
    nats.restart_with_jetstream();
    eventually("the bus is back", LIMIT, || bus.is_connected().then_some(()));
    bus.prepare().await.unwrap();
    let mut intake = bus.intake(&source()).await.unwrap();
    nats.python(PUBLISH, &[&dispatch(), "1"]);
    assert_eq!(&next(&mut intake, 1).await.body[..], b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_core_mode_jobs_and_statuses_go_by_plain_subscriptions() {
    let nats = Nats::without_jetstream();
    let core = Config { mode: DeliveryMode::Core, ..config(nats.url()) };
    let bus = Bus::connect(&core).await.expect("the server is there");
    bus.prepare().await.unwrap();
    let mut intake = bus.intake(&source()).await.unwrap();
    let lower = format!("jobs.dispatch.{}", AGENT.to_lowercase());
    let publish = "await nc.publish(args[0], b'1')\nawait nc.flush()";
    for subject in [dispatch(), lower] {
        nats.python(publish, &[&subject]);
        let delivery = next(&mut intake, 1).await;
        assert_eq!((delivery.subject, delivery.ack), (subject, None));
    }
    let filter = StatusFilter { agent: Some(agent()), job: None };
    let mut statuses = bus.statuses(&filter, true).await.unwrap();
    bus.publish_status(&ids(), agent(), &job("j"), 1, "s".into()).await.unwrap();
    let status = timeout(LIMIT, statuses.next()).await.unwrap().unwrap();
    assert_eq!((status.agent, status.job, &status.body[..]), (agent(), job("j"), &b"s"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_count_wherever_they_stand_and_wrong_ones_are_final() {
    let nats = Nats::with("authorization { user: node, password: \"p@ss\" }");
    let with = |url: &str, credentials| Config { credentials, ..config(url.to_owned()) };
    let (plain, port) = (nats.url(), nats.port());
    let user = |password: &str| {
        Credentials::UserPassword("node".into(), Kept::Here(Secret::new(password)))
    };
    for wrong in [
        with(&plain, Credentials::None),
        with(&plain, user("wrong")),
        with(&format!("nats://node:wrong@127.0.0.1:{port}"), Credentials::None),
        with(&plain, Credentials::Token(Kept::Here(Secret::new("p@ss")))),
    ] {
        let refused = Bus::connect(&wrong).await.unwrap_err();
        assert!(matches!(refused, Error::Unauthorized { .. }) && !refused.is_transient());
        assert!(!format!("{refused} {refused:?}").contains("wrong"));
    }
    for right in [
        with(&plain, user("p@ss")),
        with(&format!("nats://node:p%40ss@127.0.0.1:{port}"), Credentials::None),
    ] {
        let bus = Bus::connect(&right).await.unwrap();
        bus.prepare().await.unwrap();
        assert!(bus.server().starts_with(&format!("nats://127.0.0.1:{port} (2.")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_error_says_so_and_may_pass() {
    let url = format!("nats://u:hunter2@127.0.0.1:{}", free_port());
    let refused = Bus::connect(&config(url)).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }) && refused.is_transient());
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_leaves_the_others_of_the_list() {
    let nats = Nats::start();
    let list = format!("nats://127.0.0.1:{}, {}", free_port(), nats.url());
    let bus = Bus::connect(&config(list)).await.unwrap();
    assert!(bus.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_before_2_10_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let old = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"INFO {\"version\":\"2.9.10\",\"max_payload\":1048576}\r\n").unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line == "PING" {
                stream.write_all(b"PONG\r\n").unwrap();
            }
        }
    });
    let bus = Bus::connect(&config(url)).await.unwrap();
    let refused = bus.prepare().await.unwrap_err();
    assert!(matches!(&refused, Error::TooOld { version } if version == "2.9.10"), "{refused}");
    // The connection ends with its last handle, and the old server with it.
    drop(bus);
    timeout(LIMIT, old).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_are_replayed_and_then_followed() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let publish = async |id: &str, seq: u64, body: &'static str| {
        bus.publish_status(&ids(), agent(), &job(id), seq, body.into()).await.unwrap();
    };
    publish("mine", 1, "one").await;
    publish("other", 1, "not mine").await;
    publish("mine", 2, "two").await;
    let filter = StatusFilter { agent: None, job: Some(job("mine")) };
    let mut statuses = bus.statuses(&filter, true).await.unwrap();
    let mut live = bus.statuses(&filter, false).await.unwrap();
    publish("mine", 3, "three").await;
    for body in ["one", "two", "three"] {
        let status = timeout(LIMIT, statuses.next()).await.unwrap().unwrap();
        assert_eq!((status.job, status.body), (job("mine"), Bytes::from(body)));
    }
    assert_eq!(timeout(LIMIT, live.next()).await.unwrap().unwrap().body, "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_log_reaches_who_listens_on_any_agent() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let mut logs = bus.logs(None, &job("j")).await.unwrap();
    bus.publish_log(agent(), &job("other"), "no".into()).await.unwrap();
    bus.publish_log(agent(), &job("j"), "line".into()).await.unwrap();
    assert_eq!(timeout(LIMIT, logs.next()).await.unwrap().unwrap(), "line");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_whose_answer_would_be_a_job_or_a_claim_is_not_answered() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let mut requests = bus.control_requests(agent()).await.unwrap();
    // One connection's questions are answered in their order.
    let script = "
heard = []
async def hear(message):
    heard.append(message.subject)
for subject in args[1:]:
    await nc.subscribe(subject, cb=hear)
for reply in args[1:]:
    await nc.publish(args[0], b'asked', reply=reply)
await nc.request(args[0], b'asked', timeout=10)
await nc.flush()
print(' '.join(heard))";
    let subject = format!("jobs.control.{AGENT}");
    let elsewhere =
        ["jobs.dispatch.x", "$KV.JOB_CLAIMS.pool.job", "jobs.control.x", "_INBOX_own.x"];
    let args = [&[subject.as_str()], &elsewhere[..]].concat();
    let mut asked = nats.python_beside(script, &args);
    for _ in 0..=elsewhere.len() {
        let request = timeout(LIMIT, requests.next()).await.unwrap().unwrap();
        let body = request.body.clone();
        request.respond(body).await.unwrap();
    }
    assert_eq!(asked.line(), "_INBOX_own.x");
}

#[tokio::test(flavor = "multi_thread")]
async fn control_messages_are_answered_and_an_absent_agent_is_named() {
    let nats = Nats::start();
    let bus = prepared(&nats).await;
    let limit = Duration::from_secs(10);
    let absent = bus.control(agent(), "{}".into(), limit).await.unwrap_err();
    assert!(matches!(absent, Error::NoAgent { agent: named } if named == agent()));
    let mut requests = bus.control_requests(agent()).await.unwrap();
    let answer = async {
        for _ in 0..2 {
            let request = requests.next().await.unwrap();
            let echo = request.body.clone();
            request.respond(echo).await.unwrap();
        }
    };
    let lower = format!("jobs.control.{}", AGENT.to_lowercase());
    let ask = async {
        assert_eq!(bus.control(agent(), "ours".into(), limit).await.unwrap(), "ours");
        tokio::task::block_in_place(|| {
            nats.python_beside(
                "print((await nc.request(args[0], b'theirs', timeout=20)).data.decode())",
                &[&lower],
            )
        })
    };
    let ((), mut asked) = timeout(LIMIT, async { tokio::join!(answer, ask) }).await.unwrap();
    assert_eq!(asked.line(), "theirs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_job_and_one_that_is_too_large_are_told_apart_from_a_new_one() {
    let nats = Nats::with("max_payload: 2000");
    let bus = prepared(&nats).await;
    let first = bus.publish_job(&source(), "a".into(), "id").await.unwrap();
    let again = bus.publish_job(&source(), "a".into(), "id").await.unwrap();
    assert_eq!((first.stream_seq, first.duplicate), (Some(1), false));
    assert_eq!((again.stream_seq, again.duplicate), (Some(1), true));
    let large = bus.publish_job(&source(), vec![b'x'; 3000].into(), "large").await.unwrap_err();
    assert!(matches!(large, Error::TooLarge { bytes: 3000, bytes_max: 2000 }));
    let dead = bus.publish_dead(&ids(), &source(), "{}".into(), "id").await.unwrap();
    assert_eq!(dead.stream_seq, Some(1));
    assert_eq!(
        nats.python("print((await js.get_msg('DEAD', 1)).subject)", &[]),
        format!("jobs.dead.{AGENT}")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_bus_ends_what_hangs_on_it() {
    let nats = Nats::start();
    let (bus, mut intake) = with_intake(&nats).await;
    bus.drain().await.unwrap();
    assert!(matches!(timeout(LIMIT, intake.next(1)).await.unwrap(), Err(Error::Closed)));
    assert!(matches!(bus.publish_job(&source(), "a".into(), "a").await, Err(Error::Closed)));
    assert!(!bus.is_connected());
}
