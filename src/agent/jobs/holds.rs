//! Asks the holder of a pool's job whether it is working on it, for an agent that was given it too.
//!
//! Invariants: only an answer signed by the holder's key, and for this very question, counts. The
//! wait is short, and no answer counts as a no: the holder's lease has expired.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::bus::Bus;
use crate::chain::key;
use crate::clock::Timestamp;
use crate::ids::{Address, Domain, JobId, Signature};

/// How long a holder has to answer; it needs no I/O for that.
const ANSWER: Duration = Duration::from_secs(2);

/// Upper bound for how long a holder may claim to go on without hearing from the server.
const GOES_ON_MAX: Duration = Duration::from_hours(1);

/// The action name in the digest that the holder signs.
pub(in crate::agent) const ACTION: &str = "holds-answer";

/// The payload of that digest: `<job_id>/<for_ms>`, the job and how long the holder goes on without
/// hearing from the server.
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

/// Asks the holder. If it proves that it has the job, returns how long it goes on without hearing
/// from the server, at most [`GOES_ON_MAX`].
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
