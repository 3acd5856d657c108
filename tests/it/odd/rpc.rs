//! RPC providers as they are found in the field: an endpoint that serves blocks, but refuses calls of the
//! contract or transactions, beside one that works.

use lamda_node::chain::{Chain as _, Config, Error, Evm, Reader};
use lamda_node::reputation::Call;
use serde_json::Value;

use crate::support::anvil::{Anvil, carry_out, cast};
use crate::support::rpc_proxy::{RpcProxy, SEND, Weather, long_rests};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World};

const CALL: &str = "eth_call";
const ESTIMATE: &str = "eth_estimateGas";

/// The required result of a refusal at the preferred endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// The other endpoint is asked, and this one rests.
    TheOther,
    /// The refusal is the answer: no other endpoint is asked.
    AnAnswer,
}

/// A row: the method that the preferred endpoint refuses, the error's code and words, and the result.
type Row = (&'static str, i64, &'static str, Comes);

const ROWS: &[Row] = &[
    (CALL, -32601, "the method eth_call does not exist/is not available", Comes::TheOther),
    (CALL, -32000, "project ID does not have access to this network", Comes::TheOther),
    (CALL, -32600, "your app has exceeded its compute units", Comes::TheOther),
    (CALL, -32000, "missing trie node 0a1b (path ) state is not available", Comes::TheOther),
    (CALL, -32000, "header not found", Comes::TheOther),
    (CALL, -32603, "internal error", Comes::TheOther),
    (CALL, -32001, "unauthorized: api key hunter2 is disabled", Comes::TheOther),
    (CALL, 3, "execution reverted", Comes::AnAnswer),
    (CALL, -32000, "VM execution error: revert", Comes::AnAnswer),
    (CALL, -32000, "insufficient funds for gas * price + value", Comes::AnAnswer),
    (ESTIMATE, -32601, "eth_estimateGas is not supported on this plan", Comes::TheOther),
    (ESTIMATE, -32000, "gas required exceeds allowance (0)", Comes::AnAnswer),
    (SEND, -32601, "rpc method is unsupported", Comes::TheOther),
    (SEND, -32000, "this endpoint is read only", Comes::TheOther),
    (SEND, -32003, "transaction rejected by policy", Comes::TheOther),
    (SEND, -32000, "nonce too low: next nonce 7, tx nonce 0", Comes::AnAnswer),
    (SEND, -32000, "transaction underpriced", Comes::AnAnswer),
    (SEND, -32000, "already known", Comes::AnAnswer),
    (SEND, -32000, "insufficient funds for transfer", Comes::AnAnswer),
];

#[tokio::test]
async fn an_endpoint_that_refuses_calls_is_left_and_an_answer_about_the_call_is_taken() {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    let first = Evm::new(anvil.config(contract), Anvil::key(1)).unwrap();
    let register = Call::Register { gpu_model: "H100".to_owned(), vram_mib: 81_559 };
    carry_out(&first, &register).await.unwrap();
    let call = Call::Heartbeat;
    let mut nonce = first.account().await.unwrap().nonce;
    for (method, code, words, comes) in ROWS {
        let (a, b) = (RpcProxy::start(&anvil.rpc_url), RpcProxy::start(&anvil.rpc_url));
        let keyed = format!("{}/v2/hunter2", a.url());
        let rpc_urls = vec![keyed, b.url().to_owned()];
        let endpoints = long_rests();
        let config = Config { rpc_urls, endpoints, ..anvil.config(contract) };
        let node = Evm::new(config, Anvil::key(1)).unwrap();
        let quote = node.quote(&call).await.unwrap();
        a.set_for(method, Weather::Refuses(*code, words));
        let (asked, others) = (a.seen(method).len(), b.seen(method).len());
        let mut told = String::new();
        for _ in 0..2 {
            let result = if *method == SEND {
                let signed = node.sign(&call, nonce, quote).await.unwrap();
                nonce += u64::from(*comes == Comes::TheOther);
                node.send(&signed.raw).await.map(drop)
            } else {
                node.quote(&call).await.map(drop)
            };
            told.extend(result.err().map(|err: Error| err.to_string()));
        }
        let (asked, others) = (a.seen(method).len() - asked, b.seen(method).len() - others);
        match comes {
            Comes::TheOther => {
                assert_eq!(told, "", "{words}");
                assert_eq!(
                    (asked, others),
                    (1, 2),
                    "{words}: the endpoint rests after one refusal"
                );
            }
            Comes::AnAnswer => assert_eq!((asked, others), (2, 0), "{words}: {told}"),
        }
        assert!(!told.contains("hunter2"), "{told}");
    }
}

/// If every endpoint refuses, the error names the endpoint, and none of them rests.
#[tokio::test]
async fn what_everybody_refuses_is_an_answer_with_the_name_of_who_gave_it() {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    let (a, b) = (RpcProxy::start(&anvil.rpc_url), RpcProxy::start(&anvil.rpc_url));
    let rpc_urls = vec![format!("{}/v2/hunter2hunter2hunter2", a.url()), b.url().to_owned()];
    let reader = Reader::new(Config { rpc_urls, ..anvil.config(contract) }).unwrap();
    for endpoint in [&a, &b] {
        endpoint.set_for(CALL, Weather::Refuses(-32601, "method eth_call not found"));
    }
    for times in 1..=3 {
        let error = reader.owner().await.unwrap_err().to_string();
        let (who, what) = error.split_once(" refuses eth_call: ").expect("who refuses what");
        assert!(who.contains(&format!("{}/…", a.url())), "{error}");
        assert!(what.contains("method eth_call not found") && !error.contains("hunter"), "{error}");
        assert_eq!((a.seen(CALL).len(), b.seen(CALL).len()), (times, times));
    }
    b.clear();
    reader.owner().await.unwrap();
    let states = reader.endpoints(Anvil::key(1).address(), &Call::Heartbeat).await;
    let trouble = states[0].trouble.as_deref().unwrap_or_default();
    assert!(trouble.contains("eth_call was refused: method eth_call not found"), "{states:?}");
    assert_eq!(
        states[1].trouble, None,
        "a contract that refuses the beat is no fault of the endpoint"
    );
}

/// A row: a method of a beat that the second endpoint refuses, the error's code and words, and whether
/// that makes the endpoint unfit.
const SECOND: &[(&str, i64, &str, bool)] = &[
    (ESTIMATE, -32601, "eth_estimateGas is not supported on this plan", true),
    (CALL, -32000, "historical state is not available", true),
    (CALL, 3, "execution reverted", false),
    (ESTIMATE, -32000, "gas required exceeds allowance (0)", false),
];

#[tokio::test]
async fn every_endpoint_is_asked_for_what_a_beat_needs_before_it_is_needed() {
    let world = World::start().await;
    let (a, b) = (RpcProxy::start(&world.anvil.rpc_url), RpcProxy::start(&world.anvil.rpc_url));
    let both = format!("{},{}", a.url(), b.url());
    let doctor = || {
        let output = world.command(&["doctor", "--json"]).env("OPBNB_RPC_URL", &both).output();
        let report: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["name"] == "chain").unwrap()
    };
    // With a node that is not registered yet, and with one that is.
    for registered in [false, true] {
        for (method, code, words, is_unfit) in SECOND {
            b.set_for(method, Weather::Refuses(*code, words));
            let told = doctor();
            assert_eq!(told["status"] == "warn", *is_unfit, "{words}: {told}");
            let names_it = told.to_string().contains(&format!("{method} was refused: {words}"));
            assert_eq!(names_it, *is_unfit, "{told}");
            b.clear();
        }
        if !registered {
            let (method, code, words, _) = SECOND[0];
            b.set_for(method, Weather::Refuses(code, words));
            let agent = world.agent(&[("OPBNB_RPC_URL", &both)]);
            agent.wait_for("the chain's endpoint 2 of 2, ");
            agent.wait_for(&format!("does not serve: {method} was refused: {words}"));
            agent.wait_for("heartbeat sent");
            b.clear();
        }
    }
}

#[tokio::test]
async fn a_tip_that_is_asked_for_and_receipts_that_are_not_found_yet_hold_up_no_beat() {
    const TIP: &str = "transaction underpriced: gas tip cap 0, minimum needed 7000000000";
    let world = World::start().await;
    let proxy = RpcProxy::start(&world.anvil.rpc_url);
    let indexes = Weather::Refuses(-32000, "transaction indexing is in progress");
    proxy.set_for("eth_getTransactionReceipt", indexes);
    proxy.queue(SEND, &[Weather::Refuses(-32000, TIP)]);
    let agent = world.agent(&[("OPBNB_RPC_URL", proxy.url())]);
    let raw = eventually("a dearer form is sent", PATIENCE, || {
        let sent = proxy.seen(SEND);
        sent.get(1).map(|params| params[0].as_str().expect("bytes").to_owned())
    });
    let form = cast(&["decode-transaction", &raw]);
    assert!(form.contains("0x1a13b8600"), "the tip that was asked for, in hexadecimal: {form}");
    // It is mined, but no endpoint can tell yet: the nonce must not be taken for another program's.
    let account = World::agent_address().to_string();
    let nonce = || world.anvil.cast(&["nonce", &account]);
    eventually("it is in a block", PATIENCE, || (nonce() == "1").then_some(()));
    agent.wait_for("refuses eth_getTransactionReceipt: transaction indexing is in progress");
    assert_eq!(nonce(), "1");
    proxy.clear();
    agent.wait_for("the chain knows this node as CPU already");
    agent.wait_for("heartbeat sent");
    assert!(!agent.log().contains("this node did not send"), "{}", agent.log());
}
