//! Jobs that wait to be delivered again, set against the queue: a message that was purged, grew
//! too old, or went with its stream never comes.
//!
//! What must hold: a job that said that it will run again has an owner: the queue, an agent with its
//! claim, or this node, which takes it up.

use std::sync::Arc;
use std::time::Duration;

use super::effects::Effects;
use super::intake::Intake;
use crate::clock::Clock;
use crate::job::Job;
use crate::job::phase::Phase;
use crate::report::causes;
use crate::supervise::Failure;

/// Between two rounds.
const EVERY: Duration = Duration::from_mins(1);

/// Jobs that are looked for in one round: each may have the queue read from one end to the other.
const JOBS_MAX: usize = 32;

/// Looks for the messages of the jobs that wait; a service that ends only when it fails.
pub async fn run<E: Effects, C: Clock + Clone>(intake: Arc<Intake<E, C>>) -> Result<(), Failure> {
    let mut skip = 0;
    loop {
        let jobs = intake.desk.journal.open_jobs().await;
        let jobs = jobs.map_err(|err| Failure::Again(err.into()))?;
        let waits = |job: &Job| job.phase == Phase::Waiting;
        let waiting: Vec<Job> = jobs.into_iter().filter(waits).collect();
        // Where there are more, the next round goes on behind these.
        skip = if skip >= waiting.len() { 0 } else { skip };
        for job in waiting.iter().skip(skip).take(JOBS_MAX) {
            if let Err(err) = intake.own(job).await {
                let id = job.id();
                tracing::debug!(job.id = %id, "job {id} was not looked for: {}", causes(&err));
            }
        }
        skip += JOBS_MAX;
        intake.desk.clock.sleep(EVERY).await;
    }
}
