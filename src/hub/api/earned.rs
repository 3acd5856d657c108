//! What the answer about earnings consists of.
//!
//! Must hold: a sum says of how many nodes something is not known.

use serde::Serialize;

use crate::hub::fleet::{Node, Scored};
use crate::hub::store::earned::{Earned, There};

/// Sums of one node, of one day, or of all.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Sum {
    #[serde(flatten)]
    pub(super) earned: Earned,
    #[serde(flatten)]
    pub(super) there: There,
    /// Time in which cards were there, times their number, in milliseconds; of nodes that say what they have.
    pub(super) cards_there_ms: u64,
    /// How many nodes don't say which cards they have.
    pub(super) cards_unknown: u64,
}

impl Sum {
    pub(super) fn add(&mut self, earned: &Earned, there: There, cards: Option<u64>) {
        self.earned.add(earned);
        self.there.up_ms = self.there.up_ms.saturating_add(there.up_ms);
        self.there.known_ms = self.there.known_ms.saturating_add(there.known_ms);
        let cards_ms = there.up_ms.saturating_mul(cards.unwrap_or(0));
        self.cards_there_ms = self.cards_there_ms.saturating_add(cards_ms);
    }
}

/// A day.
#[derive(Debug, Serialize)]
pub(super) struct OfDay {
    /// When it begins.
    pub(super) day: u64,
    #[serde(flatten)]
    pub(super) sum: Sum,
}

/// A node.
#[derive(Debug, Serialize)]
pub(super) struct OfNode {
    pub(super) name: String,
    /// How many cards it has, if it says so.
    pub(super) cards: Option<u64>,
    #[serde(flatten)]
    pub(super) sum: Sum,
    /// What the contract says of it, if the hub has asked.
    pub(super) chain: Option<Scored>,
}

/// An answer.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    pub(super) days: Vec<OfDay>,
    pub(super) nodes: Vec<OfNode>,
    pub(super) total: Sum,
    /// How many nodes are left out of the list; they count in the sums.
    pub(super) left_out: usize,
    /// When it was worked out.
    pub(super) of: u64,
}

impl OfNode {
    pub(super) fn new(node: &Node) -> Self {
        let cards = cards(node);
        let sum = Sum { cards_unknown: u64::from(cards.is_none()), ..Sum::default() };
        Self { name: node.name.clone(), cards, sum, chain: node.scored.clone() }
    }

    /// By what nodes are ordered: the cards that jobs held, then the time in which they ran, then the cards.
    pub(super) const fn worth(&self) -> (u64, u64, u64) {
        (self.sum.earned.card_ms, self.sum.earned.run_ms, self.sum.cards_there_ms)
    }
}

/// How many cards the node says that it has.
fn cards(node: &Node) -> Option<u64> {
    let gpus = node.presence.as_ref()?.get("gpus")?.as_array()?;
    u64::try_from(gpus.len()).ok()
}
