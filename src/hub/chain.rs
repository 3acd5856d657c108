//! The third clock: the heartbeats that nodes send to the contract.
//!
//! Invariants: the newest blocks are read again each time, so that a heartbeat that a reorganisation took away
//! counts no more; only nodes that the hub knows from elsewhere are shown, since a contract may know thousands of
//! strangers' nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fleet::{Fleet, Node, Scored};
use crate::chain::pulse::{Beat, Pulse};
use crate::chain::{Error, Reader};
use crate::clock::{Clock, Timestamp};
use crate::fleet::clocks::Listening;
use crate::ids::Address;
use crate::supervise::Failure;

/// How often the chain is read.
const EVERY: Duration = Duration::from_secs(15);

/// How many blocks may still be replaced: they are read again each time.
const UNSETTLED: u64 = 64;

/// How far back the first read goes: who was silent for longer is silent.
const BACK: Duration = Duration::from_hours(1);

/// Most heartbeats that are remembered; those of the nodes that the hub knows are always among them.
const BEATS_MAX: usize = 200_000;

/// How many nodes the contract is asked about each time, and how old what it said may be before.
const SCORES: usize = 20;
const SCORE_KEPT: Duration = Duration::from_mins(1);

/// Reads the chain. One service.
#[derive(Debug)]
pub struct ChainClock<C> {
    /// The contract.
    pub reader: Reader,
    /// The nodes.
    pub fleet: Fleet,
    /// What the hub listens to, and since when.
    pub listening: Arc<watch::Sender<Listening>>,
    /// The clock.
    pub clock: C,
}

/// The last heartbeats that were read.
#[derive(Debug, Default)]
struct Heard {
    /// Of each node the last one in a block that stays.
    settled: BTreeMap<Address, Beat>,
    /// All in blocks that may be replaced.
    recent: Vec<Beat>,
}

impl<C: Clock> ChainClock<C> {
    /// Reads the chain until it is aborted.
    pub async fn run(self: Arc<Self>) -> Result<(), Failure> {
        let ended = self.read().await;
        self.listening.send_modify(|listening| listening.chain = None);
        let remedy =
            "CHAIN_RPC_URL says which endpoints are asked; the hub goes on without the chain";
        ended.map_err(|err| Failure::again(err, remedy))
    }

    async fn read(&self) -> Result<(), Error> {
        let newest = self.reader.head().await?;
        let since_s = self.clock.now().unix_ms() / 1_000;
        let mut from = self.reader.block_at(since_s.saturating_sub(BACK.as_secs()), newest).await?;
        let mut beats = Heard::default();
        loop {
            let head = self.reader.head().await?;
            // An endpoint that lags behind another one names an older block.
            let mut pulse = Pulse::new(from.min(head), head);
            beats.recent.clear();
            while let Some(found) = self.reader.next_beats(&mut pulse).await? {
                beats.take(found, head);
            }
            from = head.saturating_sub(UNSETTLED).saturating_add(1);
            self.tell(&beats);
            let now = self.clock.now();
            self.listening.send_modify(|listening| {
                // The read covers the past, so the chain has been listened to since then.
                let since = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(ms(BACK)));
                listening.chain.get_or_insert(since);
            });
            self.ask_scores().await;
            self.clock.sleep(EVERY).await;
        }
    }

    /// Asks the contract about some nodes: those of which what it said is oldest. What fails is asked for later.
    async fn ask_scores(&self) {
        let now = self.clock.now();
        let asked = |node: &Node| node.scored.as_ref().map(|it| it.asked);
        let mut old: Vec<_> = self.fleet.all();
        old.retain(|node| {
            node.chain_block.is_some() && asked(node).is_none_or(|at| now.since(at) >= SCORE_KEPT)
        });
        old.sort_by_key(|node| asked(node));
        for node in old.iter().take(SCORES) {
            let Some(address) = node.address else { continue };
            match self.reader.reputation(address).await {
                Ok(Some(reputation)) => self.fleet.update_if_known(&node.name, |node| {
                    node.scored = Some(Scored { reputation: Arc::new(reputation), asked: now });
                }),
                // Not registered any more, or a contract without scores: then none of the others has one.
                Ok(None) => return,
                Err(err) => {
                    tracing::debug!("no score of {}: {}", node.name, crate::report::causes(&err));
                    return;
                }
            }
        }
    }

    /// Notes the last heartbeat of each node that the hub knows, where it changed.
    fn tell(&self, heard: &Heard) {
        let (last, now) = (heard.last(), self.clock.now());
        for node in self.fleet.all() {
            let Some(beat) = node.address.and_then(|address| last.get(&address)) else { continue };
            let at = beat.at.min(now);
            if (node.heard.chain, node.chain_block) == (Some(at), Some(beat.block)) {
                continue;
            }
            self.fleet.update_if_known(&node.name, |node| {
                node.heard.chain = Some(at);
                node.chain_block = Some(beat.block);
            });
        }
    }
}

impl Heard {
    /// Takes heartbeats in, given the newest block.
    fn take(&mut self, beats: Vec<Beat>, head: u64) {
        for beat in beats {
            if beat.block.saturating_add(UNSETTLED) > head {
                if self.recent.len() < BEATS_MAX {
                    self.recent.push(beat);
                }
                continue;
            }
            let is_known = self.settled.contains_key(&beat.node);
            if is_known || self.settled.len() < BEATS_MAX {
                self.settled.insert(beat.node, beat);
            }
        }
    }

    /// Of each node the last one.
    fn last(&self) -> BTreeMap<Address, Beat> {
        let mut last = self.settled.clone();
        for beat in &self.recent {
            let place = last.entry(beat.node).or_insert(*beat);
            if beat.block >= place.block {
                *place = *beat;
            }
        }
        last
    }
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(node: u8, block: u64) -> Beat {
        Beat { node: Address::new([node; 20]), block, at: Timestamp::from_unix_ms(1_000 * block) }
    }

    #[test]
    fn a_heartbeat_in_a_block_that_was_replaced_counts_no_more() {
        let mut heard = Heard::default();
        heard.take(vec![beat(1, 100), beat(1, 990), beat(2, 995)], 1_000);
        let blocks =
            |heard: &Heard| heard.last().values().map(|beat| beat.block).collect::<Vec<_>>();
        assert_eq!(blocks(&heard), [990, 995]);
        // The chain was reorganised: both are gone.
        heard.recent.clear();
        heard.take(Vec::new(), 1_001);
        assert_eq!(blocks(&heard), [100]);
    }
}
