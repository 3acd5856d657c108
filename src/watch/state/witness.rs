//! What the DHT and the contract said of a program, summed up.
//!
//! Must hold: a payment that was taken back gives way to the one before; what nobody answered is not absent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ChainState, Watched, entry_or, push};
use crate::clock::Timestamp;
use crate::watch::observation::{CHAIN, ChainSeen, DHT, EVENTS, Kept, Whose};

/// How long nothing may happen in a swarm before it counts as having stood still.
const STOOD_AFTER: Duration = Duration::from_hours(4);

impl Watched {
    pub(super) fn look_at_dht(
        &mut self,
        (asked, alive): (u32, u32),
        kept: &BTreeMap<String, Kept>,
        at: Timestamp,
    ) {
        if asked > 0 && alive == 0 {
            let why = || (at, format!("none of its {asked} bootnodes answered"));
            entry_or(&mut self.troubles, DHT, why);
        } else {
            self.troubles.remove(DHT);
        }
        let dht = self.dht.get_or_insert_default();
        (dht.at, dht.asked, dht.alive) = (at, asked, alive);
        if alive > 0 {
            dht.alive_at = Some(at);
            dht.dead_since = None;
        } else if asked > 0 {
            dht.dead_since.get_or_insert(at);
        }
        let mut unknown = None;
        for (key, kept) in kept {
            match kept {
                Kept::Published { at: published } => {
                    let last = entry_or(&mut dht.published, key, || *published);
                    *last = (*last).max(*published).min(at);
                }
                Kept::Absent => {}
                Kept::Unknown { why } => unknown = Some(why.clone()),
            }
        }
        let is_answered = kept.values().any(|it| !matches!(it, Kept::Unknown { .. }));
        if is_answered {
            dht.answered_since.get_or_insert(at);
            dht.unknown = None;
        } else {
            dht.answered_since = None;
            dht.unknown = unknown.or_else(|| Some("no bootnode answered".to_owned()));
        }
    }

    pub(super) fn look_at_chain(&mut self, seen: &ChainSeen, at: Timestamp) {
        self.troubles.remove(CHAIN);
        let fresh = || ChainState { since: at, ..ChainState::default() };
        let chain = self.chain.get_or_insert_with(fresh);
        if seen.round.is_some() && seen.round != chain.last.round {
            if let (Some(since), Some(was), Some(now)) =
                (chain.round_since, chain.last.round, seen.round)
                && now > was
                && chain.is_round_whole
            {
                let each = at.since(since) / u32::try_from(now - was).unwrap_or(u32::MAX);
                push(&mut chain.rounds, each);
            }
            chain.goes_on(at);
            chain.is_round_whole = chain.last.round.is_some();
            chain.round_since = Some(at);
        }
        // What is paid shows in the sum also where the events can't be read.
        let was = chain.last.rewards.as_ref();
        let is_other = seen.rewards.is_some() && was.is_some() && was != seen.rewards.as_ref();
        if is_other && self.troubles.contains_key(EVENTS) {
            chain.paid_before = chain.paid.replace((at, seen.block));
        }
        let mut last = seen.clone();
        last.round = last.round.or(chain.last.round);
        last.rewards = last.rewards.or_else(|| chain.last.rewards.clone());
        chain.last = last;
        chain.at = at;
    }

    pub(super) fn pay(&mut self, whose: Whose, block: u64, paid: Timestamp, at: Timestamp) {
        let fresh = || ChainState { since: at, ..ChainState::default() };
        let chain = self.chain.get_or_insert_with(fresh);
        // A block's time may be ahead of ours.
        let paid = paid.min(at);
        chain.goes_on(paid);
        match whose {
            Whose::Ours if chain.paid.is_none_or(|(last, _)| last < paid) => {
                chain.paid_before = chain.paid.replace((paid, block));
            }
            Whose::Twin => chain.twin = chain.twin.max(Some(paid)),
            Whose::Other => chain.others = chain.others.max(Some(paid)),
            Whose::Ours => {}
        }
    }
}

impl ChainState {
    /// Something happened in the swarm. After it stood still for long, nothing of before is missed.
    fn goes_on(&mut self, at: Timestamp) {
        let stood = self.long_round().unwrap_or_default() * 2;
        if self.active.is_some_and(|active| at.since(active) > stood.max(STOOD_AFTER)) {
            self.going_since = Some(at);
        }
        self.active = self.active.max(Some(at));
    }

    /// How long a round may last: the longest but a few, or the current one if it was longer already when the chain
    /// was last read.
    pub fn round_lasts(&self, usual: Duration) -> Duration {
        let current = self.round_since.map(|since| self.at.since(since)).unwrap_or_default();
        self.long_round().unwrap_or(usual).max(current)
    }

    /// How long the longest but a few of the last rounds lasted; `None` before the first one ended.
    pub fn long_round(&self) -> Option<Duration> {
        let mut rounds: Vec<Duration> = self.rounds.iter().copied().collect();
        rounds.sort_unstable();
        rounds.get((rounds.len() * 95).div_ceil(100).saturating_sub(1)).copied()
    }
}
