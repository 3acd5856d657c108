//! A bounded queue between those who tell events and one sink.
//!
//! Must hold: `sent + dropped + queued = pushed` at every moment, where `queued` counts what a sink has in hand;
//! [`Ring::push`] takes a lock that is never held while anything waits or allocates much. A full ring drops its
//! oldest item: what happens now matters more than what nobody has read yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// What became of all items so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All that were pushed.
    pub pushed: u64,
    /// Those that the sink has confirmed.
    pub sent: u64,
    /// Those that were given up.
    pub dropped: u64,
    /// Those that wait, or that the sink has in hand.
    pub queued: u64,
}

/// The queue. See the module.
#[derive(Debug)]
pub struct Ring<T> {
    capacity: usize,
    /// From this many items on a sink is woken at once.
    batch: usize,
    state: Mutex<State<T>>,
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<(u64, T)>,
    /// Since when something waits; `None` while the queue is empty.
    since: Option<Instant>,
    in_hand: u64,
    pushed: u64,
    sent: u64,
    dropped: u64,
    is_urgent: bool,
}

impl<T> Ring<T> {
    /// A ring of `capacity` items, from which a sink takes at most `batch` at a time. Both are at least 1.
    pub fn new(capacity: usize, batch: usize) -> Self {
        let (capacity, batch) = (capacity.max(1), batch.max(1));
        let state = State {
            queue: VecDeque::new(),
            since: None,
            in_hand: 0,
            pushed: 0,
            sent: 0,
            dropped: 0,
            is_urgent: false,
        };
        Self { capacity, batch, state: Mutex::new(state), wake: Notify::new() }
    }

    /// Adds an item; drops the oldest one if there is no room. `urgent`: the sink doesn't wait for more.
    pub fn push(&self, item: T, urgent: bool) {
        let mut state = self.state();
        state.pushed += 1;
        let number = state.pushed;
        // Outside of the lock it may take a while to free.
        let dropped = if state.queue.len() >= self.capacity {
            state.dropped += 1;
            state.queue.pop_front()
        } else {
            None
        };
        state.queue.push_back((number, item));
        if state.queue.len() == 1 {
            state.since = Some(Instant::now());
        }
        state.is_urgent |= urgent;
        let is_news = state.queue.len() == 1 || state.queue.len() == self.batch || urgent;
        drop(state);
        drop(dropped);
        if is_news {
            self.wake.notify_one();
        }
    }

    /// The next batch: as soon as it is full or has something urgent, or `flush` after the first item came.
    /// One sink waits at a time. Cancel-safe: who waits again waits no longer than that.
    pub async fn next(&self, flush: Duration) -> Batch<'_, T> {
        loop {
            let since = self.state().since;
            let Some(since) = since else {
                self.wake.notified().await;
                continue;
            };
            timeout(flush.saturating_sub(since.elapsed()), self.is_due()).await.ok();
            let batch = self.take();
            if !batch.items.is_empty() {
                return batch;
            }
        }
    }

    async fn is_due(&self) {
        loop {
            {
                let state = self.state();
                if state.is_urgent || state.queue.len() >= self.batch {
                    return;
                }
            }
            self.wake.notified().await;
        }
    }

    /// What is there, at most a batch.
    pub fn take(&self) -> Batch<'_, T> {
        let mut state = self.state();
        let count = state.queue.len().min(self.batch);
        let items: Vec<_> = state.queue.drain(..count).collect();
        state.in_hand += items.len() as u64;
        if state.queue.is_empty() {
            (state.since, state.is_urgent) = (None, false);
        }
        Batch { ring: self, items }
    }

    /// Gives up all that waits; returns how much that was.
    pub fn clear(&self) -> u64 {
        let mut state = self.state();
        let queue = std::mem::take(&mut state.queue);
        (state.since, state.is_urgent) = (None, false);
        state.dropped += queue.len() as u64;
        drop(state);
        queue.len() as u64
    }

    /// What became of all items so far.
    pub fn counts(&self) -> Counts {
        let state = self.state();
        let State { pushed, sent, dropped, in_hand, .. } = *state;
        Counts { pushed, sent, dropped, queued: state.queue.len() as u64 + in_hand }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of an item that a sink has in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was sent.
    Sent,
    /// It can never be sent.
    Dropped,
    /// It is to be sent again.
    Again,
}

/// Items that a sink has in hand. What it doesn't confirm goes back to the front of the ring.
#[derive(Debug)]
pub struct Batch<'r, T> {
    ring: &'r Ring<T>,
    items: Vec<(u64, T)>,
}

impl<T> Batch<'_, T> {
    /// The items with their numbers, which count up from 1 for as long as the ring lives.
    pub fn items(&self) -> &[(u64, T)] {
        &self.items
    }

    /// One of them, counted round; the others go back to the ring.
    #[must_use]
    pub fn one(mut self, at: usize) -> Self {
        let count = self.items.len().max(1);
        let one = self.items.drain(..).enumerate();
        let (one, rest): (Vec<_>, Vec<_>) = one.partition(|(index, _)| *index == at % count);
        let of = |items: Vec<(usize, (u64, T))>| items.into_iter().map(|(_, item)| item).collect();
        drop(Self { ring: self.ring, items: of(rest) });
        Self { ring: self.ring, items: of(one) }
    }

    /// Settles each of them in turn. Those that come again, or for which nothing is said, go back to the ring.
    pub fn settle(mut self, fates: &[Fate]) {
        let mut fates = fates.iter();
        let (mut sent, mut dropped) = (0, 0);
        self.items.retain(|_| match fates.next() {
            Some(Fate::Sent) => {
                sent += 1;
                false
            }
            Some(Fate::Dropped) => {
                dropped += 1;
                false
            }
            Some(Fate::Again) | None => true,
        });
        let mut state = self.ring.state();
        state.in_hand -= sent + dropped;
        state.sent += sent;
        state.dropped += dropped;
    }

    /// Confirms that all of them were sent.
    pub fn sent(mut self) {
        let count = self.items.len() as u64;
        self.items.clear();
        let mut state = self.ring.state();
        state.in_hand -= count;
        state.sent += count;
    }

    /// Gives all of them up.
    pub fn dropped(mut self) {
        let count = self.items.len() as u64;
        self.items.clear();
        let mut state = self.ring.state();
        state.in_hand -= count;
        state.dropped += count;
    }
}

impl<T> Drop for Batch<'_, T> {
    fn drop(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let mut state = self.ring.state();
        state.in_hand -= self.items.len() as u64;
        // The oldest of them go first where the ring has filled up meanwhile.
        while let Some(item) = self.items.pop() {
            if state.queue.len() >= self.ring.capacity {
                state.dropped += 1 + self.items.len() as u64;
                self.items.clear();
            } else {
                state.queue.push_front(item);
            }
        }
        state.since.get_or_insert_with(Instant::now);
        let numbers = state.queue.iter().map(|(number, _)| number);
        if !numbers.is_sorted() {
            state.queue.make_contiguous().sort_unstable_by_key(|(number, _)| *number);
        }
        drop(state);
        self.ring.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn is_exact(counts: Counts) -> bool {
        counts.sent + counts.dropped + counts.queued == counts.pushed
    }

    #[test]
    fn a_full_ring_drops_the_oldest_and_counts_it() {
        let ring = Ring::new(3, 2);
        (1..=5).for_each(|item| ring.push(item, false));
        let batch = ring.take();
        assert_eq!(batch.items(), [(3, 3), (4, 4)]);
        batch.sent();
        let counts = Counts { pushed: 5, sent: 2, dropped: 2, queued: 1 };
        assert_eq!(ring.counts(), counts);
    }

    #[test]
    fn what_a_sink_could_not_send_comes_again_first() {
        let ring = Ring::new(10, 2);
        (1..=4).for_each(|item| ring.push(item, false));
        drop(ring.take());
        assert_eq!(ring.take().items(), [(1, 1), (2, 2)]);
        assert!(is_exact(ring.counts()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_comes_when_it_is_full_urgent_or_old_enough() {
        let flush = Duration::from_secs(1);
        let ring = Arc::new(Ring::new(100, 10));
        ring.push(1, false);
        let begun = Instant::now();
        ring.next(flush).await.sent();
        assert_eq!(begun.elapsed(), flush, "a trickle waits no longer than this");
        let begun = Instant::now();
        (0..10).for_each(|item| ring.push(item, false));
        ring.next(flush).await.sent();
        ring.push(2, true);
        ring.next(flush).await.sent();
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_does_other_things_meanwhile_gets_its_batch_in_time() {
        let (flush, tick) = (Duration::from_secs(12), Duration::from_secs(5));
        let ring = Ring::new(100, 10);
        let begun = Instant::now();
        ring.push(1, false);
        // Each turn waits anew, as a loop over several things does.
        let batch = loop {
            if let Ok(batch) = timeout(tick, ring.next(flush)).await {
                break batch;
            }
            assert!(begun.elapsed() < 2 * flush, "it never comes");
        };
        assert_eq!((batch.items(), begun.elapsed()), (&[(1, 1)][..], flush));
    }

    #[test]
    fn each_item_of_a_batch_has_its_own_fate_and_what_comes_again_keeps_its_place() {
        let ring = Ring::new(10, 5);
        (1..=6).for_each(|item| ring.push(item, false));
        ring.take().settle(&[Fate::Sent, Fate::Again, Fate::Dropped, Fate::Sent]);
        let counts = Counts { pushed: 6, sent: 2, dropped: 1, queued: 3 };
        assert_eq!(ring.counts(), counts);
        let probe = ring.take().one(4);
        assert_eq!(probe.items(), [(5, 5)]);
        probe.settle(&[Fate::Again]);
        assert_eq!(ring.take().items(), [(2, 2), (5, 5), (6, 6)]);
    }

    #[test]
    fn whatever_goes_on_at_once_the_count_is_exact() {
        const PUSHERS: u64 = 4;
        const EACH: u64 = 20_000;
        let (ring, is_over) = (Ring::new(64, 16), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let pushers: Vec<_> = (0..PUSHERS)
                .map(|_| scope.spawn(|| (0..EACH).for_each(|item| ring.push(item, false))))
                .collect();
            scope.spawn(|| {
                let mut round = 0_u64;
                while !is_over.load(Ordering::Acquire) {
                    round += 1;
                    assert!(is_exact(ring.counts()));
                    let batch = ring.take();
                    match round % 3 {
                        0 => drop(batch),
                        1 => batch.dropped(),
                        _ => batch.sent(),
                    }
                }
            });
            for pusher in pushers {
                pusher.join().unwrap();
            }
            is_over.store(true, Ordering::Release);
        });
        let counts = ring.counts();
        assert!(is_exact(counts) && counts.pushed == PUSHERS * EACH, "{counts:?}");
        assert!(counts.queued <= 64, "{counts:?}");
    }

    proptest! {
        #[test]
        fn whatever_happens_in_turn_the_count_is_exact_and_the_ring_is_bounded(
            capacity in 1_usize..20,
            batch in 1_usize..20,
            steps in proptest::collection::vec(0_u8..6, 0..200),
        ) {
            let ring = Ring::new(capacity, batch);
            let mut held = Vec::new();
            for step in steps {
                match step {
                    0..=2 => ring.push(step, false),
                    3 => held.push(ring.take()),
                    4 => if let Some(batch) = held.pop() { batch.sent() },
                    _ => drop(held.pop()),
                }
                let counts = ring.counts();
                prop_assert!(is_exact(counts), "{:?}", counts);
                let in_hand = held.iter().map(|batch| batch.items().len() as u64).sum::<u64>();
                prop_assert!(counts.queued - in_hand <= capacity as u64);
            }
        }
    }
}
