//! How a channel's service sends where another hub tells the same people.
//!
//! Must hold: while it is the other hub's turn nothing is sent, and what that one told is dropped here; a message that
//! the hub before this one left behind goes first, marked; without any way to ask the other hub each message is marked.

use tokio::sync::watch;

use super::{Carrier, Sender};
use crate::clock::Clock;
use crate::failpoint;
use crate::fleet::pair::told::{Tells, Verdict};
use crate::notify::book::{Due, Error, Next};
use crate::notify::partner::{Ending, Partner, State, Turn};
use crate::notify::{Blame, NoticeId, Telling};

/// Most notices that are held against what was told at once.
const SWEEP_MAX: usize = 256;

/// How often what was left behind is tried before others have their turn.
const LEFT_TRIES: u32 = 2;

/// What is written of a notice that need not be sent.
const TOLD: &str = "told already, by this hub or the other one";

impl<K: Carrier, C: Clock> Sender<'_, K, C> {
    /// Sends one message, or waits for the next one or for this hub's turn.
    pub(super) async fn step_paired(&mut self, partner: &dyn Partner) -> Result<(), Error> {
        let mut state = partner.state();
        let turn = state.borrow_and_update().turn;
        if turn == Turn::Theirs {
            self.drop_told(partner).await?;
            tokio::select! {
                () = changed(&mut state) => {}
                () = self.desk.bell.notified() => {}
            }
            return Ok(());
        }
        let wait = self.paced.wait(self.desk.carrier.pace(), self.clock.monotonic());
        if !wait.is_zero() {
            self.clock.sleep(wait.min(crate::clock::LOOK_AGAIN)).await;
            return Ok(());
        }
        if turn == Turn::Mine
            && let Some((telling, tells)) = partner.left_behind()
        {
            self.finish(partner, &telling, &tells).await;
            return Ok(());
        }
        match self.book.next_notice(self.desk.carrier.name(), self.clock.now()).await? {
            Next::Nothing => tokio::select! {
                () = self.desk.bell.notified() => {}
                () = changed(&mut state) => {}
            },
            Next::At(at) => tokio::select! {
                () = self.desk.bell.notified() => {}
                () = changed(&mut state) => {}
                () = self.clock.sleep_until(at) => {}
            },
            Next::Due(due) => self.deliver_paired(partner, turn, *due).await?,
        }
        Ok(())
    }

    /// Drops what waits here and was told by the other hub.
    async fn drop_told(&self, partner: &dyn Partner) -> Result<(), Error> {
        let mut before = NoticeId(i64::MAX);
        for _ in 0..SWEEP_MAX {
            let now = self.clock.now();
            let next = self.book.next_before(self.desk.carrier.name(), now, before).await?;
            let Next::Due(due) = next else { break };
            before = due.telling.id;
            let tells = self.book.tells(&due.telling.notice).await?;
            if partner.verdict(&tells) == Verdict::Told {
                self.book.notice_told(&due, TOLD, now).await?;
            }
        }
        Ok(())
    }

    async fn deliver_paired(
        &mut self,
        partner: &dyn Partner,
        turn: Turn,
        mut due: Due,
    ) -> Result<(), Error> {
        let tells = self.book.tells(&due.telling.notice).await?;
        match partner.verdict(&tells) {
            Verdict::Told => return self.book.notice_told(&due, TOLD, self.clock.now()).await,
            Verdict::Doubtful => due.telling.may_be_repeat = true,
            Verdict::New => {}
        }
        // The other hub may tell it too.
        due.telling.may_be_repeat |= turn == Turn::Alone;
        self.book.notice_begin(&due).await?;
        if turn == Turn::Mine && !partner.begin(&due.telling, &tells).await {
            let now = self.clock.now();
            return self.book.notice_later(&due, now, "it is the other hub's turn", false).await;
        }
        self.paced.sent(self.clock.monotonic());
        failpoint::hit("notice_send", ".before");
        let answer = self.desk.carrier.send(&due.telling).await;
        failpoint::hit("notice_send", ".after");
        let ending = answer.as_ref().map_or_else(Ending::of, |_| Ending::Over);
        partner.end(&due.telling, &tells, ending).await;
        self.note(&due, answer).await
    }

    /// Sends what the hub before this one left behind. It is in no outbox of this hub: what is written of it is what both
    /// share.
    async fn finish(&mut self, partner: &dyn Partner, telling: &Telling, tells: &Tells) {
        if !partner.begin(telling, tells).await {
            return;
        }
        self.paced.sent(self.clock.monotonic());
        let answer = self.desk.carrier.send(telling).await;
        let (name, title) = (self.desk.carrier.name(), &telling.notice.title);
        match answer {
            Ok(_) => {
                tracing::info!(channel = name, "told what the other hub was telling: {title}");
                partner.end(telling, tells, Ending::Over).await;
                self.works_again();
            }
            Err(refused) if refused.blame == Blame::Channel && self.left_refused < LEFT_TRIES => {
                self.left_refused += 1;
                self.rest(&refused);
            }
            Err(refused) => {
                self.left_refused = 0;
                // It is told as far as this hub knows of it too, by its own words.
                tracing::error!(
                    channel = name,
                    "the channel {name} does not take what the other hub left behind ({title}): {refused}"
                );
                partner.end(telling, tells, Ending::Doubtful).await;
            }
        }
    }
}

/// Waits for news; for ever where nobody can tell any more.
async fn changed(state: &mut watch::Receiver<State>) {
    if state.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
