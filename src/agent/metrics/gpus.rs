//! The GPUs: what their latest samples say.
//!
//! Invariants: the driver is not asked for this: its samples are those that the node's health watch takes anyway; what a
//! card does not tell, or has not told for a minute, is absent.

use std::time::Duration;

use super::number;
use crate::node::card::{Reading, Round, Sample};
use crate::node::health::State;
use crate::node::{Gpu, GpuUuid};
use crate::telemetry::{Family, Page};

/// Older samples are of another time: they are taken every ten seconds.
const AGE_MAX: Duration = Duration::from_mins(1);

const STATES: [State; 5] =
    [State::Healthy, State::Suspect, State::Quarantined, State::Probation, State::Retired];

/// Tells of these GPUs. `samples`: the latest and when they were taken, by the clock whose time is `now`.
pub(super) fn tell(
    page: &mut Page,
    gpus: &[Gpu],
    samples: Option<(Duration, Round)>,
    health: &[(GpuUuid, State)],
    now: Duration,
) {
    let fresh = samples.filter(|(at, _)| now.saturating_sub(*at) < AGE_MAX);
    let round = fresh.map(|(_, round)| round).unwrap_or_default();
    for Gpu { uuid, model, .. } in gpus {
        page.put_of(Family::Gpu, &[uuid.as_str(), model], 1.0);
        if let Some((_, now)) = health.iter().find(|(card, _)| card == uuid) {
            for state in STATES {
                let is_so = f64::from(u8::from(state == *now));
                page.put_of(Family::GpuHealth, &[uuid.as_str(), state.name()], is_so);
            }
        }
        if let Some(Ok(sample)) = round.get(uuid) {
            tell_sample(page, uuid.as_str(), sample);
        }
    }
}

fn tell_sample(page: &mut Page, uuid: &str, sample: &Sample) {
    let small = |reading: &Reading<u32>| reading.as_ref().ok().copied().map(f64::from);
    let large = |reading: &Reading<u64>| reading.as_ref().ok().copied().map(number);
    let of = [uuid];
    page.put_of(Family::GpuBusy, &of, small(&sample.busy_percent).map(|percent| percent / 100.0));
    page.put_of(Family::GpuMemoryUsed, &of, large(&sample.used_bytes));
    page.put_of(Family::GpuMemoryFree, &of, large(&sample.free_bytes));
    page.put_of(Family::GpuPower, &of, small(&sample.power_mw).map(|milliwatts| milliwatts / 1e3));
    page.put_of(Family::GpuEnergy, &of, large(&sample.energy_mj).map(|energy| energy / 1e3));
    page.put_of(Family::GpuTemperature, &of, small(&sample.celsius));
    for (clock, mhz) in [("sm", &sample.sm_mhz), ("memory", &sample.memory_mhz)] {
        page.put_of(Family::GpuClock, &[uuid, clock], small(mhz).map(|mhz| mhz * 1e6));
    }
    let processes = sample.processes.as_ref().ok().map(|all| number(all.len() as u64));
    page.put_of(Family::GpuProcesses, &of, processes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::card::Unknown;

    fn gpu() -> Gpu {
        let uuid = GpuUuid::new("GPU-1").unwrap();
        Gpu { uuid, model: "NVIDIA H100".to_owned(), vram_mib: 81_559 }
    }

    fn told(sample: Reading<Sample>, age: Duration) -> String {
        let mut page = Page::default();
        let (gpu, now) = (gpu(), Duration::from_hours(1));
        let round = Round::from([(gpu.uuid.clone(), sample)]);
        let health = [(gpu.uuid.clone(), State::Suspect)];
        tell(&mut page, &[gpu], Some((now.saturating_sub(age), round)), &health, now);
        page.into_text().unwrap()
    }

    #[test]
    fn what_a_card_does_not_tell_is_absent_and_never_0() {
        for why in [Unknown::NotSupported, Unknown::Denied, Unknown::Lost] {
            let of_values = told(Ok(Sample::unknown(&why)), Duration::ZERO);
            let of_card = told(Err(why), Duration::ZERO);
            for text in [of_values, of_card] {
                let values = text.lines().filter(|line| !line.starts_with('#'));
                let names: Vec<&str> = values.filter_map(|line| line.split('{').next()).collect();
                assert_eq!(names[0], "lamda_gpu_info");
                assert_eq!(names[1..], ["lamda_gpu_health"; 5], "{text}");
                assert!(text.contains("state=\"suspect\"} 1.0\n"), "{text}");
            }
        }
    }

    #[test]
    fn a_sample_is_told_in_base_units_while_it_is_fresh() {
        let sample = Sample {
            busy_percent: Ok(37),
            power_mw: Ok(250_500),
            energy_mj: Ok(1_500),
            sm_mhz: Ok(1980),
            used_bytes: Ok(1 << 30),
            ..Sample::unknown(&Unknown::NotSupported)
        };
        let text = told(Ok(sample.clone()), Duration::from_secs(50));
        for line in [
            "lamda_gpu_utilization_ratio{uuid=\"GPU-1\"} 0.37\n",
            "lamda_gpu_power_watts{uuid=\"GPU-1\"} 250.5\n",
            "lamda_gpu_energy_joules_total{uuid=\"GPU-1\"} 1.5\n",
            "lamda_gpu_clock_hertz{uuid=\"GPU-1\",clock=\"sm\"} 1980000000.0\n",
            "lamda_gpu_memory_used_bytes{uuid=\"GPU-1\"} 1073741824.0\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("memory\"}"), "{text}");
        assert!(!told(Ok(sample), Duration::from_mins(2)).contains("watts"));
    }
}
