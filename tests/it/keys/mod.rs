//! The node's key: what opens it, what of it stays in memory, and that no two hosts use it at once.

mod instances;
mod secrets;

use serde_json::{Value, json};

use crate::support::anvil::Anvil;
use crate::support::world::World;

/// The data folder of a second host with the same key.
fn elsewhere(world: &World) -> String {
    world.dir.path().join("elsewhere").display().to_string()
}

/// Sends a request on the node's control subject, and returns the answer.
fn control(world: &World, request: &Value) -> Value {
    let script = "print((await nc.request(args[0], args[1].encode(), timeout=30)).data.decode())";
    let subject = format!("jobs.control.{}", World::agent_address());
    let answer = world.nats.python(script, &[&subject, &request.to_string()]);
    serde_json::from_str(&answer).expect("an answer in JSON")
}

/// What `status` says about another user of the key, if there is one.
fn alarm(world: &World) -> Option<String> {
    let status = control(world, &json!({"action": "status"}));
    assert_eq!(status["ok"], true, "{status}");
    status["key_in_use_elsewhere"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn an_owner_is_shown_and_never_spent_from() {
    let world = World::start().await;
    let owner = Anvil::key(3).address().to_string();
    let account = || {
        let [balance, nonce] = ["balance", "nonce"].map(|what| world.anvil.cast(&[what, &owner]));
        (balance, nonce)
    };
    let before = account();
    let agent = world.agent(&[("NODE_OWNER", &owner)]);
    agent.wait_for("heartbeat sent");
    agent.wait_for(&format!("the node's owner is {owner}"));
    assert_eq!(control(&world, &json!({"action": "status"}))["owner"], owner.as_str());
    let doctor = world.command(&["doctor"]).env("NODE_OWNER", &owner).output().expect("it runs");
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains(&format!("owner {owner}")), "{said}");
    assert_eq!(account(), before);
}
