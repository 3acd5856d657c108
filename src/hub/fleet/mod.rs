//! The nodes that the hub knows, in memory: what the pages show and what the rules are held against. The store
//! has the same, and is written first.
//!
//! Invariant: readers never wait for the disk; a change is told to all who watch, at most [`CHANGES_MAX`] of
//! them behind, after which they take a new picture.

pub mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::{Map, Value};
use tokio::sync::broadcast;

use crate::chain::extension::Reputation;
use crate::clock::Timestamp;
use crate::fleet::beat::Beat;
use crate::fleet::clocks::{Heard, Standing};
use crate::hub::identities::Identities;
use crate::ids::Address;

/// How many changes a reader may be behind.
pub const CHANGES_MAX: usize = 4_096;

/// A node as the hub knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it calls itself: the `node_id` of its beats, else its address.
    pub name: String,
    /// The account of one of our nodes.
    pub address: Option<Address>,
    /// The address that its last beat told.
    pub ip: String,
    /// What its last beat said about it.
    pub meta: String,
    /// When the hub first heard of it.
    pub first: Timestamp,
    /// When it was heard last, by each clock.
    pub heard: Heard,
    /// The sequence number of its last message in its NATS stream.
    pub nats_seq: Option<u64>,
    /// The block of its last heartbeat on chain.
    pub chain_block: Option<u64>,
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    pub standing_since: Timestamp,
    /// Why, in words.
    pub why: String,
    /// The keys that newer agents of the original monitor send (`eoa`, `peer_ids`, `tgid`, …).
    pub gswarm: Option<Map<String, Value>>,
    /// What one of our nodes last said of itself on NATS: cards, slots, version.
    pub presence: Option<Arc<Value>>,
    /// The owner's tags.
    pub tags: Vec<String>,
    /// What the contract last said of it.
    pub scored: Option<Scored>,
}

/// What the contract says of a node.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Scored {
    /// Its record.
    #[serde(flatten)]
    pub reputation: Arc<Reputation>,
    /// When the hub asked; in JSON milliseconds since 1970.
    #[serde(serialize_with = "as_ms")]
    pub asked: Timestamp,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn as_ms<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(at.unix_ms())
}

impl Node {
    /// A node that was just heard of for the first time, which is no news to anybody.
    pub fn new(name: String, now: Timestamp) -> Self {
        Self {
            name,
            address: None,
            ip: String::new(),
            meta: String::new(),
            first: now,
            heard: Heard::default(),
            nats_seq: None,
            chain_block: None,
            standing: Standing::Up,
            standing_since: now,
            why: String::new(),
            gswarm: None,
            presence: None,
            tags: Vec::new(),
            scored: None,
        }
    }
}

impl Node {
    /// Takes a beat of it in; `gswarm`: the newer keys with it.
    pub fn beats(&mut self, beat: Beat, gswarm: Option<&Map<String, Value>>, now: Timestamp) {
        self.ip = beat.ip;
        self.meta = beat.meta;
        self.heard.own = Some(now);
        self.heard.says_down = beat.is_down;
        self.gswarm = gswarm.cloned();
    }
}

/// What happened to a node.
#[derive(Debug, Clone)]
pub enum Change {
    /// It is new, or something about it changed.
    Put(Arc<Node>),
    /// It is known no more under this name.
    Gone(Arc<str>),
}

/// All nodes. Clones share them.
#[derive(Debug, Clone)]
pub struct Fleet {
    nodes: Arc<RwLock<BTreeMap<String, Arc<Node>>>>,
    changes: broadcast::Sender<Change>,
    identities: Identities,
}

impl Fleet {
    /// A fleet of these nodes.
    pub fn new(nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes = nodes.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect();
        let (changes, _) = broadcast::channel(CHANGES_MAX);
        Self { nodes: Arc::new(RwLock::new(nodes)), changes, identities: Identities::default() }
    }

    /// Whose keys speak for them.
    pub const fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The node of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Node>> {
        self.read(|nodes| nodes.get(name).cloned())
    }

    /// All nodes, by name.
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.read(|nodes| nodes.values().cloned().collect())
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes the node of this name, which is made if it is new, and tells those who watch.
    pub fn update(&self, name: &str, now: Timestamp, change: impl FnOnce(&mut Node)) -> Arc<Node> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let place = nodes
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Node::new(name.to_owned(), now)));
        change(Arc::make_mut(place));
        let node = Arc::clone(place);
        // Nobody may watch. Within the lock, so that changes are told in their order.
        self.changes.send(Change::Put(Arc::clone(&node))).ok();
        node
    }

    /// As [`Fleet::update`], of a node that is known; does nothing if its owner has removed it meanwhile.
    pub fn update_if_known(&self, name: &str, change: impl FnOnce(&mut Node)) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = nodes.get_mut(name) {
            change(Arc::make_mut(place));
            self.changes.send(Change::Put(Arc::clone(place))).ok();
        }
    }

    /// Gives a node another name.
    pub fn rename(&self, old: &str, new: &str) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        self.identities.move_node(old, Some(new));
        let Some(mut node) = nodes.remove(old) else { return };
        new.clone_into(&mut Arc::make_mut(&mut node).name);
        nodes.insert(new.to_owned(), Arc::clone(&node));
        self.changes.send(Change::Gone(old.into())).ok();
        self.changes.send(Change::Put(node)).ok();
    }

    /// The name of the node with this account: its owner's, or its address in lower case.
    pub fn name_of(&self, address: Address) -> String {
        if let Some(name) = self.identities.name_of(address) {
            return name;
        }
        let own = address.lower_hex();
        self.read(|nodes| {
            if nodes.get(&own).is_some_and(|node| node.address == Some(address)) {
                return own.clone();
            }
            // Not one that its owner has given another key since.
            let is_its = |node: &&Arc<Node>| {
                node.address == Some(address) && !self.identities.is_bound(&node.name)
            };
            let named = nodes.values().find(is_its);
            named.map_or(own, |node| node.name.clone())
        })
    }

    /// Forgets the node of this name.
    pub fn remove(&self, name: &str) -> Option<Arc<Node>> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        self.identities.move_node(name, None);
        let gone = nodes.remove(name)?;
        self.changes.send(Change::Gone(name.into())).ok();
        Some(gone)
    }

    /// What changes from now on.
    pub fn watch(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn read<T>(&self, look: impl FnOnce(&BTreeMap<String, Arc<Node>>) -> T) -> T {
        look(&self.nodes.read().unwrap_or_else(PoisonError::into_inner))
    }
}
