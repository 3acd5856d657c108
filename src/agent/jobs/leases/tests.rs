use std::time::Instant;

use super::*;
use crate::ids::{Address, Hash};

fn in_hand(number: usize, doubts: u64, ack_wait_ms: u64) -> InHand {
    let delivery = AckHandle {
        reply: "$JS.ACK.x".to_owned(),
        stream: "JOBS".to_owned(),
        stream_created_ns: 1,
        stream_seq: 7,
        delivered: 1,
        consumer: "pool-it".to_owned(),
        ack_wait_ms,
    };
    InHand {
        id: format!("job-{number:06}").parse().unwrap(),
        node: Address::new([1; 20]),
        pool: Some("it".parse().unwrap()),
        attempt: 1,
        spec_hash: Hash([9; 32]),
        can_stop: true,
        delivery,
        doubts,
    }
}

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_pass_over_twenty_thousand_leases_takes_no_time_to_speak_of() {
    let mut leases = Leases::default();
    let held: Vec<InHand> = (0..20_000).map(|number| in_hand(number, 0, 120_000)).collect();
    leases.pass(held.clone(), s(0), NOW);
    let pass = |leases: &mut Leases| {
        let (held, began) = (held.clone(), Instant::now());
        let pass = leases.pass(held, s(41), NOW);
        (began.elapsed(), pass.due.len())
    };
    let (first, due) = pass(&mut leases);
    assert_eq!(due, 20_000);
    let quickest = (0..3).map(|_| pass(&mut leases).0).min().unwrap_or(first);
    assert!(quickest < Duration::from_millis(500), "{quickest:?}");
}

#[test]
fn a_lease_is_due_at_a_third_of_its_ack_wait_and_at_once_where_it_is_doubted() {
    let mut leases = Leases::default();
    let due = |leases: &mut Leases, job: &InHand, at| {
        let pass = leases.pass(vec![job.clone()], s(at), NOW);
        (pass.due.len(), pass.waits.len())
    };
    let job = in_hand(1, 0, 120_000);
    assert_eq!(due(&mut leases, &job, 0), (0, 1), "its consumer is looked at");
    assert_eq!(due(&mut leases, &job, 39), (0, 0));
    assert_eq!(due(&mut leases, &job, 40), (1, 1));
    let doubted = in_hand(1, 1, 120_000);
    assert_eq!(due(&mut leases, &doubted, 42), (1, 1), "whatever was read just now");
    assert_eq!(due(&mut leases, &doubted, 44), (0, 0));
    let edited = in_hand(1, 1, 6_000);
    assert_eq!(due(&mut leases, &edited, 44), (1, 0), "by the ack wait as it is now");
}

#[test]
fn a_lease_that_was_given_up_is_asked_about_each_second_until_its_job_has_stopped() {
    for (can_stop, due) in [(true, 1), (false, 0)] {
        let job = InHand { can_stop, ..in_hand(1, 0, 120_000) };
        let mut leases = Leases::default();
        leases.pass(vec![job.clone()], s(0), NOW);
        assert_eq!(leases.pass(vec![job.clone()], s(40), NOW).due.len(), 1);
        leases.stands(&job.id, Standing::GivenUp, s(40));
        assert_eq!(leases.pass(vec![job], s(41), NOW).due.len(), due, "can stop: {can_stop}");
    }
}

#[test]
fn only_a_server_that_says_that_nobody_leads_keeps_a_job_running() {
    let source = || "simulated".into();
    let server = || "nats://a".to_owned();
    assert!(!may_be_given_away(&bus::Error::Leaderless { what: "x", source: source() }));
    for err in [
        bus::Error::Disconnected { server: server() },
        bus::Error::Timeout { what: "x" },
        bus::Error::NoJetStream { server: server() },
        bus::Error::Refused { what: "x", source: source() },
    ] {
        assert!(may_be_given_away(&err), "{err:?}");
    }
}

#[test]
fn a_lease_of_before_a_restart_is_as_old_as_it_is() {
    let job = in_hand(1, 0, 120_000);
    let known = BTreeMap::from([(job.id.clone(), NOW)]);
    let mut leases = Leases { known, ..Leases::default() };
    let pass = leases.pass(vec![job], s(5), NOW.plus(s(100)));
    let [(_, lease)] = pass.due.as_slice() else { panic!("{pass:?}") };
    assert_eq!(lease.age(s(6)), s(101));
}
