//! The promises, held against what happens while it happens, and against what is left in the end.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use lamda_node::job::spec::parse;
use lamda_node::job::{Hash, Job, JobId, Signature, Status};
use lamda_node::journal::{Fate, Gate, Journal, Outgoing};
use lamda_node::node::Address;
use serde_json::Value;

use super::work::{RIVAL_CODE, Wanted, Work, number};
use super::world::{Doing, Message, RunRecord, World};

/// A journal that is only looked at.
#[derive(Debug)]
pub(crate) struct Reading;

impl Gate for Reading {
    fn fate(&self, _: &'static str) -> Fate {
        Fate::Written
    }
}

/// Before a container starts: nothing else of the job runs or has ended here, and nobody else has
/// its cards.
pub(crate) fn may_start(world: &World, host: usize, job: &Job) {
    let (id, attempt) = (job.id(), job.attempt);
    let late = job.spec.deadline.is_some_and(|at| world.now().since(at).as_secs() > 10);
    let state = world.state();
    let one = &state.hosts[host];
    let mut broken = Vec::new();
    for run in one.runs.iter().filter(|run| run.job == *id) {
        if run.attempt == attempt {
            broken.push(format!("attempt {attempt} of {id} is started twice"));
        } else if run.code.is_none() && !run.stolen && !run.stopped {
            broken.push(format!("two containers of {id} run at a time"));
        } else if run.code.is_some() && !run.stolen && !run.stopped && job.pool().is_none() {
            // A pool's job whose lease was lost is begun anew, by whomever it comes to.
            broken.push(format!("{id} runs again though its exit could be read"));
        }
    }
    let running = one
        .containers
        .values()
        .filter(|other| matches!(other.state, Doing::Running { .. }) && other.job != *id);
    let cards = job.phase.holds().unwrap_or_default();
    let name = format!("{id}-{attempt}");
    if one.containers.get(&name).is_some_and(|container| container.gpus != cards) {
        broken.push(format!("the container of {id} has other cards than the job"));
    }
    let running: Vec<_> = running.collect();
    if running.iter().any(|other| other.gpus.iter().any(|card| cards.contains(card))) {
        broken.push(format!("{id} gets a card that another job has"));
    }
    if running.len() >= one.slots {
        broken.push(format!("{id} is started without a slot"));
    }
    if late && !state.clocks_were_set {
        broken.push(format!("{id} is started after its deadline"));
    }
    if let Some(pool) = job.pool() {
        let key = (pool.parse().expect("a pool"), id.clone());
        let claimed = state.claims.get(&key).map(|(claim, _)| (claim.agent, claim.attempt));
        if claimed != Some((job.node, attempt)) {
            broken.push(format!("{id} of a pool is started, but its claim is {claimed:?}"));
        }
    }
    drop(state);
    for what in broken {
        world.broken(what);
    }
}

/// A message may leave the queue only once its end would survive a power cut.
pub(crate) fn may_acknowledge(world: &World, host: usize, message: &Message) {
    let Ok(parsed) = parse(&message.body) else { return };
    let state = world.state();
    // A pool's job that has ended elsewhere, or whose id another body has.
    let done = state.claims.iter().any(|((_, id), (claim, _))| {
        let ended = claim.state == lamda_node::job::claim::State::Done;
        *id == parsed.spec.id && (ended || claim.spec_hash != parsed.spec_hash)
    });
    let disk = state.hosts[host].disk.another().expect("a copy");
    drop(state);
    let journal = Journal::simulated(&disk, std::sync::Arc::new(Reading));
    let known = journal.lookup(&parsed.spec.id).now_or_never().expect("at once").expect("readable");
    let ended = match known {
        // The same id with another body is refused under an id of its own.
        Some(known) if known.body_hash != parsed.spec_hash => true,
        Some(known) => done || known.job.is_none_or(|job| job.phase.outcome().is_some()),
        None => done,
    };
    if !ended {
        world.broken(format!("{} left the queue before its end was durable", parsed.spec.id));
    }
}

/// Stands for a signature: it tells which digest it was made over.
pub(crate) fn mark(digest: Hash) -> Signature {
    let mut bytes = [27; 65];
    bytes[..32].copy_from_slice(&digest.0);
    Signature(bytes)
}

/// Whether a status that ends a job was signed as it was sent.
fn is_signed(body: &[u8]) -> bool {
    let Ok((status, body)) = Status::read(body) else { return false };
    status.signature.is_some() && status.signature == status.digest(&body).map(mark)
}

/// A status is heard: numbers without gaps, no number with two bodies, nothing after the end, which
/// is signed.
pub(crate) fn hear(world: &World, host: usize, status: &Outgoing) {
    let body: Value = serde_json::from_slice(&status.body).expect("a status is JSON");
    let mut state = world.state();
    let agent = state.hosts[host].agent;
    let id = status.job_id.clone();
    let heard = state.statuses.entry((agent, id.clone())).or_default();
    let broken = match heard.get(&status.seq) {
        Some(earlier) if *earlier == body => None,
        Some(earlier) => Some(format!("{id}: number {} twice: {earlier} and {body}", status.seq)),
        None if status.seq != heard.len() as u64 + 1 => {
            Some(format!("{id}: number {} comes after {}", status.seq, heard.len()))
        }
        None if heard.values().any(is_terminal) => Some(format!("{id}: {body} after its end")),
        None if is_terminal(&body) && !is_signed(&status.body) => {
            Some(format!("{id}: the end {body} is not signed"))
        }
        None => {
            heard.insert(status.seq, body);
            None
        }
    };
    drop(state);
    if let Some(what) = broken {
        world.broken(what);
    }
}

fn is_terminal(status: &Value) -> bool {
    status["status"] != "processing"
}

/// When everything has calmed down: every job has its one end, and it is the right one.
pub(crate) fn the_end(world: &World, wanted: &[Wanted]) {
    let state = world.state();
    let mut broken = Vec::new();
    for job in wanted {
        let ends: BTreeMap<Address, Value> = state
            .statuses
            .iter()
            .filter(|((_, id), _)| *id == job.id)
            .filter_map(|((agent, _), heard)| {
                Some((*agent, heard.values().next_back().filter(|last| is_terminal(last))?.clone()))
            })
            .collect();
        if ends.len() != 1 {
            broken.push(format!("{} has {} ends: {ends:?}", job.id, ends.len()));
        }
        for (agent, end) in &ends {
            let host = state.hosts.iter().find(|host| host.agent == *agent).expect("a host");
            let runs: Vec<&RunRecord> = host.runs.iter().filter(|run| run.job == job.id).collect();
            let excused = state.clocks_were_set;
            let uploaded = |attempt| state.store.contains(&Work::output(*agent, &job.id, attempt));
            if let Some(what) = wrong_end(job, end, &runs, &host.cancelled, excused, uploaded) {
                broken.push(format!("{}: {what}: {end}; {runs:?}", job.id));
            }
        }
    }
    drop(state);
    for what in broken {
        world.broken(what);
    }
}

/// What is wrong about the way a job ended.
fn wrong_end(
    job: &Wanted,
    end: &Value,
    runs: &[&RunRecord],
    cancelled: &std::collections::BTreeSet<JobId>,
    clocks_were_set: bool,
    uploaded: impl Fn(u32) -> bool,
) -> Option<String> {
    let code = i32::try_from(number(&job.body, 1)).unwrap_or(0);
    // Where a second body came first, it is that one's job.
    let codes = if job.has_rival { vec![code, RIVAL_CODE] } else { vec![code] };
    let too_long = number(&job.body, 0) >= job.body["timeout_s"].as_u64().unwrap_or(0) * 1000;
    let reason = end["reason_code"].as_str().unwrap_or("completed");
    let attempt = u32::try_from(end["attempt"].as_u64()?).ok()?;
    let of_attempt = runs.iter().find(|run| run.attempt == attempt);
    let last = runs.last();
    let by_itself = |run: &&&RunRecord| run.code.is_some() && !run.stopped && !run.stolen;
    let may_end_so = match reason {
        "completed" => of_attempt.is_some_and(|run| run.code == Some(0)) && uploaded(attempt),
        "nonzero_exit" => of_attempt
            .and_then(|run| run.code)
            .is_some_and(|code| code != 0 && codes.contains(&code)),
        "image_unavailable" => job.body["image_name"] == "missing",
        // Patience that ended: faults come in rows.
        "image_pull_failed" | "input_unavailable" | "node_fault" => {
            last.is_none_or(|run| run.stopped || run.stolen)
        }
        "container_lost" | "poison" => attempt >= 3 || job.target.to_string().starts_with("pool"),
        "cancelled" => cancelled.contains(&job.id),
        "timeout" => {
            of_attempt.is_some_and(|run| run.stolen || run.stopped && (too_long || clocks_were_set))
        }
        "deadline_reached" => of_attempt.is_some() && job.body["deadline"].is_string(),
        "deadline_passed" => job.body["deadline"].is_string(),
        other => return Some(format!("an end that no job of this day has: {other}")),
    };
    if !may_end_so {
        return Some("the wrong end".to_owned());
    }
    // A result that was there is never lost, whatever was asked for meanwhile.
    if last.filter(by_itself).is_some_and(|run| run.code == Some(0)) && reason != "completed" {
        return Some("a result was lost".to_owned());
    }
    None
}
