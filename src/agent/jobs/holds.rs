//! The question to the holder of a pool's job, by an agent that was given it too: is it at work on it?
//!
//! What must hold: only the holder's own key can say so, and only to this question; an answer is
//! waited for briefly, and none is as good as a no: the lease has run out.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::bus::Bus;
use crate::chain::key;
use crate::clock::Timestamp;
use crate::ids::{Address, Domain, JobId, Signature};

/// How long a holder has to answer: it looks nothing up for it.
const ANSWER: Duration = Duration::from_secs(2);

/// No holder is believed to go on for longer than that without hearing of the server.
const GOES_ON_MAX: Duration = Duration::from_hours(1);

/// What the holder signs: that it has the job, and for how long it goes on unheard.
pub(in crate::agent) const ACTION: &str = "holds-answer";

/// What is signed about a job.
pub(in crate::agent) fn said(job: &JobId, for_ms: u64) -> String {
    format!("{job}/{for_ms}")
}

#[derive(Debug, Deserialize)]
struct Answer {
    holds: bool,
    #[serde(default)]
    for_ms: u64,
    signature: Option<Signature>,
}

/// Asks the holder; where it proves that it has the job, for how long it goes on though it hears
/// nothing of the server.
pub(in crate::agent) async fn ask(
    bus: &Bus,
    holder: Address,
    job: &JobId,
    now: Timestamp,
) -> Option<Duration> {
    let at_ms = now.unix_ms();
    let question = json!({"action": "holds", "job_id": job, "issued_at_ms": at_ms});
    let answer = bus.ask_holder(holder, question.to_string().into(), ANSWER).await;
    match answer {
        Ok(answer) => proved(&answer, holder, job, at_ms),
        Err(err) => {
            tracing::debug!(job.id = %job, "{holder} does not say whether it has job {job}: {err}");
            None
        }
    }
}

fn proved(answer: &[u8], holder: Address, job: &JobId, asked_at_ms: u64) -> Option<Duration> {
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let digest = Domain::OWN.control_digest(ACTION, &said(job, answer.for_ms), holder, asked_at_ms);
    let signed = answer.signature.is_some_and(|it| key::recover(&digest.0, &it.0) == Ok(holder));
    let goes_on = Duration::from_millis(answer.for_ms).min(GOES_ON_MAX);
    (answer.holds && signed).then_some(goes_on)
}
