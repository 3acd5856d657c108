//! Other contracts: one with only the deployed interface, and one with which a node can register just once.

use serde_json::json;

use super::{BEATEN, FAST, REGISTERED, check, events, nonce, wait_for_nonce, warnings};
use crate::support::anvil::Anvil;
use crate::support::contracts::Kind;
use crate::support::world::{Agent, World, shell};

/// Asserts that a job runs, and that beats go on after it.
fn lives(world: &World, agent: &Agent, id: &str) {
    world.publish(id, &shell("echo x > /output/output"));
    let end = world.outcome(id).pop().expect("an end");
    assert_eq!(end["status"], json!("completed"));
    assert!(end["receipt"].is_object(), "a receipt is worth something without the chain: {end}");
    wait_for_nonce(world, agent, nonce(world) + 2);
}

#[tokio::test]
async fn the_deployed_interface_alone_gets_plain_beats_and_its_node_serves_jobs() {
    let mut world = World::start().await;
    world.contract = Kind::Plain.deploy(&world.anvil);
    let mut agent = world.agent(&[FAST]);
    lives(&world, &agent, "plain");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    // This contract would revert any call outside its interface.
    check(&world);
    assert_eq!(warnings(&agent, "chain:"), 0, "{}", agent.log());
    assert_eq!(warnings(&agent, "receipts are not taken"), 0, "{}", agent.log());
}

#[tokio::test]
async fn a_contract_that_registers_once_keeps_its_record_and_the_node_beats_on() {
    let mut world = World::start().await;
    world.contract = Kind::Once.deploy(&world.anvil);
    let contract = world.contract.to_string();
    let register = ["send", &contract, "registerNode(string,uint256)", "Old card", "1"];
    world.anvil.cast(&[&register[..], &["--private-key", Anvil::key_hex(1)]].concat());
    let agent = world.agent(&[FAST]);
    lives(&world, &agent, "kept");
    assert_eq!(warnings(&agent, "the chain keeps the old registration"), 1, "{}", agent.log());
    assert_eq!(warnings(&agent, "chain:"), 0, "{}", agent.log());
    let node = World::agent_address().to_string();
    let call = ["providers(address)(string,uint256,uint256,bool)", &node];
    let known = world.anvil.cast(&[&["call", &contract], &call[..]].concat());
    assert!(known.contains("Old card"), "{known}");
    assert_eq!(events(&world, REGISTERED).len(), 1);
    assert!(events(&world, BEATEN).len() >= 2);
}
