//! The samples of one job: its sums, the batch that is being filled, what watching it costs.
//!
//! Invariant: the numbers and heads of a job's batches have no gap, also over restarts of the node; a batch that was
//! lost on its way makes one that every reader sees.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::clock::Timestamp;
use crate::host;
use crate::ids::{Address, Hash};
use crate::usage::batch::{Batch, Cost, Mark, MarkKind, Packed};
use crate::usage::figures::Usage;
use crate::usage::profile::Profile;
use crate::usage::rollup::Rollups;
use crate::usage::totals::Totals;
use crate::usage::watch::{Attempt, RunningJob, Said, SoFar};
use crate::usage::{Metric, Sample};

/// A batch is closed at this many samples.
const SAMPLES: u32 = 60;
/// A batch is closed when its first sample is this old.
const AGE: Duration = Duration::from_mins(5);
/// Most marks of a batch.
const MARKS_MAX: usize = 32;
/// A step of the host's clock that is worth a mark.
const STEP_MS: u64 = 1_000;
/// Watching a job costs at most one part in so many of one core: looks that take long put off the next one.
const BUDGET_PART: u32 = 1_000;

/// What was sampled of a job.
#[derive(Debug)]
pub(super) struct Series {
    attempt: Attempt,
    node: Address,
    is_public: bool,
    keeps: bool,
    /// How many batches the node keeps.
    batches_kept: u32,
    next: u32,
    head: Hash,
    totals: Totals,
    rollups: Rollups,
    samples: Vec<Sample>,
    marks: Vec<Mark>,
    cost_us: u64,
    /// What the last two looks cost: one alone may have met a busy machine.
    costs: [Duration; 2],
}

impl Series {
    pub(super) fn new(running: &RunningJob, node: Address) -> Self {
        let (mut next, mut head) = (0, Hash([0; 32]));
        let (mut totals, mut rollups) = (Totals::default(), Rollups::default());
        if let Some(so_far) = &running.so_far {
            (next, head) = (so_far.number.saturating_add(1), so_far.head);
            (totals, rollups) = (so_far.totals.clone(), so_far.rollups.clone());
            // Nobody looked while the node was away.
            totals.gap();
        }
        let profile = &running.profile;
        Self {
            attempt: running.attempt.clone(),
            node,
            is_public: profile.export,
            keeps: profile.enabled && (profile.export || profile.retain_history),
            batches_kept: batches_of(profile),
            next,
            head,
            totals,
            rollups,
            samples: Vec::new(),
            marks: Vec::new(),
            cost_us: 0,
            costs: [Duration::ZERO; 2],
        }
    }

    pub(super) const fn totals(&self) -> &Totals {
        &self.totals
    }

    pub(super) fn mark(&mut self, at: Timestamp, kind: MarkKind) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at, kind });
        }
    }

    /// Counts what this thread's time since `begun` was spent for.
    pub(super) fn cost(&mut self, begun: Duration) {
        let spent = host::thread_cpu().saturating_sub(begun);
        self.cost_us += u64::try_from(spent.as_micros()).unwrap_or(0);
        self.costs = [self.costs[1], spent];
    }

    /// The time until the next look, so that watching stays within its budget.
    pub(super) fn interval(&self, asked: Duration) -> Duration {
        let [before, last] = self.costs;
        asked.max(before.min(last).saturating_mul(BUDGET_PART))
    }

    /// Notes that the host's clock was set between two looks.
    pub(super) fn look_at_clock(&mut self, previous: Option<&Sample>, now: &Sample) {
        let Some(previous) = previous else { return };
        let gone = now.since_start.saturating_sub(previous.since_start);
        let expected = previous.at.plus(gone).unix_ms();
        let step = i64::try_from(i128::from(now.at.unix_ms()) - i128::from(expected));
        let step = step.unwrap_or(i64::MAX);
        if step.unsigned_abs() >= STEP_MS {
            self.mark(now.at, MarkKind::ClockStep { ms: step });
        }
    }

    /// Adds a sample.
    pub(super) fn fold(&mut self, sample: &Sample, said: &mpsc::Sender<Said>) {
        if Metric::ALL.into_iter().any(|metric| went_back(self.samples.last(), sample, metric)) {
            self.mark(sample.at, MarkKind::CounterReset);
        }
        self.totals.fold(sample);
        for bucket in self.rollups.fold(sample) {
            said.try_send(Said::Bucket(self.attempt.clone(), Box::new(bucket))).ok();
        }
        if !self.keeps {
            return;
        }
        self.samples.push(sample.clone());
        let first = self.samples.first().map_or(sample.since_start, |first| first.since_start);
        let age = sample.since_start.saturating_sub(first);
        if self.samples.len() >= SAMPLES as usize || age >= AGE {
            self.close(said);
        }
    }

    /// Closes the batch, if it holds anything.
    pub(super) fn close(&mut self, said: &mpsc::Sender<Said>) {
        let (samples, marks) = (std::mem::take(&mut self.samples), std::mem::take(&mut self.marks));
        if samples.is_empty() {
            self.marks = marks;
        } else {
            self.send(samples, marks, said);
        }
    }

    /// Tells these samples as a batch, or as two where they are too long for one.
    fn send(&mut self, mut samples: Vec<Sample>, marks: Vec<Mark>, said: &mpsc::Sender<Said>) {
        let number = self.next;
        let batch = Batch {
            job_id: self.attempt.job.clone(),
            attempt: self.attempt.number,
            node: self.node,
            number,
            prev: self.head,
            cost: Cost { cpu_us: self.cost_us, bytes: size_of_val(&*samples) as u64 },
            samples,
            marks,
        };
        let Packed { bytes: body, head } = match batch.pack() {
            Ok(packed) => packed,
            Err(_) if batch.samples.len() > 1 => {
                samples = batch.samples;
                let rest = samples.split_off(samples.len() / 2);
                self.send(samples, batch.marks, said);
                return self.send(rest, Vec::new(), said);
            }
            // What can't be written is lost, and the next batch tells so by its number.
            Err(why) => {
                self.next = number.saturating_add(1);
                let job = &self.attempt.job;
                tracing::warn!(job.id = %job, "a sample of what job {job} uses is lost: {why}");
                return;
            }
        };
        self.cost_us = 0;
        self.next = number.saturating_add(1);
        self.head = head;
        let (totals, rollups) = (self.totals.clone(), self.rollups.clone());
        let so_far = Box::new(SoFar { number, head, totals, rollups });
        let (attempt, is_public, keep) = (self.attempt.clone(), self.is_public, self.batches_kept);
        said.try_send(Said::Batch { attempt, so_far, body, is_public, keep }).ok();
    }

    /// Closes what is open and adds all up.
    pub(super) fn finish(mut self, said: &mpsc::Sender<Said>) -> Usage {
        for bucket in self.rollups.finish() {
            said.try_send(Said::Bucket(self.attempt.clone(), Box::new(bucket))).ok();
        }
        self.close(said);
        Usage::new(&self.totals, self.head)
    }
}

/// How many batches hold the samples that this profile keeps.
fn batches_of(profile: &Profile) -> u32 {
    if !profile.retain_history {
        return 0;
    }
    // A batch is closed by its age before it is full where samples are far apart.
    let by_age = AGE.as_millis().checked_div(profile.interval.as_millis()).unwrap_or(1);
    let samples = u32::try_from(by_age).unwrap_or(u32::MAX).saturating_add(1);
    profile.history_size.div_ceil(samples.clamp(1, SAMPLES))
}

/// Whether this counter is lower than it was.
fn went_back(previous: Option<&Sample>, now: &Sample, metric: Metric) -> bool {
    let before = previous.and_then(|previous| previous.job[metric].ok());
    metric.kind() == crate::usage::Kind::Counter
        && matches!((before, now.job[metric]), (Some(before), Ok(now)) if now < before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::GpuUuid;
    use crate::usage::profile::Name;
    use crate::usage::{CardMetric, CardReadings, Chain, Readings, Unknown};

    fn series() -> Series {
        let running = RunningJob {
            attempt: Attempt { job: "paced".parse().unwrap(), number: 1 },
            place: Err(Unknown::NotSupported),
            has_network: false,
            cards: Vec::new(),
            memory_bytes: 0,
            profile: Name::Intensive.profile(),
            is_new: true,
            age: Duration::ZERO,
            so_far: None,
        };
        Series::new(&running, Address::new([1; 20]))
    }

    #[test]
    fn looks_that_cost_too_much_are_taken_less_often_and_a_single_one_changes_nothing() {
        let (mut series, second) = (series(), Duration::from_secs(1));
        let dear = Duration::from_millis(20);
        for (costs, expected) in [
            ([Duration::ZERO, dear], second),
            ([dear, Duration::from_micros(40)], second),
            ([dear, dear], Duration::from_secs(20)),
            ([dear, dear * 3], Duration::from_secs(20)),
        ] {
            series.costs = costs;
            assert_eq!(series.interval(second), expected, "{costs:?}");
        }
    }

    #[test]
    fn samples_that_are_too_long_for_one_batch_are_told_in_two() {
        let mut random = fastrand::Rng::with_seed(7);
        let (say, mut said) = mpsc::channel(64);
        let mut series = series();
        for at in 0..SAMPLES {
            let mut sample = Sample {
                at: Timestamp::from_unix_ms(1_700_000_000_000 + u64::from(at)),
                since_start: Duration::from_secs(u64::from(at)),
                job: Readings::unknown(Unknown::Off),
                cards: Vec::new(),
            };
            for card in 0..16 {
                let mut readings = CardReadings::unknown(Unknown::Off);
                for metric in CardMetric::ALL {
                    readings[metric] = Ok(random.u64(..1 << 50));
                }
                sample.cards.push((GpuUuid::new(&format!("GPU-{card}")).unwrap(), readings));
            }
            series.fold(&sample, &say);
        }
        let mut bodies = Vec::new();
        while let Ok(told) = said.try_recv() {
            if let Said::Batch { body, .. } = told {
                bodies.push(body);
            }
        }
        let head = Chain::verify(bodies.iter().map(Vec::as_slice)).unwrap();
        assert_eq!((bodies.len() > 1, head.samples), (true, SAMPLES));
        assert_eq!(head.hash, series.head);
    }

    #[test]
    fn a_history_is_kept_in_as_many_batches_as_hold_it() {
        for (name, batches) in [
            (Name::Intensive, 17),
            (Name::Standard, 4),
            (Name::LongRunningDaemon, 167),
            (Name::Minimal, 0),
        ] {
            assert_eq!(batches_of(&name.profile()), batches, "{name:?}");
        }
    }
}
