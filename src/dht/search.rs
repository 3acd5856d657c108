//! The search for the nodes that are nearest to some keys: who is known, who is asked next, and what follows from
//! who answered. Pure.
//!
//! Must hold: the search ends, however long the lists of nodes are that strangers tell. A key is absent only if
//! most of the nodes nearest to it answered and none of them had it: no answer is never "absent". Where fewer are known
//! than store a key, every bootnode that gave no answer may be one of them.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_core::PeerId;

use super::address::Place;
use super::found::{Answer, Entries, Held};
use super::key::Id;

/// How many nodes nearest to a key store it; Hivemind's `num_replicas`.
const REPLICAS: usize = 5;

/// How many nodes are asked in a search, bootnodes not counted.
const ASKED_MAX: usize = 40;

/// How many nodes are remembered, and how many addresses of each: straight ones, and such of relays.
const KNOWN_MAX: usize = 400;
const ADDRESSES_MAX: usize = 2;

/// How far from the bootnodes a node may be, in tales of nodes about nodes.
const HOPS_MAX: u8 = 6;

/// One node of the DHT.
#[derive(Debug)]
struct Node {
    id: Option<Id>,
    addresses: Vec<Place>,
    hops: u8,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Asked,
    Answered,
    Failed,
}

/// A node to be asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) peer: PeerId,
    pub(super) addresses: Vec<Place>,
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Sought {
    is_found: bool,
    /// A node holds a value that doesn't tell who published it.
    is_anonymous: bool,
    entries: Entries,
}

/// A search for several keys at once.
#[derive(Debug)]
pub(super) struct Search {
    keys: Vec<(Id, Sought)>,
    nodes: BTreeMap<PeerId, Node>,
    asked: usize,
}

/// How a search for one key ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Found { entries: Entries, is_complete: bool },
    Absent { answered: usize },
    Unknown { answered: usize, nearest: usize },
}

impl Search {
    /// A search for these keys that begins with the bootnodes, which somebody asks already.
    pub(super) fn begin(keys: &[Id], bootnodes: impl Iterator<Item = PeerId>) -> Self {
        let node = || Node { id: None, addresses: Vec::new(), hops: 0, state: State::Asked };
        Self {
            keys: keys.iter().map(|key| (*key, Sought::default())).collect(),
            nodes: bootnodes.map(|peer| (peer, node())).collect(),
            asked: 0,
        }
    }

    /// The node to ask next: the nearest to one of the keys that wasn't asked, among those nearest to it that did
    /// not fail.
    pub(super) fn next(&mut self) -> Option<Next> {
        if self.asked >= ASKED_MAX {
            return None;
        }
        let is_new = |node: &Node| node.state == State::New && !node.addresses.is_empty();
        let peer = self.keys.iter().find_map(|(key, _)| {
            self.nearest(*key, |node| node.state != State::Failed && !node.is_lost())
                .into_iter()
                .find(|peer| self.nodes.get(peer).is_some_and(is_new))
        })?;
        let node = self.nodes.get_mut(&peer)?;
        node.state = State::Asked;
        self.asked += 1;
        Some(Next { peer, addresses: node.addresses.clone() })
    }

    /// The nodes near the keys of which nobody told where they are.
    pub(super) fn lost(&self) -> BTreeSet<PeerId> {
        let near = self.keys.iter().flat_map(|(key, _)| {
            self.nearest(*key, |node| node.state != State::Failed).into_iter()
        });
        near.filter(|peer| self.nodes.get(peer).is_some_and(Node::is_lost)).collect()
    }

    /// A node told where others are.
    pub(super) fn located(&mut self, found: Vec<(PeerId, Vec<Place>)>) {
        for (peer, addresses) in found {
            let Some(node) = self.nodes.get_mut(&peer) else { continue };
            for place in addresses {
                let is_alike = |known: &&Place| known.relay.is_some() == place.relay.is_some();
                let alike = node.addresses.iter().filter(is_alike).count();
                if alike < ADDRESSES_MAX && !node.addresses.contains(&place) {
                    node.addresses.push(place);
                }
            }
        }
    }

    /// This node answered.
    pub(super) fn answered(&mut self, peer: PeerId, answer: Answer) {
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        node.state = State::Answered;
        node.id = answer.node.or(node.id);
        let hops = node.hops.saturating_add(1);
        for (at, told) in answer.told.into_iter().enumerate() {
            for (id, peer) in told.nearest {
                self.heard_of(peer, id, hops);
            }
            if let Some((_, sought)) = self.keys.get_mut(at) {
                sought.merge(told.held);
            }
        }
        self.forget_far();
    }

    /// This node gave no answer.
    pub(super) fn failed(&mut self, peer: PeerId) {
        if let Some(node) = self.nodes.get_mut(&peer)
            && node.state != State::Answered
        {
            node.state = State::Failed;
        }
    }

    fn heard_of(&mut self, peer: PeerId, id: Id, hops: u8) {
        match self.nodes.get_mut(&peer) {
            // What a node itself says of its id counts more.
            Some(node) => node.id = node.id.or(Some(id)),
            None if hops > HOPS_MAX => {}
            None => {
                let state = State::New;
                self.nodes.insert(peer, Node { id: Some(id), addresses: Vec::new(), hops, state });
            }
        }
    }

    /// Forgets nodes that were not asked, if too many are known: those first that are far from all keys, so that no
    /// crowd of made-up nodes keeps out the ones that hold a key.
    fn forget_far(&mut self) {
        let surplus = self.nodes.len().saturating_sub(KNOWN_MAX);
        if surplus == 0 {
            return;
        }
        let new = self.nodes.iter().filter(|(_, node)| node.state == State::New);
        let new: Vec<_> = new.filter_map(|(peer, node)| Some((*peer, node.id?))).collect();
        let mut ranks: BTreeMap<PeerId, usize> = BTreeMap::new();
        for (key, _) in &self.keys {
            let mut near: Vec<_> =
                new.iter().map(|(peer, id)| (id.distance(*key), *peer)).collect();
            near.sort_unstable();
            for (rank, (_, peer)) in near.into_iter().enumerate() {
                let best = ranks.entry(peer).or_insert(rank);
                *best = rank.min(*best);
            }
        }
        let mut farthest: Vec<_> = ranks.into_iter().map(|(peer, rank)| (rank, peer)).collect();
        farthest.sort_unstable();
        for (_, peer) in farthest.into_iter().rev().take(surplus) {
            self.nodes.remove(&peer);
        }
    }

    /// The nodes nearest to a key, of those that `is_meant`, the nearest first.
    fn nearest(&self, key: Id, is_meant: impl Fn(&Node) -> bool) -> Vec<PeerId> {
        let meant = self.nodes.iter().filter(|(_, node)| is_meant(node));
        let mut near: Vec<_> =
            meant.filter_map(|(peer, node)| Some((node.id?.distance(key), *peer))).collect();
        near.sort_unstable();
        near.truncate(REPLICAS);
        near.into_iter().map(|(_, peer)| peer).collect()
    }

    /// How many nodes answered at all.
    pub(super) fn nodes_answered(&self) -> usize {
        self.nodes.values().filter(|node| node.state == State::Answered).count()
    }

    /// How many nodes gave no answer and no id, so that nobody knows which keys they are near to.
    fn nodes_unplaced(&self) -> usize {
        let is_unplaced = |node: &&Node| node.id.is_none() && node.state != State::Answered;
        self.nodes.values().filter(is_unplaced).count()
    }

    /// How the search ended, key by key.
    pub(super) fn end(self) -> Vec<End> {
        let unplaced = self.nodes_unplaced();
        let ends = self.keys.iter().map(|(key, sought)| {
            let near = self.nearest(*key, |_| true);
            let is_answered = |peer: &&PeerId| {
                self.nodes.get(peer).is_some_and(|node| node.state == State::Answered)
            };
            let answered = near.iter().filter(is_answered).count();
            let is_few = !near.is_empty() && near.len() < REPLICAS;
            let nearest = near.len() + if is_few { unplaced } else { 0 };
            let is_complete = 2 * answered > nearest;
            match sought {
                Sought { is_found: true, is_anonymous, entries } => End::Found {
                    entries: entries.clone(),
                    is_complete: is_complete && !is_anonymous,
                },
                _ if is_complete => End::Absent { answered: self.nodes_answered() },
                _ => End::Unknown { answered, nearest },
            }
        });
        ends.collect()
    }
}

impl Node {
    fn is_lost(&self) -> bool {
        self.state == State::New && self.addresses.is_empty()
    }
}

impl Sought {
    fn merge(&mut self, held: Held) {
        self.is_found |= held != Held::Nothing;
        self.is_anonymous |= held == Held::Regular;
        let Held::Dictionary(entries) = held else { return };
        for (peer, expires) in entries.of_interest {
            let known = self.entries.of_interest.entry(peer).or_insert(expires);
            *known = known.max(expires);
        }
        // Several nodes hold the same dictionary.
        self.entries.others = self.entries.others.max(entries.others);
        self.entries.others_latest = self.entries.others_latest.max(entries.others_latest);
    }
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::super::found::Told;
    use super::*;

    fn peer() -> PeerId {
        Keypair::generate_ed25519().public().to_peer_id()
    }

    fn id(first: u8) -> Id {
        let mut bytes = [0; 20];
        bytes[0] = first;
        Id::of(&bytes).unwrap()
    }

    fn place(port: u16) -> Place {
        Place { at: ([127, 0, 0, 1], port).into(), relay: None }
    }

    /// The answer of a node that holds nothing and tells of these.
    fn nothing(node: Id, nearest: &[(Id, PeerId)]) -> Answer {
        let told = Told { held: Held::Nothing, nearest: nearest.to_vec() };
        Answer { node: Some(node), told: vec![told] }
    }

    /// A search for the key 0 after its bootnode, far away, told of nodes at distance 1, 2, 3…, with addresses.
    fn begun(nodes: u8) -> (Search, Vec<PeerId>) {
        let boot = peer();
        let mut search = Search::begin(&[id(0)], std::iter::once(boot));
        let near: Vec<_> = (1..=nodes).map(|distance| (id(distance), peer())).collect();
        search.answered(boot, nothing(id(255), &near));
        let peers: Vec<_> = near.into_iter().map(|(_, peer)| peer).collect();
        let at = [place(9)];
        search.located(peers.iter().map(|peer| (*peer, at.to_vec())).collect());
        (search, peers)
    }

    #[test]
    fn the_nearest_five_are_asked_and_one_that_fails_gives_its_place_to_the_next() {
        let (mut search, peers) = begun(8);
        for near in &peers[..5] {
            assert_eq!(search.next().map(|next| next.peer), Some(*near));
        }
        assert_eq!(search.next(), None);
        search.failed(peers[2]);
        assert_eq!(search.next().map(|next| next.peer), Some(peers[5]));
        assert_eq!(search.next(), None);
    }

    #[test]
    fn a_key_is_absent_only_if_most_of_the_five_nearest_nodes_answered() {
        for (answers, end) in [
            (2, End::Unknown { answered: 2, nearest: 5 }),
            (3, End::Absent { answered: 4 }),
            (5, End::Absent { answered: 6 }),
        ] {
            let (mut search, peers) = begun(8);
            for (at, near) in peers.iter().enumerate().take(5) {
                if at < answers {
                    search.answered(*near, nothing(id(0), &[]));
                } else {
                    search.failed(*near);
                }
            }
            assert_eq!(search.end(), [end]);
        }
    }

    #[test]
    fn what_one_node_holds_is_found_however_many_have_nothing_and_the_latest_of_it_counts() {
        let (mut search, peers) = begun(5);
        for (at, near) in peers.iter().enumerate() {
            let mut answer = nothing(id(0), &[]);
            if at > 2 {
                let of_interest = BTreeMap::from([(
                    "Qm".to_owned(),
                    10.0 - f64::from(u8::try_from(at).unwrap()),
                )]);
                let entries = Entries { of_interest, others: at, others_latest: 3.0 };
                answer.told[0].held = Held::Dictionary(entries);
            }
            search.answered(*near, answer);
        }
        let of_interest = BTreeMap::from([("Qm".to_owned(), 7.0)]);
        let entries = Entries { of_interest, others: 4, others_latest: 3.0 };
        assert_eq!(search.end(), [End::Found { entries, is_complete: true }]);
    }

    #[test]
    fn nodes_whose_place_nobody_tells_are_looked_for_and_not_asked() {
        let (mut search, _) = begun(0);
        let far = peer();
        let boot = *search.nodes.keys().next().unwrap();
        search.answered(boot, nothing(id(255), &[(id(1), far)]));
        assert_eq!(search.next(), None);
        assert_eq!(search.lost().into_iter().collect::<Vec<_>>(), [far]);
        let at = place(9);
        search.located(vec![(peer(), vec![at]), (far, vec![at, at])]);
        assert_eq!(search.next(), Some(Next { peer: far, addresses: vec![at] }));
        assert!(search.lost().is_empty());
    }

    #[test]
    fn a_liar_about_addresses_leaves_place_for_the_address_of_a_relay() {
        let (mut search, peers) = begun(1);
        let through = Place { relay: Some(peer()), ..place(7) };
        let straight = (10..99).map(place);
        search.located(vec![(peers[0], straight.chain([through, through]).collect())]);
        let addresses = search.next().unwrap().addresses;
        assert_eq!(addresses, [place(9), place(10), through]);
    }

    #[test]
    fn a_chain_of_nodes_that_tell_of_ever_nearer_ones_has_an_end() {
        let (mut search, peers) = begun(1);
        let (mut at, mut asked) = (peers[0], 1);
        search.next().unwrap();
        loop {
            let nearer = peer();
            search.answered(at, nothing(id(9), &[(id(0), nearer)]));
            search.located(vec![(nearer, vec![place(9)])]);
            let Some(next) = search.next() else { break };
            (at, asked) = (next.peer, asked + 1);
        }
        assert_eq!(asked, usize::from(HOPS_MAX));
    }

    #[test]
    fn bootnodes_that_give_no_answer_count_where_few_nodes_are_known() {
        let boots: Vec<_> = (0..4).map(|_| peer()).collect();
        let mut search = Search::begin(&[id(0)], boots.iter().copied());
        search.answered(boots[0], nothing(id(1), &[]));
        boots[1..].iter().for_each(|boot| search.failed(*boot));
        assert_eq!(search.end(), [End::Unknown { answered: 1, nearest: 4 }]);
    }

    #[test]
    fn bootnodes_that_give_no_answer_do_not_count_where_the_nearest_five_are_known() {
        let boots: Vec<_> = (0..9).map(|_| peer()).collect();
        let mut search = Search::begin(&[id(0)], boots.iter().copied());
        for boot in &boots[..5] {
            search.answered(*boot, nothing(id(1), &[]));
        }
        boots[5..].iter().for_each(|boot| search.failed(*boot));
        assert_eq!(search.end(), [End::Absent { answered: 5 }]);
    }

    #[test]
    fn a_value_that_tells_no_publisher_leaves_open_who_did_not_publish() {
        let (mut search, peers) = begun(5);
        for near in &peers {
            let mut answer = nothing(id(0), &[]);
            answer.told[0].held = Held::Regular;
            search.answered(*near, answer);
        }
        let entries = Entries::default();
        assert_eq!(search.end(), [End::Found { entries, is_complete: false }]);
    }

    #[test]
    fn however_many_far_nodes_are_told_the_near_ones_told_later_are_asked() {
        let (mut search, peers) = begun(5);
        for teller in &peers {
            search.next().unwrap();
            let far: Vec<_> = (0..200).map(|_| (id(200), peer())).collect();
            search.answered(*teller, nothing(id(100), &far));
        }
        assert!(search.nodes.len() <= KNOWN_MAX, "{}", search.nodes.len());
        let near = peer();
        search.answered(peers[0], nothing(id(100), &[(id(1), near)]));
        search.located(vec![(near, vec![place(9)])]);
        assert_eq!(search.next().map(|next| next.peer), Some(near));
    }
}
