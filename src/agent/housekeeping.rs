//! What is looked at beside the jobs: whether the store can be reached, and what the journal may
//! forget.

use std::time::Duration;

use crate::artifact::{Gateways, Pinata};
use crate::clock::Clock;
use crate::journal::Journal;
use crate::supervise::Failure;

/// Jobs that are done are remembered for this long: longer than any queue keeps a message.
const REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// Refusals that are remembered: strangers can make them for nothing.
const REFUSALS_MAX: u32 = 10_000;

/// Plain heartbeats are remembered for this long; what holds receipts is kept.
const BEATS_REMEMBERED: Duration = Duration::from_hours(30 * 24);

/// How often the journal is looked through.
const EVERY: Duration = Duration::from_hours(1);

/// Asks the pinning service and the gateways once, so that a wrong key shows before the first job
/// has run for nothing. Ends when both have answered.
pub async fn check_store(pinata: Pinata, gateways: Gateways) -> Result<(), Failure> {
    pinata.check().await.map_err(|err| {
        Failure::again(err, "PINATA_JWT and PINATA_API_URL; results wait on disk meanwhile")
    })?;
    gateways
        .check()
        .await
        .map_err(|err| Failure::again(err, "IPFS_GATEWAYS; jobs with an input fail meanwhile"))?;
    tracing::debug!("the pinning service and a gateway answer");
    Ok(())
}

/// Forgets what is long done; a service that ends only when it fails.
pub async fn forget<C: Clock>(journal: Journal, clock: C) -> Result<(), Failure> {
    loop {
        let failed = |err: crate::journal::Error| Failure::Again(err.into());
        let jobs = journal.prune(clock.now(), REMEMBERED).await.map_err(failed)?;
        let refusals = journal.prune_refusals(REFUSALS_MAX).await.map_err(failed)?;
        let beats =
            journal.prune_transactions(clock.now(), BEATS_REMEMBERED).await.map_err(failed)?;
        tracing::debug!(
            jobs,
            refusals,
            beats,
            "forgot {jobs} jobs, {refusals} refusals and {beats} transactions"
        );
        clock.sleep(EVERY).await;
    }
}
