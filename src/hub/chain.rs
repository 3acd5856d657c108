//! The third clock: the heartbeats that nodes send to the contract.
//!
//! Invariants: the newest blocks are read again each time, so that a heartbeat that a reorganisation took away
//! counts no more; only nodes that the hub knows from elsewhere are shown, since a contract may know thousands of
//! strangers' nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::api::pages::{OnChain, Project};
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
    /// Where the pages read which contract it is.
    pub project: Project,
    /// The clock.
    pub clock: C,
}

/// When the contract was last asked about which node, whatever it said.
#[derive(Debug, Default)]
struct Asked(BTreeMap<Address, Timestamp>);

impl Asked {
    /// The nodes to ask about now. Forgets those that are known no more.
    fn due(&mut self, nodes: &[Arc<Node>], now: Timestamp) -> Vec<(String, Address)> {
        let on_chain = nodes.iter().filter(|node| node.chain_block.is_some());
        let names: BTreeMap<Address, &str> =
            on_chain.filter_map(|node| Some((node.address?, &*node.name))).collect();
        self.0.retain(|address, _| names.contains_key(address));
        let asked = names.keys().map(|address| (self.0.get(address).copied(), *address));
        // A clock that was set back holds nothing up.
        let is_due = |at: Timestamp| at > now || now.since(at) >= SCORE_KEPT;
        let mut due: Vec<_> = asked.filter(|(at, _)| at.is_none_or(is_due)).collect();
        due.sort();
        due.truncate(SCORES);
        let with_name = |(_, address)| Some(((*names.get(&address)?).to_owned(), address));
        due.into_iter().filter_map(with_name).collect()
    }

    fn note(&mut self, address: Address, now: Timestamp) {
        self.0.insert(address, now);
    }
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
        let chain_id = self.reader.chain_id().await?;
        self.project.set(OnChain { chain_id, contract: self.reader.contract() });
        let mut asked = Asked::default();
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
            self.ask_scores(&mut asked).await;
            self.clock.sleep(EVERY).await;
        }
    }

    /// Asks the contract about some nodes: those that it was asked about longest ago.
    async fn ask_scores(&self, asked: &mut Asked) {
        let now = self.clock.now();
        let due = asked.due(&self.fleet.all(), now);
        if due.is_empty() {
            return;
        }
        match self.reader.has_extension().await {
            Ok(true) => {}
            // It keeps no scores, or can't be asked now.
            Ok(false) => return,
            Err(err) => return Self::no_scores("any node", &err),
        }
        for (name, address) in due {
            let scored = match self.reader.reputation(address).await {
                Ok(reputation) => reputation,
                Err(err @ Error::Unreachable { .. }) => return Self::no_scores(&name, &err),
                // It is this node's alone; the others wait for no node that the contract can't tell of.
                Err(err) => {
                    asked.note(address, now);
                    Self::no_scores(&name, &err);
                    continue;
                }
            };
            asked.note(address, now);
            // Without one it is not registered any more.
            let scored =
                scored.map(|reputation| Scored { reputation: Arc::new(reputation), asked: now });
            self.fleet.update_if_known(&name, |node| node.scored = scored);
        }
    }

    fn no_scores(of: &str, err: &Error) {
        tracing::debug!("no score of {of}: {}", crate::report::causes(err));
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
    fn nodes_that_the_contract_says_nothing_of_keep_no_other_one_waiting() {
        let node = |n: u8| {
            let mut node = Node::new(format!("n{n}"), Timestamp::from_unix_ms(0));
            (node.address, node.chain_block) = (Some(Address::new([n; 20])), Some(1));
            Arc::new(node)
        };
        let mut nodes: Vec<_> = (0..25).map(node).collect();
        let (mut asked, now) = (Asked::default(), Timestamp::from_unix_ms(5_000_000));
        let first = asked.due(&nodes, now);
        assert_eq!(first.len(), SCORES);
        // None of them has a score, and none gets one.
        for (_, address) in &first {
            asked.note(*address, now);
        }
        let then: Vec<String> = asked.due(&nodes, now).into_iter().map(|(name, _)| name).collect();
        assert_eq!(then, ["n20", "n21", "n22", "n23", "n24"]);
        let later = now.plus(SCORE_KEPT);
        let again = asked.due(&nodes, later);
        assert_eq!((again.len(), again[0].0.as_str()), (SCORES, "n20"), "never asked is first");
        nodes.truncate(3);
        assert_eq!(asked.due(&nodes, later).len(), 3);
        assert_eq!(asked.0.len(), 3, "who is gone is forgotten");
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
