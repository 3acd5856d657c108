//! Checks of the promises of docs/job-lifecycle.md, at each event and at the end of the day.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use lamda_node::bus::{AckHandle, Target};
use lamda_node::ids::{Address, Hash, JobId, Signature};
use lamda_node::job::claim::State as ClaimState;
use lamda_node::job::phase::Phase;
use lamda_node::job::spec::{Refused, parse};
use lamda_node::job::{Job, Reason, Status};
use lamda_node::journal::{Journal, Known, Outgoing, OutgoingKind};
use lamda_node::sql::{Disk, Fate, Gate};
use serde_json::Value;

use super::held::goes_back;
use super::work::{RIVAL_CODE, Wanted, Work, number};
use super::world::{Doing, Message, RunRecord, State, World};

/// A status that is published more often than this is repeated for ever.
const SAID_MAX: u32 = 200;

/// How long a run may exceed its time, in milliseconds.
const OVERRUN_MS: u64 = 60_000;

/// The gate of a journal that the checks only read.
#[derive(Debug)]
pub(crate) struct Reading;

impl Gate for Reading {
    fn fate(&self, _: &'static str) -> Fate {
        Fate::Written
    }
}

/// What a host's journal knows of a job.
pub(super) fn known(disk: &Disk, id: &JobId) -> Option<Known> {
    let journal = Journal::simulated(disk, Arc::new(Reading));
    journal.lookup(id).now_or_never().expect("at once").expect("readable")
}

/// Before a step: the journal has the job in the phase that the step belongs to.
pub(crate) fn acts_on_what_is_written(world: &World, host: usize, job: &Job) {
    let state = world.state();
    if !state.strict {
        return;
    }
    let disk = state.hosts[host].disk.clone();
    drop(state);
    let written = known(&disk, job.id()).and_then(|known| known.job);
    let same = |written: &Job| written.phase == job.phase && written.seq == job.seq;
    if !written.as_ref().is_some_and(same) {
        let written = written.map(|job| job.phase.name());
        let (id, phase) = (job.id(), job.phase.name());
        world.broken(format!("{id} acts as {phase}, but its journal has {written:?}"));
    }
}

/// After the intake of a delivery: the journal has it as the latest one of its open job.
pub(crate) fn is_answered_for(world: &World, host: usize, ack: &AckHandle) {
    let state = world.state();
    let Some(message) = state.queue.messages.get(&ack.stream_seq).cloned() else { return };
    let (disk, strict) = (state.hosts[host].disk.clone(), state.strict);
    drop(state);
    let Some(id) = message.job().filter(|_| strict) else { return };
    let Some(known) = known(&disk, &id).filter(|known| known.open) else { return };
    let written: Option<AckHandle> =
        known.delivery.and_then(|delivery| serde_json::from_str(&delivery).ok());
    let older = written.is_some_and(|written| {
        written.stream_seq == ack.stream_seq && written.delivered < ack.delivered
    });
    // A job that is going back to its queue needs no newer delivery: another agent gets it.
    let goes_back = known.job.is_some_and(|job| goes_back(&job.phase));
    if older && !goes_back {
        world.broken(format!("{id} was delivered again, but its journal has the older delivery"));
    }
}

/// Before a container starts: no other attempt of the job runs or ended by itself here, and the job has its
/// cards, a slot, its claim and time.
pub(crate) fn may_start(world: &World, host: usize, job: &Job) {
    let (id, attempt) = (job.id(), job.attempt);
    let now = world.now_on(host);
    let state = world.state();
    // A late start may have been in flight when its process died.
    let may_be_late_s = if state.weather.late > 0 { 10 } else { 1 };
    let late = job.spec.deadline.is_some_and(|at| now.since(at).as_secs() > may_be_late_s);
    let one = &state.hosts[host];
    let mut broken = Vec::new();
    for run in one.runs.iter().filter(|run| run.job == *id) {
        if run.attempt == attempt {
            broken.push(format!("attempt {attempt} of {id} is started twice"));
        } else if run.code.is_none() && !run.stolen && !run.stopped {
            broken.push(format!("two containers of {id} run at the same time"));
        } else if run.code.is_some() && !run.stolen && !run.stopped && job.pool().is_none() {
            // A pool's job whose lease was lost may run again, even on this host.
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
        let excused = state.may_overlap(host, id, world.time.ms());
        if claimed != Some((job.node, attempt)) && !excused {
            broken.push(format!("{id} of a pool is started, but its claim is {claimed:?}"));
        }
    }
    drop(state);
    for what in broken {
        world.broken(what);
    }
    look_around(world);
}

/// At any time: each host runs only jobs that no other agent has claimed, and none beyond its time.
pub(crate) fn look_around(world: &World) {
    let hosts = world.state().hosts.len();
    for host in 0..hosts {
        world.settle_containers(host);
    }
    let ms = world.time.ms();
    let state = world.state();
    let mut broken = Vec::new();
    for (host, one) in state.hosts.iter().enumerate() {
        let running =
            one.containers.values().filter(|one| matches!(one.state, Doing::Running { .. }));
        for container in running {
            let id = &container.job;
            // docs/job-lifecycle.md, What it does not cover, names the cases in which two agents may run a
            // job at the same time.
            let is_anothers = holder(&state, id).is_some_and(|agent| agent != one.agent);
            if is_anothers && !state.may_overlap(host, id, ms) {
                broken.push(format!("{id} runs on host {host}, but another agent has its claim"));
            }
            let unhindered = one.life.is_some()
                && ms > one.began_ms + OVERRUN_MS
                && ms > one.hindered_until_ms
                && !state.clocks_were_set;
            if unhindered && ms > container.due_ms.saturating_add(OVERRUN_MS) {
                broken.push(format!("{id} runs on host {host} though its time is over"));
            }
        }
    }
    drop(state);
    for what in broken {
        world.broken(what);
    }
}

/// The agent that the claim of a pool's job names, if there is a claim.
fn holder(state: &State, id: &JobId) -> Option<Address> {
    let Some(Target::Pool(pool)) = state.targets.get(id) else { return None };
    state.claims.get(&(pool.clone(), id.clone())).map(|(claim, _)| claim.agent)
}

/// Before an ack: the job's outcome would survive a power cut, and its requester learns of it from this
/// agent or another.
pub(crate) fn may_acknowledge(world: &World, host: usize, message: &Message, ack: &AckHandle) {
    let state = world.state();
    let disk = state.hosts[host].disk.clone();
    let durable = disk.another().expect("a copy");
    let is_refused = |refused: &Refused| known(&durable, &refused.id).is_some();
    let parsed = match parse(&message.body) {
        Ok(parsed) => parsed,
        Err(refused) => {
            drop(state);
            if !is_refused(&refused) {
                world.broken("a message that is no job left the queue unanswered".to_owned());
            }
            return;
        }
    };
    let id = &parsed.spec.id;
    let claim = match &message.target {
        Target::Pool(pool) => state.claims.get(&(pool.clone(), id.clone())).map(|(it, _)| *it),
        Target::Agent(_) => None,
    };
    let (given_ms, said_ms) = (
        state.hosts[host].given_ms.get(&ack.stream_seq).copied().unwrap_or(0),
        state.hosts[host].said_again_ms.get(id).copied(),
    );
    let unclaimed = state.unclaimed.contains(id);
    let was_late = state.was_late;
    drop(state);
    let journal = known(&durable, id);
    let others = journal.as_ref().map_or_else(
        || claim.is_some_and(|claim| claim.spec_hash != parsed.spec_hash),
        |known| known.body_hash != parsed.spec_hash,
    );
    let done = claim.is_some_and(|claim| claim.state == ClaimState::Done);
    if others {
        // A second body under a used id is refused under an id derived from that body.
        let refused = Refused::nameless(&message.body, Reason::DuplicateJobId, String::new());
        let elsewhere = done && journal.is_some();
        if !is_refused(&refused) && !unclaimed && !elsewhere {
            world.broken(format!("a second body under {id} left the queue unanswered"));
        }
        return;
    }
    let ended = journal
        .as_ref()
        .is_some_and(|known| known.job.as_ref().is_none_or(|job| job.phase.outcome().is_some()));
    let now = known(&disk, id).and_then(|known| known.job);
    if !was_late && now.is_some_and(|job| job.phase == Phase::Waiting) {
        world.broken(format!("{id} left the queue, but its journal has it waiting there"));
    }
    if !ended && !done && !unclaimed {
        world.broken(format!("{id} left the queue before its end was durable"));
    }
    if let Some(known) = journal.filter(|known| !known.open && ended_here(known)) {
        let will_be_said = is_own(&known, ack) || is_unsent(&disk, id);
        if !will_be_said && said_ms.is_none_or(|said| said < given_ms) {
            world.broken(format!("{id} was requested again, but its outcome is not repeated"));
        }
    }
}

/// Whether the ack is for the message that the journal has for the job.
fn is_own(known: &Known, ack: &AckHandle) -> bool {
    let own = known.delivery.as_ref().and_then(|text| serde_json::from_str::<AckHandle>(text).ok());
    own.is_some_and(|own| {
        (own.stream_seq, own.stream_created_ns) == (ack.stream_seq, ack.stream_created_ns)
    })
}

fn is_unsent(disk: &Disk, id: &JobId) -> bool {
    let journal = Journal::simulated(disk, Arc::new(Reading));
    let unsent = journal.unsent(1_000).now_or_never().expect("at once").expect("readable");
    unsent.iter().any(|status| status.job_id == *id)
}

/// Whether the job ended at this agent, which then has its outcome to publish.
fn ended_here(known: &Known) -> bool {
    known.job.as_ref().is_some_and(|job| job.phase.outcome().is_some())
}

/// Stands in for a signature: it contains the digest that was signed.
pub(crate) fn mark(digest: Hash) -> Signature {
    let mut bytes = [27; 65];
    bytes[..32].copy_from_slice(&digest.0);
    Signature(bytes)
}

/// Whether a terminal status carries a signature over its own digest.
fn is_signed(body: &[u8]) -> bool {
    let Ok((status, body)) = Status::read(body) else { return false };
    status.signature.is_some() && status.signature == status.digest(&body).map(mark)
}

/// Records a published status. Its number leaves no gap and has no other body, nothing follows a terminal
/// status, and that is signed and agrees with the claim.
pub(crate) fn hear(world: &World, host: usize, status: &Outgoing) {
    let body: Value = serde_json::from_slice(&status.body).expect("a status is JSON");
    let ms = world.time.ms();
    let mut state = world.state();
    let agent = state.hosts[host].agent;
    let id = status.job_id.clone();
    if status.kind == OutgoingKind::Again {
        state.hosts[host].said_again_ms.insert(id.clone(), ms);
    }
    let count = state.said.entry((agent, id.clone(), status.seq)).or_default();
    *count += 1;
    let for_ever = *count > SAID_MAX;
    let unclaimed = state.unclaimed.contains(&id);
    let claim = match state.targets.get(&id) {
        Some(Target::Pool(pool)) if is_terminal(&body) && !unclaimed => {
            Some(state.claims.get(&(pool.clone(), id.clone())).map(|(claim, _)| *claim))
        }
        _ => None,
    };
    let is_its_end = claim.is_none_or(|claim| {
        claim.is_some_and(|claim| claim.agent == agent && claim.state == ClaimState::Done)
    });
    let heard = state.statuses.entry((agent, id.clone())).or_default();
    let broken = match heard.get(&status.seq) {
        _ if for_ever => Some(format!("{id}: status {} is repeated for ever", status.seq)),
        _ if !is_its_end => Some(format!("{id}: {body} contradicts its claim")),
        Some(earlier) if *earlier == body => None,
        Some(earlier) => Some(format!("{id}: status {} twice: {earlier} and {body}", status.seq)),
        None if status.seq != heard.len() as u64 + 1 => {
            Some(format!("{id}: status {} comes after {}", status.seq, heard.len()))
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

/// At the end of the day: every job has exactly one terminal status, and it is right.
pub(crate) fn the_end(world: &World, wanted: &[Wanted]) {
    let state = world.state();
    let mut broken = Vec::new();
    for job in wanted {
        let said: BTreeMap<Address, &BTreeMap<u64, Value>> = state
            .statuses
            .iter()
            .filter(|((_, id), _)| *id == job.id)
            .map(|((agent, _), heard)| (*agent, heard))
            .collect();
        let last = |heard: &BTreeMap<u64, Value>| heard.values().next_back().cloned();
        let ends: BTreeMap<Address, Value> = said
            .iter()
            .filter_map(|(agent, heard)| Some((*agent, last(heard).filter(is_terminal)?)))
            .collect();
        // A job that left its queue unseen needs no end.
        let unknown = state.gone.contains(&job.id) && said.is_empty();
        // If an operator changed its claim, several agents may have ended it.
        let several = state.unclaimed.contains(&job.id) && !ends.is_empty();
        let none_due = unknown && ends.is_empty();
        if ends.len() != 1 && !none_due && !several {
            broken.push(format!("{} has {} ends: {ends:?}", job.id, ends.len()));
        }
        if let Target::Agent(own) = &job.target
            && said.keys().any(|agent| agent != own)
        {
            broken.push(format!("{} has statuses of another agent", job.id));
        }
        for (agent, end) in &ends {
            if let Some(what) = wrong_end(&state, job, *agent, end) {
                broken.push(format!("{}: {what}: {end}; {:?}", job.id, runs(&state, *agent, job)));
            }
        }
    }
    drop(state);
    for what in broken {
        world.broken(what);
    }
}

/// The jobs that a host's journal has open, except waiting ones that another agent may end.
pub(crate) fn left_open(state: &State, host: usize) -> Vec<String> {
    let journal = Journal::simulated(&state.hosts[host].disk, Arc::new(Reading));
    let open = journal.open_jobs().now_or_never().expect("at once").expect("readable");
    let has_end = |id: &JobId| {
        let of_job = state.statuses.iter().filter(|((_, of), _)| of == id);
        of_job.into_iter().any(|(_, heard)| heard.values().any(is_terminal))
    };
    // A pool's job that was given back is another agent's, and its row is forgotten later. If its message
    // left the queue without an ack, only this agent can end it, unless another one already has.
    let may_wait =
        |job: &Job| job.pool().is_some() && (!state.gone.contains(job.id()) || has_end(job.id()));
    let left = open.iter().filter(|job| job.phase != Phase::Waiting || !may_wait(job));
    left.map(|job| format!("{} open as {}", job.id(), job.phase.name())).collect()
}

fn runs<'a>(state: &'a State, agent: Address, job: &Wanted) -> Vec<&'a RunRecord> {
    let host = state.hosts.iter().find(|host| host.agent == agent).expect("a host");
    host.runs.iter().filter(|run| run.job == job.id).collect()
}

/// How often a job was started in its pool, not counting runs that a node stopped.
fn starts_that_count(state: &State, job: &Wanted) -> usize {
    let started = state.starts.get(&job.id).into_iter().flatten();
    let counts = |(agent, attempt): &&(Address, u32)| {
        let runs = runs(state, *agent, job);
        !runs.iter().any(|run| run.attempt == *attempt && run.stopped && !run.stolen)
    };
    started.filter(counts).count()
}

/// What is wrong with a job's terminal status, if anything.
fn wrong_end(state: &State, job: &Wanted, agent: Address, end: &Value) -> Option<String> {
    let host = state.hosts.iter().find(|host| host.agent == agent).expect("a host");
    let runs = runs(state, agent, job);
    let clocks_were_set = state.clocks_were_set;
    let uploaded = |attempt| state.store.contains(&Work::output(agent, &job.id, attempt));
    let is_aside = state.dead.iter().any(|letter| letter["job"]["job_id"] == job.id.as_str());
    let code = i32::try_from(number(&job.body, 1)).unwrap_or(0);
    // If the second body arrived first, it is the job.
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
        // Retries were given up: faults may come in a row.
        "image_pull_failed" | "input_unavailable" | "node_fault" | "gpu_failed" => {
            last.is_none_or(|run| run.stopped || run.stolen)
        }
        "container_lost" | "poison" if !is_aside => return Some("no dead letter".to_owned()),
        "container_lost" | "poison" if matches!(job.target, Target::Pool(_)) => {
            starts_that_count(state, job) >= 3
        }
        "container_lost" | "poison" => attempt >= 3,
        "cancelled" => host.cancelled.contains(&job.id),
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
    // If the last run exited with 0 by itself, the job is `completed`, even after a cancel.
    if last.filter(by_itself).is_some_and(|run| run.code == Some(0)) && reason != "completed" {
        return Some("a result was lost".to_owned());
    }
    None
}
