//! A node that may not or can't pay says so once and serves jobs; once it can pay, it sends beats.

use lamda_node::agent::Limits;
use lamda_node::agent::account::ledger::Error;
use lamda_node::reputation::Call;
use serde_json::json;

use super::bench::Bench;
use super::{FAST, nonce, wait_for_nonce, warnings};
use crate::support::rpc_proxy::{RpcProxy, SEND, Weather};
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, shell};

/// Asserts that the node said once why it sends nothing, tries again in vain with blocks in between, and
/// serves a job meanwhile.
fn serves_without_paying(world: &World, agent: &Agent, id: &str, why: &str) {
    agent.wait_for(why);
    let again = why.to_owned();
    let tries = || agent.log().matches(&again).count();
    let seen = tries();
    // An empty block lowers the base fee, so the price differs each time.
    world.anvil.cast(&["rpc", "anvil_mine"]);
    world.publish(id, &shell("echo x > /output/output"));
    assert_eq!(world.outcome(id).pop().expect("an end")["status"], json!("completed"));
    eventually("the node tries again", PATIENCE, || (tries() >= seen + 2).then_some(()));
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

#[tokio::test]
async fn an_endpoint_that_lies_about_the_price_makes_the_node_pay_no_more_than_the_day_allows() {
    let bench = Bench::hasty(10).await;
    let before = bench.balance();
    bench.beat().await.expect("a beat");
    let cost = before - bench.balance();
    // A form's maximal cost is about three times its actual cost.
    let allowed = cost * 30;
    let day_max_wei = Some(allowed);
    let ledger = bench.ledger_within(Limits { day_max_wei, ..Limits::default() });
    bench.proxy.set_for("eth_getTransactionReceipt", Weather::CheapReceipts);
    let mut said = None;
    for _ in 0..40 {
        said = ledger.carry_out(Call::Heartbeat, Vec::new()).await.err();
        if said.is_some() {
            break;
        }
    }
    let paid = before - bench.balance();
    assert!(matches!(said, Some(Error::DaySpent)), "{said:?} after {paid} of {allowed}");
    assert!(paid <= allowed && paid >= cost * 2, "{paid} wei of {allowed}");
}

#[tokio::test]
async fn what_fails_in_its_block_is_not_paid_for_again_before_the_next_beat() {
    let world = World::start().await;
    let proxy = RpcProxy::start(&world.anvil.rpc_url);
    proxy.set_for("eth_estimateGas", Weather::LowEstimates);
    let agent = world.agent(&[("OPBNB_RPC_URL", proxy.url()), ("HEARTBEAT_INTERVAL", "60s")]);
    agent.wait_for("the next try is in 60 s");
    // It goes on with everything else, and sends nothing.
    let sent = proxy.seen(SEND).len();
    world.publish("meanwhile", &shell("echo x > /output/output"));
    assert_eq!(world.outcome("meanwhile").pop().expect("an end")["status"], json!("completed"));
    assert_eq!(nonce(&world), 1, "no second one is paid for in the same interval");
    assert_eq!(proxy.seen(SEND).len(), sent, "nor sent: {}", agent.log());
    assert_eq!(warnings(&agent, "the next try is in 60 s"), 1, "{}", agent.log());
}
