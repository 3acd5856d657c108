//! Compares the jobs that wait for redelivery with the queue: a message that was purged, expired or
//! was lost with its stream never comes.
//!
//! Invariant: a job whose status says that it will run again has an owner: the queue, an agent with
//! its claim, or this node, which resumes it.

use std::sync::Arc;
use std::time::Duration;

use super::effects::Effects;
use super::hand::Jobs;
use crate::clock::Clock;
use crate::job::Job;
use crate::job::phase::Phase;
use crate::report::causes;
use crate::supervise::Failure;

/// Pause between two rounds.
const EVERY: Duration = Duration::from_mins(1);

/// How many jobs are looked for in one round: each may require a scan of the whole queue.
const JOBS_MAX: usize = 32;

/// Looks for the messages of waiting jobs. A service: returns only when it fails.
pub async fn run<E: Effects, C: Clock + Clone>(jobs: Arc<Jobs<E, C>>) -> Result<(), Failure> {
    let mut skip = 0;
    loop {
        let open = jobs.desk.journal.open_jobs().await;
        let open = open.map_err(|err| Failure::Again(err.into()))?;
        let waits = |job: &Job| job.phase == Phase::Waiting;
        let waiting: Vec<Job> = open.into_iter().filter(waits).collect();
        // If there are more than `JOBS_MAX`, the next round continues behind these.
        skip = if skip >= waiting.len() { 0 } else { skip };
        for job in waiting.iter().skip(skip).take(JOBS_MAX) {
            if let Err(err) = jobs.own(job).await {
                let id = job.id();
                tracing::debug!(job.id = %id, "job {id} was not looked for: {}", causes(&err));
            }
        }
        skip += JOBS_MAX;
        jobs.desk.clock.sleep(EVERY).await;
    }
}
