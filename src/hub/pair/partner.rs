//! The desk as the outbox sees it: what was told, and the words before and after each message.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::desk::Desk;
use super::memory::{name, sending, telling};
use crate::bus::Bus;
use crate::clock::Clock as _;
use crate::failpoint;
use crate::fleet::pair::told::{Tells, Verdict};
use crate::fleet::pair::wire::{Mark, Sending, Sheet};
use crate::notify::Telling;
use crate::notify::partner::{Ending, Partner, State, Turn};

/// A hub whose channel refuses so many messages in a row leaves the turn to the other one, for so long.
const REFUSED_MAX: u32 = 3;
const REST: Duration = Duration::from_mins(1);

impl Partner for Desk {
    fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    fn verdict(&self, tells: &Tells) -> Verdict {
        self.memory().verdict(tells)
    }

    fn left_behind(&self) -> Option<(Telling, Tells)> {
        self.memory().left_behind.as_ref().map(telling)
    }

    fn begin<'a>(&'a self, telling: &'a Telling, tells: &'a Tells) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let is_ours = self.write_sending(Some((telling, tells))).await;
            failpoint::hit("pair_begin", ".after");
            if !is_ours {
                self.turn(Turn::Theirs);
            }
            is_ours
        })
    }

    fn end<'a>(
        &'a self,
        telling: &'a Telling,
        tells: &'a Tells,
        ending: Ending,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            failpoint::hit("pair_end", ".before");
            match ending {
                Ending::Over => {
                    self.mark(telling, tells, false).await;
                    self.held.lock().await.sending = None;
                }
                Ending::Doubtful => self.mark(telling, tells, true).await,
                Ending::NotArrived => {
                    self.write_sending(None).await;
                }
            }
            if ending != Ending::NotArrived {
                let mut memory = self.memory();
                let is_it = |left: &mut Sending| {
                    (left.number, left.notice.decided) == (telling.id.0, telling.notice.decided)
                };
                memory.left_behind.take_if(is_it);
            }
            self.tried(ending == Ending::Over).await;
            failpoint::hit("pair_end", ".after");
        })
    }
}

impl Desk {
    /// Counts what the channel refuses: who can't deliver leaves the turn to the other hub for a while.
    async fn tried(&self, is_taken: bool) {
        let mut held = self.held.lock().await;
        held.refused = if is_taken { 0 } else { held.refused.saturating_add(1) };
        if held.refused >= REFUSED_MAX {
            held.refused = 0;
            held.rests_until = self.clock.monotonic().saturating_add(REST);
            let channel = self.channel;
            tracing::warn!(
                channel,
                "{channel} takes nothing from this hub: the other one may send for a minute"
            );
        }
    }

    fn bus(&self) -> Option<Bus> {
        self.wire.borrow().clone()
    }

    /// Writes what is on its way, if it is still this hub's turn.
    async fn write_sending(&self, what: Option<(&Telling, &Tells)>) -> bool {
        let mut held = self.held.lock().await;
        let (Some(bus), Some(over)) = (self.bus(), held.revision) else { return false };
        let sending = what.map(|(telling, tells)| sending(telling, tells));
        let sheet = Sheet { who: self.who.clone(), since: held.since, sending };
        // After an error it may be written or not: the next look finds out.
        held.revision =
            bus.put_sender(self.channel, sheet.to_json(), over).await.unwrap_or_default();
        held.sending = sheet.sending;
        held.revision.is_some()
    }

    /// Writes that a message was told, or may have been; later if the bucket can't be reached now.
    async fn mark(&self, telling: &Telling, tells: &Tells, is_doubtful: bool) {
        let mark = Mark {
            hub: self.who.hub.clone(),
            at: self.clock.now(),
            is_doubtful,
            says: sending(telling, tells).says,
        };
        self.memory().note(&mark);
        let known = name(telling.id.0, telling.notice.decided);
        let known = if is_doubtful { format!("{known}.doubt") } else { known };
        let written = match self.bus() {
            Some(bus) => bus.put_told(self.channel, &known, mark.to_json()).await.is_ok(),
            None => false,
        };
        if !written {
            self.memory().keep(known, mark);
        }
    }
}
