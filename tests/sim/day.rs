//! A whole day of one seed: requesters, agents, bad weather, and then calm until all is done.

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

/// When the weather turns calm.
const CALM_AT_MS: u64 = 300_000;

/// By when everything must be done: beyond every wait of every schedule, after the last start.
const END_MS: u64 = 4 * 3_600_000;

/// How often something may befall the hosts.
const MISFORTUNE_MS: u64 = 30_000;

/// How long a host may be away: days, so that every patience in it is over.
const ABSENT_MS: (u64, u64) = (3_600_000, 36 * 3_600_000);

/// How long the store is out of order when a host is back after days.
const MORNING_MS: u64 = 100_000;

/// What became of a day.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The promise that was broken.
    pub(crate) broken: Option<String>,
    /// What happened, where it was to be written down.
    pub(crate) trace: Vec<String>,
    /// The same for the same seed.
    pub(crate) fingerprint: u64,
    /// Names of the journal's writes that were made.
    pub(crate) writes: Vec<&'static str>,
}

/// Lives through the day of this seed. `empty` is an empty disk; `plant` the defect that its agents
/// have. Where there is one, and on every fourth day, each step is held against the journal.
pub(crate) fn live(seed: u64, traced: bool, empty: &Disk, plant: Plant) -> Outcome {
    // What the agent's own waits are spread by.
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
    /// When each host's process is started again.
    starts_at_ms: Vec<u64>,
    misfortune_at_ms: u64,
    /// Until when the store is out of order after a long absence.
    morning_until_ms: u64,
    /// Whether what came late was swept up by one more start.
    is_swept: bool,
    /// What operators could restore.
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
                return self.world.broken(format!("not done in the end: {left}"));
            }
            self.wait(ms).await;
        }
    }

    /// No more faults, but for the store's where a host comes back after days.
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
            // While a host is away for days nobody looks every second.
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

    /// How long a host is away that went down.
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
        // What an engine made for a process that was dead by then goes at the next start.
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

    /// One more start, where something was left over.
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
