//! A node that may not or can't pay says so once and serves jobs; once it can, it beats.

use serde_json::json;

use super::{FAST, nonce, wait_for_nonce, warnings};
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, shell};

/// It has said why it sends nothing, tried again in vain with blocks in between, served a job, and
/// said no more about it.
fn serves_without_paying(world: &World, agent: &Agent, id: &str, why: &str) {
    agent.wait_for(why);
    let again = why.to_owned();
    let tries = || agent.log().matches(&again).count();
    let seen = tries();
    // An empty block lowers the base fee: the price is another each time.
    world.anvil.cast(&["rpc", "anvil_mine"]);
    world.publish(id, &shell("echo x > /output/output"));
    assert_eq!(world.outcome(id).pop().expect("an end")["status"], json!("completed"));
    eventually("it tries again", PATIENCE, || (tries() >= seen + 2).then_some(()));
    assert_eq!(warnings(agent, why), 1, "{}", agent.log());
    assert_eq!(nonce(world), 0, "{}", agent.log());
}

#[tokio::test]
async fn caps_that_are_too_low_and_an_empty_account_stop_beats_and_no_job() {
    let world = World::start().await;
    let wei = "0.000000000000000001";
    for (id, cap, why) in [
        ("dear", "TX_FEE_MAX", "the chain's price is above TX_FEE_MAX"),
        ("spent", "DAY_FEE_MAX", "the last 24 hours cost what DAY_FEE_MAX allows"),
    ] {
        let mut agent = world.agent(&[FAST, (cap, wei)]);
        serves_without_paying(&world, &agent, id, why);
        agent.kill();
    }
    let account = World::agent_address().to_string();
    world.anvil.cast(&["rpc", "anvil_setBalance", &account, "0x0"]);
    let agent = world.agent(&[FAST]);
    let why = format!("{account} can't pay for the transaction");
    serves_without_paying(&world, &agent, "empty", &why);
    world.anvil.cast(&["rpc", "anvil_setBalance", &account, "0xde0b6b3a7640000"]);
    wait_for_nonce(&world, &agent, 3);
}
