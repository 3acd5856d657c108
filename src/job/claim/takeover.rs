//! Decisions before and after [`take`]: which holder to ask before its job is taken over, whether a claim is
//! still renewed, and how an agent lets go of a job.
//!
//! Invariants: an agent that started a job never takes it back from the agent that took it over; a start
//! whose agent let go of the job is subtracted from the count at most once.

use super::{Bid, Claim, State, Take, is_lost, take};
use crate::ids::Address;

/// How far an agent has come with a job that it has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Not started yet, or already let go of.
    Open,
    /// Started under a claim; its end is not decided yet.
    Held,
    /// The same, but its end is being claimed: only the `Done` claim may still be written.
    Concluding,
    /// Its terminal status is in this agent's journal.
    Ended,
}

impl Stand {
    /// Whether the job was started under a claim and has not ended.
    pub const fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Concluding)
    }
}

/// What to do about the claim when a lease is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack for one decision")]
pub enum Renew {
    /// Nothing: the claim is as it should be.
    Keep,
    /// Write this claim; the job stays this agent's.
    Write(Claim),
    /// Another agent has the job: stop the container.
    Lost,
}

/// The holder from which the bidder would take the job, if any. Its lease has run out, but it may still
/// run the job and only be cut off from the queue. The caller asks it when the delivery arrives, and
/// again before it takes the job; a holder that answers that it has the job keeps it. A claim that was
/// written after the delivery arrived is not taken at all: its holder has had no time to stop.
pub fn holder_to_ask(found: Option<&Claim>, bid: &Bid) -> Option<Address> {
    let theirs = found.filter(|found| {
        found.state == State::Claimed
            && found.agent != bid.agent
            && found.holder_before(bid).is_none()
    })?;
    Some(theirs.agent)
}

/// Decides, before a lease is renewed, whether the job is still this agent's.
///
/// A claim that was lost with its bucket is written again. A held claim follows its newest delivery, or
/// an agent with a delivery in between could take it. With `anew`, an unchanged claim is written too, so
/// that an agent that found this one unreachable loses the race for it.
pub fn renew(found: Option<&Claim>, bid: &Bid, stand: Stand, anew: bool) -> Renew {
    match stand {
        Stand::Ended if found.is_none() => Renew::Write(bid.claim(State::Done, 0)),
        Stand::Ended => Renew::Keep,
        _ if is_lost(found, bid) => Renew::Lost,
        // This agent's own end, written after `stand` was read: don't overwrite it.
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

/// Whether no other agent has the job or may have it. Only then may a delivery be given back, or a
/// waiting job continue here.
pub fn is_free(found: Option<&Claim>, bid: &Bid) -> bool {
    !is_lost(found, bid) && holder_to_ask(found, bid).is_none()
}

/// The claim to write when the agent lets go of the job without an end: a shutdown interrupted it, or its
/// lease may have run out. The start is not counted: the agent survived it, so the job is not to blame.
/// `None` if nothing has to be written.
pub fn hand_back(found: Option<&Claim>, bid: &Bid) -> Option<Claim> {
    let found = found?;
    if found.state == State::Claimed && found.agent == bid.agent {
        // An earlier attempt whose container was lost stays counted.
        let counted = u32::from(found.attempt == bid.attempt);
        let starts = found.starts.saturating_sub(counted);
        return Some(Claim { state: State::Refused, starts, at: bid.now, ..*found });
    }
    let silent = found.silent.without(bid.start()).filter(|_| found.state != State::Done)?;
    Some(Claim { silent, starts: found.starts.saturating_sub(1), ..*found })
}
