//! A server, stream or consumer that goes away under a live connection.

use std::collections::BTreeSet;
use std::time::Duration;

use lamda_node::bus::{Error, Settle};
use tokio::time::timeout;

use super::{
    LIMIT, PUBLISH, QUIET, STORED, ack, agent, consumer, dispatch, ids, job, next, with_intake,
};
use crate::support::nats::Nats;
use crate::support::tools::eventually;

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
    // A killed server may have lost the consumer's last state, so the first job may come again. Jobs
    // that nobody has seen yet come now, not after the ack wait.
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
    assert!(timeout(QUIET, intake.next(1)).await.is_err(), "the pull request is open");
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
    // The intake makes the stream again, so it has to wait while the job is published.
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
    assert_eq!(
        new.ack.as_ref().unwrap().stream_seq,
        old.stream_seq,
        "the sequence number is the same, and the job is not"
    );
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
