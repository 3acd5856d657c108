//! The outbox: takes statuses from the journal in order, publishes them and marks them as sent.
//!
//! With a round trip of 100 ms, one status at a time would be ten per second. So the statuses of
//! many jobs are in flight together, and those that arrived are marked in one commit.
//!
//! Invariants: a status is marked as sent only after the server has it. Statuses of one job are
//! sent in the journal's order, so at most one per job is in flight. A message that is sent twice
//! is the same byte for byte.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::desk::Desk;
use super::effects::Effects;
use crate::clock::Clock;
use crate::ids::JobId;
use crate::journal::Outgoing;
use crate::report::causes;
use crate::supervise::Failure;
use crate::{bus, failpoint};

/// How many statuses are read from the journal at once, and so the most in flight. With a round
/// trip of 100 ms this allows some thousands per second; they take a few megabytes of memory.
const BATCH: u32 = 512;

/// Retry interval while NATS is away: statuses leave soon after it is back.
const AWAY: Duration = Duration::from_millis(250);

/// Publishes statuses as they come. A service: returns only when it fails.
pub async fn run<E: Effects, C: Clock>(desk: Desk<C>, effects: Arc<E>) -> Result<(), Failure> {
    let mut away = false;
    loop {
        // Registered before the look, so that a status between the two is not missed.
        let more = desk.outbox.notified();
        match flush(&desk, effects.as_ref()).await {
            Ok(0) => more.await,
            Ok(_) => away = false,
            Err(Error::Bus(err)) if err.is_transient() => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!("statuses wait in the journal: {}", causes(&err));
                }
                desk.clock.sleep(AWAY).await;
            }
            Err(err) => return Err(Failure::Again(err.into())),
        }
    }
}

/// Publishes the next status of each job that has some, and marks those that arrived. Returns how
/// many were published.
async fn flush<E: Effects, C>(desk: &Desk<C>, effects: &E) -> Result<usize, Error> {
    let waiting = next_of_each(desk.journal.unsent(BATCH).await?);
    let (arrived, failed) = together(&waiting, |status| async move {
        failpoint::hit("say", ".before");
        effects.say(status).await?;
        failpoint::hit("say", ".after");
        Ok(())
    })
    .await;
    // Those that arrived are marked even if others failed.
    if !arrived.is_empty() {
        effects.said().await?;
        desk.journal.sent(arrived).await?;
    }
    failed.map_or(Ok(waiting.len()), |err: bus::Error| Err(err.into()))
}

/// Keeps the first status of each job; the later ones wait until it has arrived.
fn next_of_each(mut waiting: Vec<Outgoing>) -> Vec<Outgoing> {
    let mut seen: HashSet<JobId> = HashSet::with_capacity(waiting.len());
    waiting.retain(|status| seen.insert(status.job_id.clone()));
    waiting
}

/// Sends all of them concurrently. Returns the rows of those that arrived, and the first failure.
async fn together<'a, F, E>(
    statuses: &'a [Outgoing],
    say: impl Fn(&'a Outgoing) -> F,
) -> (Vec<i64>, Option<E>)
where
    F: Future<Output = Result<(), E>>,
{
    let answers = join_all(statuses.iter().map(say)).await;
    let (mut arrived, mut failed) = (Vec::with_capacity(answers.len()), None);
    for (status, answer) in statuses.iter().zip(answers) {
        match answer {
            Ok(()) => arrived.push(status.row),
            Err(err) => failed = failed.or(Some(err)),
        }
    }
    (arrived, failed)
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the outbox can't be read or marked")]
    Journal(#[from] crate::journal::Error),
    #[error("statuses can't be published")]
    Bus(#[from] bus::Error),
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::journal::OutgoingKind;

    fn status(row: i64, job: i64, seq: u64) -> Outgoing {
        let job_id = format!("job-{job}").parse().unwrap();
        Outgoing { row, job_id, seq, body: Vec::new(), kind: OutgoingKind::New }
    }

    /// Two hundred jobs with three statuses each, as if they had been accepted in a row.
    fn backlog() -> Vec<Outgoing> {
        (0..600).map(|i| status(i, i / 3, (i % 3).unsigned_abs() + 1)).collect()
    }

    /// With a round trip of 100 ms ten rounds take a second.
    #[tokio::test]
    async fn hundreds_of_statuses_leave_in_a_few_rounds_and_each_jobs_in_order() {
        let said = Mutex::new(Vec::new());
        let (mut left, mut rounds) = (backlog(), 0);
        while !left.is_empty() {
            rounds += 1;
            let waiting = next_of_each(left[..left.len().min(BATCH as usize)].to_vec());
            let say = |status: &Outgoing| {
                said.lock().unwrap().push((status.job_id.clone(), status.seq));
                std::future::ready(Ok::<(), ()>(()))
            };
            let (arrived, failed) = together(&waiting, say).await;
            assert!(failed.is_none());
            left.retain(|status| !arrived.contains(&status.row));
        }
        assert!(rounds * 500 <= 600 * 10, "600 statuses took {rounds} round trips");
        let said = said.into_inner().unwrap();
        assert_eq!(said.len(), 600);
        for job in 0..200 {
            let id: JobId = format!("job-{job}").parse().unwrap();
            let seqs: Vec<u64> =
                said.iter().filter(|(of, _)| *of == id).map(|(_, seq)| *seq).collect();
            assert_eq!(seqs, [1, 2, 3], "job {job}");
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_told_apart_from_what_has_not() {
        let statuses = [status(1, 1, 1), status(2, 2, 1), status(3, 3, 1)];
        let say = |status: &Outgoing| {
            let answer = if status.row == 2 { Err("no") } else { Ok(()) };
            async move { answer }
        };
        assert_eq!(together(&statuses, say).await, (vec![1, 3], Some("no")));
    }
}
