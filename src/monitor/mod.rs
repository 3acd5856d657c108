//! Watches what jobs use: samples each at the interval of its profile, and tells the final figures when it ends.
//!
//! A service beside the agent, which tells it of its jobs ([`Watch`]) and gets back what is to be written and
//! published ([`Said`]). It asks nobody but the kernel and the GPUs' driver.
//!
//! Invariants: a job is never held up: what can't be told in time is lost, and the loss is seen in the job's chain of
//! batches; a driver that hangs makes the cards' values unknown and delays nothing else; the memory of each job is
//! bounded by its profile.

mod cards;
mod job;
mod series;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::gpu::GpuProbe;
use crate::ids::Address;
use crate::node::card::Round;
use crate::usage::watch::{Answer, Attempt, RunningJob, Said, Watch};
use cards::{AT_END, Cards};
use job::Watched;

/// Most jobs that are watched at a time: more than a node has slots.
const JOBS_MAX: usize = 4096;

/// Looks that are due within this time are taken together.
const TOGETHER: Duration = Duration::from_millis(20);

/// What the agent has said and the monitor has not heard yet.
pub const WATCHES_MAX: usize = 1024;

/// What the monitor has said and the agent has not taken yet.
pub const SAID_MAX: usize = 1024;

/// Watches the jobs of one node.
#[derive(Debug)]
pub struct Monitor<G, C> {
    node: Address,
    cards: Cards<G, C>,
    clock: C,
    said: mpsc::Sender<Said>,
    jobs: BTreeMap<Attempt, Watched>,
}

impl<G: GpuProbe, C: Clock + Clone> Monitor<G, C> {
    /// Watches this node's jobs and tells `said` of them.
    pub fn new(node: Address, gpu: Arc<G>, clock: C, said: mpsc::Sender<Said>) -> Self {
        let cards = Cards::new(gpu, clock.clone());
        Self { node, cards, clock, said, jobs: BTreeMap::new() }
    }

    /// Watches until nobody can tell it of jobs any more.
    pub async fn run(mut self, mut watches: mpsc::Receiver<Watch>) {
        loop {
            let now = self.clock.monotonic();
            let next = self.jobs.values().filter_map(Watched::next_look).min();
            let wait = next.map(|due| due.saturating_sub(now));
            let sleep = async {
                match wait {
                    Some(wait) => self.clock.sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                watch = watches.recv() => match watch {
                    Some(watch) => self.hear(watch).await,
                    None => return,
                },
                // Beside the rest: it may wait for a driver that hangs.
                round = self.cards.told() => self.keep_with(&round),
                () = sleep => self.look(),
            }
        }
    }

    async fn hear(&mut self, watch: Watch) {
        match watch {
            Watch::Started(job) => self.begin(*job).await,
            Watch::Exited { attempt, answer } => self.end(&attempt, answer).await,
            Watch::Lost(attempt) => drop(self.jobs.remove(&attempt)),
            Watch::Rest(answer) => {
                for job in self.jobs.values_mut() {
                    job.keep(Vec::new(), &self.said);
                    job.series.close(&self.said);
                }
                // Behind what was said before; who asks waits no longer than it wants to.
                self.said.send(Said::Rested(answer)).await.ok();
            }
            Watch::Marked(id, kind) => {
                let now = self.clock.now();
                for (_, job) in self.jobs.iter_mut().filter(|(attempt, _)| attempt.job == id) {
                    job.series.mark(now, kind.clone());
                }
            }
        }
    }

    /// Takes the first look at once: most of what a short job does is over soon.
    async fn begin(&mut self, running: RunningJob) {
        if self.jobs.contains_key(&running.attempt) || self.jobs.len() >= JOBS_MAX {
            return;
        }
        let attempt = running.attempt.clone();
        let mut job = Watched::new(running, self.node, self.clock.monotonic());
        job.sample(&self.clock);
        if job.has_cards() {
            let base = self.cards.energy(job.cards(), AT_END).await;
            job.energy_begins(base);
        }
        let waits = job.has_cards() && self.cards.ask(self.clock.monotonic());
        if !waits {
            job.keep(Vec::new(), &self.said);
        }
        self.jobs.insert(attempt, job);
    }

    /// Looks at all jobs that are due. Those with cards wait for what the driver says.
    fn look(&mut self) {
        let now = self.clock.monotonic();
        let limit = now.saturating_add(TOGETHER);
        let mut with_cards = false;
        for job in self.jobs.values_mut().filter(|job| job.is_due(limit)) {
            job.sample(&self.clock);
            if job.has_cards() {
                with_cards = true;
            } else {
                job.keep(Vec::new(), &self.said);
            }
        }
        if with_cards && !self.cards.ask(now) {
            self.keep_with(&Round::new());
        }
    }

    /// Keeps the looks that waited for this round.
    fn keep_with(&mut self, round: &Round) {
        for job in self.jobs.values_mut().filter(|job| job.is_sampled()) {
            let readings = job.read_cards(round);
            job.keep(readings, &self.said);
        }
    }

    async fn end(&mut self, attempt: &Attempt, answer: Answer) {
        let Some(mut job) = self.jobs.remove(attempt) else { return };
        // A look that waits for the cards.
        job.keep(Vec::new(), &self.said);
        job.sample_last(&self.clock);
        let energy =
            if job.has_cards() { Some(self.cards.energy(job.cards(), AT_END).await) } else { None };
        let usage = job.finish(energy, &self.said);
        self.said.try_send(Said::Done(answer, usage)).ok();
    }
}

#[cfg(test)]
mod tests;
