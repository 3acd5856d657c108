//! A job's phases, events and spans in words. Strangers' text is made safe to print here.

use std::time::Duration;

use super::super::out;
use crate::job::phase::{Event, Fault, Outcome, Phase, Run, RunExit, StopCause};
use crate::job::status::PullProgress;

/// What the node does in a phase.
pub(super) fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Accepted => "pulling the image".to_owned(),
        Phase::Pulled { .. } => "fetching the inputs".to_owned(),
        Phase::Ready { .. } => "waiting for a slot and cards".to_owned(),
        Phase::Claiming { .. } => "asking whether the job is this node's to start".to_owned(),
        Phase::Starting { .. } => "starting the container".to_owned(),
        Phase::Running { run } => format!("running, until {} at the latest", run.kill_at),
        Phase::Stopping { cause, .. } => format!("being stopped: {}", stop_cause(*cause)),
        Phase::Exited { .. } => "collecting its output and log".to_owned(),
        Phase::Collected { .. } => "publishing its output and log".to_owned(),
        Phase::Published { .. } => "signing its receipt".to_owned(),
        Phase::Concluding { .. } => "asking whether the job is this node's to end".to_owned(),
        Phase::Ended { outcome: end } => {
            format!("{}, removing container and folders", outcome(end))
        }
        Phase::Cleaned { outcome: end } => format!("{}, acknowledging the message", outcome(end)),
        Phase::Buried { outcome: end } => {
            format!("{}, put aside in jobs.dead, acknowledging the message", outcome(end))
        }
        Phase::Settled { outcome: end } => outcome(end).to_owned(),
        Phase::Interrupted => "interrupted, removing container and folders".to_owned(),
        Phase::HandingBack => "interrupted, giving the message back".to_owned(),
        Phase::LettingGo => "another node has it, letting go of the claim".to_owned(),
        Phase::Unable { .. } => "could not be begun here, removing its container".to_owned(),
        Phase::Returning { .. } => "could not be begun here, giving it back to the pool".to_owned(),
        Phase::Yielded => "another node has it, removing container and folders".to_owned(),
        Phase::Waiting => {
            "given back, or with another node, until it comes again or the node starts".to_owned()
        }
        Phase::EndedElsewhere => "ended by another node of the pool".to_owned(),
    }
}

/// How a job ended, in the words of its status.
pub(super) const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Failed(_) => "failed",
        Outcome::TimedOut(_) => "timed out",
        Outcome::Cancelled(_) => "cancelled",
    }
}

/// The fault that ended a job, unless it completed.
pub(super) const fn fault_of(outcome: &Outcome) -> Option<&Fault> {
    match outcome {
        Outcome::Completed => None,
        Outcome::Failed(fault) | Outcome::TimedOut(fault) | Outcome::Cancelled(fault) => {
            Some(fault)
        }
    }
}

/// The run that the phase contains, if any.
pub(super) const fn run_of(phase: &Phase) -> Option<&Run> {
    match phase {
        Phase::Running { run } | Phase::Stopping { run, .. } | Phase::Exited { run, .. } => {
            Some(run)
        }
        Phase::Collected { ended, .. } | Phase::Published { ended, .. } => Some(&ended.run),
        _ => None,
    }
}

/// An event in words.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Pulling { progress } => format!("the image is being pulled: {}", pulled(progress)),
        Event::Pulled { .. } => "the image is here".to_owned(),
        Event::Fetched => "every input is here, checked".to_owned(),
        Event::Reserved { gpus } if gpus.is_empty() => "has a slot".to_owned(),
        Event::Reserved { gpus } => format!("has a slot and {}", count(gpus.len(), "card")),
        Event::Claimed => "is this node's to start".to_owned(),
        Event::Doubted => "must be asked for, or fetched, once more".to_owned(),
        Event::Outbid => "another node has it".to_owned(),
        Event::Poisoned => "was started too often".to_owned(),
        Event::Created { .. } => "the container is there".to_owned(),
        Event::NeverRan => "was never started".to_owned(),
        Event::Started { container, .. } => {
            let short: String = container.chars().take(12).collect();
            format!("started, container {}", out::clean(&short))
        }
        Event::Exited { exit, .. } => exited(exit),
        Event::CardFailed { exit } => format!("a GPU of it failed; {}", exited(exit)),
        Event::Lost => "the container is gone, its exit could not be read".to_owned(),
        Event::TimeIsUp => "its time is up".to_owned(),
        Event::Expired => "its deadline passed before the start".to_owned(),
        Event::Collected { output: Err(fault), .. } => format!("no output: {}", fault_text(fault)),
        Event::Collected { output: Ok(Some(sealed)), .. } => {
            format!("the output is sealed: {} ({} bytes)", sealed.cid, sealed.bytes)
        }
        Event::Collected { output: Ok(None), log: Some(_) } => "the log is sealed".to_owned(),
        Event::Collected { output: Ok(None), log: None } => "there is nothing to seal".to_owned(),
        Event::Published { output: Some(_), .. } => "the output is published".to_owned(),
        Event::Published { log: Some(_), .. } => "the log is published".to_owned(),
        Event::LogPublished { log } => format!("its log is published: {log}"),
        Event::Published { .. } => "there is nothing to publish".to_owned(),
        Event::Attested { .. } => "the receipt is signed".to_owned(),
        Event::Concluded => "is this node's to end".to_owned(),
        Event::Buried => "is put aside in jobs.dead".to_owned(),
        Event::Removed => "container and folders are removed".to_owned(),
        Event::Acked => "the message is acknowledged".to_owned(),
        Event::HandedBack => "the message is given back".to_owned(),
        Event::Resumed => "goes on with its next attempt".to_owned(),
        Event::StopAsked { cause } => format!("is to stop: {}", stop_cause(*cause)),
        Event::Failed { fault, .. } => format!("did not work: {}", fault_text(fault)),
    }
}

/// How far a pull is.
pub(in crate::cli) fn pulled(progress: &PullProgress) -> String {
    let PullProgress { bytes, layers, layers_done } = progress;
    format!("{} MiB, {layers_done} of {layers} layers", bytes >> 20)
}

fn exited(exit: &RunExit) -> String {
    let memory = if exit.oom { ", out of memory" } else { "" };
    match exit.code {
        Some(code) => format!("ended with exit code {code}{memory}"),
        None => format!("ended, its exit code could not be read{memory}"),
    }
}

const fn stop_cause(cause: StopCause) -> &'static str {
    match cause {
        StopCause::Cancelled => "cancelled",
        StopCause::Timeout => "it ran as long as it may",
        StopCause::Deadline => "its deadline is here",
        StopCause::Shutdown => "the node shuts down",
        StopCause::DiskExceeded => "it wrote more than its disk_mib",
        StopCause::DiskFull => "the disk is full, and it wrote most",
        StopCause::GpuFailed => "a GPU of it failed",
        StopCause::LeaseLost => "another node of the pool has it, or may have it",
    }
}

/// A fault's message and its code.
pub(super) fn fault_text(fault: &Fault) -> String {
    format!("{} ({})", out::clean(&fault.error), fault.reason.code())
}

/// A number and a noun, in the plural if needed.
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A span in its two largest units.
pub(super) fn span(span: Duration) -> String {
    let (ms, s) = (span.as_millis(), span.as_secs());
    let (min, hours, days) = (s / 60, s / 3600, s / 86_400);
    if ms < 1000 {
        format!("{ms} ms")
    } else if s < 60 {
        format!("{s}.{} s", ms % 1000 / 100)
    } else if hours == 0 {
        format!("{min} min {} s", s % 60)
    } else if days == 0 {
        format!("{hours} h {} min", min % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Reason;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        for (ms, told) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (61_000, "1 min 1 s"),
            (3_599_999, "59 min 59 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(ms)), told);
        }
    }

    #[test]
    fn an_errors_escape_sequences_are_shown_and_not_sent() {
        let fault = Fault::new(Reason::StartFailed, "no \u{1b}[2Jsuch\ncommand");
        let told = "did not work: no \\u{1b}[2Jsuch\\ncommand (start_failed)";
        let failed = Event::Failed { fault, retry: crate::job::phase::Retry::Never };
        assert_eq!(event(&failed), told);
    }
}
