//! What a real Hivemind node answered, read by the witness.

use std::collections::BTreeMap;
use std::time::Duration;

use lamda_node::clock::Timestamp;
use lamda_node::dht::{Bootnode, Config, Key, Sought, Witness};

use super::stand_in::{FIND, HOP, IDENTIFY, KAD, Meets, PING, Says, StandIn, field};

/// Soon after the recordings were made.
pub(crate) fn now() -> Timestamp {
    "2026-11-27T21:50:30Z".parse().expect("a time")
}

/// The keys of the recordings, in their order.
pub(crate) fn keys() -> [Key; 4] {
    [
        Key::Bytes(b"solver".to_vec()),
        Key::Bytes(b"proposer".to_vec()),
        Key::Text("7".into()),
        Key::Text("nope".into()),
    ]
}

/// The peer that stored in the recording of a node alone, and another one.
const STORED: &str = "12D3KooWRdbHhtW3jRYzr7M6nCHojQpu7sgxuQqQoAiWvA8R5F3S";
const MADE_UP: &str = "QmMadeUp00000000000000000000000000000000000001";
const NOBODY: &str = "QmMadeUp00000000000000000000000000000000000002";

/// The frames of a recording, by protocol.
pub(crate) fn recording(text: &str) -> BTreeMap<&'static str, Vec<u8>> {
    let mut frames = BTreeMap::<_, Vec<u8>>::new();
    let mut protocol = IDENTIFY;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(hex) => {
                let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hex");
                frames.entry(protocol).or_default().extend(bytes);
            }
            None => {
                protocol = match line {
                    "identify" => IDENTIFY,
                    "rpc_ping" => PING,
                    "rpc_find" => FIND,
                    other => panic!("{other}?"),
                };
            }
        }
    }
    frames
}

/// A node that answers as a recorded one.
pub(crate) fn recorded(text: &str) -> BTreeMap<&'static str, Says> {
    recording(text).into_iter().map(|(name, frame)| (name, Says::Frame(frame))).collect()
}

pub(crate) const ALONE: &str = include_str!("../../fixtures/dht/one.hex");
pub(crate) const OF_THREE: &str = include_str!("../../fixtures/dht/three.hex");

#[tokio::test]
async fn a_node_tells_who_published_and_until_when_and_what_nobody_published() {
    let node = StandIn::start(Meets::Node(recorded(ALONE))).await;
    let peers = [STORED, MADE_UP, NOBODY].map(str::to_owned);
    let bootnodes = std::slice::from_ref(&node.bootnode);
    let witness = Witness::new(Config::default());
    let round = witness.round(bootnodes, &keys(), &peers, now()).await;
    let alive = round.asked[0].answer.as_ref().expect("it answers");
    assert_eq!(alive.agent.as_deref(), Some("p2pd/0.1"));
    assert!(alive.rtt < Duration::from_secs(1), "{alive:?}");
    for sought in &round.sought[..3] {
        let Sought::Found { peers, others, is_complete: true } = sought else {
            panic!("{sought:?}");
        };
        let names: Vec<_> = peers.keys().map(String::as_str).collect();
        assert_eq!(names, [STORED, MADE_UP]);
        assert_eq!(others.count, 1);
        // node.py printed 1795816825.9768667.
        for publish in peers.values() {
            assert_eq!(publish.expires, Timestamp::from_unix_ms(1_795_816_825_976));
        }
        assert_eq!(others.latest, Some(Timestamp::from_unix_ms(1_795_816_825_976)));
    }
    assert_eq!(round.sought[3], Sought::Absent { asked: 1 });
}

#[tokio::test]
async fn what_one_of_three_nodes_does_not_know_is_unknown_and_not_absent() {
    // The other two are known to nobody here.
    let node = StandIn::start(Meets::Node(recorded(OF_THREE))).await;
    let witness = Witness::new(Config::default());
    let bootnodes = std::slice::from_ref(&node.bootnode);
    let round = witness.round(bootnodes, &keys(), &[NOBODY.to_owned()], now()).await;
    assert_eq!(round.answered, 1);
    for sought in &round.sought[..3] {
        let Sought::Found { peers, others, is_complete: false } = sought else {
            panic!("{sought:?}");
        };
        assert_eq!((peers.len(), others.count), (0, 3));
    }
    let why = "only 1 of the 3 nodes nearest to the key answered".to_owned();
    assert_eq!(round.sought[3], Sought::Unknown { why });
}

/// What a bootnode says that holds nothing and knows one node, `far`, at this address.
fn knows(far: &StandIn, address: &str) -> BTreeMap<&'static str, Says> {
    let mut says = recorded(OF_THREE);
    let peer: libp2p_core::PeerId = far.bootnode.peer().parse().expect("a peer id");
    let address: libp2p_core::Multiaddr = address.parse().expect("an address");
    let result = [field(4, &[7; 20]), field(5, &peer.to_bytes())].concat();
    let found = [field(2, &result).repeat(4), field(3, &field(1, &[9; 20]))].concat();
    says.insert(FIND, Says::Frame(answer(&found)));
    let located = [field(1, &peer.to_bytes()), field(2, &address.to_vec())].concat();
    says.insert(KAD, Says::Frame(field(8, &located)));
    says
}

async fn is_heard_of(boot: &StandIn) {
    let bootnodes = std::slice::from_ref(&boot.bootnode);
    let witness = Witness::new(Config::default());
    let round = witness.round(bootnodes, &keys(), &[STORED.to_owned()], now()).await;
    assert_eq!(round.answered, 2, "{round:?}");
    let Sought::Found { peers, is_complete: true, .. } = &round.sought[0] else {
        panic!("{round:?}");
    };
    assert!(peers.contains_key(STORED));
    assert_eq!(round.sought[3], Sought::Absent { asked: 2 });
}

#[tokio::test]
async fn nodes_that_nobody_named_are_found_by_what_a_bootnode_says_of_them() {
    let far = StandIn::start(Meets::Node(recorded(ALONE))).await;
    let boot = StandIn::start(Meets::Node(knows(&far, &far.bootnode.to_string()))).await;
    is_heard_of(&boot).await;
}

#[tokio::test]
async fn a_node_that_cannot_be_dialled_is_asked_through_its_relay() {
    let far = StandIn::start(Meets::Node(recorded(ALONE))).await;
    let relay = BTreeMap::from([(HOP, Says::LeadsTo(far.at))]);
    let relay = StandIn::start(Meets::Node(relay)).await;
    let address = format!("{}/p2p-circuit", relay.bootnode);
    let boot = StandIn::start(Meets::Node(knows(&far, &address))).await;
    is_heard_of(&boot).await;
}

#[tokio::test]
async fn a_relay_that_leads_to_another_node_or_nowhere_is_not_believed() {
    let far = StandIn::start(Meets::Node(recorded(ALONE))).await;
    let other = StandIn::start(Meets::Node(recorded(ALONE))).await;
    // What Hivemind's relay said of a node that had no place there.
    let refuses = Says::Frame(vec![1 << 3, 2, 5 << 3, 204, 1]);
    for says in [Says::LeadsTo(other.at), refuses, Says::Frame(vec![0xff; 9])] {
        let relay = StandIn::start(Meets::Node(BTreeMap::from([(HOP, says)]))).await;
        let address = format!("{}/p2p-circuit", relay.bootnode);
        let boot = StandIn::start(Meets::Node(knows(&far, &address))).await;
        let bootnodes = std::slice::from_ref(&boot.bootnode);
        let round = Witness::new(Config::default()).round(bootnodes, &keys(), &[], now()).await;
        assert_eq!(round.answered, 1);
        let why = "only 1 of the 2 nodes nearest to the key answered".to_owned();
        assert_eq!(round.sought[0], Sought::Unknown { why });
    }
}

#[tokio::test]
async fn a_bootnode_that_is_reached_by_quic_alone_is_unknown() {
    let id = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
    let node: Bootnode = format!("/ip4/127.0.0.1/udp/9/quic/p2p/{id}").parse().expect("an address");
    let round = Witness::new(Config::default()).round(&[node], &keys(), &[], now()).await;
    let why = round.asked[0].answer.as_ref().expect_err("it can't be asked");
    assert!(why.contains("QUIC"), "{why}");
    assert!(matches!(&round.sought[0], Sought::Unknown { why } if why.contains("QUIC")));
}

/// The frame that answers a call with this response.
pub(crate) fn answer(response: &[u8]) -> Vec<u8> {
    [field(1, &[0; 16]), field(4, &field(1, response))].concat()
}
