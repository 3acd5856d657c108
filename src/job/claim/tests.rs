use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn agent(number: u8) -> Address {
    Address::new([number; 20])
}

/// Agent 1 with the first delivery of message 7.
fn bid() -> Bid {
    Bid {
        agent: agent(1),
        stream_seq: 7,
        delivered: 1,
        attempt: 1,
        held: false,
        spec_hash: Hash([9; 32]),
        now: NOW,
    }
}

/// Agent 2 with the second delivery of it.
fn second() -> Bid {
    Bid { agent: agent(2), delivered: 2, ..bid() }
}

fn claimed() -> Claim {
    match take(None, &bid()) {
        Take::Write(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn done() -> Claim {
    match conclude(Some(&claimed()), &bid()) {
        Conclude::Write(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn refused() -> Claim {
    match refuse(None, &bid()) {
        Refuse::Write(claim) => claim,
        other => panic!("{other:?}"),
    }
}

fn holder(claim: Claim) -> Holder {
    Holder { agent: claim.agent, state: claim.state }
}

fn written(take: Take) -> Claim {
    match take {
        Take::Write(claim) => claim,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_to_ask_takes_a_job_and_an_agent_that_comes_back_still_has_it() {
    let claim = claimed();
    assert_eq!((claim.state, claim.starts, claim.agent), (State::Claimed, 1, agent(1)));
    assert_eq!(take(Some(&claim), &bid()), Take::Mine);
    let again = written(take(Some(&claim), &Bid { attempt: 2, ..bid() }));
    assert_eq!((again.starts, again.attempt), (2, 2));
    let refused = refused();
    assert_eq!(written(take(Some(&refused), &second())).starts, 1);
}

#[test]
fn a_job_goes_to_another_agent_only_with_a_newer_delivery_of_the_same_message() {
    let claim = claimed();
    let taken = written(take(Some(&claim), &second()));
    assert_eq!((taken.agent, taken.starts, taken.delivered), (agent(2), 2, 2));
    for bid in [
        Bid { delivered: 1, ..second() },
        Bid { stream_seq: 8, ..second() },
        Bid { spec_hash: Hash([1; 32]), ..second() },
    ] {
        assert_eq!(take(Some(&claim), &bid), Take::Yield(holder(claim)), "{bid:?}");
    }
    assert_eq!(take(Some(&taken), &bid()), Take::Yield(holder(taken)));
    assert_eq!(take(Some(&done()), &second()), Take::Yield(holder(done())));
}

#[test]
fn a_claim_follows_its_holders_newest_delivery_so_that_nobody_with_an_older_one_takes_it() {
    let third = Bid { delivered: 3, ..bid() };
    let renewed = written(take(Some(&claimed()), &third));
    assert_eq!((renewed.delivered, renewed.starts, renewed.agent), (3, 1, agent(1)));
    assert_eq!(take(Some(&renewed), &second()), Take::Yield(holder(renewed)));
    assert_eq!(take(Some(&renewed), &bid()), Take::Mine);
}

#[test]
fn a_job_that_was_concluded_but_never_written_down_is_open_to_its_own_agent_alone() {
    let again = written(take(Some(&done()), &bid()));
    assert_eq!((again.state, again.starts), (State::Claimed, 2));
    let late = Bid { delivered: 9, ..second() };
    assert_eq!(take(Some(&done()), &late), Take::Yield(holder(done())));
}

#[test]
fn a_job_that_was_started_three_times_in_its_pool_is_poison() {
    let mut claim = claimed();
    for (delivered, starts) in [(2, 2), (3, 3)] {
        let by = u8::try_from(delivered).unwrap();
        claim = written(take(Some(&claim), &Bid { agent: agent(by), delivered, ..bid() }));
        assert_eq!(claim.starts, starts);
    }
    let fourth = Bid { agent: agent(4), delivered: 4, ..bid() };
    assert_eq!(take(Some(&claim), &fourth), Take::Poison);
    assert!(matches!(conclude(Some(&claim), &fourth), Conclude::Write(_)), "who finds out says so");
    assert_eq!(take(Some(&claim), &Bid { agent: agent(3), delivered: 3, ..bid() }), Take::Mine);
}

#[test]
fn a_start_that_a_shutdown_interrupted_does_not_count() {
    let mut claim = claimed();
    for delivered in 2..10 {
        let attempt = claim.attempt;
        claim = hand_back(Some(&claim), &Bid { attempt, ..bid() }).expect("ours");
        assert_eq!((claim.state, claim.starts), (State::Refused, 0));
        claim = written(take(Some(&claim), &Bid { delivered, attempt: attempt + 1, ..bid() }));
        assert_eq!(claim.starts, 1);
    }
    assert_eq!(hand_back(Some(&claim), &second()), None);
    assert_eq!(hand_back(Some(&done()), &bid()), None);
    assert_eq!(hand_back(None, &bid()), None);
}

#[test]
fn agents_that_were_out_of_reach_take_their_starts_back_once_each() {
    let (first, second) = (bid(), second());
    let third = Bid { agent: agent(3), delivered: 3, ..bid() };
    let taken = written(take(Some(&claimed()), &second));
    let taken = written(take(Some(&taken), &third));
    assert_eq!((taken.starts, taken.silent.iter().count()), (3, 2));
    let refunded = hand_back(Some(&taken), &first).expect("it was counted");
    assert_eq!((refunded.agent, refunded.state, refunded.starts), (agent(3), State::Claimed, 2));
    assert_eq!(hand_back(Some(&refunded), &first), None, "killed before it was written down");
    let refunded = hand_back(Some(&refunded), &second).expect("it was counted");
    assert_eq!((refunded.starts, refunded.silent.iter().count()), (1, 0));
    // An agent whose container was lost comes back with its next attempt: its start stays counted.
    assert_eq!(hand_back(Some(&taken), &Bid { attempt: 2, ..first }), None);
    let ended = Claim { state: State::Done, ..taken };
    assert_eq!(hand_back(Some(&ended), &first), None, "an end stays as it is");
}

#[test]
fn only_a_silent_holder_with_an_older_delivery_is_asked() {
    for (found, bid, expected) in [
        (Some(claimed()), second(), Some(agent(1))),
        (Some(claimed()), bid(), None),
        (Some(claimed()), Bid { delivered: 1, ..second() }, None),
        (Some(done()), second(), None),
        (Some(refused()), second(), None),
        (None, second(), None),
    ] {
        assert_eq!(holder_to_ask(found.as_ref(), &bid), expected, "{found:?} {bid:?}");
    }
}

#[test]
fn who_runs_a_job_never_takes_it_from_the_agent_that_took_it_over() {
    let taken = written(take(Some(&claimed()), &second()));
    let back = Bid { delivered: 3, held: true, ..bid() };
    assert_eq!(renew(Some(&taken), &back, Stand::Held, false), Renew::Lost);
    assert_eq!(conclude(Some(&taken), &back), Conclude::Yield(holder(taken)));
}

#[test]
fn a_renewal_writes_again_what_was_lost_and_what_may_have_been_read() {
    let held = Bid { held: true, ..bid() };
    let claim = claimed();
    assert_eq!(renew(Some(&claim), &held, Stand::Held, false), Renew::Keep);
    let later = Bid { now: NOW.plus(ACK_AWAITED_MAX), ..held };
    let again = Claim { at: later.now, ..claim };
    assert_eq!(renew(Some(&claim), &later, Stand::Held, true), Renew::Write(again));
    assert_eq!(renew(None, &held, Stand::Held, false), Renew::Write(claim));
    let ended = done();
    for stand in [Stand::Concluding, Stand::Held] {
        assert_eq!(renew(Some(&ended), &held, stand, true), Renew::Keep, "its end stays");
    }
    assert_eq!(renew(None, &held, Stand::Concluding, true), Renew::Keep, "its end comes next");
    let Renew::Write(end) = renew(None, &bid(), Stand::Ended, false) else { panic!("kept") };
    assert_eq!((end.agent, end.state), (agent(1), State::Done));
    assert_eq!(renew(None, &bid(), Stand::Open, false), Renew::Keep, "nothing was started");
}

#[test]
fn a_job_that_was_handed_back_keeps_its_id() {
    let back = hand_back(Some(&claimed()), &bid()).expect("ours");
    let other = Bid { spec_hash: Hash([1; 32]), ..second() };
    assert_eq!(arrive(Some(&back), &other), Arrival::OtherBody);
    assert_eq!(arrive(Some(&back), &second()), Arrival::Open);
    assert!(matches!(take(Some(&back), &other), Take::Yield(_)));
    assert_eq!(arrive(Some(&refused()), &other), Arrival::Open, "nobody has started that one");
}

#[test]
fn of_two_agents_at_one_job_only_the_present_holder_says_how_it_ended() {
    let taken = written(take(Some(&claimed()), &second()));
    assert_eq!(conclude(Some(&taken), &bid()), Conclude::Yield(holder(taken)));
    let ended = match conclude(Some(&taken), &second()) {
        Conclude::Write(claim) => claim,
        other => panic!("{other:?}"),
    };
    assert_eq!((ended.state, ended.starts), (State::Done, 2));
    assert_eq!(conclude(Some(&ended), &second()), Conclude::Mine);
    assert_eq!(conclude(Some(&ended), &bid()), Conclude::Yield(holder(ended)));
    let late = Bid { delivered: 9, ..second() };
    assert_eq!(conclude(Some(&done()), &late), Conclude::Yield(holder(done())), "a `Done` stays");
    let other = Bid { spec_hash: Hash([1; 32]), ..bid() };
    assert_eq!(conclude(Some(&done()), &other), Conclude::Yield(holder(done())));
}

#[test]
fn a_result_counts_where_nobody_holds_the_job_or_the_holder_had_an_older_delivery() {
    for found in [None, Some(refused()), Some(claimed())] {
        let ended = match conclude(found.as_ref(), &second()) {
            Conclude::Write(claim) => claim,
            other => panic!("{other:?}"),
        };
        assert_eq!((ended.agent, ended.state), (agent(2), State::Done));
    }
}

#[test]
fn a_job_is_lost_where_its_end_would_not_count() {
    let taken = written(take(Some(&claimed()), &second()));
    assert!(is_lost(Some(&taken), &bid()));
    assert!(is_lost(Some(&done()), &second()));
    let unclaimed_yet = [None, Some(refused()), Some(claimed())];
    for found in &unclaimed_yet {
        assert!(!is_lost(found.as_ref(), &second()), "{found:?}");
    }
    assert!(!is_lost(Some(&claimed()), &bid()));
}

#[test]
fn a_delivery_is_open_unless_the_claim_says_otherwise() {
    let other_message = Bid { stream_seq: 8, ..second() };
    let other_body = Bid { spec_hash: Hash([1; 32]), ..second() };
    let stale = Bid { delivered: 1, ..second() };
    let later = Bid { now: NOW.plus(ACK_AWAITED_MAX), ..second() };
    for (found, bid, expected) in [
        (None, second(), Arrival::Open),
        (Some(refused()), second(), Arrival::Open),
        (Some(claimed()), bid(), Arrival::Open),
        (Some(claimed()), second(), Arrival::Open),
        (Some(claimed()), stale, Arrival::Later),
        (Some(claimed()), other_message, Arrival::Later),
        (Some(claimed()), other_body, Arrival::OtherBody),
        (Some(done()), second(), Arrival::Later),
        (Some(done()), later, Arrival::Duplicate),
        (Some(done()), other_message, Arrival::Duplicate),
        (Some(done()), other_body, Arrival::OtherBody),
    ] {
        assert_eq!(arrive(found.as_ref(), &bid), expected, "{found:?} {bid:?}");
    }
}

#[test]
fn a_job_that_fits_nobody_is_given_up_after_twenty_refusals_or_an_hour() {
    let mut claim = refused();
    for refusals in 2..REFUSALS_MAX {
        claim = match refuse(Some(&claim), &second()) {
            Refuse::Write(claim) => claim,
            other => panic!("{other:?}"),
        };
        assert_eq!((claim.state, claim.refusals), (State::Refused, refusals));
        assert_eq!((claim.refused_first_at, claim.attempt), (Some(NOW), 0));
    }
    for (found, now) in [(claim, NOW), (refused(), NOW.plus(REFUSED_FOR_MAX))] {
        match refuse(Some(&found), &Bid { now, ..second() }) {
            Refuse::GiveUp(last) => assert_eq!((last.state, last.agent), (State::Done, agent(2))),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_in_other_hands_is_not_refused_but_a_dead_agents_is() {
    let stale = Bid { delivered: 1, ..second() };
    assert_eq!(refuse(Some(&claimed()), &stale), Refuse::Leave(holder(claimed())));
    for by in [bid(), second()] {
        assert_eq!(refuse(Some(&done()), &by), Refuse::Leave(holder(done())), "{by:?}");
    }
    match refuse(Some(&claimed()), &second()) {
        Refuse::Write(claim) => {
            assert_eq!((claim.state, claim.refusals), (State::Refused, 1));
            assert_eq!((claim.starts, claim.attempt), (1, 1), "what was started stays counted");
            let third = Bid { agent: agent(3), delivered: 3, ..bid() };
            let taken = written(take(Some(&claim), &third));
            assert_eq!((taken.starts, taken.refusals, taken.refused_first_at), (2, 0, None));
            let back = written(take(Some(&claim), &Bid { delivered: 3, ..bid() }));
            assert_eq!(back.starts, 1, "its own start of before is not counted twice");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_survives_a_round_trip_and_leaves_absent_keys_out() {
    for claim in [claimed(), done(), refused()] {
        assert_eq!(Claim::parse(claim.to_json().as_bytes()).unwrap(), claim);
    }
    let json: serde_json::Value = serde_json::from_str(&claimed().to_json()).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    for absent in ["refusals", "refused_first_at"] {
        assert!(!keys.contains(&absent), "{keys:?}");
    }
    assert_eq!(json["state"], "claimed");
}

#[test]
fn a_value_with_unknown_keys_is_a_claim_and_rubbish_is_none() {
    let known = claimed().to_json();
    let newer = known.replacen('{', "{\"colour\":\"red\",", 1);
    assert_eq!(Claim::parse(newer.as_bytes()).unwrap(), claimed());
    let state = known.replace("\"claimed\"", "\"shared\"");
    let twice = known.replacen('{', "{\"delivered\":2,", 1);
    let long = known.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(CLAIM_BYTES_MAX)), 1);
    for value in ["", "null", "[]", "{}", &state, &twice, &long] {
        assert!(Claim::parse(value.as_bytes()).is_err(), "{value}");
    }
}

#[test]
fn who_cant_run_a_job_keeps_the_start_of_the_silent_agent_that_had_it() {
    let refused = match refuse(Some(&claimed()), &second()) {
        Refuse::Write(claim) => claim,
        other => panic!("{other:?}"),
    };
    let given = match give_back(Some(&claimed()), &second()) {
        GiveBack::Write(claim) => claim,
        other => panic!("{other:?}"),
    };
    for claim in [refused, given] {
        assert_eq!((claim.agent, claim.starts), (agent(2), 1));
        assert_eq!(claim.silent.iter().collect::<Vec<_>>(), [claimed().start()]);
        let back = hand_back(Some(&claim), &bid()).expect("it takes its start out");
        assert_eq!((back.state, back.starts, back.silent.is_empty()), (State::Refused, 0, true));
    }
    // A third start may be silent too, if the job is then delivered to a node that can't run it.
    let mut claim = claimed();
    for delivered in 2..=3 {
        let by = u8::try_from(delivered).unwrap();
        claim = written(take(Some(&claim), &Bid { agent: agent(by), delivered, ..bid() }));
    }
    let fourth = Bid { agent: agent(4), delivered: 4, ..bid() };
    let Refuse::Write(claim) = refuse(Some(&claim), &fourth) else { panic!("not counted") };
    assert_eq!((claim.starts, claim.silent.iter().count()), (3, 3));
    assert_eq!(Claim::parse(claim.to_json().as_bytes()).unwrap(), claim);
    assert_eq!(hand_back(Some(&claim), &bid()).expect("the first's").starts, 2);
}

/// What agent `who` writes after it received delivery `nth`, took the job and could not begin it.
fn cant_begin(found: Option<Claim>, who: u8, nth: u64) -> GiveBack {
    let bid = Bid { agent: agent(who), delivered: nth, ..bid() };
    let claimed = written(take(found.as_ref(), &bid));
    let given = give_back(Some(&claimed), &bid);
    let (GiveBack::Write(said) | GiveBack::GiveUp(said)) = given else { panic!("{given:?}") };
    assert_eq!(said.starts, 0, "what was not begun was not started");
    given
}

#[test]
fn a_job_that_nodes_cant_begin_is_given_up_by_the_third_of_them_or_at_the_fifth_try_of_one() {
    for (nodes, tries) in [(vec![1], 5), (vec![1, 2, 3], 3), (vec![1, 2], 3), (vec![1, 1, 2], 4)] {
        let (mut found, mut tried) = (None, 0);
        let end = loop {
            let who = nodes[tried % nodes.len()];
            tried += 1;
            match cant_begin(found, who, tried as u64) {
                GiveBack::Write(said) => found = Some(said),
                GiveBack::GiveUp(said) => break said,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((tried, end.state), (tries, State::Done), "{nodes:?}");
    }
}

#[test]
fn a_fault_is_counted_once_a_delivery_and_a_job_of_another_is_left_to_it() {
    let GiveBack::Write(said) = give_back(None, &bid()) else { panic!("not counted") };
    assert_eq!((said.state, said.attempt, said.faults), (State::Refused, 0, 2));
    assert_eq!(give_back(Some(&said), &bid()), GiveBack::Counted, "killed after it was written");
    let last = Claim { faults: FAULTS_MAX - 1, ..said };
    let GiveBack::GiveUp(end) = give_back(Some(&last), &second()) else { panic!("not given up") };
    assert_eq!(give_back(Some(&end), &second()), GiveBack::GivenUp);
    let theirs = written(take(Some(&said), &second()));
    assert_eq!(give_back(Some(&theirs), &bid()), GiveBack::Leave);
    assert_eq!(theirs.faults, 2, "who takes it knows what was said of it");
    let other = Bid { spec_hash: Hash([1; 32]), ..second() };
    let GiveBack::Write(fresh) = give_back(Some(&said), &other) else { panic!("not counted") };
    assert_eq!(fresh.faults, 2, "another body begins anew");
}

#[test]
fn a_job_whose_message_is_gone_is_left_to_who_has_it_and_taken_up_where_nobody_has() {
    let other = Bid { agent: agent(2), ..bid() };
    assert_eq!(orphan(None, &bid()), Orphan::Ours);
    assert_eq!(orphan(Some(&refused()), &other), Orphan::Ours);
    assert_eq!(orphan(Some(&claimed()), &bid()), Orphan::Ours, "its own of before");
    assert_eq!(orphan(Some(&claimed()), &other), Orphan::Theirs);
    assert_eq!(orphan(Some(&claimed()), &second()), Orphan::Theirs, "however new its delivery");
    assert_eq!(orphan(Some(&done()), &other), Orphan::Over);
    let body = Bid { spec_hash: Hash([1; 32]), ..other };
    assert_eq!(orphan(Some(&claimed()), &body), Orphan::Over);
}
