//! Jobs from the queue: each is delivered, answered for, put off or given back, and none is lost.

use std::time::Duration;

use lamda_node::bus::{AckHandle, Error, Settle, Source};
use tokio::time::timeout;

use super::{
    AGENT, LIMIT, PENDING, PUBLISH, QUIET, STORED, ack, consumer, dispatch, ids, next, source,
    with_intake,
};
use crate::support::bus::{connect, prepared};
use crate::support::nats::Nats;
use crate::support::tools::eventually;

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
    assert_eq!(known, Duration::from_secs(3), "an existing consumer is not changed");
    for _ in 0..12 {
        bus.settle(delivery.ack.as_ref().unwrap(), Settle::Progress).await.unwrap();
        assert!(timeout(QUIET, intake.next(1)).await.is_err(), "the job was delivered again");
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
