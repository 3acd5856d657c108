//! The other ways in which a job can end: cancelled, given back, left to another agent, put aside.

use serde_json::json;

use super::walk::{IN_POOL, WORK, Walk};
use super::{job_of, sides};
use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World};

/// Places of a job that is cancelled while it runs.
pub(super) const CANCELLED: [&str; 3] = ["stopping", "stop", "exited"];

/// Places of a job that is given back at a shutdown.
pub(super) const GIVEN_BACK: [&str; 7] =
    ["stopping", "stop", "interrupted", "remove", "handing_back", "hand_back", "waiting"];

/// Places of a pool's job that is given back with its claim.
pub(super) const GIVEN_BACK_TO_POOL: [&str; 4] =
    ["handing_back", "hand_back", "put_claim:2", "waiting"];

/// Places of a job that was given back and is delivered again.
pub(super) const RESUMED: [&str; 2] = ["accepted", "redelivered"];

/// Places of a pool's job that went to another agent.
pub(super) const OUTBID: [&str; 3] = ["yielded", "letting_go", "waiting"];

/// Places of a pool's job that another agent has ended.
pub(super) const ENDED_ELSEWHERE: [&str; 1] = ["ended_elsewhere"];

/// Places of a pool's job that this node can't begin, perhaps by its own fault.
pub(super) const RETURNED: [&str; 3] = ["returning", "return", "put_claim"];

/// Places of such a job that already has a container: its card fails.
pub(super) const UNABLE: [&str; 3] = ["unable", "remove", "returning"];

/// Places of a job whose containers are removed until it is given up.
pub(super) const BURIED: [&str; 2] = ["bury", "buried"];

/// A script that never ends by itself in its first attempt, and does the work in every later one.
fn once_more() -> String {
    format!("if grep -q /1/output /proc/self/mountinfo; then sleep 1000; fi; {WORK}")
}

/// As [`once_more`], but the second attempt ends only after [`let_go`], so that the job stays in hand
/// until then.
fn once_let_go() -> String {
    let held = "until [ -e /output/go ]; do sleep 0.1; done; rm /output/go";
    format!("if grep -q /1/output /proc/self/mountinfo; then sleep 1000; fi; {held}; {WORK}")
}

/// Lets the second attempt of a job end.
fn let_go(walk: &Walk, id: &str) {
    eventually(&format!("job {id} runs again"), PATIENCE, || {
        (walk.phase(id)? == "running").then_some(())
    });
    let go = walk.world.dir.path().join(format!("data/jobs/{id}/2/output/go"));
    std::fs::write(go, "").expect("its output is there");
}

fn control() -> String {
    format!("jobs.control.{}", World::agent_address())
}

#[tokio::test]
async fn a_node_that_dies_while_it_cancels_a_job_cancels_it() {
    let mut walk = Walk::start(&[("JOB_STOP_GRACE_S", "1")]).await;
    for place in sides(&CANCELLED) {
        let id = job_of(&place);
        walk.expect(&id, "cancelled", 1);
        let agent = walk.arm(&place);
        walk.publish(&id, "echo working; sleep 1000");
        agent.wait_for(&format!("job {id}: running"));
        let cancel = json!({"action": "cancel", "job_id": id}).to_string();
        walk.send("tell", &control(), &cancel);
        walk.wait_for_death(agent, &place, &id);
        let agent = walk.go_on();
        // The node died before it answered, so the requester asks again.
        eventually(&format!("{id} is cancelled"), PATIENCE, || {
            let answer = walk.request("ask", &control(), &cancel);
            (answer.contains(r#""ok":true"#) || answer.contains("too_late")).then_some(())
        });
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

/// Sends the node SIGTERM once the job runs.
fn ask_to_end(agent: &Agent, id: &str) {
    agent.wait_for(&format!("job {id}: running"));
    agent.ask_to_end();
}

/// Takes a job to its end, also from its first attempt, which never ends by itself.
fn see_to_its_end(walk: &mut Walk, id: &str) {
    let mut agent = walk.go_on();
    let taken_back = format!("took job {id} back: running");
    let is_stuck = eventually(&format!("job {id} goes on"), PATIENCE, || {
        let log = agent.log();
        let moved =
            log.contains(&taken_back) || walk.phase(id).is_some_and(|phase| phase != "running");
        moved.then(|| log.contains(&taken_back))
    });
    if is_stuck {
        agent.ask_to_end();
        assert!(agent.wait_for_end().success(), "{}", agent.log());
        agent = walk.go_on();
    }
    walk.wait_until_done(&agent, id);
}

#[tokio::test]
async fn a_node_that_dies_while_it_gives_a_job_back_runs_it_once_more() {
    let mut walk = Walk::start(&[("SHUTDOWN_GRACE_S", "0"), ("JOB_STOP_GRACE_S", "1")]).await;
    for place in sides(&GIVEN_BACK) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 2);
        let agent = walk.arm(&place);
        walk.publish(&id, &once_more());
        ask_to_end(&agent, &id);
        walk.wait_for_death(agent, &place, &id);
        see_to_its_end(&mut walk, &id);
    }
    for place in sides(&RESUMED) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 2);
        let mut agent = walk.go_on();
        walk.publish(&id, &once_let_go());
        ask_to_end(&agent, &id);
        assert!(agent.wait_for_end().success(), "{}", agent.log());
        // The job goes on from the journal as soon as the node starts, so its delivery finds it in hand.
        let agent = walk.arm(&place);
        walk.wait_for_death(agent, &place, &id);
        let agent = walk.go_on();
        let_go(&walk, &id);
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

#[tokio::test]
async fn a_node_that_dies_while_it_gives_a_pools_job_back_runs_it_once_more() {
    let settings = [IN_POOL, ("SHUTDOWN_GRACE_S", "0"), ("JOB_STOP_GRACE_S", "1")];
    let mut walk = Walk::start(&settings).await;
    walk.send("patience", "pool-cpu", "15");
    for place in sides(&GIVEN_BACK_TO_POOL) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 2);
        let agent = walk.arm(&place);
        walk.publish(&id, &once_more());
        ask_to_end(&agent, &id);
        walk.wait_for_death(agent, &place, &id);
        see_to_its_end(&mut walk, &id);
    }
    walk.check().await;
}

/// Has another agent take the job, with a later delivery, once it runs here.
fn outbid(walk: &mut Walk, agent: &Agent, id: &str) {
    agent.wait_for(&format!("job {id}: running"));
    let other = json!({"agent": format!("0x{}", "11".repeat(20)), "delivered": 7});
    walk.send("claim", &format!("cpu.{id}"), &other.to_string());
}

/// The other agent ended the job long ago, and its message is delivered here again.
fn end_elsewhere(walk: &mut Walk, id: &str) {
    eventually(&format!("job {id} waits"), PATIENCE, || {
        (walk.phase(id)? == "waiting").then_some(())
    });
    let done = json!({"state": "done", "at": "2026-01-01T00:00:00.000Z"});
    walk.send("claim", &format!("cpu.{id}"), &done.to_string());
    let reply = "SELECT delivery ->> '$.reply' FROM jobs WHERE job_id = ?1";
    let reply = walk.journal::<String>(reply, id).expect("a delivery");
    walk.send("tell", &reply, "-NAK");
}

#[tokio::test]
async fn a_node_that_dies_while_it_leaves_a_job_to_another_agent_says_no_end_of_it() {
    let mut walk = Walk::start(&[IN_POOL]).await;
    walk.send("patience", "pool-cpu", "5");
    let ended = sides(&ENDED_ELSEWHERE);
    for place in sides(&OUTBID).iter().chain(&ended) {
        let id = job_of(place);
        walk.expect(&id, "processing", 1);
        let agent = walk.arm(place);
        walk.publish(&id, &format!("sleep 1; {WORK}"));
        outbid(&mut walk, &agent, &id);
        if ended.contains(place) {
            end_elsewhere(&mut walk, &id);
        }
        walk.wait_for_death(agent, place, &id);
        let agent = walk.go_on();
        if !ended.contains(place) {
            end_elsewhere(&mut walk, &id);
        }
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

#[tokio::test]
async fn a_node_that_dies_while_it_returns_what_it_could_not_fetch_loses_no_job_of_its_pool() {
    let mut walk = Walk::start(&[IN_POOL, ("FETCH_GIVE_UP_S", "1")]).await;
    walk.send("patience", "pool-cpu", "15");
    let proxy = StoreProxy::start(&walk.world.store());
    proxy.set_fetches(Weather::Status(503, None));
    for place in sides(&RETURNED) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 1);
        let agent = walk.arm_with(&place, &[("IPFS_GATEWAYS", &proxy.url())]);
        walk.publish(&id, WORK);
        walk.wait_for_death(agent, &place, &id);
        // Whether the refusal was counted or not, the job is delivered again and begun.
        let agent = walk.go_on();
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

#[tokio::test]
async fn a_node_that_dies_while_its_card_fails_leaves_nothing_and_loses_no_job_of_its_pool() {
    let driver = FakeNvml::build(&format!(
        "driver 550.54.15\ncuda 12040\ngpu {} 8589934592 0 NVIDIA T4\n",
        GPUS[0]
    ));
    let library = &*driver.library().display().to_string().leak();
    let cards = [IN_POOL, ("GPU_MODE", "auto"), ("NVML_LIB", library)];
    let mut walk = Walk::start(&cards).await;
    walk.send("patience", "pool-cpu", "15");
    for place in sides(&UNABLE) {
        let id = format!("card-{}", job_of(&place));
        walk.expect(&id, "completed", 1);
        let agent = walk.arm(&place);
        // The check at the start passes; the card fails only later.
        agent.wait_for("waiting for jobs on jobs.pool");
        walk.world.engine.break_gpus("fail");
        walk.publish(&id, WORK);
        walk.wait_for_death(agent, &place, &id);
        walk.world.engine.mend_gpus();
        let agent = walk.go_on();
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

/// Removes the containers of these attempts, each while it runs.
async fn take_away(walk: &Walk, agent: &Agent, id: &str, attempts: u32) {
    for attempt in 1..=attempts {
        let running = format!("job {id}: running");
        eventually(&running, PATIENCE, || {
            (agent.log().matches(&running).count() == attempt as usize).then_some(())
        });
        let names = walk.world.containers().await;
        let ours = |name: &&String| name.ends_with(&format!("-{id}-{attempt}"));
        let name = names.iter().find(ours).expect("it runs").trim_start_matches('/');
        let options = bollard::query_parameters::RemoveContainerOptionsBuilder::default();
        let removed = walk.world.engine.client();
        removed.remove_container(name, Some(options.force(true).build())).await.expect("removed");
    }
}

#[tokio::test]
async fn a_node_that_dies_while_it_puts_a_job_aside_puts_it_aside_once() {
    let mut walk = Walk::start(&[]).await;
    for place in sides(&BURIED) {
        let id = job_of(&place);
        walk.expect(&id, "failed", 3);
        let agent = walk.arm(&place);
        walk.publish(&id, "sleep 1000");
        take_away(&walk, &agent, &id, 3).await;
        walk.wait_for_death(agent, &place, &id);
        let agent = walk.go_on();
        walk.wait_until_done(&agent, &id);
    }
    assert_eq!(walk.request("count", "DEAD", ""), "4", "one letter per job");
    for place in sides(&["accepted"]) {
        let id = format!("lost-{}", job_of(&place));
        walk.expect(&id, "completed", 2);
        let agent = walk.arm(&place);
        walk.publish(&id, &once_more());
        take_away(&walk, &agent, &id, 1).await;
        walk.wait_for_death(agent, &place, &id);
        let agent = walk.go_on();
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}
