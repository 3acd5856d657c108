//! A pool's job that waits here although its message has left the queue.
//!
//! Invariants: an agent that has its claim is not disturbed; a job that no agent has is continued here.

use super::{Bid, Claim, State};

/// Who continues an orphaned job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    /// Another agent has the job and will end it.
    Theirs,
    /// Another agent has ended the job, or another body holds its id.
    Over,
    /// No other agent has the job: it continues here.
    Ours,
}

/// Decides who continues the job.
pub fn orphan(found: Option<&Claim>, bid: &Bid) -> Orphan {
    let Some(found) = found else { return Orphan::Ours };
    if found.is_other_body(bid) {
        return Orphan::Over;
    }
    match found.state {
        State::Done if found.agent != bid.agent => Orphan::Over,
        // However old the claim is: its agent has the job in its journal, as this agent does.
        State::Claimed if found.agent != bid.agent => Orphan::Theirs,
        State::Refused | State::Claimed | State::Done => Orphan::Ours,
    }
}
