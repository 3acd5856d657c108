//! A watched program: what is known of it in memory, and the one way in which that changes.
//!
//! Invariants: memory follows the commit, never the other way round; observations of one program are in order of
//! time, so that a replay sees what the watcher saw.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::settings::Watching;
use super::store::{Batch, Error, Known, Store};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::watch::observation::{Observation, Seen};
use crate::watch::state::Watched;

/// A watched program. Shared by all that observe it.
#[derive(Debug)]
pub struct Program {
    /// What it is and what is expected of it.
    pub watching: Watching,
    store: Store,
    clock: SystemClock,
    /// What is known now. Held over the commit: observations are taken in one after the other.
    now: tokio::sync::Mutex<Now>,
    /// The same, for who only looks.
    seen: Mutex<Arc<Now>>,
    /// Rings once something was observed.
    bell: Arc<Notify>,
    /// Who is told each observation, once it is written down.
    tap: Option<Arc<dyn Tap>>,
}

/// Somebody who is told each thing that is observed of a program. Nothing here may wait.
pub trait Tap: std::fmt::Debug + Send + Sync {
    /// Told what was observed, and is written down.
    fn observed(&self, observations: &[Observation]);

    /// Told the lines of a log, scrubbed, once what they mean is written down.
    fn lines(&self, log: &str, lines: Vec<String>, now: Timestamp);
}

/// What is known, and how far.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// Everything that was observed, summed up.
    pub state: Watched,
    /// The number of the last observation.
    pub last: i64,
    /// Its time.
    pub at: Timestamp,
}

/// What is taken in at once.
#[derive(Debug, Clone, Default)]
pub struct Taken {
    /// What was seen.
    pub seen: Vec<Seen>,
    /// Up to where sources were read: each source's name and place.
    pub marks: Vec<(String, String)>,
    /// What is to be reported: the receiver and a report.
    pub reports: Vec<(&'static str, String)>,
}

impl Program {
    /// The program as it was written down.
    pub async fn load(
        watching: Watching,
        store: &Store,
        clock: SystemClock,
        bell: Arc<Notify>,
    ) -> Result<Self, Error> {
        let Known { state, last } = store.known(&watching.name).await?;
        let now = Now { state, last, at: Timestamp::default() };
        Ok(Self {
            watching,
            store: store.clone(),
            clock,
            seen: Mutex::new(Arc::new(now.clone())),
            now: tokio::sync::Mutex::new(now),
            bell,
            tap: None,
        })
    }

    /// The same, of which a tap is told.
    #[must_use]
    pub fn with_tap(self, tap: Option<Arc<dyn Tap>>) -> Self {
        Self { tap, ..self }
    }

    /// Who is told each observation.
    pub fn tap(&self) -> Option<&dyn Tap> {
        self.tap.as_deref()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.watching.name
    }

    /// Up to where a source was read.
    pub async fn mark(&self, source: &str) -> Result<Option<String>, Error> {
        self.store.mark(self.name(), source).await
    }

    /// What is known now.
    pub fn look(&self) -> Arc<Now> {
        Arc::clone(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in what was seen just now, with the places up to which sources were read and what is to be reported.
    pub async fn observe(&self, taken: Taken) -> Result<(), Error> {
        let Taken { seen, marks, reports } = taken;
        let mut now = self.now.lock().await;
        // A watch that begins anew begins now, also if the clock was set back.
        let is_anew = seen.contains(&Seen::Watching);
        let at = if is_anew { self.clock.now() } else { self.clock.now().max(now.at) };
        let observations: Vec<_> = seen.into_iter().map(|seen| Observation { at, seen }).collect();
        let mut state = now.state.clone();
        for observation in &observations {
            state.apply(observation);
        }
        let told = self.tap.as_ref().map(|tap| (tap, observations.clone()));
        let batch = Batch { observations, marks, reports };
        let last = self.store.take(self.name(), batch, &state).await?;
        *now = Now { state, last, at };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(now.clone());
        if let Some((tap, observations)) = told {
            tap.observed(&observations);
        }
        self.bell.notify_one();
        Ok(())
    }

    /// Takes in one thing.
    pub async fn saw(&self, seen: Seen) -> Result<(), Error> {
        self.observe(Taken { seen: vec![seen], ..Taken::default() }).await
    }

    /// Notes that a source can't be asked, or can be again; nothing if that is known.
    pub async fn source(&self, source: &str, trouble: Option<String>) -> Result<(), Error> {
        let known = self.look();
        let was = known.state.troubles.get(source).map(|(_, why)| why);
        if was == trouble.as_ref() {
            return Ok(());
        }
        self.saw(Seen::Source { source: source.to_owned(), trouble }).await
    }
}
