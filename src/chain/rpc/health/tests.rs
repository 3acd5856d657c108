use super::*;

const TODAY: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn limits() -> EndpointLimits {
    EndpointLimits::default()
}

fn roster(count: usize, chain_id: Option<u64>) -> (Roster, Instant) {
    (Roster::new(count, chain_id, limits()), Instant::now())
}

fn away() -> EndpointFault {
    EndpointFault::new(Kind::Away, "HTTP 503")
}

fn head(number: u64) -> Head {
    Head { number, timestamp_s: TODAY.unix_ms() / 1000, base_fee: None }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn the_first_that_is_well_is_asked_and_the_preferred_one_again_after_its_rest() {
    let (mut roster, now) = roster(2, None);
    assert_eq!(roster.choose(&[], now), Some(0));
    assert_eq!(roster.failed(0, away(), (now, now), 1.0), Some(s(1)));
    assert_eq!(roster.choose(&[], now), Some(1));
    assert_eq!(roster.choose(&[1], now), None, "it was tried, and the other one rests");
    assert_eq!(roster.choose(&[], now + s(1)), Some(0));
}

#[test]
fn rests_grow_with_each_failure_up_to_the_limit_and_a_good_answer_ends_that() {
    let (mut roster, mut now) = roster(1, None);
    let mut rests = Vec::new();
    for _ in 0..9 {
        roster.failed(0, away(), (now, now), 1.0);
        let rest = roster.first_back(now).1;
        rests.push(rest.as_secs());
        now += rest;
    }
    assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
    assert!(roster.answered(0, "eth_call", now), "it is back");
    assert!(!roster.answered(0, "eth_call", now), "which is said once");
    assert_eq!(roster.failed(0, away(), (now + s(1), now + s(1)), 1.0), Some(s(1)));
}

#[test]
fn calls_that_fail_together_are_one_failure_and_one_line() {
    let (mut roster, now) = roster(1, None);
    let later = now + s(1);
    assert!(roster.failed(0, away(), (now, later), 1.0).is_some());
    for _ in 0..5 {
        assert_eq!(roster.failed(0, away(), (now, later), 1.0), None);
    }
    assert_eq!(roster.first_back(later), (0, s(1)));
    assert!(!roster.answered(0, "eth_call", now), "an answer from before says nothing of now");
    assert_eq!(roster.choose(&[], later), None);
}

#[test]
fn another_kind_of_trouble_is_worth_a_line_of_its_own() {
    let (mut roster, now) = roster(1, None);
    let at = |seconds| (now + s(seconds), now + s(seconds));
    assert!(roster.failed(0, away(), at(0), 0.5).is_some());
    assert!(roster.failed(0, away(), at(10), 0.5).is_none());
    let other = EndpointFault::new(Kind::Stale, "its head is 400 s old");
    assert!(roster.failed(0, other, at(20), 0.5).is_some());
}

#[test]
fn a_rest_that_is_asked_for_is_given_within_bounds() {
    let (mut roster, now) = roster(3, None);
    for (index, (asked, given)) in [(60, 60), (100_000, 300), (0, 1)].into_iter().enumerate() {
        let fault = EndpointFault { retry_after: Some(s(asked)), ..away() };
        assert_eq!(roster.failed(index, fault, (now, now), 1.0), Some(s(given)));
    }
    assert_eq!(roster.first_back(now), (2, s(1)));
    assert_eq!(roster.wait(&[], now), Some((2, s(1))));
}

#[test]
fn no_call_waits_longer_than_it_may() {
    let (mut roster, now) = roster(2, None);
    let long = EndpointFault { retry_after: Some(s(60)), ..away() };
    roster.failed(0, long.clone(), (now, now), 1.0);
    roster.failed(1, long, (now, now), 1.0);
    assert_eq!(roster.wait(&[], now), None);
    assert_eq!(roster.wait(&[], now + s(58)), Some((0, s(2))));
}

#[test]
fn an_endpoint_is_vetted_first_and_after_it_was_away_and_its_head_now_and_then() {
    let (mut roster, now) = roster(1, Some(5611));
    let both = Vetting { chain_id: true, head: true };
    assert_eq!(roster.vetting(0, now), both);
    roster.identify(0, 5611).unwrap();
    roster.judge(0, head(1), now, TODAY).unwrap();
    assert_eq!(roster.vetting(0, now), Vetting { chain_id: false, head: false });
    assert_eq!(roster.vetting(0, now + s(30)), Vetting { chain_id: false, head: true });
    roster.failed(0, away(), (now, now), 1.0);
    assert_eq!(roster.vetting(0, now + s(9)), both);
}

#[test]
fn the_others_are_looked_at_in_turn_while_they_are_well() {
    let (mut roster, now) = roster(4, None);
    roster.failed(2, EndpointFault { retry_after: Some(s(300)), ..away() }, (now, now), 1.0);
    let mut looks = |seconds| roster.other_to_look_at(0, now + s(seconds));
    let turns = [looks(0), looks(1), looks(2), looks(30), looks(31), looks(32)];
    assert_eq!(turns, [Some(1), Some(3), None, Some(1), Some(3), None]);
    assert_eq!(looks(300), Some(2), "its rest is over");
}

#[test]
fn the_first_chain_that_is_told_is_that_of_all_where_none_is_set() {
    let (mut roster, now) = roster(2, None);
    assert_eq!(roster.identify(1, 204), Ok(204));
    let fault = roster.identify(0, 56).unwrap_err();
    assert_eq!(fault.said, "it is on chain 56, not 204");
    assert_eq!(roster.failed(0, fault, (now, now), 0.0), Some(limits().foreign_rest));
}

#[test]
fn the_chain_is_wrong_only_where_every_endpoint_says_so() {
    let (mut roster, now) = roster(2, Some(5611));
    for index in [1, 0] {
        assert_eq!(roster.all_foreign(), None);
        let fault = roster.identify(index, 56).unwrap_err();
        roster.failed(index, fault, (now, now), 0.0);
    }
    assert_eq!(roster.all_foreign(), Some((5611, 56)));
    let later = now + limits().foreign_rest;
    roster.failed(0, away(), (later, later), 0.0);
    assert_eq!(roster.all_foreign(), None, "what does not answer may be mended");
}

#[test]
fn an_old_head_is_stale_but_on_local_chains() {
    let old = Head { timestamp_s: TODAY.unix_ms() / 1000 - 301, ..head(7) };
    for (chain_id, stale) in [(5611, true), (31337, false), (1337, false)] {
        let (mut roster, now) = roster(1, Some(chain_id));
        let judged = roster.judge(0, old, now, TODAY);
        assert_eq!(judged.is_err(), stale, "{chain_id}");
        if let Err(fault) = judged {
            let told = "its head, block 7, is 301 s old by this host's clock";
            assert_eq!((fault.kind, fault.said.as_str()), (Kind::Stale, told));
        }
    }
}

#[test]
fn a_head_far_behind_the_highest_is_stale_until_that_is_forgotten() {
    let (mut roster, now) = roster(2, Some(31337));
    roster.judge(0, head(131), now, TODAY).unwrap();
    roster.judge(1, head(101), now, TODAY).unwrap();
    let fault = roster.judge(1, head(100), now, TODAY).unwrap_err();
    assert_eq!(fault.said, "its head, block 100, is 31 blocks behind");
    let memory = limits().height_memory;
    assert!(roster.judge(1, head(0), now + memory - s(1), TODAY).is_err());
    // The chain was reset, so no endpoint reports the old height again.
    roster.judge(1, head(0), now + memory, TODAY).unwrap();
    roster.judge(0, head(3), now + memory, TODAY).unwrap();
    assert!(roster.judge(0, head(40), now + memory, TODAY).is_ok());
    assert!(roster.judge(1, head(9), now + memory, TODAY).is_err());
}

#[test]
fn an_endpoint_that_lies_about_its_height_makes_none_with_a_fresh_head_stale() {
    let (mut roster, now) = roster(2, Some(5611));
    roster.judge(0, head(1_000_000), now, TODAY).unwrap();
    roster.judge(1, head(100), now, TODAY).unwrap();
    let late = Head { timestamp_s: TODAY.unix_ms() / 1000 - 61, ..head(90) };
    assert_eq!(roster.judge(1, late, now, TODAY).unwrap_err().kind, Kind::Stale);
}
