//! The faults of hosts, bus, store and operators that are drawn each half minute until the weather is calm.

use std::collections::BTreeMap;

use lamda_node::bus::PoolName;
use lamda_node::ids::JobId;
use lamda_node::job::claim::Claim;

use super::day::Day;
use super::world::{AMENDS_MS, Cut, Doing, Message, World};

/// How long an engine stays away until somebody repairs it, in milliseconds.
const DEAD_MS: u64 = 3_600_000;

/// An operator's backup of the queue and the claims.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    messages: BTreeMap<u64, Message>,
    created_ns: i64,
    claims: BTreeMap<(PoolName, JobId), (Claim, u64)>,
}

impl Day {
    /// Draws each kind of fault once, for one random host, the bus, the store and the operators.
    pub(super) fn befall(&mut self) {
        let world = self.world.clone();
        let host = usize::try_from(world.roll(self.processes.len() as u64)).unwrap_or(0);
        if world.happens(|weather| weather.theft) {
            theft(&world, host);
        }
        if world.happens(|weather| weather.clocks) {
            let by = i64::try_from(world.roll(1_200_000)).unwrap_or(0) - 600_000;
            world.state().clocks_were_set = true;
            world.time.set_clock(host, by);
            world.note(Some(host), || format!("its clock is set by {by} ms"));
        }
        if world.happens(|weather| weather.outage) {
            outage(&world, host);
        }
        if world.happens(|weather| weather.split) {
            split(&world, host);
        }
        if world.happens(|weather| weather.freeze) {
            let until = world.time.ms() + world.roll(300_000);
            world.note(Some(host), || format!("stands still until {until}"));
            world.time.freeze(host, until);
            world.hinder(host, until);
        }
        if world.happens(|weather| weather.slow) {
            let until = world.time.ms() + world.roll(60_000);
            world.note(Some(host), || format!("its journal is slow until {until}"));
            world.state().hosts[host].journal_slow_until_ms = until;
            world.hinder(host, until);
        }
        if world.happens(|weather| weather.age) {
            age(&world);
        }
        if world.happens(|weather| weather.dead) {
            let until = world.time.ms() + DEAD_MS;
            world.note(Some(host), || format!("its engine is away until {until}"));
            world.state().hosts[host].engine_away_until_ms = until;
            world.hinder(host, until);
        }
        if world.happens(|weather| weather.leaderless) {
            leaderless(&world);
        }
        if world.happens(|weather| weather.refusal) {
            let until = world.time.ms() + world.roll(600_000);
            world.note(None, || format!("the store refuses all until {until}"));
            world.state().store_refuses_until_ms = until;
        }
        self.operate(&world);
        if world.happens(|weather| weather.restart)
            && let Some(process) = &mut self.processes[host]
        {
            process.ask_to_end();
        }
    }

    /// Draws what operators do to the queue and the claims, and keeps a backup of both.
    fn operate(&mut self, world: &World) {
        if world.happens(|weather| weather.edit) {
            let to = 5_000 + world.roll(300_000);
            world.note(None, || format!("the ack wait of pools is {to} ms"));
            let mut state = world.state();
            state.queue.pools_ack_wait_ms = Some(to);
            let jobs: Vec<JobId> = state.targets.keys().cloned().collect();
            for job in jobs {
                state.disturb(job, u64::MAX);
            }
        }
        let (claims, queue) =
            (world.happens(|weather| weather.claims), world.happens(|weather| weather.queue));
        if claims || queue {
            let old = usize::try_from(world.roll(self.snapshots.len() as u64 + 1)).unwrap_or(0);
            let old = self.snapshots.get(old).cloned();
            if claims {
                restore_claims(world, old.as_ref());
            }
            if queue {
                restore_queue(world, old.as_ref());
            }
        }
        let state = world.state();
        if state.weather.claims > 0 || state.weather.queue > 0 {
            self.snapshots.push(Snapshot {
                messages: state.queue.messages.clone(),
                created_ns: state.queue.created_ns,
                claims: state.claims.clone(),
            });
        }
    }
}

/// Somebody else removes a random container that was started.
fn theft(world: &World, host: usize) {
    world.settle_containers(host);
    let mut state = world.state();
    let names: Vec<String> = state.hosts[host]
        .containers
        .iter()
        .filter(|(_, one)| one.state != Doing::Created)
        .map(|(name, _)| name.clone())
        .collect();
    if names.is_empty() {
        return;
    }
    let at = state.rng.usize(..names.len());
    state.hosts[host].steal(&names[at]);
    drop(state);
    world.note(Some(host), || format!("{} is removed by somebody", names[at]));
}

fn outage(world: &World, host: usize) {
    let until = world.time.ms() + world.roll(150_000);
    let of_bus = world.roll(2) == 0;
    world.note(None, || {
        format!("{} is away until {until}", if of_bus { "the bus" } else { "an engine" })
    });
    if of_bus {
        world.state().queue.away_until_ms = until;
    } else {
        world.state().hosts[host].engine_away_until_ms = until;
        world.hinder(host, until);
    }
}

/// `JetStream` loses its leader: it delivers nothing and accepts no calls.
fn leaderless(world: &World) {
    let until = world.time.ms() + world.roll(400_000);
    world.note(None, || format!("nobody leads until {until}"));
    let mut state = world.state();
    state.queue.leaderless_until_ms = until;
    // Leases that ran out meanwhile are delivered to others afterwards, and the holder may not answer them.
    let jobs: Vec<JobId> = state.targets.keys().cloned().collect();
    for job in jobs {
        state.disturb(job, until + AMENDS_MS);
    }
}

/// One host loses its connection to the bus, in one direction or both.
fn split(world: &World, host: usize) {
    let until = world.time.ms() + world.roll(400_000);
    let cut = [Cut::Both, Cut::Deaf, Cut::Mute][usize::try_from(world.roll(3)).unwrap_or(0)];
    world.note(Some(host), || format!("is cut off until {until}: {cut:?}"));
    world.state().hosts[host].cut = Some((cut, until));
}

/// A random message leaves the queue by age, or because somebody removes it.
fn age(world: &World) {
    let mut state = world.state();
    let seqs: Vec<u64> = state.queue.messages.keys().copied().collect();
    if seqs.is_empty() {
        return;
    }
    let seq = seqs[state.rng.usize(..seqs.len())];
    if let Some(job) = state.queue.messages.remove(&seq).and_then(|message| message.job()) {
        state.gone.insert(job);
    }
    drop(state);
    world.note(None, || format!("message {seq} leaves the queue unanswered"));
}

/// Restores the bucket of claims from a backup, or empties it.
fn restore_claims(world: &World, old: Option<&Snapshot>) {
    let claims = old.map(|old| old.claims.clone()).unwrap_or_default();
    world.note(None, || format!("the bucket has {} old claims", claims.len()));
    let mut state = world.state();
    let differ = |key: &(PoolName, JobId)| claims.get(key) != state.claims.get(key);
    let lost: Vec<JobId> =
        state.claims.keys().filter(|key| differ(key)).map(|(_, job)| job.clone()).collect();
    state.unclaimed.extend(lost);
    state.claims = claims;
}

/// Restores the queue from a backup, or recreates it empty.
fn restore_queue(world: &World, old: Option<&Snapshot>) {
    let ms = world.time.ms();
    let mut state = world.state();
    let jobs: Vec<JobId> = state.targets.keys().cloned().collect();
    for job in jobs {
        state.disturb(job, ms + 3 * AMENDS_MS);
    }
    let before: Vec<Message> = state.queue.messages.values().cloned().collect();
    if let Some(old) = old {
        state.queue.messages.clone_from(&old.messages);
        // Sequence numbers are not reused: docs/job-lifecycle.md has the consequences if they were.
        state.queue.created_ns = old.created_ns;
        state.queue.last_seq = state.queue.top_seq;
    } else {
        state.queue.messages.clear();
        state.queue.created_ns += 1;
        state.queue.last_seq = 0;
    }
    let there: Vec<JobId> = state.queue.messages.values().filter_map(Message::job).collect();
    let gone = before.iter().filter_map(Message::job).filter(|job| !there.contains(job));
    state.gone.extend(gone);
    let count = state.queue.messages.len();
    drop(state);
    world.note(None, || format!("the queue has {count} old messages"));
    world.queued.notify_waiters();
}
