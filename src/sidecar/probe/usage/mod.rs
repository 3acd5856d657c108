//! Samples what the watched programs use, and the machine: processors, memory, disk, network, GPUs. One service.
//!
//! Invariants: what could not be read is unknown, with the reason, and never 0; nothing of it is an observation, so that
//! verdicts and replays don't depend on it; what sampling costs is measured; what blocks is read on a thread of its own.

mod cards;
mod disks;
mod machine;
mod program;
mod series;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use self::cards::Cards;
use self::disks::Disks;
use self::program::{At, Tracked};
use self::series::{Sampled, Series};
use super::{Programs, again};
use crate::clock::{Clock as _, SystemClock};
use crate::host::process::{By, Look};
use crate::host::{Meter, is_there, thread_cpu};
use crate::node::card::Round;
use crate::seldom::Seldom;
use crate::sidecar::store::Store;
use crate::sidecar::used::{Board, Card, MachineUsed, Used};
use crate::supervise::Failure;
use crate::usage::card::of_processes;
use crate::usage::{Reading, Unknown};

pub(crate) use series::MACHINE;

/// By what each program is found, in their order; changes when a container gets another id.
pub type Ways = Arc<Vec<Vec<By>>>;

/// Samples. Clones share the board.
#[derive(Debug, Clone)]
pub struct Sampler {
    /// What is sampled.
    pub programs: Programs,
    /// What they are found by.
    pub ways: watch::Receiver<Ways>,
    /// How often.
    pub every: Duration,
    /// NVIDIA's library, if it is not the host's own.
    pub library: Option<PathBuf>,
    /// Where the series are written down.
    pub store: Store,
    /// Where the newest is put.
    pub board: Board,
}

/// All that is looked at.
#[derive(Debug)]
struct Looks {
    programs: Vec<Tracked>,
    machine: machine::Tracked,
    /// CPU time of all looks.
    cost: Duration,
}

impl Sampler {
    /// Samples until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let meter = Meter::default();
        meter.of(self.sample(meter.clone())).await
    }

    async fn sample(self, meter: Meter) -> Result<(), Failure> {
        let (clock, said) = (SystemClock, Seldom::within(1, Duration::from_hours(1)));
        let mut cards = Cards::new(self.library.clone());
        let mut disks = Disks::of(self.programs.iter().map(|it| &**it));
        let mut looks = self.looks();
        let now = (clock.now(), clock.monotonic());
        let names = self.programs.iter().map(|it| it.name().to_owned());
        let mut series = Series::load(&self.store, names, now).await.map_err(again)?;
        self.board.begins(self.every);
        loop {
            let begun = clock.monotonic();
            let told = cards.ask(begun).await;
            let wholes = told.as_ref().map(|round| cards.wholes(round)).map_err(|why| *why);
            let rooms = disks.ask().await;
            let ways = Arc::clone(&self.ways.borrow());
            let looked = tokio::task::spawn_blocking(move || {
                let (programs, machine) = looks.take(&ways, &told, &rooms, wholes);
                (looks, programs, machine)
            });
            let Ok((kept, programs, machine)) = looked.await else {
                looks = self.looks();
                clock.sleep(self.every).await;
                continue;
            };
            looks = kept;
            let now = (clock.now(), clock.monotonic());
            series.fold(now, programs.iter().map(|it| sampled(it)).chain([of_machine(&machine)]));
            let by_name = self.programs.iter().map(|it| it.name().to_owned()).zip(programs);
            let cost = looks.cost.saturating_add(meter.used());
            self.board.put(by_name.collect(), machine, cost);
            if let Err(err) = series.write(&self.store, now.1).await
                && let Some(more) = said.line()
            {
                tracing::warn!("what programs use can't be written down: {err}{more}");
            }
            let took = clock.monotonic().saturating_sub(begun);
            clock.sleep(machine::pause(self.every, took)).await;
        }
    }

    fn looks(&self) -> Looks {
        Looks {
            programs: self.programs.iter().map(|_| Tracked::new()).collect(),
            machine: machine::Tracked::default(),
            cost: Duration::ZERO,
        }
    }
}

impl Looks {
    /// Looks at all processes and at the machine once. `rooms` is the free space of each program's disk. Blocks.
    fn take(
        &mut self,
        ways: &[Vec<By>],
        round: &Result<Round, Unknown>,
        rooms: &[Reading],
        wholes: Result<Vec<Card>, Unknown>,
    ) -> (Vec<Arc<Used>>, MachineUsed) {
        let begun = thread_cpu();
        let clock = SystemClock;
        let look = Look::take(&clock, ways);
        let at = At { look: &look, clock: clock.now(), now: clock.monotonic() };
        let mut all = Vec::with_capacity(self.programs.len());
        for (place, program) in self.programs.iter_mut().enumerate() {
            let its = ways.get(place).map_or(&[][..], Vec::as_slice);
            let (mut used, pids) = program.sample(&at, place, its);
            used.disk_free = rooms.get(place).copied().unwrap_or(Err(Unknown::Failed));
            if !pids.is_empty() {
                let round = round.as_ref().map_err(|why| *why);
                used.cards = round.and_then(|round| of_processes(round, &pids, is_there));
            }
            all.push(Arc::new(used));
        }
        let machine = self.machine.sample(at.clock, wholes);
        self.cost = self.cost.saturating_add(thread_cpu().saturating_sub(begun));
        (all, machine)
    }
}

fn sampled(used: &Used) -> Sampled {
    (used.readings, used.cards.clone())
}

fn of_machine(used: &MachineUsed) -> Sampled {
    let of = |card: &Card| (card.uuid.clone(), card.readings);
    let cards = used.cards.as_ref().map(|cards| cards.iter().map(of).collect());
    (used.readings, cards.map_err(|why| *why))
}
