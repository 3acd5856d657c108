//! Is it this node, or the swarm? If no round ends and nobody is paid, then it is the swarm; where no contract is read,
//! if no bootnode answers.

use std::time::Duration;

use super::{Answer, Finding, Look, lasting};
use crate::watch::observation::{CHAIN, DHT};

/// How long no bootnode may answer.
const DEAD_FOR: Duration = Duration::from_mins(15);

/// How old a reading may be.
const FRESH: Duration = Duration::from_mins(30);

pub(super) fn of(look: &Look<'_>) -> Finding {
    if look.expect.earning.is_some() {
        // Bootnodes that don't answer may be out of reach from here alone: the contract knows better.
        return by_chain(look);
    }
    if look.expect.published_for.is_none() {
        return Finding::not_expected();
    }
    let fresh = |at| look.now.since(at) <= FRESH;
    let Some(dht) = look.state.dht.as_ref().filter(|it| fresh(it.at)) else {
        return Finding::new(Answer::Unknown, "nobody can say");
    };
    if let Some(dead) = bootnodes(look) {
        return dead;
    }
    if dht.alive == 0 {
        return Finding::new(Answer::Waiting, "no bootnode answered the last time");
    }
    let told = format!("{} of {} bootnodes", dht.alive, dht.asked);
    Finding::new(Answer::Yes, "its bootnodes answer").with(DHT, dht.at, told)
}

fn by_chain(look: &Look<'_>) -> Finding {
    let unknown = || Finding::new(Answer::Unknown, "nobody can say");
    let Some(earning) = look.expect.earning else { return unknown() };
    let fresh = |at| look.now.since(at) <= FRESH;
    let Some(chain) = look.state.chain.as_ref().filter(|it| fresh(it.at)) else { return unknown() };
    let long = chain.long_round().unwrap_or(Duration::from_hours(1));
    let patience = earning.every + long * 2;
    // Of a round whose beginning was not seen nobody knows how long it lasts.
    let round = chain.round_since.filter(|_| chain.is_round_whole);
    let last = chain.others.max(chain.paid.map(|(at, _)| at)).max(round);
    let silent = look.silent_for(last.map(|at| at.max(chain.since)).or(Some(chain.since)));
    let block = format!("block {}", chain.last.block);
    if silent.is_some_and(|silent| silent > patience) {
        let silent = silent.unwrap_or_default();
        let why = format!("no round has ended and nobody was paid {}", lasting(silent));
        return Finding::new(Answer::No, why).with(CHAIN, chain.at, block);
    }
    if last.is_none_or(|last| look.now.since(last) > patience) {
        return Finding::new(Answer::Unknown, "nobody was seen to be paid yet");
    }
    let what = if chain.others.is_some() { "others are paid" } else { "its rounds go on" };
    Finding::new(Answer::Yes, what).with(CHAIN, last.unwrap_or(chain.at), block)
}

/// No bootnode has answered for long.
fn bootnodes(look: &Look<'_>) -> Option<Finding> {
    let dht = look.state.dht.as_ref()?;
    let silent = look.silent_for(Some(dht.dead_since?))?;
    if silent <= DEAD_FOR {
        return None;
    }
    let why = format!("none of its {} bootnodes has answered {}", dht.asked, lasting(silent));
    let found = Finding::new(Answer::No, why);
    Some(match dht.alive_at {
        Some(at) => found.with(DHT, at, "the last answer"),
        None => found,
    })
}
