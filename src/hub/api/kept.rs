//! Answers that cost much to work out, kept for a while.
//!
//! Must hold: one is worked out at a time; at most [`COUNT_MAX`] are kept, and none for longer than [`KEPT`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::live::Now;
use crate::clock::Timestamp;

/// How long one is kept.
const KEPT: Duration = Duration::from_secs(30);

/// The most that are kept: some 100 KiB each.
const COUNT_MAX: usize = 32;

/// Answers by their questions, with when they were found.
type Answers<K, T> = BTreeMap<K, (Timestamp, Arc<T>)>;

/// Answers by their questions. Clones share them.
#[derive(Debug)]
pub(super) struct Kept<K, T> {
    all: Arc<Mutex<Answers<K, T>>>,
    /// Who holds it works one out.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl<K, T> Clone for Kept<K, T> {
    fn clone(&self) -> Self {
        Self { all: Arc::clone(&self.all), turn: Arc::clone(&self.turn) }
    }
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Self { all: Arc::default(), turn: Arc::default() }
    }
}

impl<K: Ord + Clone, T> Kept<K, T> {
    /// The answer to this question, which `work` finds if none is kept.
    pub(super) async fn get<E>(
        &self,
        key: K,
        now: &Now,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        if let Some(kept) = self.kept(&key, now.get()) {
            return Ok(kept);
        }
        let _turn = self.turn.lock().await;
        // Somebody else may have asked the same.
        if let Some(kept) = self.kept(&key, now.get()) {
            return Ok(kept);
        }
        let answer = Arc::new(work.await?);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= COUNT_MAX {
            let oldest = all.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|key| all.remove(&key));
        }
        all.insert(key, (now.get(), Arc::clone(&answer)));
        Ok(answer)
    }

    fn kept(&self, key: &K, now: Timestamp) -> Option<Arc<T>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes none last longer.
        all.retain(|_, (at, _)| *at <= now && now.since(*at) < KEPT);
        all.get(key).map(|(_, answer)| Arc::clone(answer))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_question_is_worked_out_once_in_half_a_minute_and_one_at_a_time() {
        let (ms, works, at_once) = (AtomicU64::new(1_000), AtomicU64::new(0), AtomicU64::new(0));
        let (ms, works) = (Arc::new(ms), Arc::new(works));
        let clock = Arc::clone(&ms);
        let now = Now::new(move || Timestamp::from_unix_ms(clock.load(Ordering::Relaxed)));
        let kept = Kept::default();
        let ask = async |key: u64| {
            let work = async {
                assert_eq!(at_once.fetch_add(1, Ordering::Relaxed), 0, "one at a time");
                tokio::task::yield_now().await;
                at_once.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, ()>(works.fetch_add(1, Ordering::Relaxed))
            };
            *kept.get(key, &now, work).await.unwrap()
        };
        assert_eq!(tokio::join!(ask(1), ask(1), ask(2)), (0, 0, 1));
        ms.fetch_add(29_999, Ordering::Relaxed);
        assert_eq!(ask(1).await, 0);
        ms.fetch_add(1, Ordering::Relaxed);
        assert_eq!(ask(1).await, 2);
        for key in 0..100 {
            ask(key).await;
        }
        assert!(kept.all.lock().unwrap().len() <= COUNT_MAX);
        ms.store(5, Ordering::Relaxed);
        let before = works.load(Ordering::Relaxed);
        assert_eq!(ask(99).await, before, "the clock was set back");
    }
}
