//! The machine, looked at again and again.
//!
//! Invariant: what could not be read is unknown, with the reason, and never 0.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::host::machine::{self, Processors};
use crate::host::network;
use crate::host::process::micros;
use crate::sidecar::used::{Card, MachineUsed};
use crate::usage::tree::Grown;
use crate::usage::{Metric, Reading, Readings, Unknown};

/// The machine.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    last: Option<Processors>,
    /// CPU time in microseconds, bytes received and sent since the first look.
    totals: [u64; 3],
    /// What each of its interfaces has counted: one that comes or goes moves none of the others'.
    network: BTreeMap<String, [Grown; 2]>,
}

impl Tracked {
    /// Looks at it.
    pub(super) fn sample(
        &mut self,
        at: Timestamp,
        cards: Result<Vec<Card>, Unknown>,
    ) -> MachineUsed {
        let processors = machine::processors();
        let spent = self.spent(processors);
        let memory = machine::memory();
        let mut readings = Readings::unknown(Unknown::Off);
        readings[Metric::Cpu] =
            spent.and_then(|spent| self.count(0, spent.map(|it| micros(it.busy_ticks))));
        readings[Metric::Memory] = memory.map(machine::Memory::used);
        readings[Metric::Swap] = memory.map(|it| it.swap_total.saturating_sub(it.swap_free));
        let traffic = network::of_machine().map(|all| self.grown(&all));
        readings[Metric::NetRx] = traffic.and_then(|it| self.count(1, Some(it[0])));
        readings[Metric::NetTx] = traffic.and_then(|it| self.count(2, Some(it[1])));
        MachineUsed {
            at,
            cpu_percent: spent.and_then(|spent| share(spent.ok_or(Unknown::Missed)?)),
            cores: machine::cores(),
            celsius: machine::celsius(),
            memory,
            load: machine::load(),
            readings,
            cards,
        }
    }

    /// What the processors did since the look before.
    fn spent(&mut self, now: Result<Processors, Unknown>) -> Result<Option<Processors>, Unknown> {
        let before = std::mem::replace(&mut self.last, now.ok());
        let now = now?;
        Ok(before.map(|before| Processors {
            busy_ticks: now.busy_ticks.saturating_sub(before.busy_ticks),
            all_ticks: now.all_ticks.saturating_sub(before.all_ticks),
        }))
    }

    /// Bytes received and sent since the look before, over these interfaces.
    fn grown(&mut self, all: &BTreeMap<String, [u64; 2]>) -> [u64; 2] {
        self.network.retain(|name, _| all.contains_key(name));
        let mut sum = [0_u64; 2];
        for (name, bytes) in all {
            let known = self.network.entry(name.clone()).or_default();
            for ((sum, grown), bytes) in sum.iter_mut().zip(known).zip(bytes) {
                *sum = sum.saturating_add(grown.look(*bytes).unwrap_or(0));
            }
        }
        sum
    }

    fn count(&mut self, at: usize, since: Option<u64>) -> Reading {
        let total = self.totals.get_mut(at).ok_or(Unknown::Failed)?;
        *total = total.saturating_add(since.unwrap_or(0));
        Ok(*total)
    }
}

/// The busy part of a span, in percent with one decimal.
#[expect(clippy::cast_precision_loss, reason = "one decimal of a percent is shown")]
fn share(spent: Processors) -> Result<f64, Unknown> {
    if spent.all_ticks == 0 {
        return Err(Unknown::Missed);
    }
    let share = spent.busy_ticks as f64 / spent.all_ticks as f64;
    Ok((share.min(1.0) * 1_000.0).round() / 10.0)
}

/// How long the pause until the next look is: looks don't move with the time that one takes.
pub(super) fn pause(every: Duration, took: Duration) -> Duration {
    // Not at once again, however long one took.
    every.saturating_sub(took).max(every / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_first_look_no_share_is_known_and_later_one_is() {
        let mut machine = Tracked::default();
        let at = Timestamp::default();
        let first = machine.sample(at, Err(Unknown::NotSupported));
        assert_eq!(first.cpu_percent, Err(Unknown::Missed), "not 0");
        assert_eq!(first.readings[Metric::Cpu], Ok(0));
        let begun = std::time::Instant::now();
        // A tick of the kernel's clock of this machine has to pass.
        let later = loop {
            let later = machine.sample(at, Err(Unknown::NotSupported));
            if later.cpu_percent.is_ok() {
                break later;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{later:?}");
            std::thread::yield_now();
        };
        let percent = later.cpu_percent.unwrap();
        assert!((0.0..=100.0).contains(&percent), "{percent}");
        assert!(later.memory.unwrap().used() > 0 && later.load.is_ok());
        assert_eq!(later.readings[Metric::DiskRead], Err(Unknown::Off));
    }

    #[test]
    fn an_interface_that_comes_or_goes_moves_nothing_that_others_counted() {
        let mut machine = Tracked::default();
        let of = |all: &[(&str, u64)]| {
            all.iter().map(|(name, bytes)| ((*name).to_owned(), [*bytes, bytes * 2])).collect()
        };
        assert_eq!(machine.grown(&of(&[("eth0", 1_000), ("usb0", 900)])), [0, 0]);
        assert_eq!(machine.grown(&of(&[("eth0", 1_010), ("usb0", 900)])), [10, 20]);
        assert_eq!(machine.grown(&of(&[("eth0", 1_015)])), [5, 10], "one went");
        assert_eq!(machine.grown(&of(&[("eth0", 1_016), ("usb0", 7)])), [1, 2], "one came");
    }

    #[test]
    fn a_share_is_what_was_busy_of_all() {
        let of = |busy_ticks, all_ticks| share(Processors { busy_ticks, all_ticks });
        assert_eq!((of(1, 8), of(9, 8), of(0, 4)), (Ok(12.5), Ok(100.0), Ok(0.0)));
        assert_eq!(of(0, 0), Err(Unknown::Missed));
        let [every, took] = [15, 1].map(Duration::from_secs);
        assert_eq!(pause(every, took), Duration::from_secs(14));
        assert_eq!(pause(every, every * 3), every / 4);
    }
}
