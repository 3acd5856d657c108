//! The orderly end of a process: what its owner asked for, and the checks that it ends in that way.
//!
//! The process runs the shipped `agent::jobs::shutdown`. A planted defect passes it another wish than the owner's.

use std::collections::BTreeSet;
use std::time::Duration;

use lamda_node::agent::jobs::board::Board;
use lamda_node::agent::jobs::shutdown::Graces;
use lamda_node::ids::JobId;
use lamda_node::job::phase::{Phase, StopCause};

use super::plant::Plant;
use super::world::{Doing, World};

/// What an owner asked of a running process.
#[derive(Debug, Clone)]
pub(crate) struct Leaving {
    /// Which life of the host's process was asked.
    life: u64,
    asked_ms: u64,
    keep_jobs: bool,
    grace: Duration,
    /// The jobs whose containers had been started by then.
    running: BTreeSet<JobId>,
}

/// Notes what the owner asked for, and returns what the process is told.
pub(crate) fn ask(world: &World, (host, life): (usize, u64), board: &Board) -> Graces {
    let asked = Graces {
        keep_jobs: world.roll(4) == 0,
        shutdown: Duration::from_millis(world.roll(20_000)),
        stop: Duration::from_secs(10),
    };
    let leaving = Leaving {
        life,
        asked_ms: world.time.ms(),
        keep_jobs: asked.keep_jobs,
        grace: asked.shutdown,
        running: board.ids(Some(true)).into_iter().collect(),
    };
    world.state().hosts[host].leaving = Some(leaving);
    if world.has(Plant::StopsWithoutGrace) {
        return Graces { shutdown: Duration::ZERO, ..asked };
    }
    if world.has(Plant::LeavesWhatRuns) {
        return Graces { keep_jobs: true, ..asked };
    }
    asked
}

/// Before the process stops a container: if that is for its own end, the job had its grace period.
pub(crate) fn may_stop(world: &World, (host, life): (usize, u64), id: &JobId, phase: &Phase) {
    if !matches!(phase, Phase::Stopping { cause: StopCause::Shutdown, .. }) {
        return;
    }
    let ms = world.time.ms();
    let leaving = world.state().hosts[host].leaving.clone();
    let Some(leaving) = leaving.filter(|leaving| leaving.life == life) else { return };
    let until_ms = leaving.asked_ms + u64::try_from(leaving.grace.as_millis()).unwrap_or(u64::MAX);
    if leaving.keep_jobs {
        world.broken(format!("{id} is stopped though the owner keeps it running"));
    } else if ms < until_ms && leaving.running.contains(id) {
        world.broken(format!("{id} is stopped {} ms before its grace is over", until_ms - ms));
    }
}

/// After an orderly end: no container of the jobs that were to be given back goes on.
pub(crate) fn has_ended(world: &World, (host, life): (usize, u64)) {
    let state = world.state();
    let one = &state.hosts[host];
    let Some(leaving) = one.leaving.as_ref().filter(|leaving| leaving.life == life) else { return };
    let was_hindered = one.hindered_until_ms > leaving.asked_ms
        || one.journal_slow_until_ms > leaving.asked_ms
        || one.engine_away_until_ms > leaving.asked_ms;
    if leaving.keep_jobs || was_hindered || one.life != Some(life) {
        return;
    }
    let goes_on = one
        .containers
        .values()
        .find(|it| leaving.running.contains(&it.job) && matches!(it.state, Doing::Running { .. }));
    let broken = goes_on.map(|it| format!("{} goes on after an orderly end", it.job));
    drop(state);
    if let Some(broken) = broken {
        world.broken(broken);
    }
}
