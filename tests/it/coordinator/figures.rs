//! The figures of a look.

use lamda_node::chain::coordinator::{Look, PEERS_MAX, Told};
use lamda_node::chain::{Config, Error};
use serde_json::{Value, json};

use super::gate::{Fate, methods, refusal};
use super::{NOBODYS, OURS, Swarm, THEIRS, account};
use crate::support::contracts::Kind;

fn ids(peers: &[&str]) -> Vec<String> {
    peers.iter().map(ToString::to_string).collect()
}

fn peer_ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{}{number:03}", &OURS[..43])).collect()
}

async fn look(swarm: &Swarm) -> Look {
    swarm.coordinator().look(&ids(&[OURS, THEIRS])).await.unwrap()
}

#[tokio::test]
async fn ours_and_others_figures_are_told_and_a_strangers_are_not_made_up() {
    let swarm = Swarm::start();
    swarm.rounds(2);
    swarm.reward(0, "-7");
    swarm.reward(1, "3");
    let huge = "57896044618658097711785492504343953926634992332820282019728792003956564819967";
    let call = "submitReward(uint256,uint256,int256,string)";
    swarm.send(2, &[call, "0", "0", huge, THEIRS]);
    let vote = "submitWinners(uint256,string[],string)";
    swarm.send(2, &[vote, "1", &format!("[\"{OURS}\",\"{NOBODYS}\"]"), THEIRS]);
    swarm.send(0, &["addBootnodes(string[])", "[\"/ip4/10.0.0.1/tcp/30011\",\"\"]"]);

    let look = swarm.coordinator().look(&ids(&[OURS, THEIRS, NOBODYS])).await.unwrap();
    assert_eq!((look.head.block, &look.round), (swarm.head(), &Told::Known(2)));
    assert_eq!(look.stage, Told::Known(0));
    assert_eq!(look.bootnodes.known().unwrap(), &ids(&["/ip4/10.0.0.1/tcp/30011", ""]));
    let told = |peer: &str| {
        let figures = &look.peers[peer];
        let rewards = figures.rewards.known().unwrap();
        let count = (figures.wins.known().copied(), figures.votes.known().copied());
        (rewards.to_string(), rewards.as_i128(), count, *figures.eoa.known().unwrap())
    };
    let counted = |wins, votes| (Some(wins), Some(votes));
    assert_eq!(told(OURS), ("-4".into(), Some(-4), counted(1, 0), Some(account(1))));
    assert_eq!(told(THEIRS), (huge.into(), None, counted(0, 1), Some(account(2))));
    assert_eq!(told(NOBODYS), ("0".into(), Some(0), counted(1, 0), None));
    let written = serde_json::to_value(&look).unwrap();
    assert_eq!(written["peers"][OURS]["rewards"], json!({"known": "-4"}));
    assert_eq!(serde_json::from_value::<Look>(written).unwrap(), look);
}

#[tokio::test]
async fn a_hundred_peers_cost_one_batch() {
    let (swarm, peers) = (Swarm::start(), peer_ids(100));
    let coordinator = swarm.coordinator();
    coordinator.look(&peers).await.unwrap();
    swarm.gate.seen();
    swarm.reward(0, "5");
    let look = coordinator.look(&[&peers[..], &ids(&[OURS])].concat()).await.unwrap();
    assert_eq!(methods(&swarm.gate.seen()), ["eth_getBlockByNumber", "207"]);
    assert_eq!(look.peers.len(), 101);
    assert_eq!(look.peers[OURS].rewards.known().unwrap().as_i128(), Some(5));
    assert!(look.peers.values().all(|peer| peer.votes == Told::Known(0)));
}

#[tokio::test]
async fn more_peers_than_are_asked_about_are_unknown() {
    let (swarm, peers) = (Swarm::start(), peer_ids(PEERS_MAX + 1));
    let long = "Q".repeat(300);
    let look = swarm.coordinator().look(&[&ids(&[&long])[..], &peers].concat()).await.unwrap();
    assert_eq!(look.peers.len(), PEERS_MAX + 2);
    assert_eq!(look.peers[&peers[0]].wins, Told::Known(0));
    for (peer, reason) in [
        (peers.last().unwrap(), "more than 256 peers are not asked about"),
        (&long, "the peer id has more than 256 bytes"),
    ] {
        assert_eq!(look.peers[peer].rewards.reason(), Some(reason));
    }
}

#[tokio::test]
async fn a_view_that_reverts_is_unknown_alone() {
    let swarm = Swarm::start();
    for selector in ["0x5bf5d54c", "0x099c4002"] {
        swarm.send(0, &["refuse(bytes4,bool)", selector, "true"]);
    }
    let look = look(&swarm).await;
    assert_eq!(look.round, Told::Known(0));
    assert_eq!(look.stage.reason(), Some("the contract refuses: not now"));
    for peer in look.peers.values() {
        assert_eq!(peer.wins.reason(), Some("the contract refuses: not now"));
        assert_eq!(peer.votes, Told::Known(0));
        assert_eq!(peer.rewards.known().unwrap().as_i128(), Some(0));
    }
}

#[tokio::test]
async fn what_is_no_coordinator_is_told_in_one_sentence() {
    let swarm = Swarm::start();
    let of = |told: Result<Look, Error>| told.unwrap_err().to_string();
    let eoa = swarm.coordinator_at(account(3)).look(&[]).await;
    assert_eq!(of(eoa), format!("there is no contract at {} on this chain", account(3)));
    let other = Kind::Ours.deploy(&swarm.anvil);
    let told = of(swarm.coordinator_at(other).look(&ids(&[OURS])).await);
    let what = "asked for its round, the contract has no answer (it gives no reason)";
    assert_eq!(told, format!("the contract at {other} is not a swarm's coordinator: {what}"));
    let config = Config { chain_id: Some(685_685), ..swarm.config(swarm.contract) };
    let told =
        of(lamda_node::chain::coordinator::Coordinator::new(config).unwrap().look(&[]).await);
    assert!(told.ends_with("is on chain 31337, but 685685 is set"), "{told}");
}

#[tokio::test]
async fn an_endpoint_that_takes_few_calls_at_once_is_asked_for_few() {
    let swarm = Swarm::start();
    let coordinator = swarm.coordinator();
    swarm.gate.rule(|request| match request.as_array() {
        Some(calls) if calls.len() > 60 => {
            Fate::Answer(refusal(&Value::Null, -32600, "batch limit exceeded: at most 60"))
        }
        _ => Fate::Forward,
    });
    let look = coordinator.look(&peer_ids(100)).await.unwrap();
    assert!(look.peers.values().all(|peer| peer.votes == Told::Known(0)));
    let batches = |requests: &[Value]| requests.iter().filter(|one| one.is_array()).count();
    assert_eq!(batches(&swarm.gate.seen()), 2 + 4, "205 and 102 are refused, then 51 at most");
    coordinator.look(&peer_ids(100)).await.unwrap();
    assert_eq!(batches(&swarm.gate.seen()), 4, "it is not tried again");
}

#[tokio::test]
async fn an_endpoint_that_takes_no_batches_is_asked_one_by_one() {
    let swarm = Swarm::start();
    for (status, further) in [(413, ""), (0, "")] {
        swarm.gate.rule(move |request| match request.as_array() {
            Some(_) if status > 0 => Fate::Status(status, further),
            Some(_) => Fate::Answer(refusal(&Value::Null, -32600, "batches are not supported")),
            None => Fate::Forward,
        });
        let look = look(&swarm).await;
        assert!(look.peers.values().all(|peer| peer.votes == Told::Known(0)));
    }
}

#[tokio::test]
async fn calls_that_the_endpoint_puts_off_are_made_again() {
    let swarm = Swarm::start();
    // Of each batch the first half is answered.
    swarm.gate.rule(|request| match request {
        Value::Array(_) => Fate::Change(|_, answers| {
            let answers = answers.as_array_mut().unwrap();
            let half = answers.len() / 2;
            for answer in answers.iter_mut().skip(half.max(1)) {
                *answer = refusal(answer, 429, "exceeded its compute units per second");
            }
        }),
        _ => Fate::Forward,
    });
    let look = look(&swarm).await;
    assert_eq!(look.round, Told::Known(0));
    let votes: Vec<_> = look.peers.values().map(|peer| peer.votes.reason()).collect();
    assert_eq!(votes, [None, Some("the endpoint asks for fewer calls")], "not for ever");
    let batches: Vec<String> =
        methods(&swarm.gate.seen()).into_iter().filter(|name| !name.starts_with("eth")).collect();
    assert_eq!(batches, ["9", "5", "3", "2"]);
}

#[tokio::test]
async fn an_answer_that_claims_to_be_enormous_is_unknown_and_the_others_are_known() {
    let swarm = Swarm::start();
    swarm.gate.rule(|request| match request {
        Value::Array(_) => Fate::Change(|_, answers| {
            let bomb = format!("0x{:064x}{:064x}", 32, 1_u64 << 60);
            for place in [2, 3, 4] {
                answers[place]["result"] = json!(bomb);
            }
        }),
        _ => Fate::Forward,
    });
    let look = look(&swarm).await;
    let reason = Some("the contract answers in another form");
    assert_eq!((look.round, look.bootnodes.reason()), (Told::Known(0), reason));
    for peer in look.peers.values() {
        assert_eq!((peer.rewards.reason(), peer.eoa.reason()), (reason, reason));
        assert_eq!(peer.votes, Told::Known(0));
    }
}

#[tokio::test]
async fn of_many_long_bootnodes_a_bounded_part_is_kept() {
    let swarm = Swarm::start();
    let one = format!("\"{}\"", "b".repeat(400));
    let many = format!("[{}]", vec![one; 70].join(","));
    swarm.send(0, &["addBootnodes(string[])", &many]);
    let look = look(&swarm).await;
    let bootnodes = look.bootnodes.known().unwrap();
    assert_eq!(bootnodes.len(), 64);
    assert!(bootnodes.iter().all(|bootnode| bootnode.chars().count() == 257));
}

#[tokio::test]
async fn an_endpoint_that_does_not_have_the_block_yet_makes_no_contract_wrong() {
    let swarm = Swarm::start();
    let coordinator = swarm.coordinator();
    swarm.gate.rule(|request| match request {
        Value::Array(_) => Fate::Change(|_, answers| {
            for answer in answers.as_array_mut().unwrap() {
                *answer = refusal(answer, -32000, "header not found");
            }
        }),
        _ => Fate::Forward,
    });
    let told = coordinator.look(&ids(&[OURS])).await.unwrap_err();
    assert!(matches!(&told, Error::Unexpected { reason } if reason.contains("header not found")));
    swarm.gate.open();
    assert_eq!(coordinator.look(&ids(&[OURS])).await.unwrap().round, Told::Known(0));
}
