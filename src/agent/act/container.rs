//! Creates, starts, follows and stops a job's container.
//!
//! Invariant: the log of a run is written to disk before the run's end is reported.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::{Act, Event, disk_failed};
use crate::agent::act::log_book::{Live, LogBook};
use crate::clock::{Clock, Timestamp};
use crate::container::{
    ContainerId, ContainerRuntime, EndedBy, Error, Exit, Found, FoundState, LogChunk, Sandbox,
};
use crate::job::Job;
use crate::job::hint::Hint;
use crate::job::phase::{Phase, RunExit, StopCause};
use crate::usage::figures::Usage;

/// Chunks of output buffered between engine and log; the engine's reader waits while it is full.
const CHUNKS_MAX: usize = 64;
/// The longest stop grace after a lost lease. When a pool's job is stopped, a fifth of the ack wait
/// is left (24 s), and the end itself takes part of that.
const LEAVE_GRACE_MAX: Duration = Duration::from_secs(10);
/// How often the count of published lines is noted: a crash may repeat the live lines of that time.
const NOTE_EVERY: Duration = Duration::from_secs(1);

impl<R: ContainerRuntime, C: Clock> Act<R, C> {
    pub(super) async fn create(&self, job: &Job) -> Event {
        let Phase::Starting { image, gpus, .. } = &job.phase else { return Event::Lost };
        if let Err(err) = self.sight.of(self.runtime.as_ref()).await {
            return self.unseen(job, err);
        }
        // An attempt that was given up must be gone before the next one runs.
        if let Err(err) = self.remove_containers(job, job.attempt - 1).await {
            return self.engine_failed(job, &err);
        }
        if let Err(err) = self.take_room(job).await {
            return disk_failed(&err);
        }
        let spec = self.base.terms.container(job, image, gpus, &self.folders.of(job));
        match self.runtime.create(&spec).await {
            Ok(id) => Event::Created { container: id.0 },
            Err(err) => self.engine_failed(job, &err),
        }
    }

    pub(super) async fn start(&self, job: &Job) -> Event {
        let Phase::Starting { container: Some(id), .. } = &job.phase else { return Event::Lost };
        let id = ContainerId(id.clone());
        if job.spec.deadline.is_some_and(|deadline| deadline <= self.clock.now()) {
            // Too late to start the container, but one that started in time goes on.
            match self.runtime.list(job.node).await {
                Ok(found) => {
                    let never_ran = |found: &Found| found.state == FoundState::Created;
                    if found.iter().any(|found| found.id == id && never_ran(found)) {
                        return Event::Expired;
                    }
                }
                Err(err) => return self.engine_failed(job, &err),
            }
        }
        match self.runtime.start(&id).await {
            Ok(launched) => {
                if launched.started_now {
                    self.memory.fresh().insert((job.id().clone(), job.attempt));
                }
                let at = launched.started_at.unwrap_or_else(|| self.clock.now());
                Event::Started { container: launched.id.0, at }
            }
            // It may have run: its absence proves nothing.
            Err(Error::Gone(_)) => Event::Lost,
            Err(err) => self.engine_failed(job, &err),
        }
    }

    pub(super) async fn follow(&self, job: &Job, until: Timestamp) -> Event {
        tokio::select! {
            biased;
            event = self.follow_to_end(job) => event,
            () = self.clock.sleep_until(until) => Event::TimeIsUp,
        }
    }

    pub(super) async fn stop(&self, job: &Job) -> Event {
        let Phase::Stopping { run, cause } = &job.phase else { return Event::Lost };
        let id = ContainerId(run.container.clone());
        // The pool soon gives the job to another agent: the container must be gone by then.
        let grace = match cause {
            StopCause::LeaseLost => self.stop_grace.min(LEAVE_GRACE_MAX),
            // No grace: the job would go on writing, which is what it is stopped for.
            cause if cause.is_the_disk() => Duration::ZERO,
            _ => self.stop_grace,
        };
        match self.runtime.stop(&id, grace).await {
            Ok(()) => self.follow_to_end(job).await,
            Err(err) => self.engine_failed(job, &err),
        }
    }

    /// Follows the container to its end, and writes the log to disk before it reports that end.
    async fn follow_to_end(&self, job: &Job) -> Event {
        let (Phase::Running { run } | Phase::Stopping { run, .. }) = &job.phase else {
            return Event::Lost;
        };
        let id = ContainerId(run.container.clone());
        let (sink, chunks) = mpsc::channel(CHUNKS_MAX);
        // The slot and the GPUs are free at once: reading and keeping the log may take a minute.
        let gone = || self.base.board.exited(job.id());
        let followed = self.runtime.follow(&id, sink, &gone);
        let kept = async { tokio::join!(followed, self.keep_log(job, chunks)) };
        let (exit, log) = self.watched(job, run, kept).await;
        match exit {
            Ok(exit) if matches!(job.phase, Phase::Running { .. }) && !is_the_jobs_own(&exit) => {
                let (id, code) = (job.id(), exit.code);
                tracing::warn!(job.id = %id, code, "job {id} was ended from outside");
                Event::Lost
            }
            Ok(exit)
                if matches!(job.phase, Phase::Running { .. })
                    && exit.code != 0
                    && !exit.oom
                    && self.met_its_limit(job, run).await =>
            {
                let id = job.id();
                tracing::warn!(job.id = %id, "job {id} failed with more on the disk than its disk_mib");
                Event::StopAsked { cause: StopCause::DiskExceeded }
            }
            Ok(exit) => {
                gone();
                let sandbox = self.base.terms.sandbox(&job.spec);
                let used = self.used(job, exit.oom).await;
                let exit_told = outcome(&exit, &log, matches!(sandbox, Sandbox::Strict(_)), used);
                let cards = job.phase.holds().unwrap_or_default();
                let is_card_defective = self.base.board.is_any_defective(cards);
                match self.keep_end(job, &exit, log).await {
                    Ok(()) if is_card_defective => Event::CardFailed { exit: exit_told },
                    Ok(()) => Event::Exited {
                        by_itself: match exit.ended_by {
                            EndedBy::Itself => Some(true),
                            EndedBy::Engine => Some(false),
                            EndedBy::Unknown => None,
                        },
                        exit: exit_told,
                    },
                    Err(err) => disk_failed(&err),
                }
            }
            Err(Error::Gone(_)) => Event::Lost,
            Err(err) => self.engine_failed(job, &err),
        }
    }

    async fn keep_log(&self, job: &Job, mut chunks: mpsc::Receiver<LogChunk>) -> Vec<u8> {
        let run = (job.id().clone(), job.attempt);
        let folders = self.folders.of(job);
        let known = self.memory.lines().get(&run).copied();
        // An earlier process of the node may have published the first lines.
        let skip = known.unwrap_or_else(|| folders.published_lines());
        let mut book = LogBook::new(skip);
        // Each follow reads from the first byte.
        self.memory.logs().insert(run.clone(), 0);
        let mut note_at: Option<Instant> = None;
        loop {
            tokio::select! {
                chunk = chunks.recv() => {
                    let Some(chunk) = chunk else { break };
                    let bytes = chunk.bytes.len() as u64;
                    *self.memory.logs().entry(run.clone()).or_default() += bytes;
                    let live = book.take(&chunk, self.clock.now());
                    self.publish_live(job, live).await;
                    self.memory.lines().insert(run.clone(), book.lines().max(skip));
                    note_at.get_or_insert_with(|| Instant::now() + NOTE_EVERY);
                }
                () = sleep_until(note_at.unwrap_or_else(Instant::now)), if note_at.is_some() => {
                    note_at = None;
                    // A failure, as on a full disk, only repeats lines after a crash.
                    folders.note_published_lines(book.lines().max(skip)).ok();
                }
            }
        }
        let live = book.finish(self.clock.now());
        self.publish_live(job, live).await;
        book.into_bytes()
    }

    /// Publishes live lines. Lossy by design: a line that can't be sent now is dropped.
    async fn publish_live(&self, job: &Job, live: Vec<Live>) {
        let Some(bus) = self.base.link.now() else { return };
        for live in live {
            let body = serde_json::to_vec(&live).unwrap_or_default();
            let sent = bus.publish_log(job.node, job.id(), body.into());
            // A bus this slow is as good as away, and a log must never hold up its job.
            if !matches!(tokio::time::timeout(Duration::from_millis(100), sent).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// Whether a run that this node did not stop ended by the job's own doing, so that its exit code is
/// the job's. A program that was asked to end is not done even if it exits 0: many answer SIGTERM
/// that way, with half a result.
///
/// If nobody knows who ended the run, the codes are doubted that a run gets when its engine or host
/// goes away, unless the kernel killed it for memory: 128 + SIGKILL, 128 + SIGTERM, and 255, which
/// engines invent for runs that were gone when they came back. docs/adr/0013 lists the cases.
const fn is_the_jobs_own(exit: &Exit) -> bool {
    match exit.ended_by {
        EndedBy::Itself => true,
        EndedBy::Engine => false,
        EndedBy::Unknown => exit.oom || !matches!(exit.code, 137 | 143 | 255),
    }
}

fn outcome(exit: &Exit, log: &[u8], is_strict: bool, used: Option<Usage>) -> RunExit {
    let has_failed = exit.code != 0 && !exit.oom;
    RunExit {
        code: Some(exit.code),
        oom: exit.oom,
        hint: has_failed.then(|| Hint::of(log, is_strict)).flatten(),
        started_at: exit.started_at,
        finished_at: exit.finished_at,
        usage: used,
    }
}
