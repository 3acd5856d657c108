//! What a beat costs, and which contracts have the extension for receipts.

use lamda_node::chain::{Error, Reader};
use serde_json::Value;

use super::{Chain, address};
use crate::support::anvil::Anvil;
use crate::support::contracts::Kind;

fn gas(receipt: &Value) -> u64 {
    let digits = receipt["gasUsed"].as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap()
}

#[test]
fn a_node_pays_for_a_beat_what_the_snapshots_say() {
    let chain = Chain::with(Kind::Ours);
    chain.register(1);
    chain.pass(300);
    chain.beat_with_receipts(1, "3", "1");
    chain.pass(300);
    let beat = gas(&chain.send(1, &["sendHeartbeat()"]));
    chain.pass(300);
    let with_receipts = gas(&chain.beat_with_receipts(1, "2", "1"));
    assert!(beat < 28_500, "a beat costs {beat}");
    assert!(with_receipts < 31_800, "a beat with receipts costs {with_receipts}");

    let snapshots = include_str!("../../../contracts/snapshots/NodeReputation.json");
    let snapshots: Value = serde_json::from_str(snapshots).unwrap();
    assert_eq!(snapshots["sendHeartbeat"], beat.to_string());
}

#[tokio::test]
async fn the_extension_is_found_where_it_is_and_nowhere_else() {
    for (kind, has) in [(Kind::Ours, true), (Kind::Plain, false), (Kind::Once, false)] {
        let chain = Chain::with(kind);
        chain.register(1);
        let reader = chain.reader();
        assert_eq!(reader.has_extension().await.unwrap(), has, "{kind:?}");
        let told = reader.reputation(address(1)).await.unwrap();
        assert_eq!(told.is_some(), has, "{kind:?}");
        assert_eq!(reader.reputation(address(2)).await.unwrap(), None, "a stranger");
        // Code that stops at once, and code that returns a word that is no boolean.
        for code in ["0x00", "0x600260005260206000f3"] {
            chain.anvil.cast(&["rpc", "anvil_setCode", &chain.contract.to_string(), code]);
            assert!(!reader.has_extension().await.unwrap(), "{code}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_is_no_contract_without_the_extension() {
    let anvil = Anvil::start();
    let reader = Reader::new(anvil.config(address(1))).unwrap();
    let told = reader.has_extension().await;
    assert!(matches!(told, Err(Error::NoContract(_))), "{told:?}");
    drop(anvil);
    let told = reader.has_extension().await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
}
