//! Jobs that attack their node, through the real agent on the real engine. Each ends in its right status in time,
//! a job beside them completes in its first attempt, and nothing of them is left.
//!
//! What other folders try: a full disk and its inodes (`weather::disk`), a flood of log (`jobs::bad_input`), links,
//! pipes and names in an output (`odd::pinning`, `jobs::bad_input`), the toolkit's variables and labels
//! (`container::image`), lying gateways (`artifact::hostile`).

mod escapes;
mod floods;
mod images;
mod remains;
mod terminal;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::world::{Agent, PATIENCE, World, last, shell};

/// What a quiet machine takes at most from a job's publication to its end, beyond the time that the job is given. A
/// busy one gets [`PATIENCE`].
const GRACE: &str = "1";

/// A world with a node, and a job that must not notice what goes on beside it.
struct Siege {
    world: World,
    agent: Agent,
    begun: Instant,
}

impl Siege {
    /// Starts the node with these further settings, and the neighbour.
    fn begin(world: World, settings: &[(&str, &str)]) -> Self {
        let own = [
            ("JOB_SLOTS", "6"),
            ("JOB_STOP_GRACE_S", GRACE),
            ("JOB_LOCAL_IMAGES", "busybox:*"),
            ("JOB_REGISTRIES", "127.0.0.1:5000"),
            // What is left is counted in the end, and networks that are ready would be.
            ("JOB_WARM_NETWORKS", "0"),
        ];
        let agent = world.agent(&[&own[..], settings].concat());
        let script =
            "while [ ! -e /output/go ]; do sleep 0.1; done; rm /output/go; echo x > /output/output";
        world.publish("neighbour", &shell(script));
        agent.wait_for("job neighbour: running");
        Self { world, agent, begun: Instant::now() }
    }

    /// Waits for a job's end, and compares its status and reason.
    fn ends(&self, id: &str, status: &str, reason: impl Into<Value>) -> Vec<Value> {
        let statuses = self.world.outcome(id);
        let end = last(&statuses);
        let mut told = end["reason_code"].clone();
        // The kernel does not always say that it killed for want of memory: the error names that then.
        if end["error"].as_str().is_some_and(|error| error.contains("perhaps for want of memory")) {
            told = json!("out_of_memory");
        }
        assert_eq!((&end["status"], &told), (&json!(status), &reason.into()), "{end}");
        statuses
    }

    /// The log that a job's end names.
    async fn log(&self, statuses: &[Value]) -> String {
        let cid = last(statuses)["log_cid"].as_str().expect("a log").to_owned();
        String::from_utf8_lossy(&self.world.content(&cid).await).into_owned()
    }

    /// Lets the neighbour complete, and looks for what is left of anybody.
    async fn end(self) {
        let Self { world, agent, begun } = self;
        assert!(begun.elapsed() < 2 * PATIENCE, "the attacks took {:?}", begun.elapsed());
        let neighbour = world.dir.path().join("data/jobs/neighbour/1/output/go");
        std::fs::write(neighbour, "").expect("a mark in the neighbour's output");
        let statuses = world.outcome("neighbour");
        let end = last(&statuses);
        assert_eq!((&end["status"], &end["attempt"]), (&json!("completed"), &json!(1)), "{end}");
        world.wait_until_clean().await;
        let none = None::<bollard::query_parameters::ListVolumesOptions>;
        let volumes = world.engine.client().list_volumes(none).await.expect("the volumes");
        assert_eq!(volumes.volumes.map_or(0, |volumes| volumes.len()), 0, "volumes are left");
        crate::support::tools::eventually("no control group is left", PATIENCE, || {
            (world.engine.groups() == 0).then_some(())
        });
        assert_eq!(world.engine.living(), 0, "a process is left");
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
    }
}

/// The time between two moments of a job's life, by its statuses.
fn between(statuses: &[Value], from: &str, to: &str) -> Duration {
    let at = |stage: &str| {
        let status = statuses.iter().find(|status| status["stage"] == stage).expect("the stage");
        let text = status["timestamp"].as_str().expect("a time");
        text.parse::<lamda_node::clock::Timestamp>().expect("a time")
    };
    at(to).since(at(from))
}
