//! Starts a program again that is down or stuck, if its owner wants that: by asking systemd or the container engine.
//!
//! Invariants: off unless it is set; never more often than its budget, whatever is killed; never while the swarm
//! stands still; a restart is written down before it is asked for.

use std::sync::Arc;
use std::time::Duration;

use super::probe::Programs;
use super::program::Program;
use super::settings::{Restart, RestartBy};
use super::store::{Error, Store};
use super::watcher::Verdicts;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::container::docker;
use crate::fleet::rule::Trouble;
use crate::host::service;
use crate::supervise::Failure;
use crate::watch::verdict::Verdict;

/// How often it is looked whether a program must be started again.
const EVERY: Duration = Duration::from_secs(5);

/// The span of the budget.
const DAY: Duration = Duration::from_hours(24);

const REMEDY: &str = "look at the disk under SIDECAR_DB; until then nothing is started again";

/// Starts programs again. One service.
#[derive(Debug, Clone)]
pub struct Restarter {
    store: Store,
    programs: Programs,
    verdicts: Verdicts,
}

impl Restarter {
    /// For these programs.
    pub const fn new(store: Store, programs: Programs, verdicts: Verdicts) -> Self {
        Self { store, programs, verdicts }
    }

    /// Looks until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let clock = SystemClock;
        // When the trouble was first seen, by a clock that never jumps, and in which watch.
        let mut bad: Vec<Option<(Duration, Option<Timestamp>)>> = vec![None; self.programs.len()];
        loop {
            for (program, since) in self.programs.iter().zip(&mut bad) {
                let Some(restart) = &program.watching.restart else { continue };
                let now = clock.now();
                let verdict = self.verdicts.of(program.name());
                let Some(verdict) = verdict.filter(|it| is_bad(it)) else {
                    *since = None;
                    continue;
                };
                let (ticks, watching) = (clock.monotonic(), program.look().state.watching);
                // A watch that began anew knows nothing of before.
                let first = since.filter(|(_, of)| *of == watching).unwrap_or((ticks, watching));
                *since = Some(first);
                if ticks.saturating_sub(first.0) >= restart.after {
                    let done = self.restart(program, restart, &verdict, now).await;
                    done.map_err(|err| Failure::again(err, REMEDY))?;
                    // What was started again has as long to come back.
                    *since = None;
                }
            }
            clock.sleep(EVERY).await;
        }
    }

    async fn restart(
        &self,
        program: &Arc<Program>,
        restart: &Restart,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), Error> {
        let name = program.name();
        let day = u64::try_from(DAY.as_millis()).unwrap_or(u64::MAX);
        let since = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(day));
        let (count, _) = self.store.restarts(name, since).await?;
        if count >= restart.a_day {
            tracing::warn!("{name} is not started again: it was {count} times within a day");
            return Ok(());
        }
        let id = self.store.restarting(name, &verdict.says, now).await?;
        tracing::warn!("{name} is started again: {}", verdict.says);
        let asked = match &restart.by {
            RestartBy::Unit(unit) => service::restart(unit).await,
            RestartBy::Container(container) => docker::restart(container).await,
        };
        let outcome = match asked {
            Ok(()) => "asked".to_owned(),
            Err(why) => {
                tracing::warn!("{name} could not be started again: {why}");
                why
            }
        };
        self.store.restarted(id, &outcome).await
    }
}

/// Whether a restart may help.
fn is_bad(verdict: &Verdict) -> bool {
    let is = |trouble| verdict.troubles.contains(&trouble);
    !is(Trouble::SwarmDown) && (is(Trouble::Down) || is(Trouble::Stuck))
}
