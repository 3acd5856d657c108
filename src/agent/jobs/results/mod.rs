//! Outputs that could not be published in time: published when the node's owner asks for that, and
//! removed when their time is up.
//!
//! Invariants: a kept output is removed only after its publication was announced, or when its time
//! is up, which a single clock reading can't decide. Its announcement is the same byte for byte
//! however often it is sent. No container is touched, and no folder of another job with this id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::desk::Desk;
use super::effects::Effects;
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::ids::JobId;
use crate::job::phase::{Event, Kept, Phase};
use crate::job::plan::Step;
use crate::job::{Job, LateResult};
use crate::report::causes;
use crate::supervise::Failure;
use crate::{bus, journal};

/// Interval between two checks for outputs whose time is up.
const LOOK: Duration = Duration::from_hours(1);
/// Backoff between attempts to publish.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));

/// Why a kept output is not published yet.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the journal can't be used")]
    Journal(#[from] journal::Error),
    #[error("it can't be told")]
    Bus(#[from] bus::Error),
    #[error("its folder can't be removed")]
    Folder(#[from] std::io::Error),
    #[error("{0}")]
    Step(String),
}

/// Publishes the outputs that were asked for, and removes those whose time is up. A service:
/// returns only when it fails. `asked` is notified when the owner asks for one.
pub async fn run<E: Effects, C: Clock>(
    desk: Desk<C>,
    effects: Arc<E>,
    asked: Arc<Notify>,
) -> Result<(), Failure> {
    let failed = |err: Error| Failure::Again(err.into());
    let mut failures = 0;
    let mut overdue = Overdue::default();
    // With `result_keep` of zero there is no time that a wrong clock could cut short.
    let patience = LOOK.min(desk.rules.result_keep);
    loop {
        // Registered before the look, so that a request between the two is not missed.
        let more = asked.notified();
        let journal = &desk.journal;
        let long_enough = journal.kept_long_enough(desk.clock.now()).await;
        let long_enough = long_enough.map_err(|err| failed(err.into()))?;
        for id in overdue.for_long(long_enough, desk.clock.monotonic(), patience) {
            if let Err(err) = drop_kept(&id, &desk, effects.as_ref()).await {
                tracing::warn!(job.id = %id, "the kept output of job {id} stays: {}", causes(&err));
            }
        }
        let mut left = 0;
        let wanted = journal.asked_for().await.map_err(|err| failed(err.into()))?;
        for id in wanted {
            if let Err(err) = publish(&id, &desk, effects.as_ref()).await {
                tracing::warn!(job.id = %id, "the kept output of job {id}: {}", causes(&err));
                left += 1;
            }
        }
        failures = if left == 0 { 0 } else { failures + 1 };
        let wait = if left == 0 { LOOK } else { AGAIN.jittered(failures) };
        tokio::select! {
            biased;
            () = more => failures = 0,
            () = desk.clock.sleep(wait) => {}
        }
    }
}

/// Publishes one kept output, announces it, and removes it.
async fn publish<E: Effects, C: Clock>(
    id: &JobId,
    desk: &Desk<C>,
    effects: &E,
) -> Result<(), Error> {
    let Some(found) = desk.journal.kept(id).await? else { return Ok(()) };
    let result = if let Some(result) = found.result {
        result
    } else {
        let result = upload(&found.kept, desk, effects).await?;
        desk.journal.late_result(id, &result).await?;
        result
    };
    effects.say_late(&result).await?;
    desk.journal.late_result_said(id).await?;
    let cid = &result.output_cid;
    tracing::info!(job.id = %id, "the output of job {id} is published after all: {cid}");
    // If the folder stays, the next start or the expiry removes it.
    if let Err(err) = remove(&found.kept, desk, effects).await {
        tracing::warn!(job.id = %id, "the folder of job {id} stays: {}", causes(&err));
    }
    Ok(())
}

/// Uploads the output, and signs a receipt for it.
async fn upload<E: Effects, C: Clock>(
    kept: &Kept,
    desk: &Desk<C>,
    effects: &E,
) -> Result<LateResult, Error> {
    let at = |phase| Job { phase, ..kept.job.as_ref().clone() };
    let ended = kept.ended.clone();
    let mut event = effects
        .perform(&at(Phase::Collected { ended: ended.clone(), log: None }), Step::Publish)
        .await;
    if let Event::LogPublished { log } = event {
        // Only the log was uploaded: try again, to learn what is wrong with the output.
        event =
            effects.perform(&at(Phase::Collected { ended, log: Some(log) }), Step::Publish).await;
    }
    let (output, log) = match event {
        Event::Published { output: Some(output), log } => (output, log),
        other => return Err(unexpected(other)),
    };
    let ended = kept.ended.clone();
    let published = at(Phase::Published { ended, output: Some(output), log });
    let receipt = match effects.perform(&published, Step::Attest).await {
        Event::Attested { receipt, .. } => receipt,
        other => return Err(unexpected(other)),
    };
    Ok(LateResult {
        agent_address: kept.job.node,
        job_id: kept.job.id().clone(),
        attempt: kept.job.attempt,
        output_cid: output,
        log_cid: log,
        timestamp: desk.clock.now(),
        receipt,
    })
}

/// Removes what is left of a job's folder, unless another job with the same id is open.
async fn remove<E: Effects, C: Clock>(
    kept: &Kept,
    desk: &Desk<C>,
    effects: &E,
) -> Result<(), Error> {
    let known = desk.journal.lookup(kept.job.id()).await?;
    if known.is_some_and(|known| known.open) {
        return Ok(());
    }
    Ok(effects.remove_folder(&kept.job).await?)
}

async fn drop_kept<E: Effects, C: Clock>(
    id: &JobId,
    desk: &Desk<C>,
    effects: &E,
) -> Result<(), Error> {
    if let Some(found) = desk.journal.kept(id).await? {
        if !found.said {
            tracing::warn!(job.id = %id, "the output of job {id} was kept long enough: it goes");
        }
        remove(&found.kept, desk, effects).await?;
    }
    Ok(desk.journal.forget_kept(id).await?)
}

/// Outputs whose time is up by the host's clock, with the monotonic time when that was first seen.
#[derive(Debug, Default)]
struct Overdue(BTreeMap<JobId, Duration>);

impl Overdue {
    /// Returns those of `ids` that have been overdue for at least `patience`: a clock that was
    /// weeks ahead is likely corrected by then.
    fn for_long(&mut self, ids: Vec<JobId>, now: Duration, patience: Duration) -> Vec<JobId> {
        self.0.retain(|id, _| ids.contains(id));
        let mut is_old = |id: &JobId| {
            let since = *self.0.entry(id.clone()).or_insert(now);
            now.saturating_sub(since) >= patience
        };
        ids.into_iter().filter(|id| is_old(id)).collect()
    }
}

fn unexpected(event: Event) -> Error {
    match event {
        Event::Failed { fault, .. } => Error::Step(fault.error),
        other => Error::Step(format!("the step answered {}", other.name())),
    }
}

#[cfg(test)]
mod tests;
