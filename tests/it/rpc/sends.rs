//! Transactions are sent on until one endpoint has them, and mined once.

use lamda_node::chain::Chain as _;

use super::{Chain, busy, register};
use crate::support::anvil::{carry_out, mined};
use crate::support::rpc_proxy::{SEND, Weather, long_rests};

#[tokio::test]
async fn a_transaction_whose_answer_was_lost_is_sent_on_and_mined_once() {
    let chain = Chain::start().await;
    chain.a.set(Weather::LoseAnswers);
    let node = chain.node(long_rests());
    carry_out(&node, &register()).await.unwrap();
    assert_eq!(chain.nonce(), "1");
    let (first, second) = (chain.a.seen(SEND), chain.b.seen(SEND));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first, second, "the same bytes");
}

#[tokio::test]
async fn a_transaction_that_one_endpoint_keeps_to_itself_is_passed_on_by_the_other() {
    let chain = Chain::start().await;
    chain.a.set(Weather::DropSends);
    let node = chain.node(long_rests());
    let quote = node.quote(&register()).await.unwrap();
    let signed = node.sign(&register(), 0, quote).await.unwrap();
    node.send(&signed.raw).await.unwrap();
    assert_eq!(
        node.included(signed.hash).await.unwrap(),
        None,
        "the endpoint only says that it took it"
    );
    node.send_everywhere(&signed.raw).await.unwrap();
    assert!(mined(&node, signed.hash).await.success);
    assert_eq!(chain.nonce(), "1");
}

#[tokio::test]
async fn a_transaction_that_one_endpoint_does_not_take_is_sent_to_the_next() {
    for weather in [Weather::Down, Weather::Status(502, None), Weather::Throttled, busy("60")] {
        let chain = Chain::start().await;
        chain.a.set_for(SEND, weather.clone());
        carry_out(&chain.node(long_rests()), &register()).await.unwrap();
        assert_eq!(chain.nonce(), "1", "{weather:?}");
        assert_eq!((chain.a.seen(SEND).len(), chain.b.seen(SEND).len()), (1, 1), "{weather:?}");
    }
}
