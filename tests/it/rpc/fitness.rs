//! Endpoints on another chain, or whose head is behind or old, are not used.

use std::time::Duration;

use lamda_node::chain::{Chain as _, Config, EndpointLimits, Error, Reader};

use super::{Chain, READ, no_rests, register};
use crate::support::anvil::{Anvil, CHAIN_ID, carry_out};
use crate::support::rpc_proxy::{RpcProxy, Weather};

#[tokio::test]
async fn an_endpoint_on_another_chain_is_asked_for_its_id_and_nothing_else() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(5611));
    let node = chain.node(EndpointLimits::default());
    carry_out(&node, &register()).await.unwrap();
    assert_eq!(node.check().await.unwrap().chain_id, CHAIN_ID);
    assert_eq!(chain.a.methods(), ["eth_chainId"]);
}

#[tokio::test]
async fn the_chain_is_wrong_only_where_all_endpoints_say_so() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(5611));
    chain.b.set(Weather::Down);
    let reader = chain.reader(no_rests());
    let error = reader.owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "the other endpoint may be right: {error}");

    chain.b.set(Weather::WrongChain(204));
    let error = reader.owner().await.unwrap_err();
    let told = matches!(error, Error::WrongChain { expected: CHAIN_ID, actual: 5611, .. });
    assert!(told && !error.is_transient(), "{error}");
    assert!(!chain.a.methods().contains(&READ.to_owned()));
}

#[tokio::test]
async fn without_a_set_chain_the_first_to_answer_is_what_the_others_must_match() {
    let chain = Chain::start().await;
    chain.b.set(Weather::WrongChain(204));
    let config = Config { chain_id: None, ..chain.config(no_rests()) };
    let reader = Reader::new(config).unwrap();
    reader.owner().await.unwrap();
    chain.a.set(Weather::Status(503, None));
    let error = reader.owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(chain.b.methods().iter().all(|method| method == "eth_chainId"));
}

#[tokio::test]
async fn an_endpoint_that_was_away_is_asked_for_its_chain_again() {
    let chain = Chain::start().await;
    let reader = chain.reader(no_rests());
    reader.owner().await.unwrap();
    chain.a.queue(READ, &[Weather::Status(503, None)]);
    chain.a.set(Weather::WrongChain(204));
    reader.owner().await.unwrap();
    let before = chain.a.seen(READ).len();
    reader.owner().await.unwrap();
    assert_eq!(chain.a.seen(READ).len(), before, "another chain came back");
    assert_eq!(chain.b.seen(READ).len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_fell_behind_is_not_read_from() {
    let chain = Chain::start().await;
    chain.a.set(Weather::StaleHead { nonces: true });
    chain.anvil.cast(&["rpc", "anvil_mine", "0x28"]);
    let reader = chain.reader(no_rests());
    let height = reader.facts(chain.contract).await.unwrap().block;
    assert_eq!(height.to_string(), chain.anvil.cast(&["block-number"]));
    reader.owner().await.unwrap();
    assert!(chain.a.seen(READ).is_empty(), "{:?}", chain.a.methods());
    assert!(!chain.b.seen(READ).is_empty());

    chain.a.clear();
    reader.owner().await.unwrap();
    assert_eq!(chain.a.seen(READ).len(), 1, "it caught up");
}

#[tokio::test]
async fn a_chain_that_begins_anew_is_read_again_once_its_old_height_is_forgotten() {
    let chain = Chain::start().await;
    let fresh = chain.anvil.cast(&["rpc", "evm_snapshot"]);
    chain.anvil.cast(&["rpc", "anvil_mine", "0x64"]);
    let remembers = |height_memory| EndpointLimits { height_memory, ..no_rests() };
    let forgetful = chain.reader(remembers(Duration::ZERO));
    let mindful = chain.reader(remembers(Duration::from_hours(1)));
    forgetful.owner().await.unwrap();
    mindful.owner().await.unwrap();

    chain.anvil.cast(&["rpc", "evm_revert", fresh.trim_matches('"')]);
    forgetful.owner().await.unwrap();
    let error = mindful.owner().await.unwrap_err().to_string();
    assert!(error.contains("its head, block 1, is 100 blocks behind"), "{error}");
}

#[tokio::test]
async fn an_endpoint_whose_head_is_old_is_not_read_from_and_alone_says_how_old_it_is() {
    // Both get the id of a chain that makes blocks by itself, so that an old head means a stale endpoint.
    let (old, new) = (Anvil::start_with(&["--timestamp", "1700000000"]), Anvil::start());
    let contract = new.deploy().await;
    assert_eq!(old.deploy().await, contract, "one owner, one nonce, one address");
    let (a, b) = (RpcProxy::start(&old.rpc_url), RpcProxy::start(&new.rpc_url));
    let reader = |urls: &[&str]| {
        let rpc_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let config = Config { rpc_urls, chain_id: Some(5611), ..new.config(contract) };
        Reader::new(config).unwrap()
    };
    a.set(Weather::WrongChain(5611));
    b.set(Weather::WrongChain(5611));
    reader(&[a.url(), b.url()]).owner().await.unwrap();
    assert_eq!((a.seen(READ).len(), b.seen(READ).len()), (0, 1));

    let alone = reader(&[a.url()]);
    for _ in 0..2 {
        let error = alone.owner().await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("its head, block 1, is ") && told.contains(" s old"), "{told}");
        assert!(error.is_transient());
    }
    assert!(a.seen(READ).is_empty());
}
