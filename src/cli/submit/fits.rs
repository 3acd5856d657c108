//! Whether a node of the pool is there that a job fits, by the nodes' own word in the bucket `NODES`.
//!
//! What must hold: it is a word to whoever asks, and holds nothing up: a job that fits nobody now waits
//! for who comes.

use std::io;
use std::time::Duration;

use serde_json::json;

use super::body;
use super::report::Report;
use crate::agent::jobs::terms::Terms;
use crate::bus::{Bus, PoolName};
use crate::container::ImagePolicy;
use crate::job::JobSpec;
use crate::job::spec::parse;
use crate::node::admission::{Verdict, decide};
use crate::node::presence::Presence;

/// Who is there is said in this time, or not at all.
const PATIENCE: Duration = Duration::from_secs(3);

/// Says where none of the pool's nodes that are there could ever run the job. Where nobody can tell,
/// nothing is said.
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

/// Which images it allows, it does not say.
fn fits(one: &Presence, spec: &JobSpec) -> bool {
    let terms = Terms { offer: one.offer(), images: ImagePolicy::default() };
    !matches!(decide(&terms.offer, &[], &[], &terms.demand(spec)), Verdict::Never(_))
}
