//! The output of `submit`: progress bars and lines on a terminal, plain lines elsewhere, objects with
//! `--json`.

use std::io;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::super::follow::Line;
use super::super::jobs::words::pulled;
use super::super::out;
use super::super::receipt_check::{self, Verdict};
use crate::ids::JobId;
use crate::job::receipt::Signed;
use crate::job::status::{Stage, Status};

/// Interval of a spinner's frames.
const TICK: Duration = Duration::from_millis(120);

/// Shows the progress of a job.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    raw: bool,
    bar: ProgressBar,
}

impl Report {
    /// Shows progress bars only if standard output is a terminal and `json` is not set; the job's log as it is if
    /// `raw` is.
    pub(super) fn new(json: bool, raw: bool) -> Self {
        let bar = ProgressBar::no_length();
        let visible = !json && out::is_terminal();
        bar.set_draw_target(if visible {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        });
        Self { json, raw, bar }
    }

    /// Shows a spinner during a wait.
    pub(super) fn busy(&mut self, what: &str) {
        self.restart("{spinner} {msg} {elapsed}");
        self.bar.set_message(out::clean(what));
        self.bar.enable_steady_tick(TICK);
    }

    /// Shows a transfer bar. The returned function takes the number of bytes transferred so far.
    pub(super) fn transfer(
        &mut self,
        what: &str,
        total: Option<u64>,
    ) -> impl Fn(u64) + Send + Sync + use<> {
        self.restart(match total {
            Some(_) => "{spinner} {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}",
            None => "{spinner} {msg} {bytes} {bytes_per_sec}",
        });
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_message(out::clean(what));
        self.bar.enable_steady_tick(TICK);
        let bar = self.bar.clone();
        move |bytes| bar.set_position(bytes)
    }

    /// Removes the bar.
    pub(super) fn quiet(&mut self) {
        self.bar.finish_and_clear();
    }

    fn restart(&mut self, template: &str) {
        self.bar.reset();
        self.bar.unset_length();
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    /// Prints one line above the bar, or one JSON object.
    pub(super) fn event(&self, event: &str, fields: &Value, text: &str) -> io::Result<()> {
        if self.json {
            return out::json(&object(event, fields));
        }
        self.bar.suspend(|| out::line(text))
    }

    /// Prints a status and updates the spinner.
    pub(super) fn status(&mut self, status: &Status, body: &Value) -> io::Result<()> {
        if self.json {
            return out::json(&json!({"event": "status", "status": body}));
        }
        self.bar.suspend(|| out::line(&describe(status)))?;
        if status.stage.is_terminal() {
            self.quiet();
        } else {
            let text = format!("{} on {}", stage_name(status.stage), status.agent_address);
            self.busy(&text);
        }
        Ok(())
    }

    /// Prints an end that is not believed, and why.
    pub(super) fn unverified(&self, status: &Status, body: &Value, why: &str) -> io::Result<()> {
        let (agent, stage) = (status.agent_address, stage_name(status.stage));
        let text = format!("not verified, passed over: {agent} says {stage}: {}", out::clean(why));
        self.event("unverified", &json!({"status": body, "problem": why}), &text)
    }

    /// Prints a piece of the job's live log.
    pub(super) fn log(&self, line: &Line) -> io::Result<()> {
        if self.json {
            let fields = serde_json::to_value(line)?;
            return out::json(&object("log", &fields));
        }
        let text = match line {
            Line::Text { line, .. } if self.raw => format!("| {line}"),
            Line::Text { line, .. } => format!("| {}", out::clean(line)),
            Line::Gap { dropped } => format!("| [{dropped} lines are missing here]"),
        };
        self.bar.suspend(|| out::line(&text))
    }

    /// Prints the result of the receipt's check. `bound` says whether chain and contract were compared as
    /// well.
    pub(super) fn receipt(&mut self, verdict: &Verdict, bound: bool) -> io::Result<()> {
        self.quiet();
        match verdict {
            Verdict::Valid(signed) => {
                let fields = json!({"valid": true, "receipt": signed.to_json()});
                self.event("receipt", &fields, &describe_receipt(signed, bound))
            }
            Verdict::Absent => Ok(()),
            Verdict::Invalid(problem) => {
                let text = format!("receipt: NOT VALID: {}", out::clean(problem));
                self.event("receipt", &json!({"valid": false, "problem": problem}), &text)
            }
        }
    }

    /// Prints the job's result.
    pub(super) fn result(&mut self, ended: &Status) -> io::Result<()> {
        self.quiet();
        let fields = json!({
            "job_id": ended.job_id, "status": ended.status, "reason_code": ended.reason_code,
            "error": ended.error, "exit_code": ended.exit_code, "output_cid": ended.output_cid,
            "output_notes": (!ended.output_notes.is_empty()).then_some(&ended.output_notes),
        });
        let text = match &ended.output_cid {
            Some(cid) => format!("job {} completed: {cid}", ended.job_id),
            None => format!("job {} ended: {}", ended.job_id, stage_name(ended.stage)),
        };
        self.event("result", &fields, &text)
    }

    /// Reports that following was interrupted. `whose` holds the arguments that name the node or pool,
    /// `cancelling` the command that cancels the job.
    pub(super) fn detached(
        &mut self,
        job: &JobId,
        whose: &str,
        cancelling: &str,
    ) -> io::Result<()> {
        self.quiet();
        let text = format!(
            "job {job} goes on without us: `lamda-node watch {job}{whose}` follows it again, \
             `{cancelling}` ends it"
        );
        self.event("detached", &json!({"job_id": job}), &text)
    }
}

/// An event with its fields, without null ones.
fn object(event: &str, fields: &Value) -> Value {
    let mut object = json!({"event": event});
    if let (Some(object), Some(fields)) = (object.as_object_mut(), fields.as_object()) {
        let present = fields.iter().filter(|(_, value)| !value.is_null());
        object.extend(present.map(|(key, value)| (key.clone(), value.clone())));
    }
    object
}

/// A status as one line of text.
pub(in super::super) fn describe(status: &Status) -> String {
    let error = status.error.as_deref().map(out::clean);
    let parts = [
        Some(clock_of(status)),
        Some(format!("{:<11}", stage_name(status.stage))),
        (status.attempt > 1).then(|| format!("attempt {}", status.attempt)),
        status.pull.as_ref().map(pulled),
        status.exit_code.map(|code| format!("exit code {code}")),
        status.duration_ms.run.map(|run| format!("ran {run} ms")),
        status.reason_code.map(|reason| reason.code().to_owned()),
        error.map(|error| format!("({error})")),
        (!status.output_notes.is_empty())
            .then(|| format!("(left out: {})", out::clean(&status.output_notes.join("; ")))),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    text.trim_end().to_owned()
}

/// The status's time of day in UTC.
fn clock_of(status: &Status) -> String {
    let text = status.timestamp.to_string();
    text.get(11..23).unwrap_or_default().to_owned()
}

/// The stage's name in messages.
pub(in super::super) fn stage_name(stage: Stage) -> String {
    let word = serde_json::to_value(stage).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn describe_receipt(signed: &Signed, bound: bool) -> String {
    let binding = if bound { "" } else { " (chain and contract not compared: not set here)" };
    let node = signed.receipt.node;
    format!("receipt: valid, signed by {node}{binding}\n{}", receipt_check::describe(signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_one_line_without_control_characters() {
        let status: Status = serde_json::from_value(json!({
            "agent_address": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "job_id": "j",
            "status": "failed", "timestamp": "2024-01-01T12:00:00.000Z", "seq": 3, "attempt": 2,
            "stage": "failed", "reason_code": "nonzero_exit", "error": "bad\u{1b}[2J\nend",
            "exit_code": 1, "duration_ms": {"run": 12},
        }))
        .unwrap();
        assert_eq!(
            describe(&status),
            "12:00:00.000 failed      attempt 2 exit code 1 ran 12 ms nonzero_exit \
             (bad\\u{1b}[2J\\nend)"
        );
    }

    #[test]
    fn a_pull_that_goes_on_says_how_far_it_is() {
        let status: Status = serde_json::from_value(json!({
            "agent_address": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "job_id": "j",
            "status": "processing", "timestamp": "2024-01-01T12:00:00.000Z", "seq": 3, "attempt": 1,
            "stage": "pulling", "pull": {"bytes": 12_582_912, "layers": 7, "layers_done": 3},
        }))
        .unwrap();
        assert_eq!(describe(&status), "12:00:00.000 pulling     12 MiB, 3 of 7 layers");
    }

    #[test]
    fn an_event_leaves_out_what_is_absent() {
        let fields = json!({"a": 1, "b": null});
        assert_eq!(object("x", &fields), json!({"event": "x", "a": 1}));
    }
}
