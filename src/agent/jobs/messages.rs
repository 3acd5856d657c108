//! The steps of a job that are messages: its claim, its answer to the queue, its dead letter.
//!
//! Invariants: a delivery is acknowledged only after the job's terminal status is in the journal. A
//! delivery that another agent holds by now is neither acknowledged nor given back.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::desk::Desk;
use super::effects::Effects;
use super::pool_claim::{self, Given};
use crate::bus::{self, AckHandle, Settle, Target};
use crate::clock::{Clock, Timestamp};
use crate::ids::Address;
use crate::job::phase::{Event, Fault, Phase, Retry};
use crate::job::plan::Step;
use crate::job::{Job, Reason};
use crate::journal::{self, History};
use crate::report::causes;

/// Maximum number of events in a dead letter's history; a job retried for a day has thousands.
const HISTORY_MAX: u32 = 256;

/// The same if the server does not accept a message of that size.
const HISTORY_SHORT: usize = 16;

/// Redelivery delay of a job that does not fit now: doubles from the first to the longest.
const NAK_FIRST: Duration = Duration::from_secs(5);
const NAK_MAX: Duration = Duration::from_mins(5);

/// The redelivery delay after `delivered` deliveries that did not fit.
pub(super) fn nak_delay(delivered: u64) -> Duration {
    let doublings = u32::try_from(delivered.saturating_sub(1)).unwrap_or(u32::MAX);
    NAK_FIRST.saturating_mul(1 << doublings.min(10)).min(NAK_MAX)
}

/// Carries out a step that is a message.
pub(in crate::agent) async fn perform<E: Effects, C: Clock>(
    job: &Job,
    step: Step,
    effects: &E,
    desk: &Desk<C>,
) -> Event {
    let done = match step {
        Step::Claim => return pool_claim::take(job, effects, desk).await,
        Step::Conclude => return pool_claim::conclude(job, effects, desk).await,
        Step::HandBack => hand_back(job, effects, desk).await.map(|()| Event::HandedBack),
        Step::Return => give_back(job, effects, desk).await,
        Step::Bury => match put_aside(job, effects, desk).await {
            Ok(()) => Ok(Event::Buried),
            Err(BuryError::Journal(err)) => return failed(&causes(&err)),
            Err(BuryError::Bus(err)) => Err(err),
        },
        _ => acknowledge(job, effects, desk).await.map(|()| Event::Acked),
    };
    done.unwrap_or_else(|err| failed(&causes(&err)))
}

fn failed(error: &str) -> Event {
    Event::Failed { fault: Fault::new(Reason::NodeFault, error), retry: Retry::Always }
}

async fn acknowledge<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<(), bus::Error> {
    match desk.board.delivery(job.id()) {
        Some(delivery) => answer(&delivery, Settle::Ack, effects).await,
        None => Ok(()),
    }
}

async fn hand_back<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<(), bus::Error> {
    let Some(delivery) = desk.board.delivery(job.id()) else { return Ok(()) };
    // A NAK would take the job from an agent that holds it by now. In `LettingGo` the lease may
    // have expired, and the job may be with an agent that has not claimed it yet: no NAK either.
    let is_ours = pool_claim::hand_back(job, &delivery, effects, &desk.clock).await?;
    if is_ours && job.phase == Phase::HandingBack {
        answer(&delivery, Settle::Nak(Duration::ZERO), effects).await
    } else {
        Ok(())
    }
}

/// Gives the job back to the pool with a delay, so that another agent gets it before this one.
async fn give_back<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<Event, bus::Error> {
    // Without a queue that keeps the message no other agent can begin the job.
    let Some(delivery) = desk.board.delivery(job.id()) else { return Ok(Event::Concluded) };
    if let Some(Ok(pool)) = job.pool().map(str::parse)
        && !effects.is_queued(&delivery, &Target::Pool(pool), job.id()).await?
    {
        return Ok(pool_claim::conclude(job, effects, desk).await);
    }
    match pool_claim::give_back(job, &delivery, effects, desk).await? {
        Given::Up => Ok(Event::Concluded),
        Given::Lost => Ok(Event::Outbid),
        Given::Back => {
            let delay = nak_delay(delivery.delivered);
            answer(&delivery, Settle::Nak(delay), effects).await.map(|()| Event::HandedBack)
        }
    }
}

async fn answer<E: Effects>(
    delivery: &AckHandle,
    how: Settle,
    effects: &E,
) -> Result<(), bus::Error> {
    match effects.settle(delivery, how).await {
        // The delivery was lost with its stream: there is nothing to answer.
        Err(bus::Error::StaleAck { .. }) => Ok(()),
        done => done,
    }
}

#[derive(Debug, thiserror::Error)]
enum BuryError {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Bus(#[from] bus::Error),
}

async fn put_aside<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<(), BuryError> {
    let history = desk.journal.history(job.id(), HISTORY_MAX).await?;
    let Some(target) = Target::of_subject(&format!("jobs.{}", job.target)) else { return Ok(()) };
    let id = format!("dead:{}:{}:{}", job.node, job.id(), job.attempt);
    effects.bury(&target, dead_letter(job.node, &history), &id).await?;
    tracing::warn!(job.id = %job.id(), "job {} is put aside on {}", job.id(), target.dead_subject());
    Ok(())
}

/// The body of a message on `jobs.dead.…`: the job as it came, and its history.
#[derive(Debug, Serialize)]
struct DeadLetter {
    agent_address: Address,
    /// The job's message; a string if it is not JSON.
    job: Value,
    history: Vec<Happened>,
}

#[derive(Debug, Serialize)]
struct Happened {
    at: Timestamp,
    event: &'static str,
    /// How often in a row, if more than once; `until` is the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The dead letter of a job that this node accepted, or only refused (then without events).
pub(in crate::agent) fn dead_letter(agent_address: Address, history: &History) -> Vec<u8> {
    let text = String::from_utf8_lossy(&history.body);
    let job = serde_json::from_str(&text).unwrap_or_else(|_| text.into_owned().into());
    let history = history.events.iter().map(|happened| {
        let event = &happened.event;
        let fault = match event {
            Event::Failed { fault, .. } => Some(fault.clone()),
            _ => None,
        };
        let (reason_code, error) = fault.map(|fault| (fault.reason, fault.error)).unzip();
        let again = happened.times > 1;
        Happened {
            at: happened.at,
            event: event.name(),
            times: again.then_some(happened.times),
            until: again.then_some(happened.until),
            reason_code,
            error,
        }
    });
    let letter = DeadLetter { agent_address, job, history: history.collect() };
    serde_json::to_vec(&letter).unwrap_or_default()
}

/// Shortens a dead letter to `bytes_max` if possible: keeps only the end of its history, then no
/// history, and at last only the job's id in place of the job.
pub(in crate::agent) fn shortened(letter: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut letter: Value = serde_json::from_slice(letter).unwrap_or_default();
    let events = letter["history"].as_array().cloned().unwrap_or_default();
    let last = events.iter().rev().take(HISTORY_SHORT).rev().cloned().collect::<Vec<_>>();
    let job =
        json!({"job_id": letter["job"]["job_id"], "left_out": "larger than the server takes"});
    for (key, value) in [("history", json!(last)), ("history", json!([])), ("job", job)] {
        letter[key] = value;
        let text = letter.to_string();
        if text.len() <= bytes_max {
            return text.into_bytes();
        }
    }
    letter.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_cut_to_what_its_server_takes() {
        let events: Vec<Value> =
            (0..HISTORY_MAX).map(|at| json!({"at": at, "event": "failed"})).collect();
        let job = json!({"job_id": "job", "command": ["x".repeat(10_000)]});
        let letter = json!({"agent_address": "0x1", "job": job, "history": events}).to_string();
        for (bytes_max, events, has_body) in
            [(11_000, 16, true), (10_200, 0, true), (500, 0, false)]
        {
            let short: Value =
                serde_json::from_slice(&shortened(letter.as_bytes(), bytes_max)).unwrap();
            assert!(short.to_string().len() <= bytes_max, "{bytes_max}");
            assert_eq!(short["history"].as_array().unwrap().len(), events);
            assert_eq!(short["job"]["job_id"], "job");
            assert_eq!(short["job"]["command"].is_array(), has_body);
        }
    }
}
