//! A node on a disk that its own jobs have nearly filled.

use serde_json::json;

use super::end;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell_with};

#[tokio::test]
async fn a_restart_while_jobs_fill_the_disk_costs_no_job_that_waits_and_none_that_comes() {
    let world = World::start_on_small_disk(120).await;
    let disk = world.disk.as_ref().expect("a small disk");
    let settings = [("DISK_FREE_MIN_MIB", "20"), ("JOB_SLOTS", "1")];
    let mut agent = world.agent(&settings);
    let script = "dd if=/dev/zero of=/output/rest bs=1M count=55; touch /output/output; \
        while [ ! -e /output/go ]; do sleep 1; done; rm /output/rest";
    world.publish("large", &shell_with(script, &json!({"disk_mib": 60})));
    agent.wait_for("job large: running");
    eventually("it has written", PATIENCE, || (disk.free_kib() < 66 << 10).then_some(()));
    let short = shell_with("echo x > /output/output", &json!({"disk_mib": 60}));
    world.publish("waits", &short);
    agent.wait_for("job waits: ready");
    agent.kill();
    let agent = world.agent(&settings);
    agent.wait_for("going on with job waits");
    world.publish("comes", &short);
    std::fs::write(world.output_folder("large").join("go"), "").expect("a mark");
    for id in ["large", "waits", "comes"] {
        assert_eq!(end(&world.outcome(id))[0], "completed", "{id}: {}", agent.log());
    }
    world.wait_until_clean().await;
}
