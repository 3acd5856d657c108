//! Jobs as the third original system's manager takes and shows them.
//!
//! Must hold: only the owner sends jobs; a job that is answered with 201 is in the queue; variables, which may be
//! secret, are told to the node alone.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::asked::{Id, Part, Sees};
use super::foreign::{self, Foreign};
use super::proplets::{page, told};
use super::{Shared, people};
use crate::bus::{self, Target};
use crate::clock::{Clock as _, Timestamp};
use crate::fleet::clocks::Standing;
use crate::hub::fleet::Node;
use crate::hub::store::tasks::{OFFSET_MAX, Queue, Sends, Task};
use crate::ids::{Address, JobId};
use crate::job::spec::{self, Parsed};
use crate::job::status::Stage;
use crate::job::task::{self, Draft};
use crate::report::causes;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::{StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::get;
use crate::web::{Json, Peer, Router};

/// What Go writes for a time that is not set.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/tasks", get(list).post(create))
        .route("/tasks/", get(list).post(create))
        .route("/tasks/{id}", get(one))
        .route("/tasks/{id}/results", get(results))
}

async fn list(
    State(shared): State<Shared>,
    _: Sees,
    Part(span): Part,
) -> Result<Response, Foreign> {
    if span.offset > OFFSET_MAX {
        return Err(Foreign::bad(format!("`offset` is at most {OFFSET_MAX}")));
    }
    let (tasks, total) = shared.eyes.tasks(span).await?;
    let rows: Vec<Value> = tasks.iter().map(shown).collect();
    Ok(page("tasks", &rows, total, span))
}

async fn one(State(shared): State<Shared>, _: Sees, Id(id): Id) -> Result<Response, Foreign> {
    Ok(told(&shown(&find(&shared, id).await?)))
}

async fn results(State(shared): State<Shared>, _: Sees, Id(id): Id) -> Result<Response, Foreign> {
    let task = shown(&find(&shared, id).await?);
    Ok(told(&json!({"results": task.get("results")})))
}

pub(super) async fn find(shared: &Shared, id: String) -> Result<Task, Foreign> {
    shared.eyes.task(id).await?.ok_or_else(|| Foreign::unknown("no such task is known"))
}

async fn create(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Response, Foreign> {
    let (head, sent) = request.into_parts();
    people::only_admin(&shared, &head.headers, &peer).await?;
    let sent = foreign::object(&head.headers, sent).await?;
    let draft = task::draft(&sent).map_err(Foreign::bad)?;
    let Draft { mut message, id, node, pool, mut shown } = draft;
    let id: JobId = match id {
        Some(id) => id.parse().map_err(|err| Foreign::bad(format!("`id`: {err}")))?,
        None => random_id(),
    };
    message.insert("job_id".to_owned(), json!(id));
    let bytes = Value::Object(message).to_string().into_bytes();
    let Parsed { spec_hash, .. } =
        spec::parse(&bytes).map_err(|refused| Foreign::bad(refused.error))?;
    let mut target = target(&shared, node.as_deref(), pool.as_deref())?;
    shown.insert("target".to_owned(), target.to_string().into());
    // What a job is, with the variables that are not shown.
    shown.insert("spec_hash".to_owned(), spec_hash.to_string().into());
    let away = |what: String| Foreign::Said(StatusCode::SERVICE_UNAVAILABLE, what);
    let bus = shared.wire.borrow().clone();
    let bus = bus.ok_or_else(|| away("the hub is not connected to NATS".to_owned()))?;
    // Known before it is sent: a job that is in the queue is never unknown here.
    let now = shared.clock.now();
    let asked = Value::Object(shown.clone());
    let sends = shared.store.keep_task(id.to_string(), asked, now).await?;
    let is_new = sends == Sends::New;
    if !is_new {
        let what = match sends {
            Sends::Stopped => format!("the job {id} was stopped: send it with another id"),
            _ => format!("another job has the id {id}: GET /tasks/{id}"),
        };
        let refused = Foreign::Said(StatusCode::CONFLICT, what);
        // Where the hub has chosen the node, it doesn't choose another one.
        let is_chosen = node.is_none() && pool.is_none();
        target = same(&sends, &shown, is_chosen).ok_or(refused)?;
        shown.insert("target".to_owned(), target.to_string().into());
    }
    let msg_id = format!("{id}:{spec_hash}");
    if let Err(err) = bus.publish_job(&target, bytes.into(), &msg_id).await {
        // Where NATS gave no answer, the queue may have it: whoever sends it again sends the same job.
        if is_new && !matches!(err, bus::Error::Timeout { .. }) {
            shared.store.forget_task(id.to_string()).await?;
        }
        return Err(away(format!("NATS did not take the job: {}", causes(&err))));
    }
    shared.store.sent_task(id.to_string(), Value::Object(shown.clone()), now).await?;
    tracing::info!(job = %id, "a job was sent to {target}");
    Ok(created(&id, shown, now))
}

/// The answer that a job is in the queue.
fn created(id: &JobId, asked: Map<String, Value>, now: Timestamp) -> Response {
    let ms = now.unix_ms();
    let place = [(header::LOCATION, format!("/tasks/{id}"))];
    let task = Task {
        id: id.to_string(),
        node: None,
        first: ms,
        last: ms,
        statuses: json!([]),
        asked: Some(Value::Object(asked)),
        queue: Queue::Sent,
    };
    (StatusCode::CREATED, place, Json(shown(&task))).into_response()
}

/// Whom a job was sent to before, if that was the same job; `is_chosen`: whoever asks leaves it to the hub who runs it.
fn same(sends: &Sends, asked: &Map<String, Value>, is_chosen: bool) -> Option<Target> {
    let Sends::Again(Value::Object(before)) = sends else { return None };
    let is_same = |(key, value): (&String, &Value)| {
        asked.get(key).is_some_and(|asked| asked == value || (is_chosen && key == "target"))
    };
    if before.len() != asked.len() || !before.iter().all(is_same) {
        return None;
    }
    Target::of_subject(&format!("jobs.{}", before.get("target")?.as_str()?))
}

/// A random id, long enough to be unique.
fn random_id() -> JobId {
    let digits: String = std::iter::repeat_with(fastrand::alphanumeric).take(20).collect();
    let id = format!("task-{}", digits.to_ascii_lowercase()).parse();
    // Letters and digits are an id.
    id.unwrap_or_else(|_| JobId::of_invalid(digits.as_bytes()))
}

/// Who shall run it: the node or the pool that it names, or else the node that is up and has the most room.
fn target(shared: &Shared, node: Option<&str>, pool: Option<&str>) -> Result<Target, Foreign> {
    if let Some(pool) = pool {
        let pool = pool.parse().map_err(|err| Foreign::bad(format!("`pool`: {err}")))?;
        return Ok(Target::Pool(pool));
    }
    if let Some(id) = node {
        if let Ok(address) = id.parse::<Address>() {
            return Ok(Target::Agent(address));
        }
        let node = shared.fleet.get(id).and_then(|node| node.address);
        let node = node.ok_or_else(|| Foreign::bad("`proplet_id` names none of our nodes"))?;
        return Ok(Target::Agent(node));
    }
    let nodes = shared.fleet.all();
    let room = |node: &Node| node.presence.as_ref()?.get("free_slots")?.as_u64();
    let is_up = |node: &&std::sync::Arc<Node>| node.standing == Standing::Up;
    let up = nodes.iter().filter(is_up).filter_map(|node| Some((room(node)?, node.address?)));
    let best = up.max_by_key(|(room, _)| *room).map(|(_, address)| Target::Agent(address));
    best.ok_or_else(|| {
        let what = "no node is up: name a `proplet_id` or a `pool`, whose nodes take it when they are back";
        Foreign::Said(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
    })
}

/// What is read of a status, whoever sent it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    stage: Option<Stage>,
    #[serde(rename = "status")]
    word: String,
    timestamp: Option<Timestamp>,
    error: Option<String>,
    output_cid: Option<String>,
}

/// The manager's numbers for a job's state.
const PENDING: u8 = 0;
const SCHEDULED: u8 = 1;
const RUNNING: u8 = 2;
const COMPLETED: u8 = 3;
const FAILED: u8 = 4;
const INTERRUPTED: u8 = 6;

fn state(status: &Status) -> u8 {
    match (status.stage, &*status.word) {
        (Some(Stage::Accepted | Stage::Pulling | Stage::Fetching | Stage::Interrupted), _) => {
            SCHEDULED
        }
        (Some(Stage::Running | Stage::Uploading), _) | (None, "processing") => RUNNING,
        (Some(Stage::Completed), _) | (None, "completed") => COMPLETED,
        (Some(Stage::Cancelled), _) => INTERRUPTED,
        (Some(Stage::Failed | Stage::TimedOut | Stage::Rejected) | None, _) => FAILED,
    }
}

/// Whether a job has ended, or was taken out of the queue.
pub(super) fn is_over(task: &Task) -> bool {
    let last = task.statuses.as_array().and_then(|all| all.last()?.get("status"));
    let last = last.and_then(|status| Status::deserialize(status).ok());
    last.map_or(task.queue == Queue::Withdrawn, |it| {
        it.stage.is_some_and(Stage::is_terminal) || is_given_up(task, &it)
    })
}

/// Whether a job that its node gave back was taken out of the queue then.
fn is_given_up(task: &Task, last: &Status) -> bool {
    task.queue == Queue::Withdrawn && last.stage == Some(Stage::Interrupted)
}

/// A job as the manager shows a task.
fn shown(task: &Task) -> Value {
    let statuses = task.statuses.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |kept: &Value| {
        kept.get("status").and_then(|status| Status::deserialize(status).ok()).unwrap_or_default()
    };
    let statuses: Vec<Status> = statuses.iter().map(read).collect();
    let at = |ms: u64| json!(Timestamp::from_unix_ms(ms));
    let when = |is_it: &dyn Fn(&Status) -> bool| {
        let found = statuses.iter().find(|status| is_it(status)).and_then(|it| it.timestamp);
        found.map_or_else(|| json!(NEVER), |at| json!(at))
    };
    let is_over = |status: &Status| status.stage.is_some_and(Stage::is_terminal);
    let asked = |key: &str| task.asked.as_ref().and_then(|asked| asked.get(key)).cloned();
    let mut told = Map::new();
    let mut put = |key: &str, value: Value| told.insert(key.to_owned(), value);
    put("id", json!(task.id));
    put("name", asked("name").unwrap_or_else(|| json!(task.id)));
    let unheard = if task.queue == Queue::Withdrawn { INTERRUPTED } else { PENDING };
    let number = |it: &Status| if is_given_up(task, it) { INTERRUPTED } else { state(it) };
    put("state", json!(statuses.last().map_or(unheard, number)));
    put("cli_args", asked("command").unwrap_or_else(|| json!([])));
    put("daemon", asked("daemon").unwrap_or(Value::Bool(false)));
    put("encrypted", json!(false));
    put("start_time", when(&|status| status.stage == Some(Stage::Running)));
    put("finish_time", when(&is_over));
    put("created_at", at(task.first));
    put("updated_at", at(task.last));
    put("next_run", json!(NEVER));
    let address = task.node.as_ref().and_then(|node| node.parse::<Address>().ok());
    let last = statuses.last();
    for (key, value) in [
        ("image_url", asked("image_name")),
        ("monitoring_profile", asked("monitoring_profile")),
        ("priority", asked("priority")),
        ("target", asked("target")),
        ("proplet_id", address.map(|address| json!(address))),
        ("results", last.and_then(|last| last.output_cid.as_ref()).map(|cid| json!(cid))),
        ("error", last.and_then(|last| last.error.as_ref()).map(|error| json!(error))),
    ] {
        if let Some(value) = value {
            put(key, value);
        }
    }
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(statuses: Value) -> Task {
        Task {
            id: "j".to_owned(),
            node: Some("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed".to_owned()),
            first: 1_000,
            last: 9_000,
            statuses,
            asked: None,
            queue: Queue::Sent,
        }
    }

    #[test]
    fn a_job_is_shown_with_the_managers_keys_and_numbers() {
        let status = |stage: &str, at: u64, more: Value| {
            let mut status =
                json!({"status": "x", "stage": stage, "timestamp": Timestamp::from_unix_ms(at)});
            if let (Value::Object(status), Value::Object(more)) = (&mut status, more) {
                status.extend(more);
            }
            json!({"seq": 1, "at": 1, "status": status})
        };
        let told = shown(&task(json!([
            status("accepted", 1_000, json!({})),
            status("running", 2_000, json!({})),
            status("completed", 9_000, json!({"output_cid": "Qm"})),
        ])));
        assert_eq!((&told["state"], &told["results"]), (&3.into(), &"Qm".into()));
        assert_eq!(told["start_time"], "1970-01-01T00:00:02.000Z");
        assert_eq!(told["finish_time"], "1970-01-01T00:00:09.000Z");
        assert_eq!(told["proplet_id"], "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed");
        let told = shown(&task(json!([status("rejected", 5, json!({"error": "no room"}))])));
        assert_eq!((&told["state"], &told["error"]), (&4.into(), &"no room".into()));
        assert_eq!(told["start_time"], NEVER);
    }

    #[test]
    fn a_job_is_the_same_one_only_if_nothing_of_it_differs_and_runs_where_it_ran() {
        let (one, two) = ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "pool.gpu");
        let asked = |hash: &str, target: &str| {
            let Value::Object(asked) = json!({"spec_hash": hash, "target": target}) else {
                panic!()
            };
            asked
        };
        let first = format!("dispatch.{one}");
        let again = Sends::Again(Value::Object(asked("a", &first)));
        let target = Some(Target::Agent(one.parse().unwrap()));
        assert_eq!(same(&again, &asked("a", &first), false), target);
        assert_eq!(same(&again, &asked("a", two), true), target, "the hub chose");
        assert_eq!(same(&again, &asked("a", two), false), None, "the owner chose");
        assert_eq!(same(&again, &asked("b", &first), true), None);
        assert_eq!(same(&Sends::Another, &asked("a", &first), true), None);
    }

    #[test]
    fn what_somebody_made_up_is_shown_without_harm() {
        for statuses in [json!(null), json!("no JSON"), json!([1, {"status": {"stage": "x"}}])] {
            let told = shown(&task(statuses));
            assert_eq!(told["id"], "j");
        }
        assert_eq!(shown(&task(json!([])))["state"], 0);
    }
}
