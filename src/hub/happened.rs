//! What nodes told lately, for the rules about events.
//!
//! Must hold: it keeps at most [`KEPT`] events, whatever nodes tell; a node's repeated event counts from its last
//! time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::fleet::Event;
use crate::fleet::rule::Rule;

/// How many events are kept.
pub const KEPT: usize = 10_000;

/// Events of nodes, the oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Happened(Arc<Mutex<VecDeque<Event>>>);

/// Something that a node told and that still counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The node.
    pub node: String,
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
    pub fn lately(&self, rule: &Rule, now: Timestamp) -> Vec<Told> {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Told> = Vec::new();
        for event in events.iter().rev() {
            let node = event.node.lower_hex();
            let counts = now.since(event.timestamp) <= rule.clear
                && rule.is_for(event)
                && rule.is_about(&node, &[])
                && !found.iter().any(|told| told.node == node);
            if counts {
                let message = event.message().to_owned();
                found.push(Told { node, at: event.timestamp, message });
            }
        }
        found
    }
}
