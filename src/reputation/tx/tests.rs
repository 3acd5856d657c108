use super::*;

const RULES: Rules = Rules {
    confirmations: 3,
    replace_after: Duration::from_secs(30),
    replace_blocks: 3,
    resend_after: Duration::from_secs(10),
    displace_after: Duration::from_secs(30),
    fee_max_wei: 1_000_000,
};

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000).plus(Duration::from_secs(seconds))
}

fn form(max: u128) -> Form {
    Form {
        hash: Hash([1; 32]),
        fees: Fees::Eip1559 { max, tip: 1 },
        gas_limit: 1000,
        signed: at(0),
        raw: vec![1],
    }
}

fn tx(forms: Vec<Form>) -> Transaction {
    let contract = Address::new([9; 20]);
    Transaction { id: 1, contract, nonce: 5, call: Call::Heartbeat, state: State::Open, forms }
}

fn pending() -> View {
    let (sent, since) = (Some(at(0)), Some((at(0), 100)));
    View { nonce: 5, head: 101, answer: Answer::Taken, sent, since, ..View::default() }
}

fn included(block: u64) -> Outcome {
    Outcome { hash: Hash([1; 32]), block, success: true, gas_used: 900, fee_wei: 900 }
}

#[test]
fn a_transaction_is_signed_once_sent_and_waited_for() {
    let fresh = View { answer: Answer::Unsent, sent: None, ..pending() };
    assert_eq!(next(&tx(Vec::new()), &fresh, &RULES, at(0)), Step::Sign);
    let signed = tx(vec![form(10)]);
    assert_eq!(next(&signed, &fresh, &RULES, at(0)), Step::Send);
    assert_eq!(next(&signed, &pending(), &RULES, at(1)), Step::Wait);
    assert_eq!(next(&signed, &pending(), &RULES, at(10)), Step::Send, "endpoints forget");
}

#[test]
fn a_block_counts_once_it_is_deep_enough() {
    let signed = tx(vec![form(10)]);
    for (head, step) in
        [(101, Step::Wait), (102, Step::Wait), (103, Step::Settle(included(101))), (90, Step::Wait)]
    {
        let view = View { nonce: 6, head, included: Some(included(101)), ..pending() };
        assert_eq!(next(&signed, &view, &RULES, at(500)), step, "{head}");
    }
}

#[test]
fn a_dearer_form_needs_time_and_blocks_that_passed_the_last_one_over() {
    let signed = tx(vec![form(10)]);
    let passed = View { head: 103, ..pending() };
    assert_eq!(next(&signed, &passed, &RULES, at(29)), Step::Send);
    assert_eq!(next(&signed, &passed, &RULES, at(30)), Step::Sign);
    let halted = View { head: 102, ..pending() };
    assert_eq!(next(&signed, &halted, &RULES, at(3000)), Step::Send, "the chain stands still");
    let cheap = View { answer: Answer::TooCheap { tip_min: None }, ..pending() };
    assert_eq!(next(&signed, &cheap, &RULES, at(9)), Step::Wait);
    assert_eq!(next(&signed, &cheap, &RULES, at(10)), Step::Sign, "no need for blocks");
    let late = View { since: Some((at(500), 600)), head: 602, ..pending() };
    assert_eq!(next(&signed, &late, &RULES, at(510)), Step::Send, "sent anew after a crash");
    let occupied = View { answer: Answer::Occupied, head: 500, ..pending() };
    assert_eq!(next(&signed, &occupied, &RULES, at(300)), Step::Send, "nobody is outbid");
}

#[test]
fn a_used_nonce_is_anothers_only_after_the_endpoint_had_time_to_find_our_receipt() {
    let signed = tx(vec![form(10)]);
    let taken = View { nonce: 6, taken_since: Some(at(100)), ..pending() };
    assert_eq!(next(&signed, &taken, &RULES, at(129)), Step::Wait);
    assert_eq!(next(&signed, &taken, &RULES, at(130)), Step::Displace);
    let unseen = View { taken_since: None, ..taken };
    assert_eq!(next(&signed, &unseen, &RULES, at(500)), Step::Wait);
}

#[test]
fn nothing_is_sent_over_a_gap() {
    let gap = View { nonce: 4, answer: Answer::TooCheap { tip_min: None }, head: 500, ..pending() };
    assert_eq!(next(&tx(vec![form(10)]), &gap, &RULES, at(500)), Step::Wait);
}

#[test]
fn no_form_costs_more_than_is_allowed() {
    let offer = |max| Fees::Eip1559 { max, tip: 1 };
    // The limit is 1000 wei a unit; an offer includes twice the base fee.
    assert_eq!(RULES.price(None, offer(401), 1000), Ok(offer(401)));
    assert_eq!(RULES.price(None, offer(1501), 1000), Ok(offer(1000)), "less room, still enough");
    let dear = RULES.price(None, offer(2001), 1000).unwrap_err();
    assert_eq!(dear, TooDear { wei: 1_001_000, max: 1_000_000 });

    let last = form(400);
    let next = RULES.price(Some(&last), offer(10), 1000).unwrap();
    assert_eq!(next, Fees::Eip1559 { max: 450, tip: 2 });
    let tenfold = RULES.price(Some(&last), offer(4000), 1000).unwrap();
    assert_eq!(tenfold.per_gas(), 1000, "as far as it is allowed");
    assert!(RULES.price(Some(&form(900)), offer(4000), 1000).is_err(), "not an eighth more");
}

#[test]
fn replacements_end_at_the_cap_and_never_step_back() {
    let mut last = form(10);
    let mut steps = 0;
    while let Ok(fees) = RULES.price(Some(&last), Fees::Eip1559 { max: 3, tip: 1 }, 1000) {
        let Fees::Eip1559 { max, tip } = last.fees else { panic!() };
        let Fees::Eip1559 { max: more, tip: more_tip } = fees else { panic!() };
        assert!(more * 8 >= max * 9 && more_tip * 8 >= tip * 9 && more <= 1000);
        last.fees = fees;
        steps += 1;
    }
    assert!((20..60).contains(&steps), "{steps}");
}
