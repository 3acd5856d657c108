//! Another hub that tells the same people, as the outbox of this one sees it.
//!
//! Must hold: a message is sent only after [`Partner::begin`] has said that it may be; what it became is told by
//! [`Partner::end`], before the outbox writes it down.

use std::fmt;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{Refused, Telling};
use crate::fleet::pair::told::{Tells, Verdict};

/// Who sends over a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// This hub.
    Mine,
    /// The other hub, or it isn't known yet.
    Theirs,
    /// Nobody knows: the hubs can't reach what they share, so each sends by itself.
    Alone,
}

/// What a channel's sender goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Who sends.
    pub turn: Turn,
    /// Grows with each message that the other hub told.
    pub news: u64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The channel has taken it.
    Over,
    /// It has not arrived.
    NotArrived,
    /// It isn't known whether it arrived.
    Doubtful,
}

impl Ending {
    /// What became of a message that the channel refused.
    pub const fn of(refused: &Refused) -> Self {
        // What this hub's channel never takes nobody was told: the other one has its own words for it.
        if refused.may_have_arrived && !refused.is_final() {
            Self::Doubtful
        } else {
            Self::NotArrived
        }
    }
}

/// The other hub, for one channel.
pub trait Partner: fmt::Debug + Send + Sync {
    /// Who sends, and news of it.
    fn state(&self) -> watch::Receiver<State>;

    /// Whether either hub has told this.
    fn verdict(&self, tells: &Tells) -> Verdict;

    /// A message that the hub before this one began to send, and of which nobody knows whether it arrived.
    fn left_behind(&self) -> Option<(Telling, Tells)>;

    /// Writes down that a message is about to be sent. `false`: it must not be, since another hub sends now, or nobody
    /// can know.
    fn begin<'a>(&'a self, telling: &'a Telling, tells: &'a Tells) -> BoxFuture<'a, bool>;

    /// Writes down what became of it, as soon as that can be.
    fn end<'a>(
        &'a self,
        telling: &'a Telling,
        tells: &'a Tells,
        ending: Ending,
    ) -> BoxFuture<'a, ()>;
}
