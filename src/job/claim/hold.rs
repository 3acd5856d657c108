//! A job in hand: its claim is renewed, asked for by others, and let go of.
//!
//! What must hold: who has started the job never takes it from the agent that took it over; a start
//! that was let go of is taken out of the count once.

use super::{Bid, Claim, State, Take, is_lost, take};
use crate::ids::Address;

/// How far an agent is with a job that it has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It was not started yet, or is let go of.
    Open,
    /// Its container was started under a claim, and its end is not known yet.
    Held,
    /// The same, and its end is being claimed: what is written of it is that alone.
    Concluding,
    /// Its end is written down here.
    Ended,
}

impl Stand {
    /// Whether it was started under a claim, and has not ended.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Concluding)
    }
}

/// What the renewal of a lease does about the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack for one decision")]
pub enum Renew {
    /// Nothing: it is as it must be.
    Keep,
    /// The job stays this agent's once this is written.
    Write(Claim),
    /// Another agent has it: the container must stop.
    Lost,
}

/// Whom the bidder would take the job from: an agent whose lease has run out, but who may be at
/// work and only out of the queue's reach. It is asked when the delivery comes, and again before the
/// job is taken; where it answers that it has the job, it keeps it. A claim that was not there when
/// the delivery came is not taken at all: its holder has had no time to stop.
pub fn holder_to_ask(found: Option<&Claim>, bid: &Bid) -> Option<Address> {
    let theirs = found.filter(|found| {
        found.state == State::Claimed
            && found.agent != bid.agent
            && found.holder_before(bid).is_none()
    })?;
    Some(theirs.agent)
}

/// While it is in hand, before the server is told that it is worked on: is it still this agent's?
///
/// A claim that was lost with its bucket is written again, and one that is held follows its newest
/// delivery: an agent with one in between could take it. `anew`: it is written though nothing has
/// changed, so that an agent that found this one out of reach loses the race for it.
pub fn renew(found: Option<&Claim>, bid: &Bid, stand: Stand, anew: bool) -> Renew {
    match stand {
        Stand::Ended if found.is_none() => Renew::Write(bid.claim(State::Done, 0)),
        Stand::Ended => Renew::Keep,
        _ if is_lost(found, bid) => Renew::Lost,
        // Its own end, written since it was looked at how far it is: that is no claim of before.
        Stand::Held if found.is_some_and(|found| found.state == State::Done) => Renew::Keep,
        Stand::Open | Stand::Concluding => Renew::Keep,
        Stand::Held => match take(found, bid) {
            Take::Write(claim) => Renew::Write(claim),
            _ => found
                .filter(|_| anew)
                .map_or(Renew::Keep, |found| Renew::Write(Claim { at: bid.now, ..*found })),
        },
    }
}

/// Whether nobody else has the job, or may have it: then a delivery may be given back, and a job
/// that waits may go on.
pub fn is_free(found: Option<&Claim>, bid: &Bid) -> bool {
    !is_lost(found, bid) && holder_to_ask(found, bid).is_none()
}

/// Where the agent lets go of the job without an end: a shutdown interrupted it, or its lease may
/// have run out. It lived to say so, and so the start does not count: not the job was to blame.
/// `None` where nothing is to be written.
pub fn hand_back(found: Option<&Claim>, bid: &Bid) -> Option<Claim> {
    let found = found?;
    if found.state == State::Claimed && found.agent == bid.agent {
        // An earlier attempt, whose container was lost, stays counted.
        let counted = u32::from(found.attempt == bid.attempt);
        let starts = found.starts.saturating_sub(counted);
        return Some(Claim { state: State::Refused, starts, at: bid.now, ..*found });
    }
    let silent = found.silent.without(bid.start()).filter(|_| found.state != State::Done)?;
    Some(Claim { silent, starts: found.starts.saturating_sub(1), ..*found })
}
