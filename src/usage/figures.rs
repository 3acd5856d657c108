//! The final figures of a job: what its record says, and why what it doesn't say is not known.
//!
//! Pure. Invariant: a figure that is not known keeps its reason wherever it is written.

use serde::{Deserialize, Serialize};

use super::metric::Metric;
use super::sample::{Reading, Unknown};
use super::totals::{EnergyMethod, Totals};
use crate::ids::Hash;

/// Number of figures that may be unknown: the members from `cpuUs` to `energyMj`.
pub(super) const FIGURES: usize = 8;

/// The final figures of a job.
///
/// In JSON a figure is a number, or the word for why it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// CPU time of all its processes, in microseconds.
    #[serde(with = "figure")]
    pub cpu_us: Reading,
    /// The most memory that it had, file pages included, in bytes.
    #[serde(with = "figure")]
    pub memory_peak_bytes: Reading,
    /// Bytes read from disks.
    #[serde(with = "figure")]
    pub io_read_bytes: Reading,
    /// Bytes written to disks.
    #[serde(with = "figure")]
    pub io_write_bytes: Reading,
    /// Bytes received over its network.
    #[serde(with = "figure")]
    pub net_rx_bytes: Reading,
    /// Bytes sent over its network.
    #[serde(with = "figure")]
    pub net_tx_bytes: Reading,
    /// Time in which its cards were busy, summed over them, in milliseconds.
    #[serde(with = "figure")]
    pub gpu_ms: Reading,
    /// Energy of its cards, in millijoules.
    #[serde(with = "figure")]
    pub energy_mj: Reading,
    /// How that energy is known.
    pub energy_method: EnergyMethod,
    /// Number of samples that these figures rest on.
    pub samples: u32,
    /// The head of the chain over the batches of its samples; zeros if there is none.
    pub series_head: Hash,
}

impl Usage {
    /// The figures of these totals; `series_head` is the head of the chain over the batches of the samples.
    pub fn new(totals: &Totals, series_head: Hash) -> Self {
        let (energy_mj, energy_method) = totals.energy();
        Self {
            cpu_us: totals.total(Metric::Cpu),
            memory_peak_bytes: totals.total(Metric::MemoryPeak),
            io_read_bytes: totals.total(Metric::DiskRead),
            io_write_bytes: totals.total(Metric::DiskWrite),
            net_rx_bytes: totals.total(Metric::NetRx),
            net_tx_bytes: totals.total(Metric::NetTx),
            gpu_ms: totals.gpu_ms(),
            energy_mj,
            energy_method,
            samples: totals.samples(),
            series_head,
        }
    }

    /// The usage of a job of which nothing is known, for this reason.
    pub const fn unknown(why: Unknown) -> Self {
        Self {
            cpu_us: Err(why),
            memory_peak_bytes: Err(why),
            io_read_bytes: Err(why),
            io_write_bytes: Err(why),
            net_rx_bytes: Err(why),
            net_tx_bytes: Err(why),
            gpu_ms: Err(why),
            energy_mj: Err(why),
            energy_method: EnergyMethod::Unknown,
            samples: 0,
            series_head: Hash([0; 32]),
        }
    }

    /// The figures in the order of the record's members.
    pub(super) const fn figures(&self) -> [Reading; FIGURES] {
        [
            self.cpu_us,
            self.memory_peak_bytes,
            self.io_read_bytes,
            self.io_write_bytes,
            self.net_rx_bytes,
            self.net_tx_bytes,
            self.gpu_ms,
            self.energy_mj,
        ]
    }
}

/// A reading as a number, or as the word for why there is none.
mod figure {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Reading, Unknown};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Figure {
        Known(u64),
        Unknown(Unknown),
    }

    pub(super) fn serialize<S: Serializer>(reading: &Reading, to: S) -> Result<S::Ok, S::Error> {
        reading.map_or_else(Figure::Unknown, Figure::Known).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Reading, D::Error> {
        Ok(match Figure::deserialize(from)? {
            Figure::Known(value) => Ok(value),
            Figure::Unknown(why) => Err(why),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn usage() -> Usage {
        Usage {
            cpu_us: Ok(1_500_000),
            memory_peak_bytes: Ok(1 << 30),
            io_read_bytes: Ok(0),
            io_write_bytes: Err(Unknown::NotSupported),
            net_rx_bytes: Err(Unknown::Off),
            net_tx_bytes: Ok(u64::MAX),
            gpu_ms: Ok(700),
            energy_mj: Ok(12_345),
            energy_method: EnergyMethod::Integrated,
            samples: 9,
            series_head: Hash([0x44; 32]),
        }
    }

    #[test]
    fn figures_are_kept_as_numbers_or_words() {
        let text = serde_json::to_value(usage()).unwrap();
        assert_eq!((&text["cpu_us"], &text["net_rx_bytes"]), (&json!(1_500_000), &json!("off")));
        assert_eq!(text["energy_method"], "integrated");
        assert_eq!(serde_json::from_value::<Usage>(text.clone()).unwrap(), usage());
        for wrong in [json!(-1), json!("none"), json!(null)] {
            let mut other = text.clone();
            other["cpu_us"] = wrong;
            assert!(serde_json::from_value::<Usage>(other.clone()).is_err(), "{other}");
        }
    }

    #[test]
    fn the_totals_of_a_job_become_its_figures() {
        let usage = Usage::new(&Totals::default(), Hash([5; 32]));
        let nothing = Usage { series_head: Hash([5; 32]), ..Usage::unknown(Unknown::Missed) };
        assert_eq!(usage, nothing);
    }
}
