//! One simulated day: requesters, agents and faults, then calm weather until everything is finished.

use std::collections::VecDeque;
use std::time::Duration;

use lamda_node::sql::Disk;

use super::agent::Process;
use super::befall::Snapshot;
use super::check;
use super::dice::Weather;
use super::plant::Plant;
use super::time::Time;
use super::work::{self, Deed, Wanted};
use super::world::{Message, World};

/// When the faults stop, in milliseconds since the day began.
const CALM_AT_MS: u64 = 300_000;

/// How long after the last start of a process everything must be finished: longer than any retry schedule.
const END_MS: u64 = 4 * 3_600_000;

/// The interval between two draws of faults of hosts, bus and operators.
const MISFORTUNE_MS: u64 = 30_000;

/// The range of a long absence, in milliseconds. Its upper end exceeds the give-up time of uploads.
const ABSENT_MS: (u64, u64) = (3_600_000, 36 * 3_600_000);

/// How long uploads and fetches fail at random after a host returns from a long absence.
const MORNING_MS: u64 = 100_000;

/// The result of one day.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The first broken promise, if any.
    pub(crate) broken: Option<String>,
    /// The events in order; empty unless the day was traced.
    pub(crate) trace: Vec<String>,
    /// A hash of all events, equal for equal seeds.
    pub(crate) fingerprint: u64,
    /// The names of the journal's writes that were requested.
    pub(crate) writes: Vec<&'static str>,
}

/// Simulates the day of this seed. `empty` is an empty disk, `plant` the defect of the agents. With a
/// defect, and on every fourth day, each step is compared with the journal.
pub(crate) fn live(seed: u64, traced: bool, empty: &Disk, plant: Plant) -> Outcome {
    // The agent's own jitter draws from the global generator.
    fastrand::seed(seed);
    let hosts = 1 + usize::from(seed.is_multiple_of(2));
    let time = Time::of(hosts);
    let disks = (0..hosts).map(|_| empty.another().expect("a disk")).collect();
    let world = World::new(seed, traced, time.clone(), disks, plant);
    time.run(Day::new(world.clone()).run());
    let mut state = world.state();
    Outcome {
        broken: state.broken.take(),
        trace: state.trace.take().unwrap_or_default(),
        fingerprint: state.fingerprint,
        writes: state.writes.iter().copied().collect(),
    }
}

pub(super) struct Day {
    pub(super) world: World,
    deeds: VecDeque<(u64, Deed)>,
    wanted: Vec<Wanted>,
    pub(super) processes: Vec<Option<Process>>,
    /// When each host's process starts next.
    starts_at_ms: Vec<u64>,
    misfortune_at_ms: u64,
    /// Until when the store fails at random after a long absence.
    morning_until_ms: u64,
    /// Whether the extra restart that removes leftovers of late calls has been made.
    is_swept: bool,
    /// The backups that operators can restore.
    pub(super) snapshots: Vec<Snapshot>,
}

impl Day {
    fn new(world: World) -> Self {
        let mut state = world.state();
        let agents: Vec<_> = state.hosts.iter().map(|host| host.agent).collect();
        let (deeds, wanted) = work::of_a_day(&mut state.rng, &agents);
        let targets = wanted.iter().map(|job| (job.id.clone(), job.target.clone()));
        state.targets = targets.collect();
        let skewed = state.weather.skew > 0;
        drop(state);
        for host in 0..agents.len() {
            if skewed {
                let by = i64::try_from(world.roll(240_000)).unwrap_or(0) - 120_000;
                world.time.set_clock(host, by);
            }
        }
        Self {
            world,
            deeds: deeds.into(),
            wanted,
            processes: agents.iter().map(|_| None).collect(),
            starts_at_ms: vec![0; agents.len()],
            misfortune_at_ms: MISFORTUNE_MS,
            morning_until_ms: 0,
            is_swept: false,
            snapshots: Vec::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let ms = self.world.time.ms();
            self.world.settle_late();
            self.look_after_processes(ms);
            self.do_deeds(ms);
            check::look_around(&self.world);
            if ms >= CALM_AT_MS {
                self.calm(ms);
                if self.is_done().await && !self.sweeps() {
                    check::the_end(&self.world, &self.wanted);
                    return;
                }
            } else if ms >= self.misfortune_at_ms {
                self.misfortune_at_ms = ms + MISFORTUNE_MS;
                self.befall();
            }
            if self.world.state().broken.is_some() {
                return;
            }
            if ms > END_MS + self.starts_at_ms.iter().max().copied().unwrap_or(0) {
                let left = self.what_is_left();
                return self.world.broken(format!("not finished by the end: {left}"));
            }
            self.wait(ms).await;
        }
    }

    /// Ends all faults, except those of the store after a long absence.
    fn calm(&self, ms: u64) {
        let store = if ms < self.morning_until_ms { 2 } else { 0 };
        let mut state = self.world.state();
        state.weather = Weather { store, ..Weather::calm() };
        state.queue.pools_ack_wait_ms = None;
    }

    async fn wait(&self, ms: u64) {
        let due = [
            self.deeds.front().map(|(at, _)| *at),
            (ms < CALM_AT_MS).then_some(self.misfortune_at_ms.min(CALM_AT_MS)),
            // Polls only while every host is up: a long absence ends with a start, which is awaited below.
            (ms >= CALM_AT_MS && self.next_start().is_none()).then_some(ms + 5_000),
            (self.morning_until_ms > ms).then_some(self.morning_until_ms),
            self.next_start(),
            self.world.next_late(),
        ];
        let due = due.into_iter().flatten().min().unwrap_or(ms + 5_000).max(ms + 1);
        tokio::select! {
            biased;
            () = self.world.news.notified() => {}
            () = self.world.time.sleep(Duration::from_millis(due - ms)) => {}
        }
    }

    fn next_start(&self) -> Option<u64> {
        let waiting = self.processes.iter().zip(&self.starts_at_ms);
        waiting.filter(|(process, _)| process.is_none()).map(|(_, at)| *at).min()
    }

    fn look_after_processes(&mut self, ms: u64) {
        for host in 0..self.processes.len() {
            let life = self.world.state().hosts[host].life;
            if self.processes[host].as_ref().is_some_and(|process| Some(process.life) != life) {
                self.processes[host] = None;
                self.starts_at_ms[host] = ms + self.absence();
            }
            if self.processes[host].is_none() && self.starts_at_ms[host] <= ms {
                self.processes[host] = Some(Process::start(&self.world, host));
                if ms > CALM_AT_MS + MORNING_MS && !self.is_swept {
                    self.morning_until_ms = ms + MORNING_MS;
                }
            }
        }
    }

    /// How long a host that went down stays away, in milliseconds.
    fn absence(&self) -> u64 {
        let world = &self.world;
        if world.happens(|weather| weather.absent) {
            return ABSENT_MS.0 + world.roll(ABSENT_MS.1 - ABSENT_MS.0);
        }
        world.roll(if world.roll(4) == 0 { 200_000 } else { 10_000 })
    }

    fn do_deeds(&mut self, ms: u64) {
        while self.deeds.front().is_some_and(|(at, _)| *at <= ms) {
            match self.deeds.pop_front() {
                Some((_, Deed::Publish { target, body })) => {
                    self.world
                        .note(None, || format!("{target}: {}", String::from_utf8_lossy(&body)));
                    let mut state = self.world.state();
                    state.queue.last_seq += 1;
                    let seq = state.queue.last_seq;
                    state.queue.top_seq = state.queue.top_seq.max(seq);
                    let message =
                        Message { target, body, delivered: 0, free_at_ms: ms, held_by: None };
                    state.queue.messages.insert(seq, message);
                    drop(state);
                    self.world.queued.notify_waiters();
                }
                Some((_, Deed::Cancel { job })) => {
                    for process in self.processes.iter_mut().flatten() {
                        process.cancel(job.clone());
                    }
                }
                None => {}
            }
        }
    }

    async fn is_done(&self) -> bool {
        let idle =
            self.processes.iter().all(|process| process.as_ref().is_some_and(Process::is_idle));
        if !idle || !self.deeds.is_empty() || self.world.next_late().is_some() {
            return false;
        }
        let left = self.what_is_left();
        // A late call may have left a container of a dead process, which the next start removes.
        let may_be_swept = self.world.state().was_late && !self.is_swept;
        let in_hand = left.contains("message") || left.contains("open");
        if !left.is_empty() && (in_hand || !may_be_swept) {
            return false;
        }
        for process in self.processes.iter().flatten() {
            if process.jobs.desk.journal.unsent_count().await.is_ok_and(|count| count > 0) {
                return false;
            }
        }
        true
    }

    /// Restarts all processes once if late calls left something over; returns whether it did.
    fn sweeps(&mut self) -> bool {
        if self.is_swept || self.what_is_left().is_empty() || !self.world.state().was_late {
            return false;
        }
        self.is_swept = true;
        let later = self.world.time.ms() + 120_000;
        for host in 0..self.processes.len() {
            self.world.kill(host, false);
            self.processes[host] = None;
            self.starts_at_ms[host] = later;
        }
        true
    }

    fn what_is_left(&self) -> String {
        let state = self.world.state();
        let mut left = Vec::new();
        left.extend(
            state
                .queue
                .messages
                .iter()
                .map(|(seq, one)| format!("message {seq} to {}", one.target)),
        );
        for (number, host) in state.hosts.iter().enumerate() {
            left.extend(check::left_open(&state, number));
            left.extend(host.containers.keys().map(|name| format!("container {name} on {number}")));
            left.extend(host.folders.iter().map(|id| format!("folder of {id} on {number}")));
        }
        left.join(", ")
    }
}
