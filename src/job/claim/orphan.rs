//! A pool's job that waits here, and whose message is in no queue any more.
//!
//! What must hold: who has its claim is not disturbed; where nobody has it, it is not left to nobody.

use super::{Bid, Claim, State};

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphan {
    /// Another agent has it: that one ends it.
    Theirs,
    /// Another agent has ended it, or its id is another body's.
    Over,
    /// Nobody has it: it goes on here.
    Ours,
}

/// Whose it is.
pub fn orphan(found: Option<&Claim>, bid: &Bid) -> Orphan {
    let Some(found) = found else { return Orphan::Ours };
    if found.is_other_body(bid) {
        return Orphan::Over;
    }
    match found.state {
        State::Done if found.agent != bid.agent => Orphan::Over,
        // However old: it has the job in its journal, as this agent has.
        State::Claimed if found.agent != bid.agent => Orphan::Theirs,
        State::Refused | State::Claimed | State::Done => Orphan::Ours,
    }
}
