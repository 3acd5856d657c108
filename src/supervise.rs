//! The only module that spawns tasks: every task has a name and an owner, and none fails silently.
//!
//! [`Services`] are the tasks that live as long as the program: one that fails is restarted after a
//! delay, one that fails for good ends the program. [`Crew`] is for tasks that come and go, such as one
//! per job: a panic in one is reported and harms no other.
//!
//! Must hold: dropping a [`Services`], or the last clone of a [`Crew`], ends its tasks.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::backoff::Backoff;
use crate::report::{BoxError, causes};

/// A service that ran longer than this was healthy: its next failure counts as the first.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// A message that was told so long ago is news again.
const NEWS_AFTER: Duration = Duration::from_hours(1);
/// The most messages of a service that are remembered.
const SAID_MAX: usize = 8;

/// How a service failed, and so what follows.
#[derive(Debug)]
pub enum Failure {
    /// The service is restarted after a delay.
    Again(BoxError),
    /// The failure ends the program.
    Fatal(BoxError),
}

/// An error, and what its reader can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{} ({remedy})", causes(.err.as_ref()))]
struct Remedied {
    err: BoxError,
    remedy: &'static str,
}

impl Failure {
    /// A failure after which the service is restarted; `remedy` tells the owner what to check.
    pub fn again(err: impl Into<BoxError>, remedy: &'static str) -> Self {
        Self::Again(Remedied { err: err.into(), remedy }.into())
    }
}

/// Tasks that live as long as the program.
#[derive(Debug, Default)]
pub struct Services {
    tasks: JoinSet<Result<(), BoxError>>,
}

impl Services {
    /// Starts a service. `make` is called for each run; a run that returns `Ok` ends the service, one
    /// that fails or panics is repeated with backoff.
    pub fn spawn<F, Fut>(&mut self, name: &'static str, backoff: Backoff, mut make: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let service = async move {
            let (mut failures, mut said) = (0, Said::default());
            loop {
                let started = Instant::now();
                let err = match run(make()).await {
                    Ok(Ok(())) => return Ok(()),
                    Ok(Err(Failure::Fatal(err))) => return Err(err),
                    Ok(Err(Failure::Again(err))) => causes(err.as_ref()),
                    Err(panic) => panic.to_string(),
                };
                failures = if started.elapsed() > HEALTHY_AFTER { 1 } else { failures + 1 };
                let wait = backoff.jittered(failures);
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                // A service that fails for hours gets one warning an hour, not one per try.
                if said.is_news(&err, Instant::now()) {
                    tracing::warn!(
                        service = name,
                        wait_ms,
                        "{name}: {err}; tried again until it works"
                    );
                } else {
                    tracing::debug!(service = name, failures, wait_ms, "{name}: {err}");
                }
                tokio::time::sleep(wait).await;
            }
        };
        self.tasks.spawn(service);
    }

    /// Starts a service that needs `state`: each run gets a clone of it.
    pub fn spawn_with<S, F, Fut>(&mut self, name: &'static str, backoff: Backoff, state: S, run: F)
    where
        S: Clone + Send + 'static,
        F: Fn(S) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.spawn(name, backoff, move || run(state.clone()));
    }

    /// Returns the error of the first service that fails for good; waits forever if none does.
    pub async fn first_fatal(&mut self) -> BoxError {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(err))) => return err,
                Some(Err(err)) => return err.into(),
                None => std::future::pending().await,
            }
        }
    }

    /// Aborts all services and waits until they have ended.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// Runs a future as a task of its own, so that a panic becomes an error. Dropping this aborts the task.
async fn run<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    struct EndOnDrop(AbortHandle);
    impl Drop for EndOnDrop {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    #[expect(clippy::disallowed_methods, reason = "the only place that spawns")]
    let task = tokio::spawn(work);
    let _end = EndOnDrop(task.abort_handle());
    task.await
}

/// The messages of a service that were told lately, and when. Several may take turns.
#[derive(Default)]
struct Said(Vec<(String, Instant)>);

impl Said {
    /// Whether this message is to be told: the same was not told within [`NEWS_AFTER`].
    fn is_news(&mut self, sentence: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.saturating_duration_since(*at) < NEWS_AFTER);
        let gist = gist(sentence);
        if self.0.iter().any(|(known, _)| *known == gist) {
            return false;
        }
        if self.0.len() == SAID_MAX {
            self.0.remove(0);
        }
        self.0.push((gist, now));
        true
    }
}

/// A message without its words that contain digits: a price, hash or delay that changes from one try to
/// the next doesn't make it a new message.
fn gist(sentence: &str) -> String {
    let has_digit = |word: &str| word.bytes().any(|byte| byte.is_ascii_digit());
    sentence.split(' ').filter(|word| !has_digit(word)).collect::<Vec<_>>().join(" ")
}

/// Tasks that come and go. Clones share one crew; the tasks end when the last clone is dropped.
#[derive(Clone, Default)]
pub struct Crew {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    tasks: std::sync::Mutex<JoinSet<()>>,
    ended: Notify,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("tasks", &self.len()).finish()
    }
}

impl Crew {
    /// Starts a task. `name` is logged if the task panics.
    pub fn spawn(&self, name: String, work: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::downgrade(&self.shared);
        let task = async move {
            if let Err(err) = run(work).await
                && err.is_panic()
            {
                tracing::error!(task = name, "{name} ended by a defect of this program: {err}");
            }
            if let Some(shared) = shared.upgrade() {
                shared.ended.notify_waiters();
            }
        };
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// How many tasks are still running.
    pub fn len(&self) -> usize {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    /// Whether all tasks have ended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Aborts all tasks without waiting for them to end.
    pub fn abort(&self) {
        self.tasks().abort_all();
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.shared.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const QUICK: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));

    #[tokio::test]
    async fn a_service_that_fails_or_panics_is_started_again_until_it_fails_for_good() {
        let runs = Arc::new(AtomicU32::new(0));
        let mut services = Services::default();
        let counted = Arc::clone(&runs);
        services.spawn("test", QUICK, move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err(Failure::Again("once".into())),
                    1 => panic!("a defect"),
                    _ => Err(Failure::Fatal("the end".into())),
                }
            }
        });
        assert_eq!(services.first_fatal().await.to_string(), "the end");
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn a_sentence_whose_numbers_change_stays_the_same_sentence() {
        assert_eq!(gist("it costs 12 wei, not 7"), gist("it costs 13 wei, not 7"));
        assert_eq!(gist("0xab1 was in no block"), gist("0xcd22 was in no block"));
        assert_ne!(gist("the price is 7"), gist("the account has 7"));
    }

    #[test]
    fn messages_that_take_turns_are_told_once_an_hour_each_however_often_they_come() {
        let (mut said, begin) = (Said::default(), Instant::now());
        let away = "the chain's endpoint does not answer";
        let mut hear = |sentence: &str, at: Duration| said.is_news(sentence, begin + at);
        for minute in 0..600 {
            let at = Duration::from_mins(minute);
            let is_due = minute % 60 == 0;
            assert_eq!(hear(away, at), is_due, "{minute}");
            let more = format!("{away}; left alone for {minute} s more");
            assert_eq!(hear(&more, at), is_due, "{minute}");
        }
    }

    #[tokio::test]
    async fn a_task_that_panics_harms_no_other() {
        let crew = Crew::default();
        let (done, wait) = tokio::sync::oneshot::channel();
        crew.spawn("bad".to_owned(), async { panic!("a defect") });
        crew.spawn("good".to_owned(), async { done.send(()).unwrap() });
        wait.await.unwrap();
    }
}
