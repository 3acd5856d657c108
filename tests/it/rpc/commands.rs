//! `doctor` and `contract show` with a list of endpoints.

use serde_json::json;

use super::Chain;
use crate::support::anvil::{Anvil, CHAIN_ID};
use crate::support::program::Program;
use crate::support::rpc_proxy::Weather;

#[tokio::test]
async fn doctor_tells_which_endpoint_is_unfit_although_the_others_do_its_work() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(204));
    let program = Program::with(&[
        ("REPUTATION_CONTRACT_ADDRESS", &chain.contract.to_string()),
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(1)),
        ("CHAIN_ID", &CHAIN_ID.to_string()),
        ("OPBNB_RPC_URL", &format!("{}/hunter2?k=hunter2,{}", chain.a.url(), chain.b.url())),
    ]);
    let report = &program.run(&["doctor", "--json"]).objects()[0];
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "chain").unwrap();
    let detail = check["detail"].as_str().unwrap();
    assert_eq!(check["status"], "warn", "{check}");
    assert!(detail.contains("1 of 2 endpoints unfit: endpoint 1, "), "{detail}");
    assert!(detail.ends_with("it is on chain 204, not 31337"), "{detail}");
    assert!(!detail.contains("k=hunter2"), "{detail}");
}

#[tokio::test]
async fn a_command_takes_a_list_of_endpoints_and_repeats_none_that_is_wrong() {
    let chain = Chain::start().await;
    chain.a.set(Weather::Status(503, None));
    let contract = chain.contract.to_string();
    let program = Program::with(&[("REPUTATION_CONTRACT_ADDRESS", &contract)]);
    let show = |urls: &str| program.run(&["contract", "show", "--json", "--rpc-url", urls]);
    let shown = show(&format!("{}/v2/hunter2, {}", chain.a.url(), chain.b.url())).object();
    assert_eq!((&shown["chain_id"], &shown["providers"]), (&json!(CHAIN_ID), &json!(0)));
    assert!(chain.a.connections() > 0);

    let wrong = show("http://hunter2.example,hunter2");
    let told = wrong.stderr();
    assert_eq!(wrong.code(), 64);
    assert!(told.contains("--rpc-url: its URL 2 is not") && !told.contains("hunter2"), "{told}");
}
