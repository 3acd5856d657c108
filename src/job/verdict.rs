//! What the end of a run means: its outcome, with a sentence for people.

use super::phase::{Fault, Job, LOST_MAX, Outcome, Run, RunExit, StopCause};
use super::reason::Reason;
use super::status::{Stage, Status};
use crate::clock::Timestamp;

/// Exit code of a process that SIGKILL ended: 128 + 9.
const KILLED: i32 = 137;

/// The outcome of a run, without regard to its output.
pub(super) fn verdict(run: &Run, exit: &RunExit, cause: Option<StopCause>, job: &Job) -> Outcome {
    match (cause, exit.code) {
        (Some(StopCause::Cancelled), _) => Outcome::Cancelled(cancelled()),
        (Some(StopCause::Deadline), _) => Outcome::TimedOut(Fault::new(
            Reason::DeadlineReached,
            "the job was still running at its deadline and was stopped",
        )),
        (Some(StopCause::Timeout), _) => {
            Outcome::TimedOut(Fault::new(Reason::Timeout, overtime(run, exit)))
        }
        (Some(StopCause::DiskExceeded), _) => Outcome::Failed(Fault::new(
            Reason::DiskExceeded,
            "the job wrote more than its disk_mib and was stopped",
        )),
        (Some(StopCause::DiskFull), _) => Outcome::Failed(Fault::new(
            Reason::DiskExceeded,
            "the node's disk ran full; this job had written most of all that ran, and was stopped",
        )),
        (Some(StopCause::GpuFailed), _) => Outcome::Failed(Fault::new(
            Reason::GpuFailed,
            format!(
                "the job ran {LOST_MAX} times, and a GPU failed or its container was lost each time"
            ),
        )),
        (_, Some(0)) => Outcome::Completed,
        (_, _) if exit.oom => Outcome::Failed(Fault::new(Reason::OutOfMemory, out_of_memory(job))),
        (_, Some(code)) => {
            Outcome::Failed(Fault::new(Reason::NonzeroExit, nonzero(code, exit, job)))
        }
        (_, None) => Outcome::Failed(Fault::new(
            Reason::ContainerLost,
            "the container was gone before its exit code could be read",
        )),
    }
}

/// What is said of a job that ran out of its time. The engine may have needed long to stop it.
fn overtime(run: &Run, exit: &RunExit) -> String {
    let (may, ran) = (run.kill_at.since(run.started_at).as_secs(), run_seconds(exit));
    if ran <= may + 1 {
        return format!("the job ran for {ran} s, as long as it may, and was stopped");
    }
    format!("the job may run for {may} s and was stopped then; its container ended after {ran} s")
}

/// The kernel does not always report that it killed the command for lack of memory: if it killed a child
/// process, the command only passes on the exit code, and a host that is short of memory itself kills
/// too.
fn nonzero(code: i32, exit: &RunExit, job: &Job) -> String {
    if code != KILLED {
        let hint = exit.hint.map(|hint| format!("; {}", hint.sentence())).unwrap_or_default();
        return format!("the command ended with exit code {code}{hint}");
    }
    let limit = job.spec.needs.memory_mib;
    let limit = limit.map(|mib| format!(" of {mib} MiB")).unwrap_or_default();
    format!(
        "the command ended with exit code {code}: something killed it (SIGKILL), perhaps for want of \
         memory (its limit{limit}, or the host's), though the kernel did not say so"
    )
}

fn out_of_memory(job: &Job) -> String {
    let limit = job.spec.needs.memory_mib;
    let limit = limit.map(|mib| format!(" of {mib} MiB")).unwrap_or_default();
    format!("the kernel killed a process of the job: its memory limit{limit} was reached")
}

pub(super) fn poisoned() -> Fault {
    let error = format!("the job was started {LOST_MAX} times and lost its container each time");
    Fault::new(Reason::Poison, error)
}

pub(super) fn cancelled() -> Fault {
    Fault::new(Reason::Cancelled, "the job was cancelled")
}

fn run_seconds(exit: &RunExit) -> u64 {
    exit.finished_at.since(exit.started_at).as_secs()
}

/// The terminal status of a job with this outcome.
pub(super) fn terminal(job: &mut Job, outcome: &Outcome, now: Timestamp) -> Status {
    let (stage, fault) = match outcome {
        Outcome::Completed => (Stage::Completed, None),
        Outcome::Failed(fault) => (Stage::Failed, Some(fault)),
        Outcome::TimedOut(fault) => (Stage::TimedOut, Some(fault)),
        Outcome::Cancelled(fault) => (Stage::Cancelled, Some(fault)),
    };
    let mut status = job.say(stage, now);
    status.duration_ms = job.durations;
    status.reason_code = fault.map(|fault| fault.reason);
    status.error = fault.map(|fault| fault.error.clone());
    status
}
