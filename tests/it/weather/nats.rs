//! The NATS server is killed, comes back with what it stored or with nothing, or can't be reached.

use std::time::Duration;

use serde_json::json;

use super::end;
use crate::support::tcp_proxy::TcpProxy;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World, last, shell, stages};

/// The stages of an undisturbed dispatch job.
const UNDISTURBED: &str = "accepted pulling running uploading completed";

/// Runs until the test removes the file that holds it.
const HELD: &str = "echo started; while [ -e /output/held ]; do sleep 0.1; done; \
    rm -rf /output/*; echo x > /output/output";

/// A world with a job in it that runs until [`release`].
fn hold(world: &World, agent: &Agent, id: &str) {
    world.publish(id, &shell(&format!("touch /output/held; {HELD}")));
    agent.wait_for(&format!("job {id}: running"));
    let held = world.output_folder(id).join("held");
    eventually("the job holds itself", PATIENCE, || held.exists().then_some(()));
}

fn release(world: &World, id: &str) {
    std::fs::remove_file(world.output_folder(id).join("held")).expect("it is held");
}

#[tokio::test]
async fn a_server_that_comes_back_with_its_storage_finds_everything_in_order() {
    let mut world = World::start().await;
    let agent = world.agent(&[]);
    hold(&world, &agent, "through");
    world.publish("ends-meanwhile", &shell("sleep 1; echo x > /output/output"));
    agent.wait_for("job ends-meanwhile: running");
    world.nats.kill();
    agent.wait_for("job ends-meanwhile completed");
    world.nats.restart();
    assert_eq!(stages(&world.outcome("ends-meanwhile")), UNDISTURBED);
    release(&world, "through");
    assert_eq!(stages(&world.outcome("through")), UNDISTURBED);
    world.publish("after", &shell("echo x > /output/output"));
    assert_eq!(stages(&world.outcome("after")), UNDISTURBED);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_server_that_lost_its_storage_is_set_up_again_and_told_the_ends() {
    let mut world = World::start().await;
    let agent = world.agent(&[]);
    world.publish("before", &shell("echo x > /output/output"));
    assert_eq!(stages(&world.outcome("before")), UNDISTURBED);
    hold(&world, &agent, "through");
    world.nats.restart_empty();
    // All of them, also those without a message so far.
    for stream in ["JOBS", "STATUS", "DEAD"] {
        eventually("the streams are made again", PATIENCE, || {
            world.has_stream(stream).then_some(())
        });
    }
    release(&world, "through");
    // Earlier statuses went with the old storage; the end did not.
    let last = eventually("the end is in the new stream", PATIENCE, || {
        world.has_stream("STATUS").then_some(())?;
        world.statuses("through").pop().filter(|last| last["status"] != "processing")
    });
    assert_eq!(end(std::slice::from_ref(&last)), json!(["completed", null, 1, 0]));
    assert_eq!(last["seq"], 5, "numbered on");
    world.publish("after", &shell("echo x > /output/output"));
    assert_eq!(stages(&world.outcome("after")), UNDISTURBED);
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_node_that_starts_without_a_server_takes_its_job_back_first() {
    let mut world = World::start().await;
    let mut agent = world.agent(&[]);
    hold(&world, &agent, "kept");
    agent.kill();
    world.nats.kill();
    let agent = world.start_agent(&[]);
    agent.wait_for("took job kept back");
    release(&world, "kept");
    agent.wait_for("job kept completed");
    world.nats.restart();
    assert_eq!(stages(&world.outcome("kept")), UNDISTURBED);
    world.wait_until_clean().await;
}

/// Cuts the node off for this long while jobs run, once with closed connections and once with silence.
pub(crate) async fn cut_off_for(span: Duration) {
    let world = World::start().await;
    let proxy = TcpProxy::start(world.nats.port());
    let url = format!("nats://{}", proxy.address());
    let agent = world.agent(&[("NATS_URL", &url), ("JOB_SLOTS", "3")]);
    for (id, is_silent) in [("cut", false), ("silent", true)] {
        hold(&world, &agent, id);
        let ends = format!("{id}-ends");
        world.publish(&ends, &shell("sleep 1; echo x > /output/output"));
        agent.wait_for(&format!("job {ends}: running"));
        if is_silent {
            proxy.silence();
        } else {
            proxy.cut();
        }
        let away = std::time::Instant::now();
        let waiting = format!("{id}-waits");
        world.publish(&waiting, &shell("echo x > /output/output"));
        agent.wait_for(&format!("job {ends} completed"));
        eventually("the line is down for a while", PATIENCE + span, || {
            (away.elapsed() > span).then_some(())
        });
        assert!(world.engine.living() >= 1, "the running job was stopped");
        proxy.mend();
        release(&world, id);
        for id in [id, &ends, &waiting] {
            let statuses = world.outcome(id);
            assert_eq!(stages(&statuses), UNDISTURBED, "{id}");
            assert_eq!(last(&statuses)["attempt"], 1);
        }
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_goes_on_and_tells_it_later() {
    cut_off_for(Duration::from_secs(5)).await;
}
