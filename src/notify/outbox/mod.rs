//! Sends the notices of the outbox, one service a channel.
//!
//! [`Outbox`] starts the services, and whoever committed a notice pokes it. The newest notice that is due goes
//! first, and what waits of the same incident is told within it, so that after a long outage the newest state
//! arrives first and the channel isn't flooded.
//!
//! Invariants: a message is marked as on its way before it is sent, and as sent after the channel took it; nothing
//! is given up unless the channel will never take it. One message of a channel is on its way at a time, so a kill
//! repeats at most that one, under the same number and marked. A channel is sent no more than its [`Pace`] allows.

mod pace;
mod paired;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::book::{Book, Due, Error, Next, PUT_OFF_MAX, State};
use super::{Accepted, Blame, Channel, Pace, Partner, Refused, Telling};
use crate::backoff::Backoff;
use crate::clock::{Clock, SystemClock};
use crate::failpoint;
use crate::seldom::Seldom;
use crate::supervise::{Failure, Services};
use pace::Paced;

/// How long a channel is left alone that did not take a message.
const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(10));

/// How often the log tells that a channel takes nothing.
const SAID_EVERY: Duration = Duration::from_hours(1);

/// How long a service rests that failed, which only its database can make it.
const RESTART: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));

/// What messages are sent over.
pub trait Carrier: Send + Sync + 'static {
    /// The name of the channel in the outbox.
    fn name(&self) -> &'static str;

    /// The most that it is sent.
    fn pace(&self) -> Pace;

    /// Sends one message, within a time of its own.
    fn send(&self, telling: &Telling) -> impl Future<Output = Result<Accepted, Refused>> + Send;
}

impl Carrier for Channel {
    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn pace(&self) -> Pace {
        Self::pace(self)
    }

    fn send(&self, telling: &Telling) -> impl Future<Output = Result<Accepted, Refused>> + Send {
        Self::send(self, telling)
    }
}

/// The channels that are set, and who sends over them. Clones share it.
#[derive(Debug)]
pub struct Outbox<K = Channel> {
    book: Book,
    desks: Arc<[Desk<K>]>,
}

impl<K> Clone for Outbox<K> {
    fn clone(&self) -> Self {
        Self { book: self.book.clone(), desks: Arc::clone(&self.desks) }
    }
}

/// What one channel's service needs.
#[derive(Debug)]
struct Desk<K> {
    carrier: K,
    /// Rings once something was queued.
    bell: Notify,
    said: Seldom,
    /// Another hub that tells the same people.
    partner: Option<Arc<dyn Partner>>,
}

impl<K: Carrier> Outbox<K> {
    /// An outbox in this book with these channels. Nothing is sent before [`Outbox::spawn`].
    pub fn new(book: Book, channels: Vec<K>) -> Self {
        Self::shared(book, channels, |_| None)
    }

    /// An outbox that shares its channels with another hub: those for which there is a partner.
    pub fn shared(
        book: Book,
        channels: Vec<K>,
        partner: impl Fn(&'static str) -> Option<Arc<dyn Partner>>,
    ) -> Self {
        let desk = |carrier: K| {
            let (said, partner) = (Seldom::within(1, SAID_EVERY), partner(carrier.name()));
            Desk { carrier, bell: Notify::new(), said, partner }
        };
        Self { book, desks: channels.into_iter().map(desk).collect() }
    }

    /// The names of the channels, for [`queue`](super::book::queue).
    pub fn names(&self) -> Vec<&'static str> {
        self.desks.iter().map(|desk| desk.carrier.name()).collect()
    }

    /// Tells the services that a notice was committed.
    pub fn poke(&self) {
        for desk in self.desks.iter() {
            desk.bell.notify_one();
        }
    }

    /// Starts the services.
    pub fn spawn(&self, services: &mut Services) {
        for at in 0..self.desks.len() {
            services.spawn_with("outbox", RESTART, self.clone(), move |outbox| async move {
                outbox.run(at, SystemClock).await
            });
        }
    }

    /// Tells about notices of channels that are not set any more, which wait until they are.
    pub async fn warn_of_others(&self) -> Result<(), Error> {
        let names = self.names();
        for count in self.book.count_notices().await? {
            let waits = matches!(count.state, State::Queued | State::Sending);
            if waits && !names.contains(&count.channel.as_str()) {
                let (notices, channel) = (count.notices, &count.channel);
                tracing::warn!(
                    channel,
                    notices,
                    "{notices} notices wait for the channel {channel}, which is not set"
                );
            }
        }
        Ok(())
    }

    /// Sends what waits for one channel, as it comes. Returns only when the database fails.
    async fn run<C: Clock>(&self, at: usize, clock: C) -> Result<(), Failure> {
        let Some(desk) = self.desks.get(at) else { return Ok(()) };
        let failed = |err| Failure::again(err, "look at the disk that holds the database");
        self.book.resume_notices(desk.carrier.name()).await.map_err(failed)?;
        let mut sender = Sender {
            book: &self.book,
            desk,
            clock,
            paced: Paced::default(),
            failures: 0,
            left_refused: 0,
        };
        loop {
            sender.step().await.map_err(failed)?;
        }
    }
}

/// One run of a channel's service.
struct Sender<'a, K, C> {
    book: &'a Book,
    desk: &'a Desk<K>,
    clock: C,
    paced: Paced,
    /// Refusals in a row.
    failures: u32,
    /// How often what the hub before this one left behind was refused.
    left_refused: u32,
}

impl<K: Carrier, C: Clock> Sender<'_, K, C> {
    /// Sends one message, or waits for the next one.
    async fn step(&mut self) -> Result<(), Error> {
        if let Some(partner) = &self.desk.partner {
            return self.step_paired(partner.as_ref()).await;
        }
        let wait = self.paced.wait(self.desk.carrier.pace(), self.clock.monotonic());
        if !wait.is_zero() {
            // Looked up only afterwards: by then there may be a newer one.
            self.clock.sleep(wait.min(crate::clock::LOOK_AGAIN)).await;
            return Ok(());
        }
        match self.book.next_notice(self.desk.carrier.name(), self.clock.now()).await? {
            Next::Nothing => self.desk.bell.notified().await,
            Next::At(at) => tokio::select! {
                () = self.desk.bell.notified() => {}
                () = self.clock.sleep_until(at) => {}
            },
            Next::Due(due) => self.deliver(&due).await?,
        }
        Ok(())
    }

    async fn deliver(&mut self, due: &Due) -> Result<(), Error> {
        self.book.notice_begin(due).await?;
        self.paced.sent(self.clock.monotonic());
        failpoint::hit("notice_send", ".before");
        let answer = self.desk.carrier.send(&due.telling).await;
        failpoint::hit("notice_send", ".after");
        self.note(due, answer).await
    }

    /// Writes down what became of a message.
    async fn note(&mut self, due: &Due, answer: Result<Accepted, Refused>) -> Result<(), Error> {
        match answer {
            Ok(accepted) => {
                self.book.notice_sent(due, &accepted.answer, self.clock.now()).await?;
                self.works_again();
                Ok(())
            }
            Err(refused) => self.put_off(due, &refused).await,
        }
    }

    /// Keeps a message that was not taken, unless it never will be.
    async fn put_off(&mut self, due: &Due, refused: &Refused) -> Result<(), Error> {
        let name = self.desk.carrier.name();
        if refused.is_final() {
            let (id, title) = (due.telling.id, &due.telling.notice.title);
            tracing::error!(
                channel = name,
                notice = id.0,
                "the channel {name} will never take notice {id} ({title}): {refused}"
            );
            return self.book.notice_refused(due, &refused.reason, self.clock.now()).await;
        }
        let wait = self.rest(refused);
        // What the channel may dislike about this one alone does not keep the others from being tried.
        let aside = match refused.blame {
            Blame::Notice => BACKOFF.jittered(due.tries.saturating_add(3)),
            Blame::Channel | Blame::NoticeForEver => Duration::ZERO,
        };
        let next = self.clock.now().plus(wait.max(aside));
        let may_have_arrived = refused.may_have_arrived;
        self.book.notice_later(due, next, &refused.reason, may_have_arrived).await
    }

    /// Leaves the channel alone for as long as it asks, or longer after each refusal; returns for how long.
    fn rest(&mut self, refused: &Refused) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.jittered(self.failures);
        let wait = refused.retry_after.unwrap_or(wait).min(PUT_OFF_MAX);
        self.paced.rest(self.clock.monotonic() + wait);
        if let Some(more) = self.desk.said.line() {
            let name = self.desk.carrier.name();
            tracing::warn!(
                channel = name,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "the channel {name} does not take notices, which wait until it does: {refused}{more}"
            );
        }
        wait
    }

    fn works_again(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            let name = self.desk.carrier.name();
            tracing::info!(channel = name, failures, "the channel {name} takes notices again");
        }
    }
}

#[cfg(test)]
mod tests;
