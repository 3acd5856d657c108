//! What is kept of what jobs used: how much, for how long, and what waits to be published.

use std::time::Duration;

use super::{MONTH, asked, at, id, live, pack_all, say_all};
use crate::clock::Timestamp;
use crate::ids::Hash;
use crate::journal::tests::Key;
use crate::journal::{Journal, Reader};
use crate::usage::rollup::Rollups;
use crate::usage::watch::{Attempt, SoFar};
use crate::usage::{Metric, Readings, Sample, Totals, Unknown};

fn attempt(job: &str) -> Attempt {
    Attempt { job: id(job), number: 1 }
}

/// The sums up to batch `number`, which has this number of samples a batch.
fn so_far(number: u32) -> SoFar {
    let (mut totals, mut rollups) = (Totals::default(), Rollups::default());
    for second in 0..=u64::from(number) {
        let mut job = Readings::unknown(Unknown::NotSupported);
        job[Metric::Cpu] = Ok(second * 1_000);
        let (at, since_start) = (at(second * 1_000), Duration::from_secs(second));
        let sample = Sample { at, since_start, job, cards: Vec::new() };
        totals.fold(&sample);
        rollups.fold(&sample);
    }
    SoFar { number, head: Hash([u8::try_from(number % 250).unwrap(); 32]), totals, rollups }
}

async fn keep(journal: &Journal, job: &str, numbers: std::ops::Range<u32>, keep: u32) {
    for number in numbers {
        let body = number.to_be_bytes().to_vec();
        journal.keep_usage(&attempt(job), so_far(number), body, true, keep).await.unwrap();
    }
}

async fn publish_all(journal: &Journal) -> Vec<u32> {
    let mut numbers = Vec::new();
    loop {
        let waiting = journal.waiting_usage().await.unwrap();
        if waiting.is_empty() {
            return numbers;
        }
        for batch in waiting {
            numbers.push(batch.number);
            journal.usage_published(batch.id).await.unwrap();
        }
    }
}

fn kept(dir: &std::path::Path, job: &str) -> Vec<u32> {
    let kept = Reader::open(dir).unwrap().usage(&id(job)).unwrap();
    let bodies = kept.map(|kept| kept.batches).unwrap_or_default();
    bodies.into_iter().map(|body| u32::from_be_bytes(body.try_into().unwrap())).collect()
}

#[tokio::test]
async fn batches_wait_until_they_are_published_and_then_only_the_newest_stay() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    let (taken, body) = asked("long", "");
    journal.admit(&taken, body, None).await.unwrap();
    keep(&journal, "long", 0..100, 3).await;
    assert_eq!(kept(dir.path(), "long"), (0..100).collect::<Vec<_>>(), "none was published");
    assert_eq!(publish_all(&journal).await, (0..100).collect::<Vec<_>>(), "in order");
    assert_eq!(kept(dir.path(), "long"), [97, 98, 99]);
    // One that is said again, as after a crash, changes nothing.
    keep(&journal, "long", 99..100, 3).await;
    assert!(journal.waiting_usage().await.unwrap().is_empty());
    let found = journal.usage_so_far(&attempt("long")).await.unwrap().unwrap();
    assert_eq!(found, so_far(99), "the next process goes on from here");
}

#[tokio::test]
async fn one_job_does_not_take_the_room_of_others_while_nats_is_away() {
    let journal = Journal::in_memory().unwrap();
    for job in ["greedy", "modest"] {
        let (taken, body) = asked(job, "");
        journal.admit(&taken, body, None).await.unwrap();
    }
    let sums = so_far(0);
    for number in 0..2_100 {
        let sums = SoFar { number, ..sums.clone() };
        journal.keep_usage(&attempt("greedy"), sums, vec![1], true, 1).await.unwrap();
    }
    keep(&journal, "modest", 0..1, 1).await;
    let published = publish_all(&journal).await;
    assert_eq!(published.len(), 2_001, "two thousand of one, and that of the other");
    assert_eq!(published.last(), Some(&0));
}

#[tokio::test]
async fn what_a_job_used_goes_with_the_job_and_of_no_job_is_anything_kept() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path()).unwrap();
    keep(&journal, "unheard-of", 0..1, 5).await;
    assert!(journal.usage_so_far(&attempt("unheard-of")).await.unwrap().is_none());
    live(&journal, "done", "", &Key(1)).await;
    keep(&journal, "done", 0..2, 5).await;
    let mut bucket = Rollups::default();
    let sample = Sample {
        at: at(0),
        since_start: Duration::ZERO,
        job: Readings::unknown(Unknown::Gone),
        cards: Vec::new(),
    };
    bucket.fold(&sample);
    let bucket = bucket.finish().remove(0);
    journal.keep_rollup(&attempt("done"), bucket.clone()).await.unwrap();
    let usage = Reader::open(dir.path()).unwrap().usage(&id("done")).unwrap().unwrap();
    assert_eq!((usage.attempt, usage.batches.len(), usage.rollups), (1, 2, vec![bucket]));
    say_all(&journal).await;
    pack_all(&journal).await;
    let later = Timestamp::from_unix_ms(at(0).unix_ms()).plus(MONTH * 3);
    journal.forget_done(later, MONTH).await.unwrap();
    assert!(journal.usage_so_far(&attempt("done")).await.unwrap().is_none());
    assert!(journal.waiting_usage().await.unwrap().is_empty());
    assert!(Reader::open(dir.path()).unwrap().usage(&id("done")).unwrap().is_none());
}
