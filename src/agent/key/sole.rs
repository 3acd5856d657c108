//! Whether this process is the only user of its key, as far as it can see.
//!
//! Two processes with one key would send transactions with the same nonces and take each other's
//! jobs. Another user shows in two ways: another instance speaks on NATS (see [`hello`]), or a
//! transaction is mined that this node's journal does not know. Both are reported to
//! [`Sole::conflict`].
//!
//! Invariants: during a conflict no transaction is sent, and jobs go on; sending resumes by itself
//! once no other user was seen for the quiet time; each change is logged once.
//!
//! [`hello`]: super::hello

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::instance::Instance;
use crate::clock::{Clock, Timestamp};

/// Evidence that somebody else uses the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another instance said hello: it starts, or looks around.
    Hello {
        /// The other instance's id.
        instance: Instance,
    },
    /// Another instance answered our hello: it is at work.
    Answer {
        /// The other instance's id.
        instance: Instance,
    },
    /// A transaction of this key is in a block, but not in this node's journal.
    ForeignTransaction {
        /// The transaction's nonce.
        nonce: u64,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { instance } => write!(f, "another node ({instance}) starts with this key"),
            Self::Answer { instance } => {
                write!(f, "another node ({instance}) is at work with this key")
            }
            Self::ForeignTransaction { nonce } => {
                write!(f, "a transaction of this key that this node did not send has nonce {nonce}")
            }
        }
    }
}

/// How far this process has come towards using its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// This process hears no hello of other instances yet.
    Starting,
    /// It is known whether anybody else listens, so this process may.
    Asking,
    /// This process hears hellos and answers them.
    Listening,
    /// Nobody else answered its hello: it takes jobs and sends transactions.
    Settled,
    /// Another instance asked this one to end.
    Leaving,
}

/// A handle on what is known of the key's other users; clones share it.
#[derive(Debug, Clone)]
pub struct Sole(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    quiet: Duration,
    /// The conflict, and when it is over if no other sign is seen.
    alarm: Mutex<Option<(Conflict, Timestamp)>>,
    /// Notified when the alarm changes.
    changed: Notify,
    stage: watch::Sender<Stage>,
    /// Notified when another instance says hello.
    heard: Notify,
}

impl Sole {
    /// Starts without a conflict, before anybody was asked. After a sign of another user nothing is
    /// sent for `quiet`.
    pub fn new(quiet: Duration) -> Self {
        Self(Arc::new(Shared {
            quiet,
            alarm: Mutex::new(None),
            changed: Notify::new(),
            stage: watch::Sender::new(Stage::Starting),
            heard: Notify::new(),
        }))
    }

    /// Reports that another user was seen at `now`: nothing is sent until the quiet time is over.
    pub fn conflict(&self, now: Timestamp, why: Conflict) {
        let known = self.pending(now).map(|(known, _)| known);
        let starts_only = matches!(why, Conflict::Hello { .. });
        let why = match known {
            // An instance that only said hello may give up again, so keep the evidence that lasts.
            Some(lasting) if starts_only && !matches!(lasting, Conflict::Hello { .. }) => lasting,
            _ => why,
        };
        let until = now.plus(self.0.quiet);
        let mut alarm = self.lock();
        if alarm.as_ref().is_none_or(|(known, _)| *known != why) {
            tracing::error!(
                "{why}: no transactions are sent while that is so, jobs go on. Stop one of the two"
            );
        }
        *alarm = Some((why, until));
        drop(alarm);
        self.0.changed.notify_waiters();
    }

    /// The conflict that forbids sending at `now`, if there is one.
    pub fn alarm(&self, now: Timestamp) -> Option<Conflict> {
        self.pending(now).map(|(why, _)| why)
    }

    /// Waits until sending is allowed, without end if another instance takes over.
    pub async fn clear<C: Clock>(&self, clock: &C) {
        if *self.0.stage.borrow() >= Stage::Leaving {
            std::future::pending::<()>().await;
        }
        loop {
            let changed = self.0.changed.notified();
            let now = clock.now();
            let Some((_, until)) = self.pending(now) else { return };
            tokio::select! {
                () = changed => {}
                () = clock.sleep(until.since(now)) => {}
            }
        }
    }

    /// Reports that nobody answered our hello: an instance that only said hello has given up, and
    /// its conflict ends.
    pub(in crate::agent) fn unanswered(&self) {
        let mut alarm = self.lock();
        if let Some((why @ Conflict::Hello { .. }, _)) = alarm.as_ref() {
            tracing::info!("transactions are sent again: {why}, but does not answer any more");
            *alarm = None;
            drop(alarm);
            self.0.changed.notify_waiters();
        }
    }

    /// How long no other user must be seen before sending resumes.
    pub(in crate::agent) fn quiet(&self) -> Duration {
        self.0.quiet
    }

    /// The conflict at `now`, and when it is over; forgets one that is.
    fn pending(&self, now: Timestamp) -> Option<(Conflict, Timestamp)> {
        let mut alarm = self.lock();
        if let Some((_, until)) = alarm.as_mut() {
            // A clock that was set back must not stretch the quiet time.
            *until = (*until).min(now.plus(self.0.quiet));
        }
        if alarm.as_ref().is_some_and(|(_, until)| *until <= now) {
            let quiet_s = self.0.quiet.as_secs();
            tracing::info!("transactions are sent again: no other user of the key in {quiet_s} s");
            *alarm = None;
        }
        alarm.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Conflict, Timestamp)>> {
        self.0.alarm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports that it is known whether anybody else listens, so that this process may.
    pub(in crate::agent) fn asks(&self) {
        self.reach(Stage::Asking);
    }

    /// Waits until this process may listen.
    pub(in crate::agent) async fn asking(&self) {
        self.reached(Stage::Asking).await;
    }

    /// Reports that this process hears other instances.
    pub(in crate::agent) fn listens(&self) {
        self.reach(Stage::Listening);
    }

    /// Waits until this process hears other instances.
    pub(in crate::agent) async fn listening(&self) {
        self.reached(Stage::Listening).await;
    }

    /// Reports that nobody else answered: this process may use the key.
    pub(in crate::agent) fn mark_sole(&self) {
        self.reach(Stage::Settled);
    }

    /// Whether this process may use the key.
    pub(in crate::agent) fn is_sole(&self) -> bool {
        *self.0.stage.borrow() >= Stage::Settled
    }

    /// Waits until it is known that no other instance answers. Jobs and transactions wait for that.
    pub async fn known_sole(&self) {
        self.reached(Stage::Settled).await;
    }

    /// Reports that another instance with this key takes over, so that this one ends in order.
    pub(in crate::agent) fn leave(&self) {
        self.reach(Stage::Leaving);
    }

    /// Waits until another instance has asked this one to end.
    pub async fn left(&self) {
        self.reached(Stage::Leaving).await;
    }

    /// Reports another instance's hello, so that this one asks who it is.
    pub(in crate::agent) fn hears(&self) {
        self.0.heard.notify_one();
    }

    /// Waits for a hello of another instance; returns at once if one came since the last call.
    pub(in crate::agent) async fn heard(&self) {
        self.0.heard.notified().await;
    }

    fn reach(&self, stage: Stage) {
        self.0.stage.send_if_modified(|reached| {
            let further = *reached < stage;
            *reached = stage.max(*reached);
            further
        });
    }

    async fn reached(&self, stage: Stage) {
        // `self` holds the sender, so the channel is open.
        self.0.stage.subscribe().wait_for(|reached| *reached >= stage).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    const QUIET: Duration = Duration::from_mins(15);

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn hello() -> Conflict {
        Conflict::Hello { instance: Instance::random() }
    }

    #[test]
    fn a_conflict_lasts_for_the_quiet_time_after_the_last_sign() {
        let sole = Sole::new(QUIET);
        assert_eq!(sole.alarm(at(0)), None);
        sole.conflict(at(0), Conflict::ForeignTransaction { nonce: 7 });
        sole.conflict(at(1000), Conflict::ForeignTransaction { nonce: 9 });
        let over = 1000 + 900_000;
        assert_eq!(sole.alarm(at(over - 1)), Some(Conflict::ForeignTransaction { nonce: 9 }));
        assert_eq!(sole.alarm(at(over)), None);
        // Setting the clock back does not bring the conflict back.
        assert_eq!(sole.alarm(at(0)), None);
    }

    #[test]
    fn only_an_instance_that_never_worked_is_forgotten_when_it_does_not_answer() {
        let sole = Sole::new(QUIET);
        sole.conflict(at(0), hello());
        sole.unanswered();
        assert_eq!(sole.alarm(at(1)), None);
        for lasting in [
            Conflict::Answer { instance: Instance::random() },
            Conflict::ForeignTransaction { nonce: 1 },
        ] {
            sole.conflict(at(0), lasting.clone());
            sole.conflict(at(0), hello());
            sole.unanswered();
            assert_eq!(sole.alarm(at(1)), Some(lasting));
        }
    }

    #[tokio::test]
    async fn sending_waits_for_the_end_of_the_conflict_however_it_comes() {
        let sole = Sole::new(Duration::from_millis(20));
        sole.clear(&SystemClock).await;
        sole.conflict(SystemClock.now(), Conflict::ForeignTransaction { nonce: 1 });
        sole.clear(&SystemClock).await;
        assert_eq!(sole.alarm(SystemClock.now()), None);
        let sole = Sole::new(QUIET);
        sole.conflict(SystemClock.now(), hello());
        let given_up = async { sole.unanswered() };
        tokio::join!(sole.clear(&SystemClock), given_up);
    }

    #[tokio::test]
    async fn a_stage_is_never_gone_back_from() {
        let sole = Sole::new(QUIET);
        sole.mark_sole();
        sole.listens();
        sole.known_sole().await;
        assert!(sole.is_sole());
        sole.leave();
        sole.left().await;
    }
}
