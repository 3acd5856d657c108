//! Nodes that never answer, answer rubbish, too much or too slowly, or lie: each is told in a sentence, nothing of
//! it is taken for "absent", and the nodes beside it are heard all the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lamda_node::dht::{BOOTNODES_MAX, Bootnode, Config, KEYS_MAX, Key, Round, Sought, Witness};
use libp2p_identity::Keypair;

use super::recorded::{ALONE, answer, keys, now, recorded};
use super::stand_in::{FIND, KAD, Meets, PING, Says, StandIn, field, varint};

const MIB: usize = 1024 * 1024;

/// Short limits, and all of them below what a test may take.
fn hasty() -> Witness {
    let (dial, call) = (Duration::from_millis(1500), Duration::from_secs(1));
    Witness::new(Config { dial, call, whole: Duration::from_secs(6), ..Config::default() })
}

/// A node that answers as the recorded one but for this protocol.
fn but(protocol: &'static str, says: Says) -> Meets {
    let mut all = recorded(ALONE);
    all.insert(protocol, says);
    Meets::Node(all)
}

fn without(protocol: &str) -> Meets {
    let mut all = recorded(ALONE);
    all.remove(protocol);
    Meets::Node(all)
}

async fn ask(bootnodes: &[Bootnode]) -> Round {
    hasty().round(bootnodes, &keys(), &[], now()).await
}

#[tokio::test]
async fn a_bootnode_that_gives_no_answer_is_told_in_a_sentence_and_the_next_one_is_heard() {
    let second = Duration::from_secs(1);
    let far_too_large = varint(5 * MIB);
    let rubbish = vec![0xff; 50];
    for (why, meets) in [
        ("no connection within 1.5 s", Meets::Silence),
        ("not libp2p", Meets::Noise(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())),
        ("not libp2p", Meets::Noise(vec![0xff; 64])),
        ("not libp2p", Meets::Noise(vec![0; 64])),
        ("doesn't speak DHTProtocol.rpc_ping", without(PING)),
        ("no answer to a ping within 1 s", but(PING, Says::Nothing)),
        ("no answer to a ping within 1 s", but(PING, Says::Drips(vec![0; 60], second))),
        ("can't be read", but(PING, Says::Frame(rubbish.clone()))),
        ("can't be read", but(PING, Says::Raw(rubbish))),
        ("can't be read", but(PING, Says::Frame(Vec::new()))),
        ("5242880 bytes is over the limit of 65536", but(PING, Says::Raw(far_too_large))),
        ("it refuses: busy [2J", but(PING, Says::Frame(field(4, &field(2, b"busy\n\x1b[2J"))))),
    ] {
        let bad = StandIn::start(meets).await;
        let good = StandIn::start(Meets::Node(recorded(ALONE))).await;
        let round = ask(&[bad.bootnode.clone(), good.bootnode.clone()]).await;
        let told = round.asked[0].answer.as_ref().expect_err(why);
        assert!(told.contains(why), "{told} has not: {why}");
        assert!(round.asked[1].answer.is_ok(), "{why}: {round:?}");
        assert!(matches!(round.sought[0], Sought::Found { is_complete: false, .. }), "{why}");
        // The other one may hold what this one doesn't.
        let unknown = "only 1 of the 2 nodes nearest to the key answered".to_owned();
        assert_eq!(round.sought[3], Sought::Unknown { why: unknown }, "{why}");
    }
}

#[tokio::test]
async fn a_node_with_another_id_or_none_at_all_is_told_as_such() {
    let impostor = StandIn::impostor(Meets::Node(recorded(ALONE))).await;
    let gone = StandIn::start(Meets::Silence).await.bootnode.clone();
    let round = ask(&[impostor.bootnode.clone(), gone]).await;
    let told: Vec<_> =
        round.asked.iter().map(|asked| asked.answer.clone().expect_err("")).collect();
    assert!(told[0].starts_with("another node answers there: 12D3Koo"), "{told:?}");
    assert!(told[1].starts_with("it can't be reached: "), "{told:?}");
    for sought in &round.sought {
        let Sought::Unknown { why } = sought else { panic!("{sought:?}") };
        assert!(why.starts_with("none of 2 bootnodes answered, /ip4/127.0.0.1/tcp/"), "{why}");
        assert!(why.contains("because another node answers there"), "{why}");
    }
}

#[tokio::test]
async fn an_answer_to_a_search_that_cannot_be_read_leaves_the_keys_unknown() {
    let of_kind = |kind: u8, value: &[u8]| [vec![1 << 3, kind], field(2, value)].concat();
    let four = |result: &[u8]| Says::Frame(answer(&field(2, result).repeat(4)));
    let cut_off = b"\xc7\x08\x50\x93\xc0\xc0\xdd\xff\xff\xff\xff";
    for (what, says) in [
        ("nothing", Says::Nothing),
        ("5 MiB", Says::Frame(vec![0; 5 * MIB])),
        ("a length without end", Says::Raw(vec![0xff; 1000])),
        ("4 MiB that never come", Says::Raw([varint(4 * MIB), vec![0; 100_000]].concat())),
        ("a byte each second", Says::Drips(vec![0; 100], Duration::from_secs(1))),
        ("rubbish", Says::Frame(vec![0xff; 1000])),
        ("an error", Says::Frame(field(4, &field(2, b"KeyError()")))),
        ("too few results", Says::Frame(answer(&field(2, &[]).repeat(3)))),
        ("too many results", Says::Frame(answer(&field(2, &[]).repeat(5)))),
        ("an unknown kind", four(&of_kind(3, b""))),
        ("a dictionary that isn't one", four(&of_kind(2, b"\x80\x04cos\nsystem\n"))),
        ("a dictionary without end", four(&of_kind(2, cut_off))),
    ] {
        let bad = StandIn::start(but(FIND, says)).await;
        let begun = Instant::now();
        let round = ask(std::slice::from_ref(&bad.bootnode)).await;
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        assert!(round.asked[0].answer.is_ok(), "{what}: it is alive all the same");
        assert_eq!(round.answered, 0, "{what}");
        for sought in &round.sought {
            let Sought::Unknown { why } = sought else { panic!("{what}: {sought:?}") };
            assert_eq!(why, "no bootnode said what it holds", "{what}");
        }
    }
}

/// A dictionary with one entry for each subkey of two letters, as Hivemind packs it.
fn dictionary(entries: &[(&str, f64)]) -> Vec<u8> {
    let mut inner = b"\x93\xc0\xc0".to_vec();
    inner.push(0x90 | u8::try_from(entries.len()).expect("up to 15"));
    for (subkey, expires) in entries {
        inner.extend(b"\x93\xa2");
        inner.extend(subkey.as_bytes());
        inner.extend(b"\xc4\x01.\xcb");
        inner.extend(expires.to_be_bytes());
    }
    [vec![0xc8, 0, u8::try_from(inner.len()).expect("up to 255"), 0x50], inner].concat()
}

#[tokio::test]
async fn expirations_that_are_long_past_or_absurd_count_for_nothing() {
    let at = Duration::from_millis(now().unix_ms()).as_secs_f64();
    let all = [
        ("ok", at + 600.0),
        ("p1", at - 3600.0),
        ("p2", -1.0),
        ("f1", at + 2.0 * 86400.0),
        ("f2", f64::INFINITY),
        ("n1", f64::NAN),
        ("o1", at + 500.0),
    ];
    let result = [vec![1 << 3, 2], field(2, &dictionary(&all))].concat();
    let says = Says::Frame(answer(&field(2, &result).repeat(4)));
    let node = StandIn::start(but(FIND, says)).await;
    let peers = ["ok", "p1", "p2", "f1", "f2", "n1"].map(str::to_owned);
    let bootnodes = std::slice::from_ref(&node.bootnode);
    let round = hasty().round(bootnodes, &keys(), &peers, now()).await;
    let Sought::Found { peers, others, .. } = &round.sought[0] else { panic!("{round:?}") };
    assert_eq!(peers.keys().collect::<Vec<_>>(), ["ok"]);
    assert_eq!(others.count, 1);
}

#[tokio::test]
async fn endless_lists_of_made_up_nodes_end_the_search_at_its_deadline_without_an_answer() {
    // For each key 200 other nodes, the first ten of them at the port of one that is silent.
    let trap = StandIn::start(Meets::Silence).await;
    let address = format!("/ip4/127.0.0.1/tcp/{}", trap.at.port());
    let address: libp2p_core::Multiaddr = address.parse().expect("an address");
    let (mut found, mut located) = (Vec::new(), Vec::new());
    for _ in keys() {
        let mut nearest = Vec::new();
        for at in 0..200 {
            let peer = Keypair::generate_ed25519().public().to_peer_id().to_bytes();
            nearest.extend([field(4, &[at; 20]), field(5, &peer)].concat());
            if at < 10 {
                let address = [field(1, &peer), field(2, &address.to_vec()).repeat(20)].concat();
                located.extend(field(8, &address));
            }
        }
        found.extend(field(2, &nearest));
    }
    let mut says: BTreeMap<_, _> = recorded(ALONE);
    says.insert(FIND, Says::Frame(answer(&found)));
    says.insert(KAD, Says::Frame(located));
    let liar = StandIn::start(Meets::Node(says)).await;
    let (dial, whole) = (Duration::from_secs(2), Duration::from_secs(3));
    let witness = Witness::new(Config { dial, whole, ..Config::default() });
    let begun = Instant::now();
    let bootnodes = std::slice::from_ref(&liar.bootnode);
    let round = witness.round(bootnodes, &keys(), &[], now()).await;
    let took = begun.elapsed();
    assert!(whole <= took && took < whole + Duration::from_secs(2), "{took:?}");
    assert!(round.asked[0].answer.is_ok());
    for sought in &round.sought {
        assert!(matches!(sought, Sought::Unknown { .. }), "{sought:?}");
    }
}

#[tokio::test]
async fn what_is_over_the_limits_of_a_round_is_told_and_a_round_without_bootnodes_ends() {
    let quic = "/ip4/127.0.0.1/udp/9/quic/p2p/QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
    let bootnodes = vec![quic.parse::<Bootnode>().expect("an address"); BOOTNODES_MAX + 1];
    let round = ask(&bootnodes).await;
    for (at, what) in [(BOOTNODES_MAX - 1, "only QUIC"), (BOOTNODES_MAX, "only 64")] {
        let told = round.asked[at].answer.as_ref().expect_err(what);
        assert!(told.contains(what), "{told}");
    }
    let keys = vec![Key::Text("7".into()); KEYS_MAX + 1];
    let round = hasty().round(&bootnodes[..1], &keys, &[], now()).await;
    let Sought::Unknown { why } = &round.sought[KEYS_MAX] else { panic!("{round:?}") };
    assert!(why.contains("only 16 keys"), "{why}");
    let round = ask(&[]).await;
    let unknown = Sought::Unknown { why: "no bootnode is known".to_owned() };
    assert_eq!(round.sought[0], unknown);
}
