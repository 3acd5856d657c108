//! The desk of one channel: who sends over it, as this hub knows it, and its service.
//!
//! Must hold: its turn is told to the outbox only once all is known that the other hub told before.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Sender;
use super::memory::{Memory, name};
use crate::bus::{self, Bus};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::fleet::pair::lease::{self, Lease, Read, Step};
use crate::fleet::pair::wire::{Mark, Sending, Sheet, Who};
use crate::notify::partner::{State, Turn};
use crate::report::causes;
use crate::seldom::Seldom;

/// Most messages that are taken up in one look; the others follow in the next ones.
const MARKS_MAX: usize = 500;

/// The longest that one look takes.
const LOOK_MAX: Duration = Duration::from_secs(20);

/// A mark is not believed that says it was made further ahead.
const AHEAD_MAX: Duration = Duration::from_mins(10);

/// What this hub wrote last, under the lock of whoever writes.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// The revision, while it is this hub's turn.
    pub(super) revision: Option<u64>,
    pub(super) since: Timestamp,
    /// What is on its way.
    pub(super) sending: Option<Sending>,
    /// How many messages the channel has refused in a row.
    pub(super) refused: u32,
    /// Until when this hub leaves the turn to the other one, by the clock that only goes forward.
    pub(super) rests_until: Duration,
    lease: Lease,
}

/// One channel that two hubs share.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) channel: &'static str,
    pub(super) who: Who,
    pub(super) wire: watch::Receiver<Option<Bus>>,
    pub(super) state: watch::Sender<State>,
    pub(super) held: tokio::sync::Mutex<Held>,
    memory: Mutex<Memory>,
    /// Who sends, as it was read last.
    seen: Mutex<Option<(Who, Timestamp)>>,
    pub(super) clock: SystemClock,
    said: Seldom,
}

impl Desk {
    pub(super) fn new(
        channel: &'static str,
        who: Who,
        wire: watch::Receiver<Option<Bus>>,
        clock: SystemClock,
    ) -> Self {
        Self {
            channel,
            who,
            wire,
            state: watch::Sender::new(State { turn: Turn::Theirs, news: 0 }),
            held: tokio::sync::Mutex::default(),
            memory: Mutex::default(),
            seen: Mutex::default(),
            clock,
            said: Seldom::within(1, Duration::from_hours(1)),
        }
    }

    pub(super) fn sender(&self) -> Sender {
        let turn = self.state.borrow().turn;
        let seen = lock(&self.seen).clone().filter(|_| turn != Turn::Alone);
        let (hub, since) = seen.map(|(who, since)| (who.hub, since)).unzip();
        Sender { channel: self.channel, turn, hub, since }
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, Memory> {
        lock(&self.memory)
    }

    /// Follows the lease until it is aborted.
    pub(super) async fn run(&self) {
        let mut wire = self.wire.clone();
        // After a failure of its own it knows as little as after a start.
        let (mut reached, mut connection) = (self.clock.monotonic(), None);
        loop {
            let bus = wire.borrow_and_update().clone();
            let read = self.memory().cursor;
            let looked = if let Some(bus) = &bus {
                if connection.replace(bus.connection()) != Some(bus.connection()) {
                    self.memory().anew();
                }
                let late = Err(bus::Error::Timeout { what: "follow the other hub" });
                tokio::time::timeout(LOOK_MAX, self.look(bus)).await.unwrap_or(late)
            } else {
                // The next connection may lead to another server, with another bucket.
                connection = None;
                Err(bus::Error::Closed)
            };
            match looked {
                Ok(()) => reached = self.clock.monotonic(),
                Err(err) => {
                    // Much to read is no cut.
                    if bus.is_some() && self.memory().cursor > read {
                        reached = self.clock.monotonic();
                    }
                    self.cut_off(&err, self.clock.monotonic().saturating_sub(reached)).await;
                }
            }
            tokio::select! {
                () = self.clock.sleep(lease::EVERY) => {}
                // The other end lives as long as the hub.
                Ok(()) = wire.changed() => {}
            }
        }
    }

    /// Reads what the other hub wrote, and writes that this one is there if it is its turn.
    async fn look(&self, bus: &Bus) -> Result<(), bus::Error> {
        self.catch_up(bus).await?;
        self.write_backlog(bus).await?;
        let mut held = self.held.lock().await;
        let found = bus.sender(self.channel).await?;
        let sheet = found.as_ref().and_then(|value| value.body.as_deref());
        // What can't be read belongs to somebody until it isn't written any more.
        let sheet = sheet.and_then(|body| Sheet::parse(body).ok());
        let is_mine = sheet.as_ref().is_some_and(|sheet| sheet.who == self.who);
        let read = found.as_ref().map(|value| Read { revision: value.revision, is_mine });
        let step = held.lease.step(read, self.clock.monotonic());
        let rests = self.clock.monotonic() < held.rests_until;
        match if rests { Step::Wait } else { step } {
            Step::Wait => {
                held.revision = None;
                *lock(&self.seen) = sheet.map(|sheet| (sheet.who, sheet.since));
                drop(held);
                self.turn(Turn::Theirs);
            }
            Step::Renew(revision) if held.revision.is_some() => {
                let sheet = Sheet {
                    who: self.who.clone(),
                    since: held.since,
                    sending: held.sending.clone(),
                };
                held.revision = bus.put_sender(self.channel, sheet.to_json(), revision).await?;
                let is_kept = held.revision.is_some();
                drop(held);
                self.turn(if is_kept { Turn::Mine } else { Turn::Theirs });
            }
            Step::Take(revision) | Step::Renew(revision) => {
                if !is_mine {
                    // Kept before it is written under this hub's name, which may succeed without an answer.
                    self.memory().left_behind = sheet.and_then(|sheet| sheet.sending);
                }
                self.take(bus, &mut held, (revision, is_mine)).await?;
            }
        }
        Ok(())
    }

    /// Takes the channel over, with what is on its way.
    async fn take(
        &self,
        bus: &Bus,
        held: &mut Held,
        (over, is_mine): (u64, bool),
    ) -> Result<(), bus::Error> {
        let since = self.clock.now();
        // What this hub has on its way itself stays written until its end is known.
        let own = held.sending.clone().filter(|_| is_mine);
        let left = own.or_else(|| self.memory().left_behind.clone());
        let sheet = Sheet { who: self.who.clone(), since, sending: left };
        let Some(revision) = bus.put_sender(self.channel, sheet.to_json(), over).await? else {
            return Ok(());
        };
        // From here on the other hub can't begin to send: what it told is what is in the bucket now.
        self.catch_up(bus).await?;
        held.sending = match sheet.sending {
            Some(it) if bus.is_told(self.channel, &name(it.number, it.notice.decided)).await? => {
                None
            }
            left => left,
        };
        if !is_mine {
            self.memory().left_behind.clone_from(&held.sending);
        }
        (held.revision, held.since) = (Some(revision), since);
        held.lease.lost();
        *lock(&self.seen) = Some((self.who.clone(), since));
        let channel = self.channel;
        tracing::info!(channel, "this hub ({}) sends over {channel} from now on", self.who.hub);
        self.turn(Turn::Mine);
        Ok(())
    }

    /// Takes up what was told since the last look.
    async fn catch_up(&self, bus: &Bus) -> Result<(), bus::Error> {
        loop {
            let mut taken = 0;
            while taken < MARKS_MAX {
                let after = self.memory().cursor;
                let Some(value) = bus.told_after(self.channel, after).await? else { break };
                let mark = value.body.as_deref().map(Mark::parse);
                let mut memory = self.memory();
                memory.cursor = value.revision;
                taken += 1;
                if let Some(Ok(mark)) = mark
                    && mark.at <= self.clock.now().plus(AHEAD_MAX)
                {
                    memory.note(&mark);
                }
            }
            if taken > 0 {
                self.state.send_modify(|state| state.news = state.news.wrapping_add(1));
            }
            if taken < MARKS_MAX {
                return Ok(());
            }
        }
    }

    /// Writes what this hub told while the bucket could not be reached.
    async fn write_backlog(&self, bus: &Bus) -> Result<(), bus::Error> {
        loop {
            let next = self.memory().backlog.front().cloned();
            let Some((message, mark)) = next else { return Ok(()) };
            bus.put_told(self.channel, &message, mark.to_json()).await?;
            self.memory().backlog.pop_front();
        }
    }

    /// The bucket can't be reached, for so long now.
    async fn cut_off(&self, err: &bus::Error, lasted: Duration) {
        let mut held = self.held.lock().await;
        held.revision = None;
        held.lease.lost();
        drop(held);
        if lasted < lease::ALONE {
            self.turn(Turn::Theirs);
            return;
        }
        self.turn(Turn::Alone);
        if let Some(more) = self.said.line() {
            tracing::warn!(
                channel = self.channel,
                "the other hub can't be asked for {}: this one tells by itself, and marks what the other one may tell too \
                 ({}){more}",
                crate::fleet::words::age(lasted),
                causes(err)
            );
        }
    }

    /// Tells the outbox whose turn it is, where that is new.
    pub(super) fn turn(&self, turn: Turn) {
        self.state.send_if_modified(|state| {
            let is_new = state.turn != turn;
            state.turn = turn;
            is_new
        });
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
