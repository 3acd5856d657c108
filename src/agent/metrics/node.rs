//! The node, its jobs, and what it knows of NATS, the pinning service and the chain.
//!
//! Invariant: a word in a label is one of a closed list, all of which are there.

use super::{Source, number};
use crate::agent::jobs::board::{Census, Sum};
use crate::clock::{Clock, Timestamp};
use crate::journal::Backlog;
use crate::node::fitness::Unfit;
use crate::telemetry::{Family, Page};

/// Why the node takes no jobs, beside the words of [`Unfit`].
const NATS: &str = "nats";
const DRAINING: &str = "draining";

/// One of the chain's coins, in wei.
const COIN: f64 = 1e18;

impl<C: Clock> Source<C> {
    /// The node and its jobs.
    pub(super) fn tell_node(&self, page: &mut Page, census: &Census) {
        let driver = if self.gpus.is_empty() { "" } else { &*self.driver };
        page.put_of(Family::Build, &[env!("CARGO_PKG_VERSION"), driver], 1.0);
        page.put(Family::Started, seconds(self.started));
        let unready = if self.link.is_up() { census.unready } else { Some(NATS) };
        page.put(Family::Ready, f64::from(u8::from(unready.is_none())));
        let words = Unfit::WORDS.into_iter().chain([NATS, DRAINING]);
        page.put_words(Family::Unready, words.map(|word| (word, unready == Some(word))));
        page.put(Family::Slots, number(census.slots as u64));
        page.put(Family::SlotsUsed, number(census.used as u64));
        for (stage, count) in &census.stages {
            page.put_of(Family::Jobs, &[stage], number(*count as u64));
        }
        page.put(Family::Queue, number(census.queued as u64));
        let tally = &census.tally;
        for (end, count) in &tally.ended {
            page.put_of(Family::Ended, &[end], number(*count));
        }
        let sum = |sum: &Sum, unit: f64| sum.value().map(|value| number(value) / unit);
        page.put(Family::RunCpu, sum(&tally.cpu_us, 1e6));
        page.put(Family::RunGpu, sum(&tally.gpu_ms, 1e3));
        page.put(Family::RunEnergy, sum(&tally.energy_mj, 1e3));
        page.put(Family::Runs, number(tally.runs));
        for (figure, sum) in
            [("cpu", &tally.cpu_us), ("gpu", &tally.gpu_ms), ("energy", &tally.energy_mj)]
        {
            page.put_of(Family::RunsUnknown, &[figure], number(sum.unknown));
        }
    }

    /// What is known of NATS, the pinning service, and the account's balance.
    pub(super) fn tell_outside(&self, page: &mut Page) {
        page.put(Family::NatsUp, f64::from(u8::from(self.link.is_up())));
        page.put(Family::NatsReconnects, number(self.link.connection().saturating_sub(1)));
        let (uploads, bytes) = self.pinata.traffic();
        page.put(Family::Uploads, number(uploads));
        page.put(Family::UploadBytes, number(bytes));
        let hub = *self.known.hub.borrow();
        page.put(Family::HubAnswered, hub.and_then(|hub| hub.last).map(seconds));
        page.put(Family::HubSilent, hub.map(|hub| f64::from(u8::from(hub.is_silent))));
        let balance = *self.known.balance.borrow();
        page.put(Family::Balance, balance.map(coins));
    }
}

/// What waits in the journal, if that is known.
pub(super) fn tell_backlog(page: &mut Page, backlog: Option<Backlog>) {
    let Some(backlog) = backlog else { return };
    page.put(Family::Outbox, f64::from(backlog.statuses));
    page.put(Family::UsageBatches, f64::from(backlog.usage_batches));
    page.put(Family::Kept, f64::from(backlog.kept));
    let Some(account) = backlog.account else { return };
    page.put(Family::Pending, f64::from(account.pending));
    page.put(Family::LastBeat, account.last_beat.map(seconds));
}

fn seconds(at: Timestamp) -> f64 {
    number(at.unix_ms()) / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn coins(wei: u128) -> f64 {
    wei as f64 / COIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_is_told_in_coins() {
        assert!((coins(1_500_000_000_000_000_000) - 1.5).abs() < 1e-9);
    }
}
