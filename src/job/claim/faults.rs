//! A pool's job that nodes could not begin, by what may be their own fault: how many may say so.
//!
//! What must hold: it is counted once a delivery, whatever dies in between; a count that was reached
//! makes the node that reached it the one to end the job.

use super::{Bid, Claim, Silent, State, hand_back, is_lost};

/// As much as this and the job is to blame, or the whole pool: what another node says counts two, what
/// the node says that said so last counts one. So the third node in turn ends the job, and a node
/// that is alone does at its fifth try.
pub const FAULTS_MAX: u32 = 6;

/// What becomes of a job that this node can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveBack {
    /// Back to the pool, with a delay, once this is written.
    Write(Claim),
    /// Back to the pool, with a delay: it is counted already.
    Counted,
    /// Nobody can begin it: write this, then end it.
    GiveUp(Claim),
    /// Nobody can begin it: end it, it is written already.
    GivenUp,
    /// Another agent has it by now: say nothing.
    Leave,
}

/// Where this node can't begin the job.
pub fn give_back(found: Option<&Claim>, bid: &Bid) -> GiveBack {
    if is_lost(found, bid) {
        return GiveBack::Leave;
    }
    // One that nobody has started may be of another body, which has used no id up.
    let found = found.filter(|found| found.spec_hash == bid.spec_hash);
    let own = found.filter(|found| {
        let same = (found.stream_seq, found.delivered) == (bid.stream_seq, bid.delivered);
        same && found.faulted_by == Some(bid.agent)
    });
    match own.map(|found| found.state) {
        Some(State::Refused) => return GiveBack::Counted,
        Some(State::Done) => return GiveBack::GivenUp,
        Some(State::Claimed) | None => {}
    }
    let before = found.map_or(0, |found| found.faults);
    let again = found.is_some_and(|found| found.faulted_by == Some(bid.agent));
    let faults = before.saturating_add(if again { 1 } else { 2 });
    // What was started under this node's claim was not begun, and does not count as started.
    let kept = hand_back(found, bid).or(found.copied());
    let (attempt, starts) = kept.map_or((0, 0), |kept| (kept.attempt, kept.starts));
    let state = if faults >= FAULTS_MAX { State::Done } else { State::Refused };
    let said = Claim {
        attempt,
        faults,
        faulted_by: Some(bid.agent),
        silent: kept.map_or_else(Silent::default, |kept| kept.silent_before(bid)),
        refusals: kept.map_or(0, |kept| kept.refusals),
        refused_first_at: kept.and_then(|kept| kept.refused_first_at),
        ..bid.claim(state, starts)
    };
    if faults >= FAULTS_MAX { GiveBack::GiveUp(said) } else { GiveBack::Write(said) }
}

/// A claim that takes the place of another of the same body, with what was said of that one.
pub(super) fn carried(found: Option<&Claim>, claim: Claim) -> Claim {
    match found.filter(|found| found.spec_hash == claim.spec_hash) {
        Some(found) => Claim { faults: found.faults, faulted_by: found.faulted_by, ..claim },
        None => claim,
    }
}
