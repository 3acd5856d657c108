//! Has the journal pack and forget old rows.
//!
//! Invariant: the journal is worked through a few rows at a time, with a pause after each step, so
//! that no job waits behind it.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::journal::{Error, Forgotten, Journal};
use crate::supervise::Failure;

/// How long finished jobs are remembered: longer than any queue keeps a message.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// The number of refusals remembered: strangers can cause them for nothing.
const REFUSALS_MAX: u32 = 10_000;

/// How long transactions are remembered; those that hold receipts are kept.
const BEATS_REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// How long receipts are kept, and `receipt proof` works for them. Whoever needs a proof for longer
/// keeps the proof.
const RECEIPTS_REMEMBERED: Duration = Duration::from_hours(400 * 24);

/// Time between two rounds of forgetting.
const EVERY: Duration = Duration::from_hours(1);

/// Time between two searches for jobs to pack.
const PACKED_EVERY: Duration = Duration::from_secs(5);

/// Pause between two steps, for others that wait for the journal.
const PAUSE: Duration = Duration::from_millis(5);

/// Packs jobs and refusals that need no more work; a service that ends only when it fails.
pub(super) async fn pack<C: Clock>(journal: Journal, clock: C) -> Result<(), Failure> {
    loop {
        let packed = journal.pack().await.map_err(|err| Failure::Again(err.into()))?;
        clock.sleep(if packed > 0 { PAUSE } else { PACKED_EVERY }).await;
    }
}

/// Forgets rows that have been done for long; a service that ends only when it fails.
pub(super) async fn forget<C: Clock>(journal: Journal, clock: C) -> Result<(), Failure> {
    loop {
        let gone =
            look_through(&journal, &clock).await.map_err(|err| Failure::Again(err.into()))?;
        let [jobs, refusals, receipts, beats] = gone;
        tracing::debug!(
            jobs,
            refusals,
            receipts,
            beats,
            "forgot {jobs} jobs, {refusals} refusals, {receipts} receipts and {beats} transactions"
        );
        clock.sleep(EVERY).await;
    }
}

/// One round through the journal; returns how many jobs, refusals, receipts and transactions went.
async fn look_through<C: Clock>(journal: &Journal, clock: &C) -> Result<[usize; 4], Error> {
    let now: Timestamp = clock.now();
    let done = steps(clock, |_| journal.forget_done(now, REMEMBERED)).await?;
    let waiting = steps(clock, |at| journal.forget_waiting(now, REMEMBERED, at)).await?;
    let refusals = steps(clock, |_| journal.forget_refusals(REFUSALS_MAX)).await?;
    let receipts = steps(clock, |_| journal.forget_receipts(now, RECEIPTS_REMEMBERED)).await?;
    let beats = steps(clock, |at| journal.forget_transactions(now, BEATS_REMEMBERED, at)).await?;
    Ok([done + waiting, refusals, receipts, beats])
}

/// Repeats `step` until nothing is left to forget; returns the number of rows that went.
async fn steps<C: Clock, F>(clock: &C, step: impl Fn(i64) -> F) -> Result<usize, Error>
where
    F: Future<Output = Result<Forgotten, Error>>,
{
    let (mut rows, mut next) = (0, Some(0));
    while let Some(at) = next {
        let forgotten = step(at).await?;
        (rows, next) = (rows + forgotten.rows, forgotten.next);
        if next.is_some() {
            clock.sleep(PAUSE).await;
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[tokio::test]
    async fn one_look_forgets_the_receipts_of_all_roots_and_those_under_none() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path()).unwrap();
        // Twelve roots an hour have a few leaves each.
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 24)
             INSERT INTO transactions
                 (id, chain_id, account, contract, nonce, call, state, reserved_ms, settled_ms)
             SELECT i, 204, 'a', 'c', i, '{}', 'settled', 1, i FROM n;
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 369)
             INSERT INTO receipts (digest, job_id, chain_id, contract, finished_ms, completed,
                 document, transaction_id)
             SELECT i, i, 204, 'c', i, 1, '', CASE WHEN i < 240 THEN i / 10 + 1 END FROM n;";
        journal.carry_out(rows).await.unwrap();
        let gone = look_through(&journal, &SystemClock).await.unwrap();
        assert_eq!(gone, [0, 0, 370, 24]);
    }
}
