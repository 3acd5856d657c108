//! Starts and stops jobs by the calls of the third original system's manager.
//!
//! Must hold: only the owner's calls have an effect; a job is called stopped only if its node says that it ends it, or
//! if it is out of the queue and no node has it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::asked::Id;
use super::foreign::Foreign;
use super::proplets::told;
use super::tasks::{find, is_over};
use super::{Shared, people};
use crate::bus::{self, Bus, PoolName, Recall, Target};
use crate::hub::store::tasks::{Queue, Task};
use crate::ids::{Address, JobId};
use crate::report::causes;
use crate::web::extract::{ConnectInfo, State};
use crate::web::http::{HeaderMap, StatusCode};
use crate::web::response::Response;
use crate::web::routing::post;
use crate::web::{Peer, Router};

/// A node answers once it has decided, within 20 s.
const ANSWER: Duration = Duration::from_secs(21);

/// How long all of it may take: less than a connection may last.
const ALL: Duration = Duration::from_secs(27);

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/tasks/{id}/start", post(start)).route("/tasks/{id}/stop", post(stop))
}

/// A node's answer.
#[derive(Debug, Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    reason_code: String,
    #[serde(default)]
    error: String,
}

/// Answers that a task is started: the hub sent its job when it was made.
async fn start(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Id(id): Id,
    head: HeaderMap,
) -> Result<Response, Foreign> {
    people::only_admin(&shared, &head, &peer).await?;
    let task = find(&shared, id).await?;
    if is_over(&task) {
        return Err(conflict("it has ended: make another one by POST /tasks"));
    }
    if task.queue == Queue::Unknown && task.node.is_none() {
        let what = "NATS gave no answer when it was sent: POST /tasks again with the same id";
        return Err(conflict(what));
    }
    Ok(told(&json!({"started": true})))
}

async fn stop(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Id(id): Id,
    head: HeaderMap,
) -> Result<Response, Foreign> {
    people::only_admin(&shared, &head, &peer).await?;
    let task = find(&shared, id).await?;
    // Any node may say that a pool's job has ended: there its claim decides.
    if is_over(&task) && (task.queue == Queue::Withdrawn || !is_pools(&task)) {
        return Err(conflict("it has ended"));
    }
    let bus = shared.wire.borrow().clone();
    let bus = bus.ok_or_else(|| away("the hub is not connected to NATS"))?;
    let stopped = timeout(ALL, end(&shared, &bus, &task)).await;
    stopped.map_err(|_| away("it is not stopped yet: ask again"))??;
    tracing::info!(job = %task.id, "a job was stopped");
    Ok(told(&json!({"stopped": true})))
}

fn is_pools(task: &Task) -> bool {
    let target = task.asked.as_ref().and_then(|asked| asked.get("target")?.as_str());
    target.is_some_and(|target| target.starts_with("pool."))
}

/// Has a job ended by the node that has it, or takes it out of the queue.
async fn end(shared: &Shared, bus: &Bus, task: &Task) -> Result<(), Foreign> {
    // What a node calls its job is an id.
    let job: JobId = task.id.parse().map_err(|_| Foreign::unknown("no such task is known"))?;
    let sent = task.asked.as_ref().and_then(|asked| asked.get("target")?.as_str());
    match sent.and_then(|target| Target::of_subject(&format!("jobs.{target}"))) {
        Some(Target::Pool(pool)) => recall(shared, bus, (&pool, &job)).await,
        Some(Target::Agent(agent)) => ask(bus, agent, &job).await,
        None => {
            let agent = task.node.as_ref().and_then(|node| node.parse::<Address>().ok());
            let agent = agent.ok_or_else(|| Foreign::unknown("no node that has it is known"))?;
            ask(bus, agent, &job).await
        }
    }
}

/// As [`end`], of a job of a pool.
async fn recall(
    shared: &Shared,
    bus: &Bus,
    (pool, job): (&PoolName, &JobId),
) -> Result<(), Foreign> {
    let withdrawn = async || shared.store.withdrawn_task(job.to_string()).await;
    let nats = |err: bus::Error| away(&causes(&err));
    match bus.recall(pool, job, None).await.map_err(nats)? {
        Recall::Ask(agent) => ask(bus, agent, job).await,
        Recall::Withdrawn { hint, .. } => {
            // Before anything else: whoever asks may hang up meanwhile.
            withdrawn().await?;
            // It may be working on it; what it answers changes nothing about the queue.
            if let Some(hint) = hint
                && let Err(err) = ask(bus, hint.agent, job).await
            {
                tracing::debug!(%job, agent = %hint.agent, "its last node did not end it: {err:?}");
            }
            Ok(())
        }
        Recall::Hinted(agent, code, error) => {
            // The status that names the node may be anybody's: only a claim tells that it had the job.
            let is_ended = ask(bus, agent, job).await.is_ok()
                && bus.is_confirmed(pool, job, agent).await.map_err(nats)?;
            if is_ended { Ok(()) } else { Err(refused(code, error)) }
        }
        // The hub has sent it, and nobody has it: it was taken out before, though that was not noted.
        Recall::Not("unknown_job", _) => Ok(withdrawn().await?),
        Recall::Not(code, error) => Err(refused(code, error)),
    }
}

async fn ask(bus: &Bus, agent: Address, job: &JobId) -> Result<(), Foreign> {
    let request = json!({"action": "cancel", "job_id": job}).to_string();
    let answer = bus.control(agent, request.into_bytes().into(), ANSWER).await;
    let answer = answer.map_err(|err| away(&causes(&err)))?;
    match serde_json::from_slice::<Answer>(&answer) {
        Ok(Answer { ok: true, .. }) => Ok(()),
        Ok(Answer { reason_code, error, .. }) => Err(refused(&reason_code, error)),
        Err(_) => Err(away("the node's answer is not a valid reply")),
    }
}

fn refused(code: &str, error: String) -> Foreign {
    let status = match code {
        "unknown_job" => StatusCode::NOT_FOUND,
        "not_allowed" => StatusCode::FORBIDDEN,
        "too_late" => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Foreign::Said(status, error)
}

fn conflict(what: &str) -> Foreign {
    Foreign::Said(StatusCode::CONFLICT, what.to_owned())
}

fn away(what: &str) -> Foreign {
    Foreign::Said(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
}
