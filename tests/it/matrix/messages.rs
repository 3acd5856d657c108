//! Messages that are accepted, refused, or delivered a second time. A node that dies before it has
//! written a message down gets it again after the ack wait.

use lamda_node::clock::{Clock as _, SystemClock};
use serde_json::json;

use super::walk::{IN_POOL, WORK, Walk};
use super::{job_of, sides};
use crate::support::world::World;

/// Places of an ended job that is delivered again.
pub(super) const REPEATED: [&str; 1] = ["send_again"];

/// Places of a job in hand that is delivered again.
pub(super) const IN_HAND: [&str; 1] = ["redelivered"];

/// Places of a job that this node can't run.
pub(super) const REFUSED: [&str; 1] = ["refuse"];

/// Places of a pool's job that no other node could run either.
pub(super) const MISFITS: [&str; 2] = ["put_claim", "refuse"];

/// Places of a new job.
pub(super) const TAKEN: [&str; 1] = ["admit"];

#[tokio::test]
async fn a_node_that_dies_over_a_message_answers_it_once() {
    let mut walk = Walk::start(&[]).await;
    let consumer = format!("agent-{}", World::agent_address().to_string().to_lowercase());
    walk.send("patience", &consumer, "10");
    let mut ids = Vec::new();
    for place in sides(&REPEATED) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 1);
        let agent = walk.go_on();
        walk.publish(&id, WORK);
        walk.wait_until_done(&agent, &id);
        drop(agent);
        let agent = walk.arm(&place);
        walk.publish(&id, WORK);
        walk.wait_for_death(agent, &place, &id);
        ids.push(id);
    }
    for place in sides(&IN_HAND) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 1);
        let (agent, work) = (walk.arm(&place), format!("sleep 2; {WORK}"));
        walk.publish(&id, &work);
        agent.wait_for(&format!("job {id}: running"));
        walk.publish(&id, &work);
        walk.wait_for_death(agent, &place, &id);
        ids.push(id);
    }
    for place in sides(&REFUSED) {
        let id = job_of(&place);
        walk.expect(&id, "rejected", 0);
        let agent = walk.arm(&place);
        let job = json!({"job_id": id, "image_name": "busybox:test", "gpus": 1});
        let subject = format!("jobs.dispatch.{}", World::agent_address());
        walk.send("queue", &subject, &job.to_string());
        walk.wait_for_death(agent, &place, &id);
        ids.push(id);
    }
    for place in sides(&TAKEN) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 1);
        let agent = walk.arm(&place);
        walk.publish(&id, WORK);
        walk.wait_for_death(agent, &place, &id);
        ids.push(id);
    }
    let agent = walk.go_on();
    for id in ids {
        walk.wait_until_done(&agent, &id);
    }
    drop(agent);
    walk.check().await;
}

#[tokio::test]
async fn a_node_that_dies_while_it_gives_up_a_job_for_its_pool_gives_it_up_once() {
    let mut walk = Walk::start(&[IN_POOL]).await;
    walk.send("patience", "pool-cpu", "5");
    // So many refusals that the next one is the last.
    let refused = json!({
        "agent": format!("0x{}", "11".repeat(20)), "state": "refused", "stream_seq": 1,
        "delivered": 1, "spec_hash": format!("0x{}", "22".repeat(32)), "refusals": 19,
        "refused_first_at": SystemClock.now().to_string(), "at": SystemClock.now().to_string(),
    });
    let mut ids = Vec::new();
    for place in sides(&MISFITS) {
        let id = job_of(&place);
        walk.expect(&id, "failed", 0);
        walk.send("claim", &format!("cpu.{id}"), &refused.to_string());
        let agent = walk.arm(&place);
        let job = json!({"job_id": id, "image_name": "busybox:test", "gpus": 1});
        walk.send("queue", "jobs.pool.cpu", &job.to_string());
        walk.wait_for_death(agent, &place, &id);
        ids.push(id);
    }
    let agent = walk.go_on();
    for id in ids {
        walk.wait_until_done(&agent, &id);
    }
    drop(agent);
    assert_eq!(walk.request("count", "DEAD", ""), "4", "one letter per job");
    walk.check().await;
}
