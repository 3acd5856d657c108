//! What a desk remembers of what was told, and what it has yet to write into the bucket.
//!
//! Must hold: all of it is bounded; what is dropped of it can only lead to a repetition.

use std::collections::VecDeque;

use crate::clock::Timestamp;
use crate::fleet::notice::Notice;
use crate::fleet::pair::told::{Saying, Tells, Told, Verdict};
use crate::fleet::pair::wire::{Mark, Sending};
use crate::notify::{Earlier, NoticeId, Telling};

/// Most marks that wait until the bucket can be reached.
const BACKLOG_MAX: usize = 1_000;

/// What was told over a channel, and what waits.
#[derive(Debug, Default)]
pub(super) struct Memory {
    told: Told,
    /// The number in the stream up to which it was read.
    pub(super) cursor: u64,
    /// Marks that could not be written yet, each with the name of its message.
    pub(super) backlog: VecDeque<(String, Mark)>,
    /// What the hub before this one began to send.
    pub(super) left_behind: Option<Sending>,
}

impl Memory {
    pub(super) fn note(&mut self, mark: &Mark) {
        self.told.note(&mark.says, mark.at, mark.is_doubtful);
    }

    pub(super) fn verdict(&self, tells: &Tells) -> Verdict {
        self.told.verdict(tells)
    }

    /// Keeps a mark until it can be written.
    pub(super) fn keep(&mut self, message: String, mark: Mark) {
        if self.backlog.len() >= BACKLOG_MAX {
            self.backlog.pop_front();
        }
        self.backlog.push_back((message, mark));
    }

    /// Forgets all that was read, to read it again from another stream.
    pub(super) fn anew(&mut self) {
        self.told = Told::default();
        self.cursor = 0;
    }
}

/// A message on its way, in the form in which both hubs read it.
pub(super) fn sending(telling: &Telling, tells: &Tells) -> Sending {
    let earlier = |it: &Earlier| (it.notice.clone(), it.may_be_repeat);
    let sending = Sending {
        number: telling.id.0,
        notice: telling.notice.clone(),
        earlier: telling.earlier.iter().map(earlier).collect(),
        left_out: telling.left_out,
        may_be_repeat: telling.may_be_repeat,
        says: tells.sayings.iter().map(|saying| saying.say).collect(),
    };
    sending.bounded()
}

/// What another hub left behind, to be sent again, with the mark of a possible repetition.
pub(super) fn telling(sending: &Sending) -> (Telling, Tells) {
    let earlier = |(notice, may_be_repeat): &(Notice, bool)| Earlier {
        notice: notice.clone(),
        may_be_repeat: *may_be_repeat,
    };
    let telling = Telling {
        id: NoticeId(sending.number),
        notice: sending.notice.clone(),
        earlier: sending.earlier.iter().map(earlier).collect(),
        left_out: sending.left_out,
        may_be_repeat: true,
    };
    let saying = |say: &_| Saying { say: *say, joined: say.when, well_before: None };
    let (kind, decided) = (sending.notice.kind, sending.notice.decided);
    let sayings = sending.says.iter().map(saying).collect();
    (telling, Tells { kind, decided, sayings })
}

/// The name of a message in the bucket: the same for whoever sends it.
pub(super) fn name(number: i64, decided: Timestamp) -> String {
    format!("{number}-{}", decided.unix_ms())
}
