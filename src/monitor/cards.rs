//! Asks the GPUs' driver for the monitor.
//!
//! Invariant: a driver that does not answer costs one deadline, and is then left alone for a while.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock::Clock;
use crate::gpu::GpuProbe;
use crate::host;
use crate::node::GpuUuid;
use crate::node::card::{Reading as CardReading, Round, Sample};
use crate::usage::card::{self, why};
use crate::usage::{CardMetric, CardReadings, Reading, Unknown};

/// How long the driver may take. A healthy one answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long it may take at a job's start, when all others wait, and at its end, when the job does.
pub(super) const AT_END: Duration = Duration::from_millis(400);

/// How long a driver that did not answer is left alone.
const REST: Duration = Duration::from_secs(30);

/// A round that the driver was asked for.
type Asked = Pin<Box<dyn Future<Output = Option<Round>> + Send>>;

/// The cards, as the monitor sees them.
pub(super) struct Cards<G, C> {
    gpu: Arc<G>,
    clock: C,
    /// How long the driver may take for an answer.
    pub(super) deadline: Duration,
    rests_until: Option<Duration>,
    asked: Option<Asked>,
    /// The answer to it that came while the driver was asked something else.
    #[expect(clippy::option_option, reason = "nothing came, and no answer came, are different")]
    came: Option<Option<Round>>,
}

impl<G, C> fmt::Debug for Cards<G, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cards").field("rests_until", &self.rests_until).finish_non_exhaustive()
    }
}

/// Energy of cards since their driver was loaded, in millijoules.
pub(super) type Energy = BTreeMap<GpuUuid, Reading>;

impl<G: GpuProbe, C: Clock> Cards<G, C> {
    pub(super) const fn new(gpu: Arc<G>, clock: C) -> Self {
        Self { gpu, clock, deadline: DEADLINE, rests_until: None, asked: None, came: None }
    }

    /// Asks for a round, unless one is asked for already; `false` if the driver is left alone for now.
    pub(super) fn ask(&mut self, now: Duration) -> bool {
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.came.is_some() {
            return true;
        }
        self.rests_until = None;
        let (gpu, limit) = (Arc::clone(&self.gpu), self.deadline);
        let round = async move { timeout(limit, gpu.sample()).await.ok().and_then(Result::ok) };
        self.asked.get_or_insert_with(|| Box::pin(round));
        true
    }

    /// The round that was asked for, empty if the driver does not answer; waits for ever if none was. Cancel-safe.
    pub(super) async fn told(&mut self) -> Round {
        let round = match self.came.take() {
            Some(came) => came,
            None => next(&mut self.asked).await,
        };
        round.unwrap_or_else(|| {
            self.rest();
            Round::new()
        })
    }

    fn rest(&mut self) {
        self.rests_until = Some(self.clock.monotonic().saturating_add(REST));
    }

    /// The energy counters of these cards now; what is not known, or not told within `limit`, is left out.
    pub(super) async fn energy(&mut self, cards: &[GpuUuid], limit: Duration) -> Energy {
        if self.rests_until.is_some_and(|until| self.clock.monotonic() < until) {
            return Energy::new();
        }
        let limit = limit.min(self.deadline);
        let gpu = Arc::clone(&self.gpu);
        let mut energy = std::pin::pin!(timeout(limit, gpu.energy(cards)));
        let told = loop {
            tokio::select! {
                told = &mut energy => break told,
                // A round under way has the driver to itself until somebody takes its answer.
                round = next(&mut self.asked) => self.came = Some(round),
            }
        };
        let told = told.ok().and_then(Result::ok);
        let told = told.unwrap_or_default();
        told.into_iter().map(|(card, energy)| (card, energy.map_err(|err| why(&err)))).collect()
    }
}

/// The answer to what was asked; waits for ever if nothing was. Cancel-safe.
async fn next(asked: &mut Option<Asked>) -> Option<Round> {
    let Some(round) = asked else { return std::future::pending().await };
    let round = round.await;
    *asked = None;
    round
}

/// What a sample says of one card of a job: `container` tells the job's processes from others.
pub(super) fn read(
    sample: Option<&CardReading<Sample>>,
    container: Option<&str>,
    base: Option<Reading>,
) -> CardReadings {
    let sample = match sample {
        None => return CardReadings::unknown(Unknown::Failed),
        Some(Err(err)) => return CardReadings::unknown(why(err)),
        Some(Ok(sample)) => sample,
    };
    let mut told = card::of_all(sample);
    told[CardMetric::Energy] = since(base, sample.energy_mj.as_ref().copied().map_err(why));
    let (processes, bytes) = of_job(sample, container);
    told[CardMetric::Processes] = processes;
    told[CardMetric::Memory] = bytes;
    told
}

/// Energy used since the job's start. The counter of a sample may be older than the start.
pub(super) fn since(base: Option<Reading>, now: Reading) -> Reading {
    now?.checked_sub(base.unwrap_or(Err(Unknown::Missed))?).ok_or(Unknown::Missed)
}

/// The number of the job's processes on the card, and the card's memory that they hold.
fn of_job(sample: &Sample, container: Option<&str>) -> (Reading, Reading) {
    let processes = match &sample.processes {
        Ok(processes) => processes,
        Err(err) => return (Err(why(err)), Err(why(err))),
    };
    let Some(container) = container else {
        return (Err(Unknown::NotSupported), Err(Unknown::NotSupported));
    };
    let (mut count, mut bytes, mut seen) = (0, Ok(0_u64), processes.is_empty());
    for process in processes {
        let Some(groups) = host::cgroups_of(process.pid) else {
            // One that ended a moment ago is nobody's; one that can't be seen may be the job's.
            if host::is_there(process.pid) {
                return (Err(Unknown::Denied), Err(Unknown::Denied));
            }
            continue;
        };
        seen = true;
        if !groups.contains(container) {
            continue;
        }
        count += 1;
        bytes = match (bytes, &process.bytes) {
            (Ok(sum), Ok(more)) => Ok(sum.saturating_add(*more)),
            (Ok(_), Err(err)) => Err(why(err)),
            (unknown, _) => unknown,
        };
    }
    // A node in a PID namespace of its own sees none of them: none is not the answer.
    if seen { (Ok(count), bytes) } else { (Err(Unknown::Denied), Err(Unknown::Denied)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::card::{Slowed, Unknown as CardUnknown};

    fn errors() -> Vec<CardUnknown> {
        vec![
            CardUnknown::NotSupported,
            CardUnknown::Denied,
            CardUnknown::TooOld,
            CardUnknown::Lost,
            CardUnknown::Failed("the driver's words".to_owned()),
        ]
    }

    #[test]
    fn whatever_the_driver_does_not_tell_is_unknown_with_its_reason_and_never_0() {
        for err in errors() {
            let of_card = read(Some(&Err(err.clone())), Some("c"), Some(Ok(1)));
            let of_values = read(Some(&Ok(Sample::unknown(&err))), Some("c"), Some(Ok(1)));
            for metric in CardMetric::ALL {
                assert_eq!(of_card[metric], Err(why(&err)), "{}", metric.name());
                assert_eq!(of_values[metric], Err(why(&err)), "{}", metric.name());
            }
        }
        let silent = read(None, Some("c"), Some(Ok(1)));
        assert!(CardMetric::ALL.into_iter().all(|metric| silent[metric].is_err()));
    }

    #[test]
    fn a_card_that_tells_all_is_told_in_full_and_other_programs_are_not_the_jobs() {
        let told = Sample {
            busy_percent: Ok(93),
            power_mw: Ok(400_000),
            energy_mj: Ok(5_000),
            sm_mhz: Ok(1980),
            memory_mhz: Ok(2619),
            celsius: Ok(61),
            slowed: Ok(Slowed { thermal: true, power_brake: false }),
            processes: Ok(vec![crate::node::card::CardProcess {
                pid: std::process::id(),
                bytes: Ok(7),
            }]),
            ..Sample::unknown(&CardUnknown::NotSupported)
        };
        let readings = read(Some(&Ok(told)), Some("no group has this name"), Some(Ok(2_000)));
        let expected = [93, 0, 0, 400_000, 3_000, 1980, 2619, 61, 1, 0];
        for (metric, value) in CardMetric::ALL.into_iter().zip(expected) {
            assert_eq!(readings[metric], Ok(value), "{}", metric.name());
        }
    }

    #[test]
    fn energy_is_known_only_between_two_readings_of_one_counter() {
        assert_eq!(since(Some(Ok(10)), Ok(14)), Ok(4));
        assert_eq!(since(Some(Ok(10)), Ok(9)), Err(Unknown::Missed), "older than the start");
        assert_eq!(since(None, Ok(9)), Err(Unknown::Missed));
        assert_eq!(since(Some(Err(Unknown::Denied)), Ok(9)), Err(Unknown::Denied));
        assert_eq!(since(Some(Ok(1)), Err(Unknown::Gone)), Err(Unknown::Gone));
    }
}
