//! The cost of sampling a host's GPUs, by whatever library is named: NVIDIA's own on a host with cards, the
//! tests' stand-in elsewhere.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lamda_node::gpu::GpuProbe as _;
use lamda_node::gpu::nvml::Nvml;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::Failure;

/// Rounds one after another: what the adapter costs where the driver answers from its cache.
const AT_ONCE: u32 = 1_000;
/// Rounds a second apart, as a node samples: what a driver costs that has to ask its cards.
const APART: u32 = 20;

/// Samples all cards of this library, at once and each second.
pub(super) async fn cards(library: PathBuf) -> Result<Value, Failure> {
    let probe = Nvml::new(Some(library));
    let begun = Instant::now();
    let cards = probe.sample().await?.len();
    let first = begun.elapsed();

    let (begun, before) = (Instant::now(), cpu());
    for _ in 0..AT_ONCE {
        probe.sample().await?;
    }
    let (wall, used) = (begun.elapsed() / AT_ONCE, cpu().saturating_sub(before) / AT_ONCE);

    let mut every = tokio::time::interval(Duration::from_secs(1));
    let (begun, before) = (Instant::now(), cpu());
    for _ in 0..APART {
        every.tick().await;
        probe.sample().await?;
    }
    let share = cpu().saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64();
    Ok(json!({
        "cards": cards,
        "first_ms": first.as_secs_f64() * 1e3,
        "round_us": wall.as_secs_f64() * 1e6,
        "round_cpu_us": used.as_secs_f64() * 1e6,
        "each_second_percent_of_a_core": share * 100.0,
    }))
}

/// Processor time of this process, in the kernel too.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}
