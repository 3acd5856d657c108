//! A whole day of one seed: requesters, agents, bad weather, and then calm until all is done.

use std::time::Duration;

use lamda_node::clock::Clock as _;
use lamda_node::journal::Disk;

use super::agent::Process;
use super::check;
use super::dice::Weather;
use super::time::Time;
use super::work::{self, Deed, Wanted};
use super::world::{Doing, Message, World};

/// When the weather turns calm.
const CALM_AT_MS: u64 = 300_000;

/// By when everything must be done: beyond every wait of every schedule.
const END_MS: u64 = 4 * 3_600_000;

/// How often something may befall the hosts.
const MISFORTUNE_MS: u64 = 30_000;

/// What became of a day.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The promise that was broken.
    pub(crate) broken: Option<String>,
    /// What happened, where it was to be written down.
    pub(crate) trace: Vec<String>,
    /// The same for the same seed.
    pub(crate) fingerprint: u64,
}

/// Lives through the day of this seed. `empty` is an empty disk; `forgotten` the write that a
/// planted defect leaves out.
pub(crate) fn live(
    seed: u64,
    traced: bool,
    empty: &Disk,
    forgotten: Option<&'static str>,
) -> Outcome {
    // What the agent's own waits are spread by.
    fastrand::seed(seed);
    let time = Time::default();
    let hosts = 1 + usize::from(seed.is_multiple_of(2));
    let disks = (0..hosts).map(|_| empty.another().expect("a disk")).collect();
    let world = World::new(seed, traced, time.clone(), disks);
    time.run(Day::new(world.clone(), forgotten).run());
    let mut state = world.state();
    Outcome {
        broken: state.broken.take(),
        trace: state.trace.take().unwrap_or_default(),
        fingerprint: state.fingerprint,
    }
}

struct Day {
    world: World,
    forgotten: Option<&'static str>,
    deeds: std::collections::VecDeque<(u64, Deed)>,
    wanted: Vec<Wanted>,
    processes: Vec<Option<Process>>,
    /// When each host's process is started again.
    starts_at_ms: Vec<u64>,
    misfortune_at_ms: u64,
}

impl Day {
    fn new(world: World, forgotten: Option<&'static str>) -> Self {
        let mut state = world.state();
        let agents: Vec<_> = state.hosts.iter().map(|host| host.agent).collect();
        let (deeds, wanted) = work::of_a_day(&mut state.rng, &agents);
        drop(state);
        Self {
            world,
            forgotten,
            deeds: deeds.into(),
            wanted,
            processes: agents.iter().map(|_| None).collect(),
            starts_at_ms: vec![0; agents.len()],
            misfortune_at_ms: MISFORTUNE_MS,
        }
    }

    async fn run(mut self) {
        loop {
            let ms = self.world.time.ms();
            self.look_after_processes(ms);
            self.do_deeds(ms);
            if ms >= CALM_AT_MS {
                self.world.state().weather = Weather::CALM;
                if self.is_done().await {
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
            if ms > END_MS {
                let left = self.what_is_left();
                return self.world.broken(format!("not done in the end: {left}"));
            }
            self.wait(ms).await;
        }
    }

    async fn wait(&self, ms: u64) {
        let due = [
            self.deeds.front().map(|(at, _)| *at),
            (ms < CALM_AT_MS).then_some(self.misfortune_at_ms.min(CALM_AT_MS)),
            (ms >= CALM_AT_MS).then_some(ms + 5_000),
            self.next_start(),
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
                self.starts_at_ms[host] =
                    ms + self.world.roll(if self.world.roll(4) == 0 { 200_000 } else { 10_000 });
            }
            if self.processes[host].is_none() && self.starts_at_ms[host] <= ms {
                self.processes[host] = Some(Process::start(&self.world, host, self.forgotten));
            }
        }
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
                    let message = Message { target, body, delivered: 0, free_at_ms: ms };
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

    /// What may befall a host.
    fn befall(&mut self) {
        let world = self.world.clone();
        let host = usize::try_from(world.roll(self.processes.len() as u64)).unwrap_or(0);
        if world.happens(|weather| weather.theft) {
            world.settle_containers(host);
            let mut state = world.state();
            let names: Vec<String> = state.hosts[host]
                .containers
                .iter()
                .filter(|(_, one)| one.state != Doing::Created)
                .map(|(name, _)| name.clone())
                .collect();
            if !names.is_empty() {
                let at = state.rng.usize(..names.len());
                state.hosts[host].steal(&names[at]);
                drop(state);
                world.note(Some(host), || format!("{} is removed by somebody", names[at]));
            }
        }
        if world.happens(|weather| weather.clocks) {
            let by = i64::try_from(world.roll(1_200_000)).unwrap_or(0) - 600_000;
            world.state().clocks_were_set = true;
            world.time.set_clocks(by);
            world.note(None, || format!("clocks are set by {by} ms"));
        }
        if world.happens(|weather| weather.outage) {
            let until = world.time.ms() + world.roll(150_000);
            let of_bus = world.roll(2) == 0;
            world.note(None, || {
                format!("{} is away until {until}", if of_bus { "the bus" } else { "an engine" })
            });
            let mut state = world.state();
            if of_bus {
                state.queue.away_until_ms = until;
            } else {
                state.hosts[host].engine_away_until_ms = until;
            }
        }
        if world.happens(|weather| weather.restart)
            && let Some(process) = &mut self.processes[host]
        {
            process.ask_to_end();
        }
    }

    async fn is_done(&self) -> bool {
        let idle =
            self.processes.iter().all(|process| process.as_ref().is_some_and(Process::is_idle));
        if !idle || !self.deeds.is_empty() || !self.what_is_left().is_empty() {
            return false;
        }
        for process in self.processes.iter().flatten() {
            if process.intake.desk.journal.unsent_count().await.is_ok_and(|count| count > 0) {
                return false;
            }
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
            left.extend(host.containers.keys().map(|name| format!("container {name} on {number}")));
            left.extend(host.folders.iter().map(|id| format!("folder of {id} on {number}")));
        }
        left.join(", ")
    }
}
