//! Do the program's peers have what it published?
//!
//! A value stays with them for some minutes only, so that between two rounds there is nothing to see: it is missed
//! after a time in which at least two rounds had room.

use std::time::Duration;

use super::{Answer, Finding, Look, lasting};
use crate::fleet::words::age;
use crate::watch::observation::DHT;
use crate::watch::state::ChainState;

/// The shortest time after which something is missed.
const MISSED_AFTER: Duration = Duration::from_hours(1);

pub(super) fn of(look: &Look<'_>) -> Finding {
    let Some(stays) = look.expect.published_for else { return Finding::not_expected() };
    let Some(dht) = &look.state.dht else {
        let why = look.trouble(DHT).unwrap_or("its peers were not asked yet");
        return Finding::new(Answer::Unknown, why);
    };
    let chain = look.state.chain.as_ref();
    let idle = look.expect.idle.unwrap_or_default();
    let after = |round: Duration| (round * 2 + stays + idle).max(MISSED_AFTER);
    let usual = chain.and_then(ChainState::long_round).unwrap_or_default();
    let last = dht.published.iter().max_by_key(|(_, at)| **at);
    if let Some((key, at)) = last
        && look.now.since(*at) <= after(usual)
    {
        let why = format!("it published {} ago", age(look.now.since(*at)));
        return Finding::new(Answer::Yes, why).with(DHT, *at, format!("a value under {key}"));
    }
    // A round that lasts long puts the next value off.
    let patience = after(chain.map(|it| it.round_lasts(Duration::ZERO)).unwrap_or_default());
    let Some(answered) = dht.answered_since else {
        let why = dht.unknown.as_deref().unwrap_or("nobody answered");
        return Finding::new(Answer::Unknown, format!("its peers can't be asked: {why}"));
    };
    let going = chain.and_then(|chain| chain.going_since).unwrap_or_default();
    let since = last.map_or(answered, |(_, at)| (*at).max(answered));
    let silent = look.silent_for(Some(since.max(going)));
    if silent.is_none_or(|silent| silent <= patience) {
        return Finding::new(Answer::Waiting, "its peers have nothing of it yet");
    }
    let since = last.map_or(answered, |(_, at)| *at);
    let why = format!("its peers have had nothing of it {}", lasting(look.now.since(since)));
    let found = Finding::new(Answer::No, why).because_or(look.expect, None, "not-published");
    let found = match last {
        Some((key, at)) => found.with(DHT, *at, format!("the last value, under {key}")),
        None => found,
    };
    let told = format!("{} of {} bootnodes answered, and nothing is kept", dht.alive, dht.asked);
    found.with(DHT, dht.at, told)
}
