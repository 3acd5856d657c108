//! Checks whether any present node of the pool could run a job, by the nodes' own entries in the bucket
//! `NODES`.
//!
//! Invariant: this only informs the user and delays nothing. A job that no node could run waits for one.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::body;
use super::report::Report;
use crate::agent::jobs::terms::{OwnersSandbox, Terms};
use crate::bus::{Bus, PoolName};
use crate::container::ImagePolicy;
use crate::job::JobSpec;
use crate::job::spec::parse;
use crate::node::admission::{Verdict, decide};
use crate::node::presence::Presence;

/// Upper bound on the time for reading the entries.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reports it if none of the pool's present nodes could ever run the job. Reports nothing if that can't be
/// found out.
pub(super) async fn tell(
    bus: &Bus,
    pool: &PoolName,
    job: &body::Job,
    report: &Report,
) -> io::Result<()> {
    let Ok(Ok(there)) = tokio::time::timeout(PATIENCE, bus.presences()).await else {
        return Ok(());
    };
    let Ok(parsed) = parse(&job.body) else { return Ok(()) };
    let name = pool.to_string();
    let serve = there.iter().filter(|one| one.pools.contains(&name));
    let serve: Vec<&Presence> = serve.collect();
    if serve.iter().any(|one| fits(one, &parsed.spec)) {
        return Ok(());
    }
    let count = serve.len();
    let text = match count {
        0 => format!("no node of the pool {pool} is there now: the job waits for one"),
        _ => format!(
            "none of the {count} nodes of the pool {pool} that are there fits the job: it waits for \
             one that does"
        ),
    };
    report.event("unfit", &json!({"pool": name, "nodes": count}), &text)
}

/// Whether this node could run the job. Its entry does not say which images it allows, so any image counts.
fn fits(one: &Presence, spec: &JobSpec) -> bool {
    let terms = Terms {
        offer: one.offer(),
        images: ImagePolicy::default(),
        sandbox: OwnersSandbox::default(),
    };
    !matches!(decide(&terms.offer, &[], &[], &terms.demand(spec)), Verdict::Never(_))
}
