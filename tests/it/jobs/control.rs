//! Control requests: strangers send as many as they like, and the owner is heard all the same.

use std::time::Duration;

use serde_json::json;

use crate::support::odd_engine::OddEngine;
use crate::support::world::{World, shell};

#[tokio::test]
async fn an_owner_is_heard_while_strangers_flood_the_node_with_requests() {
    let world = World::start().await;
    // A cancel is answered once the container has started, so each holds its place for so long.
    let late = OddEngine::start_late(&world.engine.host(), Duration::from_secs(15));
    let agent = world.agent(&[("DOCKER_HOST", &late.host()), ("JOB_WARM_NETWORKS", "0")]);
    world.publish("wanted", &shell("sleep 1000"));
    agent.wait_for("job wanted: starting");
    let control = format!("jobs.control.{}", World::agent_address());
    let flood = "
inbox = nc.new_inbox()
answers = await nc.subscribe(inbox)
for _ in range(100):
    await nc.publish(args[0], args[1].encode(), reply=inbox)
await nc.flush()
print((await answers.next_msg(timeout=10)).data.decode())";
    let cancel = json!({"action": "cancel", "job_id": "wanted"}).to_string();
    let refused = world.nats.python(flood, &[&control, &cancel]);
    assert!(refused.contains(r#""reason_code":"busy""#), "{refused}");
    let asked = world.command(&["events", "redis", "on"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&asked.stderr);
    assert!(said.contains("this node has no Redis sink"), "{said}");
}
