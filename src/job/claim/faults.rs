//! Counts how often nodes could not begin a pool's job, possibly by their own fault (docs/adr/0020).
//!
//! Invariants: each delivery is counted at most once, whatever crashes in between; the node whose report
//! reaches [`FAULTS_MAX`] is the one that ends the job.

use super::{Bid, Claim, Silent, State, hand_back, is_lost};

/// The count at which the job is ended: the job is to blame, or the whole pool. A report counts two, or
/// one if the same node made the previous report. So the third node in turn ends the job, and a node that
/// is alone does so at its fifth try.
pub const FAULTS_MAX: u32 = 6;

/// What to do with a job that this node can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveBack {
    /// Write this claim, then return the job to the pool with a delay.
    Write(Claim),
    /// Return the job to the pool with a delay: this delivery is already counted.
    Counted,
    /// No node can begin the job: write this claim, then end the job.
    GiveUp(Claim),
    /// No node can begin the job, and the claim says so already: end the job.
    GivenUp,
    /// Another agent has the job by now: publish nothing.
    Leave,
}

/// Decides about a job that this node can't begin.
pub fn give_back(found: Option<&Claim>, bid: &Bid) -> GiveBack {
    if is_lost(found, bid) {
        return GiveBack::Leave;
    }
    // A claim of a job that was never started may be of another body: that one does not hold the id.
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
    // The start under this node's claim never began, so it is not counted.
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

/// `claim` with the fault count of the claim that it replaces, if both are of the same body.
pub(super) fn carried(found: Option<&Claim>, claim: Claim) -> Claim {
    match found.filter(|found| found.spec_hash == claim.spec_hash) {
        Some(found) => Claim { faults: found.faults, faulted_by: found.faulted_by, ..claim },
        None => claim,
    }
}
