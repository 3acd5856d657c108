//! What nodes told lately, for the rules about events.
//!
//! Must hold: it keeps at most [`KEPT`] events, whatever nodes tell; a node's repeated event counts from its last
//! time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::fleet::Event;
use crate::fleet::rule::Rule;
use crate::ids::Address;

/// How many events are kept.
pub const KEPT: usize = 10_000;

/// Events of nodes, the oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Happened(Arc<Mutex<VecDeque<Event>>>);

/// Something that a node told and that still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When it happened last.
    pub at: Timestamp,
    /// What the node said.
    pub message: String,
}

impl Happened {
    /// Takes note of an event.
    pub fn note(&self, event: Event) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Of each node the last event that the rule looks for, if it happened within the rule's calm.
    pub fn lately(&self, rule: &Rule, now: Timestamp) -> BTreeMap<Address, Told> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = BTreeMap::new();
        for event in events.iter().filter(|event| rule.is_for(event)) {
            if now.since(event.timestamp) <= rule.clear {
                let (at, message) = (event.timestamp, event.message().to_owned());
                found.insert(event.node, Told { at, message });
            }
        }
        found
    }
}
