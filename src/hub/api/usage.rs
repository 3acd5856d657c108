//! What the pages ask about what jobs used.
//!
//! Must hold: what is not known is told with its reason, and never as 0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fleet::{NAME_BYTES_MAX, find, key_of};
use super::pages::{Asked, Pages, Refused, answer};
use crate::hub::store::usage::{CARD, JOB, Point, Used};
use crate::usage::metric::{CardMetric, Metric};
use crate::usage::rollup::Rolled;
use crate::usage::sample::Unknown;
use crate::web::Router;
use crate::web::extract::rejection::PathRejection;
use crate::web::extract::{Path, State};
use crate::web::http::HeaderMap;
use crate::web::response::Response;
use crate::web::routing::get;

/// How long a slot of a node's day is, in milliseconds, and how many there are.
const SLOT_MS: u64 = 600_000;
const SLOTS: usize = 144;

pub(super) fn routes() -> Router<Pages> {
    Router::new()
        .route("/api/jobs/{node}/{job}/usage", get(of_job))
        .route("/api/usage", get(of_node))
}

#[derive(Serialize)]
struct OfJob {
    /// What the values of a point and those of its cards are, in their order.
    metrics: [&'static str; JOB.len()],
    card_metrics: [&'static str; CARD.len()],
    #[serde(flatten)]
    used: Option<Used>,
    at: u64,
}

async fn of_job(
    state: State<Pages>,
    asked: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Refused> {
    state.all()?;
    let Path((node, job)) = path.map_err(|err| Refused::Wrong(err.body_text()))?;
    let node = find(&state, &node)?;
    if job.len() > NAME_BYTES_MAX {
        return Err(Refused::Unknown("the hub has heard of no such job of this node"));
    }
    let used = state.eyes.usage(key_of(&node), job).await?;
    let (metrics, card_metrics) = (JOB.map(Metric::name), CARD.map(CardMetric::name));
    let at = state.now.get().unix_ms();
    Ok(answer(&asked, &OfJob { metrics, card_metrics, used, at }))
}

#[derive(Debug, Deserialize)]
struct AskedDay {
    node: String,
}

async fn of_node(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(AskedDay { node }): Asked<AskedDay>,
) -> Result<Response, Refused> {
    state.all()?;
    let node = find(&state, &node)?;
    let at = state.now.get().unix_ms();
    let first = (at / SLOT_MS + 1).saturating_sub(SLOTS as u64);
    let points = state.eyes.usage_since(key_of(&node), first * SLOT_MS).await?;
    Ok(answer(&asked, &Day::of(&points, first, at)))
}

/// What the jobs of a node used together: for each slot of ten minutes its mean, `None` where no job that was watched
/// ran.
#[derive(Debug, Serialize)]
struct Day {
    slot_ms: u64,
    first_slot: u64,
    /// Thousandths of a core; bytes; percent, bytes and milliwatts summed over the cards.
    series: BTreeMap<&'static str, Vec<Option<u64>>>,
    /// Why a value is not known, where it is not.
    unknown: BTreeMap<&'static str, Unknown>,
    at: u64,
}

/// The names of the series.
const CPU: &str = "cpu_milli";
const MEMORY: &str = "memory_bytes";

impl Day {
    fn of(points: &[Point], first_slot: u64, at: u64) -> Self {
        let mut day = Self {
            slot_ms: SLOT_MS,
            first_slot,
            series: BTreeMap::new(),
            unknown: BTreeMap::new(),
            at,
        };
        let mut sums: BTreeMap<&'static str, Vec<Option<u128>>> = BTreeMap::new();
        for point in points {
            for (name, value) in day.rates(point) {
                let sums = sums.entry(name).or_insert_with(|| vec![None; SLOTS]);
                spread(sums, point, first_slot, value);
            }
        }
        let mean = |sum: u128| u64::try_from(sum / u128::from(SLOT_MS)).unwrap_or(u64::MAX);
        for (name, sums) in sums {
            day.series.insert(name, sums.into_iter().map(|sum| sum.map(mean)).collect());
        }
        day
    }

    /// The mean of each value over a point; notes what is not known.
    fn rates(&mut self, point: &Point) -> Vec<(&'static str, u64)> {
        let mut rates = Vec::new();
        for (metric, rolled) in JOB.iter().zip(&point.values.job) {
            match (metric.name(), *rolled) {
                ("cpu_us", Rolled::Delta(us)) if point.ms > 0 => rates.push((CPU, us / point.ms)),
                ("cpu_us", Rolled::Unknown(why)) => _ = self.unknown.entry(CPU).or_insert(why),
                (MEMORY, Rolled::Range(_, mean, _)) => rates.push((MEMORY, mean)),
                (MEMORY, Rolled::Unknown(why)) => _ = self.unknown.entry(MEMORY).or_insert(why),
                _ => {}
            }
        }
        for (_, values) in &point.values.cards {
            for (metric, rolled) in CARD.iter().zip(values) {
                match *rolled {
                    Rolled::Range(_, mean, _) => rates.push((metric.name(), mean)),
                    Rolled::Unknown(why) => _ = self.unknown.entry(metric.name()).or_insert(why),
                    Rolled::Delta(_) => {}
                }
            }
        }
        rates
    }
}

/// Adds a point's mean to the slots that it lies in, by how much of them it covers.
fn spread(sums: &mut [Option<u128>], point: &Point, first_slot: u64, value: u64) {
    let until = point.from.saturating_add(point.ms);
    for (slot, sum) in (first_slot..).zip(sums) {
        let (begin, end) = (slot.saturating_mul(SLOT_MS), (slot + 1).saturating_mul(SLOT_MS));
        let covered = until.min(end).saturating_sub(point.from.max(begin));
        if covered > 0 {
            *sum = Some(sum.unwrap_or(0) + u128::from(covered) * u128::from(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::store::usage::Values;

    fn point(from: u64, ms: u64, cpu_us: u64, memory: u64, power: Rolled) -> Point {
        let range = |value| Rolled::Range(0, value, value);
        let none = Rolled::Unknown(Unknown::Off);
        let job = vec![Rolled::Delta(cpu_us), range(memory), none, none, none, none];
        let cards = vec![("GPU-1".to_owned(), vec![range(50), range(7), power])];
        Point { from, ms, values: Values { samples: 1, job, cards } }
    }

    #[test]
    fn what_two_jobs_use_at_a_time_adds_up_and_nothing_is_said_of_when_none_ran() {
        let denied = Rolled::Unknown(Unknown::Denied);
        let first = point(SLOT_MS * 2, SLOT_MS, 600_000_000, 100, denied);
        // Half in one slot and half in the next one.
        let second = point(SLOT_MS * 2 + SLOT_MS / 2, SLOT_MS, 1_200_000_000, 100, denied);
        let day = Day::of(&[first, second], 1, 5);
        assert_eq!(day.series[CPU][..4], [None, Some(2_000), Some(1_000), None]);
        assert_eq!(day.series[MEMORY][..3], [None, Some(150), Some(50)]);
        assert_eq!(day.series["gpu_busy_percent"][1], Some(75));
        assert_eq!(day.unknown["gpu_power_mw"], Unknown::Denied);
        assert!(!day.series.contains_key("gpu_power_mw"));
    }
}
