//! Streams and consumers: the configuration that the bus makes, and others, which it refuses.

use std::time::Duration;

use lamda_node::bus::{Bus, Config, Error, Source};
use tokio::time::timeout;

use super::{LIMIT, PUBLISH, STORED, ack, config, consumer, dispatch, next, source, with_intake};
use crate::support::bus::{connect, prepared};
use crate::support::nats::Nats;
use crate::support::tools::eventually;

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
    assert_eq!(nats.python(STORED, &["JOBS"]), "1", "the message is not acked");
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
