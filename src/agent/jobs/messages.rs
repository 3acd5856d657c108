//! The steps of a job that are messages: its claim, its answer to the queue, its grave.
//!
//! What must hold: a delivery is acknowledged only for a job whose terminal status is in the
//! journal; one that another agent holds by now is neither acknowledged nor given back.

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

/// Events of a job's history that are told: a job that was tried for a day has thousands.
const HISTORY_MAX: u32 = 256;

/// Of those, what is told where the server takes no message of that size.
const HISTORY_SHORT: usize = 16;

/// A delivery that does not fit now comes back after this long, doubling to the longest.
const NAK_FIRST: Duration = Duration::from_secs(5);
const NAK_MAX: Duration = Duration::from_mins(5);

/// How long a message stays away that was delivered so often and did not fit each time.
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
    // An agent that holds it now would lose it to the next one by our answer; and where its lease
    // may have run out, one may have been given it that has not claimed it yet.
    let is_ours = pool_claim::hand_back(job, &delivery, effects, &desk.clock).await?;
    if is_ours && job.phase == Phase::HandingBack {
        answer(&delivery, Settle::Nak(Duration::ZERO), effects).await
    } else {
        Ok(())
    }
}

/// Back to the pool with a delay, so that another agent is given it sooner than this one.
async fn give_back<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Result<Event, bus::Error> {
    // Without a queue that keeps it nobody else can begin it.
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
        // A stream that was lost took the delivery with it: there is nothing to answer for.
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

/// What lies on `jobs.dead.…`: the message as it came, and what became of it.
#[derive(Debug, Serialize)]
struct DeadLetter {
    agent_address: Address,
    /// As a string where it is no JSON.
    job: Value,
    history: Vec<Happened>,
}

#[derive(Debug, Serialize)]
struct Happened {
    at: Timestamp,
    event: &'static str,
    /// How often in a row, where it was more than once, and when the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    times: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// A dead letter of a job that this node took, or of one that it only refused (`history` empty).
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

/// The letter as far as a server takes it: the end of its history, then without its history, and in the
/// end with the job's id in the place of the job.
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
