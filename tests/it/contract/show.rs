//! `contract show`.

use lamda_node::reputation::score::{Facts, score};
use serde_json::{Value, json};

use super::{Chain, address};
use crate::support::contracts::Kind;
use crate::support::rpc_proxy::{RpcProxy, Weather};

#[tokio::test]
async fn a_reputation_is_shown_as_the_chain_has_it() {
    let chain = Chain::with(Kind::Ours);
    let node = address(1).to_string();
    chain.register(1);
    for _ in 0..3 {
        chain.pass_to_next_slot();
        chain.send(1, &["sendHeartbeat()"]);
    }
    chain.pass(1200);
    chain.beat_with_receipts(1, "5", "2");
    chain.send(0, &["incrementJobs(address)", &node]);

    let (told, code) = chain.program(&["contract", "show", &node, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["extension"]), (0, &json!(true)));
    let reputation = &told["node"]["reputation"];
    for (field, value) in [
        ("on_time", 4),
        ("missed", 3),
        ("streak", 1),
        ("completed_claimed", 5),
        ("failed_claimed", 2),
        ("confirmed", 1),
    ] {
        assert_eq!(reputation[field], value, "{field}: {reputation}");
    }
    let facts = Facts { on_time: 4, missed: 3, confirmed: 1, failed: 2 };
    assert_eq!(reputation["score"], score(facts), "the chain and the program agree");
    assert_eq!(told["node"]["last_seen_s"], reputation["last_seen_s"]);

    let signature =
        "reputationOf(address)(uint40,uint40,uint32,uint32,uint32,uint40,uint40,uint256,uint16)";
    let by_cast = chain.anvil.cast(&["call", &chain.contract.to_string(), signature, &node]);
    assert_eq!(by_cast.lines().last().unwrap(), score(facts).to_string(), "and so does cast");

    let (text, _) = chain.program(&["contract", "show", &node]);
    assert!(text.contains("slots of 5 minutes: 4 on time, 3 missed, 1 in a row"), "{text}");
    assert!(text.contains("jobs by its own word: 5 completed, 2 failed"), "{text}");
}

#[test]
fn a_contract_without_the_extension_is_shown_as_before() {
    let chain = Chain::with(Kind::Plain);
    chain.register(1);
    let node = address(1).to_string();
    let (told, code) = chain.program(&["contract", "show", &node, "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["extension"]), (0, &json!(false)));
    assert_eq!(told["node"]["gpu_model"], "NVIDIA A10");
    assert!(told["node"].get("reputation").is_none(), "{told}");
    let (text, _) = chain.program(&["contract", "show", &node]);
    assert!(text.contains("registered as NVIDIA A10") && !text.contains("score"), "{text}");
}

#[tokio::test]
async fn a_contract_that_can_not_count_its_active_nodes_is_shown_all_the_same() {
    let chain = Chain::with(Kind::Ours);
    chain.register(1);
    let proxy = RpcProxy::start(&chain.anvil.rpc_url);
    // `getActiveProvidersCount()` visits every node: with some 11,000, an endpoint's gas limit stops it.
    proxy.set(Weather::OutOfGas("0x13c3e4b3"));
    let node = address(1).to_string();
    let (told, code) = chain.program_by_way_of(proxy.url(), &["contract", "show", &node, "--json"]);
    assert_eq!(code, 0, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["providers"], &told["active"]), (&json!(1), &Value::Null), "{told}");
    assert_eq!(told["node"]["registered"], true, "{told}");
    assert!(told["active_unknown"].as_str().is_some_and(|why| !why.is_empty()), "{told}");
    let (told, _) = chain.program_by_way_of(proxy.url(), &["contract", "show", &node]);
    assert!(told.contains("1 registered, how many are active is unknown ("), "{told}");
}
