//! Lookups that change nothing: which jobs are in hand, and how each stands.

use std::collections::BTreeMap;

use super::{AckHandle, Address, Board, Entry, Job, JobId, Process, disk_bytes};

/// A job whose container runs, as the watch over the disk needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The job's id.
    pub id: JobId,
    /// Its present attempt.
    pub attempt: u32,
    /// The engine's id of its container.
    pub container: String,
    /// Its disk limit in bytes, for its inputs and all that it writes together.
    pub disk_bytes: u64,
}

impl Running {
    /// The job's present attempt, in this container.
    pub fn of(job: &Job, container: &str) -> Self {
        Self {
            id: job.id().clone(),
            attempt: job.attempt,
            container: container.to_owned(),
            disk_bytes: disk_bytes(&job.spec),
        }
    }
}

impl Board {
    /// The ids of the jobs in hand; with `started` only those that still need a slot and whose
    /// container was started (`true`) or was not (`false`).
    pub fn ids(&self, started: Option<bool>) -> Vec<JobId> {
        let state = self.seen();
        let wanted = |entry: &Entry| {
            started.is_none_or(|started| entry.wants_slot && entry.started == started)
        };
        let chosen = state.entries.iter().filter(|(_, entry)| wanted(entry));
        chosen.map(|(id, _)| id.clone()).collect()
    }

    /// The number of jobs in hand, by phase name.
    pub fn phases(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.seen().entries.values() {
            *counts.entry(entry.phase.to_owned()).or_default() += 1;
        }
        counts
    }

    /// Whether every job gets the strict sandbox.
    pub fn is_strict(&self) -> bool {
        self.seen().terms.sandbox.is_strict
    }

    /// Waits until every job on the board is at rest: it has run and waits for a retry, or no task
    /// has it in hand.
    pub async fn wait_until_at_rest(&self) {
        let rests = |entry: &Entry| entry.rests || entry.abandoned;
        self.wait_for(|| self.seen().entries.values().all(rests).then_some(())).await;
    }

    /// Whether the job is on the board.
    pub fn has(&self, id: &JobId) -> bool {
        self.seen().entries.contains_key(id)
    }

    /// Whether a task has the job in hand.
    pub fn is_looked_after(&self, id: &JobId) -> bool {
        self.seen().entries.get(id).is_some_and(|entry| !entry.abandoned)
    }

    /// The requester of a job in hand: `None` if the job is not in hand, `Some(None)` if it names
    /// no requester.
    pub fn requester(&self, id: &JobId) -> Option<Option<Address>> {
        Some(self.seen().entries.get(id)?.requester)
    }

    /// The handle that acknowledges the job's delivery.
    pub fn delivery(&self, id: &JobId) -> Option<AckHandle> {
        self.seen().entries.get(id)?.delivery.clone()
    }

    /// Whether the job's processes are known to be gone.
    pub fn has_exited(&self, id: &JobId) -> bool {
        let state = self.seen();
        state.entries.get(id).is_some_and(|entry| matches!(entry.process, Process::Exited))
    }

    /// Whether the job is in hand and its output not collected yet: its container may still write.
    pub fn is_ending(&self, id: &JobId) -> bool {
        let phase = self.seen().entries.get(id).map_or("", |entry| entry.phase);
        ["starting", "running", "stopping", "exited"].contains(&phase)
    }

    /// The jobs whose containers run or may run, without those that are being stopped.
    pub fn running(&self) -> Vec<Running> {
        let running = |entry: &Entry| match &entry.process {
            Process::Runs(running) => Some(running.clone()),
            Process::None | Process::Stops(_) | Process::Exited => None,
        };
        self.seen().entries.values().filter_map(running).collect()
    }
}
