//! What is told of a job: one place, since a job moves in one place only.
//!
//! Must hold: strangers may read events, so nothing is told that no status of the job says: neither the name of its
//! image nor the words of an engine or a registry.

use serde_json::Value;

use super::Events;
use crate::fleet::{Event as Told, Kind, kinds};
use crate::ids::JobId;
use crate::job::Status;
use crate::job::phase::{Event, Fault, Phase, Transition};
use crate::job::status::{Durations, Stage};

impl Events {
    /// Tells what a transition means. It is in the journal already.
    pub(in crate::agent) fn job_moved(&self, event: &Event, moved: &Transition) {
        if self.0.is_none() {
            return;
        }
        let (job, id) = (&moved.job, moved.job.id());
        let about = |told: Told| told.about(id).with("attempt", job.attempt);
        match event {
            Event::Pulled { .. } => {
                self.tell(kinds::PULL_DONE, &format!("job {id}: its image is here"), about);
            }
            Event::Exited { exit, .. } | Event::CardFailed { exit } => {
                let text = exit.code.map_or_else(
                    || format!("job {id} is gone"),
                    |code| format!("job {id} ended with exit code {code}"),
                );
                self.tell(kinds::JOB_EXITED, &text, |told| {
                    let told = about(told).with("oom", exit.oom);
                    let ran = exit.finished_at.since(exit.started_at).as_millis();
                    let told = told.with("run_ms", u64::try_from(ran).unwrap_or(u64::MAX));
                    // Unknown is not 0.
                    match exit.code {
                        Some(code) => told.with("exit_code", code),
                        None => told,
                    }
                });
            }
            Event::Failed { fault, .. } if job.phase.outcome().is_none() => {
                self.step_failed(id, fault, &job.phase);
            }
            _ => {}
        }
        self.job_taken(moved);
    }

    /// Tells the statuses of a transition; those of a job that was just taken are all there is to tell of it.
    pub(in crate::agent) fn job_taken(&self, moved: &Transition) {
        for status in &moved.statuses {
            self.status(status);
        }
    }

    fn step_failed(&self, id: &JobId, fault: &Fault, phase: &Phase) {
        let is_pull = matches!(phase, Phase::Accepted);
        let kind = if is_pull { kinds::PULL_FAILED } else { kinds::JOB_RETRIED };
        let (reason, phase) = (fault.reason.code(), phase.name());
        self.tell(kind, &format!("job {id}: {reason} while it was {phase}"), |told| {
            told.about(id).with("reason_code", reason).with("phase", phase)
        });
    }

    /// Tells of a message that is refused before it is a job.
    pub(in crate::agent) fn refused(&self, status: &Status) {
        self.status(status);
    }

    fn status(&self, status: &Status) {
        let (id, stage) = (&status.job_id, status.stage);
        let (kind, word) = of_stage(stage);
        let add = |told: Told| {
            let mut told = told.about(id).with("attempt", status.attempt).with("seq", status.seq);
            if let Some(reason) = status.reason_code {
                told = told.with("reason_code", reason.code());
            }
            if let Some(code) = status.exit_code {
                told = told.with("exit_code", code);
            }
            if let Some(cid) = &status.output_cid {
                told = told.with("output_cid", cid.to_string());
            }
            match status.duration_ms.run {
                Some(run) if stage.is_terminal() => told.with("run_ms", run),
                _ => told,
            }
        };
        if let Some(pull) = status.pull {
            let text = format!("job {id}: {} of {} layers", pull.layers_done, pull.layers);
            self.tell(kinds::PULL_PROGRESS, &text, |told| {
                let told = add(told).with("bytes", pull.bytes);
                told.with("layers", pull.layers).with("layers_done", pull.layers_done)
            });
            return;
        }
        let why = status.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
        self.tell(kind, &format!("job {id} {word}{why}"), add);
        let took = took(status.duration_ms);
        if stage.is_terminal() && !took.is_empty() {
            let text = took.iter().map(|(part, ms)| format!("{part} {ms} ms"));
            let text = format!("job {id}: {}", text.collect::<Vec<_>>().join(", "));
            self.tell(kinds::JOB_PERFORMANCE, &text, |told| {
                took.iter()
                    .fold(told.about(id), |told, (part, ms)| told.with(part, Value::from(*ms)))
            });
        }
    }
}

const fn of_stage(stage: Stage) -> (Kind, &'static str) {
    match stage {
        Stage::Accepted => (kinds::JOB_ACCEPTED, "is accepted"),
        Stage::Pulling => (kinds::JOB_PULLING, "waits for its image"),
        Stage::Fetching => (kinds::JOB_FETCHING, "fetches its inputs"),
        Stage::Running => (kinds::JOB_RUNNING, "runs"),
        Stage::Uploading => (kinds::JOB_UPLOADING, "publishes its output"),
        Stage::Interrupted => (kinds::JOB_INTERRUPTED, "is interrupted"),
        Stage::Completed => (kinds::JOB_COMPLETED, "completed"),
        Stage::Failed => (kinds::JOB_FAILED, "failed"),
        Stage::Cancelled => (kinds::JOB_CANCELLED, "was cancelled"),
        Stage::TimedOut => (kinds::JOB_TIMED_OUT, "timed out"),
        Stage::Rejected => (kinds::JOB_REJECTED, "is refused"),
    }
}

/// The parts of a job whose time is known, in milliseconds.
fn took(durations: Durations) -> Vec<(&'static str, u64)> {
    let Durations { queued, pull, input, run, output } = durations;
    let all =
        [("queued", queued), ("pull", pull), ("input", input), ("run", run), ("output", output)];
    all.into_iter().filter_map(|(part, ms)| Some((part, ms?))).collect()
}
