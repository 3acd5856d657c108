//! One job that is watched: its control group, its sums, its next look.
//!
//! Invariant: what is told of the job's whole life is read from the kernel's own sums where they outlive the job; what
//! was only sampled is never told as the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::cards::{self, Energy};
use super::series::Series;
use crate::clock::Clock;
use crate::host::cgroup::Group;
use crate::ids::Address;
use crate::node::GpuUuid;
use crate::node::card::Round;
use crate::usage::figures::Usage;
use crate::usage::message::{self, About};
use crate::usage::watch::{Place, RunningJob, Said};
use crate::usage::{CardMetric, CardReadings, Metric, Reading, Readings, Sample, Unknown};

/// After this long without work on its cards a job holds them idle.
const IDLE: Duration = Duration::from_mins(5);

/// A job that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    running: RunningJob,
    node: Address,
    group: Result<Group, Unknown>,
    /// When its container was started, by the clock that only goes forward.
    started: Duration,
    /// When it is looked at next, by the same clock; `None` if never.
    due: Option<Duration>,
    pub(super) series: Series,
    previous: Option<Sample>,
    /// What was read in this look, until the cards are known too.
    pending: Option<Sample>,
    energy_base: BTreeMap<GpuUuid, Reading>,
    /// Since when its cards do nothing, by the time since its start.
    idle_since: Option<Duration>,
    is_idle_told: bool,
}

impl Watched {
    pub(super) fn new(running: RunningJob, node: Address, now: Duration) -> Self {
        let profile = &running.profile;
        let group = running.place.clone().and_then(|place| Group::open(&place));
        let due = profile.enabled.then_some(now);
        let started = now.saturating_sub(running.age);
        let series = Series::new(&running, node);
        Self {
            group,
            started,
            due,
            series,
            node,
            previous: None,
            pending: None,
            energy_base: BTreeMap::new(),
            idle_since: None,
            is_idle_told: false,
            running,
        }
    }

    pub(super) fn has_cards(&self) -> bool {
        self.running.profile.enabled && !self.running.cards.is_empty()
    }

    pub(super) fn cards(&self) -> &[GpuUuid] {
        &self.running.cards
    }

    /// When it is looked at next; not while a look waits for the cards.
    pub(super) fn next_look(&self) -> Option<Duration> {
        self.due.filter(|_| self.pending.is_none())
    }

    pub(super) fn is_due(&self, limit: Duration) -> bool {
        self.next_look().is_some_and(|due| due <= limit)
    }

    pub(super) const fn is_sampled(&self) -> bool {
        self.pending.is_some()
    }

    /// Sets where the job's energy begins. The cards of a job that was started by an earlier process of the node have
    /// used some already.
    pub(super) fn energy_begins(&mut self, base: Energy) {
        if self.running.is_new {
            self.energy_base = base;
        }
    }

    /// Reads what the kernel counts now.
    pub(super) fn sample(&mut self, clock: &impl Clock) {
        let profile = self.running.profile;
        let (now, begun) = (clock.monotonic(), crate::host::thread_cpu());
        let mut readings = match &mut self.group {
            Ok(group) => group.read(|metric| profile.collects(metric)),
            Err(why) => unread(*why, |metric| profile.collects(metric)),
        };
        self.correct(&mut readings);
        self.series.cost(begun);
        self.take(readings, clock, now);
        let interval = self.series.interval(profile.interval);
        // Missed looks are not made up for.
        let next = self.due.map(|due| due.saturating_add(interval));
        self.due = next.map(|next| if next <= now { now.saturating_add(interval) } else { next });
    }

    /// Reads the kernel's sums after the end.
    pub(super) fn sample_last(&mut self, clock: &impl Clock) {
        let profile = self.running.profile;
        let outlives = self.running.place.as_ref().is_ok_and(Place::outlives_its_container);
        let wants = |metric: Metric| profile.collects(metric);
        let mut readings = match &mut self.group {
            Ok(group) if outlives => group.read_last(wants),
            Ok(_) => unread(Unknown::Missed, wants),
            Err(why) => unread(*why, wants),
        };
        self.correct(&mut readings);
        self.take(readings, clock, clock.monotonic());
    }

    /// A job without a network has sent nothing, which needs no look.
    fn correct(&self, readings: &mut Readings) {
        if self.running.has_network {
            return;
        }
        for metric in [Metric::NetRx, Metric::NetTx] {
            if readings[metric] != Err(Unknown::Off) {
                readings[metric] = Ok(0);
            }
        }
    }

    fn take(&mut self, job: Readings, clock: &impl Clock, now: Duration) {
        let since_start = now.saturating_sub(self.started);
        let sample = Sample { at: clock.now(), since_start, job, cards: Vec::new() };
        self.series.look_at_clock(self.previous.as_ref(), &sample);
        self.pending = Some(sample);
    }

    /// What this round says of the job's cards.
    pub(super) fn read_cards(&self, round: &Round) -> Vec<(GpuUuid, CardReadings)> {
        let container = self.running.place.as_ref().ok().map(|place| match place {
            Place::Parent { container, .. } | Place::Container { container, .. } => {
                container.as_str()
            }
        });
        let of = |card: &GpuUuid| {
            let base = self.energy_base.get(card).copied();
            (card.clone(), cards::read(round.get(card), container, base))
        };
        self.running.cards.iter().map(of).collect()
    }

    /// Keeps and tells what was sampled.
    pub(super) fn keep(&mut self, cards: Vec<(GpuUuid, CardReadings)>, said: &mpsc::Sender<Said>) {
        let Some(mut sample) = self.pending.take() else { return };
        sample.cards = if cards.is_empty() { self.unseen_cards() } else { cards };
        self.series.fold(&sample, said);
        // Batches must find room in the channel: live messages leave half of it to them.
        let has_room = said.capacity() > said.max_capacity() / 2;
        if self.running.profile.export && has_room {
            let about = About {
                job_id: &self.running.attempt.job,
                node: self.node,
                memory_limit: self.running.memory_bytes,
            };
            let totals = self.series.totals();
            let body = message::task_metrics(about, self.previous.as_ref(), &sample, totals);
            let body = body.to_string().into_bytes();
            // A slow reader loses messages, which are told again in the batches.
            said.try_send(Said::Message(self.running.attempt.job.clone(), body)).ok();
        }
        self.look_for_idle_cards(&sample, said);
        self.previous = Some(sample);
    }

    /// The cards of a look in which the driver was not asked.
    fn unseen_cards(&self) -> Vec<(GpuUuid, CardReadings)> {
        let unseen = CardReadings::unknown(Unknown::Missed);
        self.running.cards.iter().map(|card| (card.clone(), unseen)).collect()
    }

    fn look_for_idle_cards(&mut self, sample: &Sample, said: &mpsc::Sender<Said>) {
        let Some(is_idle) = is_idle(&sample.cards) else { return };
        if !is_idle {
            (self.idle_since, self.is_idle_told) = (None, false);
            return;
        }
        let since = *self.idle_since.get_or_insert(sample.since_start);
        let idle = sample.since_start.saturating_sub(since);
        if idle < IDLE || self.is_idle_told {
            return;
        }
        self.is_idle_told = true;
        let has_process =
            sample.cards.iter().any(|(_, card)| matches!(card[CardMetric::Processes], Ok(1..)));
        let (attempt, cards) = (self.running.attempt.clone(), self.running.cards.clone());
        said.try_send(Said::HeldIdle { attempt, cards, idle, has_process }).ok();
    }

    /// The final figures. `energy`: what the cards' counters say now.
    pub(super) fn finish(mut self, energy: Option<Energy>, said: &mpsc::Sender<Said>) -> Usage {
        let last = self.pending.as_ref().map_or(Readings::unknown(Unknown::Missed), |it| it.job);
        let cards = energy.map(|energy| self.last_of_cards(&energy)).unwrap_or_default();
        self.keep(cards, said);
        let mut usage = self.series.finish(said);
        for (figure, metric) in [
            (&mut usage.cpu_us, Metric::Cpu),
            (&mut usage.memory_peak_bytes, Metric::MemoryPeak),
            (&mut usage.io_read_bytes, Metric::DiskRead),
            (&mut usage.io_write_bytes, Metric::DiskWrite),
            (&mut usage.net_rx_bytes, Metric::NetRx),
            (&mut usage.net_tx_bytes, Metric::NetTx),
        ] {
            *figure = last[metric];
        }
        usage
    }

    /// What is read of the cards at the end: their energy, and nothing of the moment.
    fn last_of_cards(&self, energy: &Energy) -> Vec<(GpuUuid, CardReadings)> {
        let of = |card: &GpuUuid| {
            let mut readings = CardReadings::unknown(Unknown::Gone);
            let base = self.energy_base.get(card).copied();
            let now = energy.get(card).copied().unwrap_or(Err(Unknown::Failed));
            readings[CardMetric::Energy] = cards::since(base, now);
            (card.clone(), readings)
        };
        self.running.cards.iter().map(of).collect()
    }
}

fn unread(why: Unknown, wants: impl Fn(Metric) -> bool) -> Readings {
    let mut readings = Readings::unknown(Unknown::Off);
    for metric in Metric::ALL.into_iter().filter(|metric| wants(*metric)) {
        readings[metric] = Err(why);
    }
    readings
}

/// Whether no card does anything; `None` where that is not known of one, or there is none.
fn is_idle(cards: &[(GpuUuid, CardReadings)]) -> Option<bool> {
    if cards.is_empty() {
        return None;
    }
    let mut all = true;
    for (_, card) in cards {
        match (card[CardMetric::Busy], card[CardMetric::Processes]) {
            (Ok(0), _) | (Err(_), Ok(0)) => {}
            (Ok(_), _) => all = false,
            (Err(_), _) => return None,
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(busy: Reading, processes: Reading) -> (GpuUuid, CardReadings) {
        let mut card = CardReadings::unknown(Unknown::NotSupported);
        (card[CardMetric::Busy], card[CardMetric::Processes]) = (busy, processes);
        (GpuUuid::new("GPU-1").unwrap(), card)
    }

    #[test]
    fn cards_are_idle_if_all_are_known_to_do_nothing() {
        let unknown = Err(Unknown::NotSupported);
        for (cards, expected) in [
            (vec![], None),
            (vec![card(Ok(0), Ok(1))], Some(true)),
            (vec![card(Ok(0), Ok(0)), card(Ok(3), Ok(1))], Some(false)),
            (vec![card(unknown, Ok(0))], Some(true)),
            (vec![card(unknown, Ok(1))], None),
            (vec![card(unknown, unknown), card(Ok(0), Ok(0))], None),
        ] {
            assert_eq!(is_idle(&cards), expected, "{cards:?}");
        }
    }
}
