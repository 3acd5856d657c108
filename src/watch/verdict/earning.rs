//! Was the program paid? The first submission is due some hours after its start, each further one as long after the
//! last; a round's time is added, since a submission waits for its end.

use std::time::Duration;

use super::{Answer, Finding, Look, lasting};
use crate::clock::Timestamp;
use crate::fleet::words::age;
use crate::watch::observation::CHAIN;
use crate::watch::state::ChainState;

/// How late a payment may be besides.
const LATE: Duration = Duration::from_mins(15);

/// How old what is known of the chain may be.
const STALE: Duration = Duration::from_mins(30);

/// The round's time while none has been seen to end.
const ROUND: Duration = Duration::from_mins(30);

/// The id of the cause of which the chain is the witness: another program of the same account is paid.
const TWIN: &str = "twin-node";

pub(super) fn of(look: &Look<'_>) -> Finding {
    let Some(earning) = look.expect.earning else { return Finding::not_expected() };
    let Some(chain) = &look.state.chain else {
        let why = look.trouble(CHAIN).unwrap_or("the chain was not read yet");
        return Finding::new(Answer::Unknown, why);
    };
    if look.now.since(chain.at) > STALE {
        let why = look.trouble(CHAIN).unwrap_or("nothing came of it");
        let old = age(look.now.since(chain.at));
        return Finding::new(Answer::Unknown, format!("the chain was last read {old} ago: {why}"));
    }
    let last = &chain.last;
    let is_nothing_known = last.rewards.is_none() && last.votes.is_none() && last.wins.is_none();
    if is_nothing_known && last.is_registered.is_none() && chain.paid.is_none() {
        let why = last.unknown.first().map_or("its figures are not known", String::as_str);
        return Finding::new(Answer::Unknown, why);
    }
    let Some(started) = look.started() else {
        return Finding::new(Answer::Unknown, "it isn't watched yet");
    };
    // Of before the start, only the last payment is known.
    let paid = chain.paid.filter(|(paid, _)| *paid >= started);
    let (from, spell) = paid.map_or((started, earning.first), |(paid, _)| (paid, earning.every));
    let usual = chain.long_round().unwrap_or(ROUND) + LATE;
    if let Some((paid, block)) = paid.filter(|_| look.now <= from.plus(spell + usual)) {
        let why = format!("it was paid {} ago", age(look.now.since(paid)));
        return Finding::new(Answer::Yes, why).with(CHAIN, paid, format!("block {block}"));
    }
    // A round that lasts long puts the next payment off. What is due is missed only if the chain was read for as long,
    // and a swarm that stood still begins anew.
    let room = chain.round_lasts(ROUND) + LATE;
    let going = chain.going_since.map(|at| at.plus(earning.every + room)).unwrap_or_default();
    let due = from.plus(spell + room).max(chain.since.plus(room)).max(going);
    if look.now > due {
        return late(look, chain, from);
    }
    let left = age(due.since(look.now));
    Finding::new(Answer::Waiting, format!("its next payment is due within {left}"))
}

/// It should have been paid: why was it not?
fn late(look: &Look<'_>, chain: &ChainState, from: Timestamp) -> Finding {
    let missed = look.now.since(from);
    if chain.others.is_none_or(|others| others < from) {
        let why = format!("nobody of its swarm was seen to be paid {} either", lasting(missed));
        return Finding::new(Answer::Waiting, why).with(CHAIN, chain.at, rewards(chain));
    }
    let found = Finding::new(Answer::No, format!("the chain has not paid it {}", lasting(missed)));
    let known = look.state.causes.iter().rev().find(|it| it.at >= from);
    let found = if let Some(known) = known {
        let found = found.because(look.expect, Some(&known.cause));
        found.with(known.source.clone(), known.at, known.text.clone())
    } else if let Some(twin) = chain.twin.filter(|at| *at >= from) {
        let found = if look.expect.cause(TWIN).is_some() {
            found.because(look.expect, Some(TWIN))
        } else {
            let why = format!("{}: another node of the same account was paid", found.why);
            Finding { why, cause: Some(TWIN.to_owned()), ..found }
        };
        found.with(CHAIN, twin, "another peer of the same account was paid")
    } else if chain.last.is_registered == Some(false) {
        let why = format!("{}: the contract does not know its peer id", found.why);
        Finding { why, cause: Some("unregistered".to_owned()), ..found }
    } else {
        found.because_or(look.expect, None, "earns-nothing")
    };
    let told = format!("block {}, rewards {}", chain.last.block, rewards(chain));
    let found = found.with(CHAIN, chain.at, told);
    match chain.others.filter(|at| *at >= from) {
        Some(at) => found.with(CHAIN, at, "others were paid meanwhile"),
        None => found,
    }
}

fn rewards(chain: &ChainState) -> &str {
    chain.last.rewards.as_deref().unwrap_or("unknown")
}
