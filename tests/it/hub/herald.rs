//! A real node that tells a real hub of itself, and says when that is silent.

use std::time::Duration;

use serde_json::Value;

use super::process::Hub;
use super::signed::{Speaker, bind};
use crate::support::prometheus::Page;
use crate::support::tools::{eventually, free_port};
use crate::support::world::{PATIENCE, World, shell};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_its_hub_what_it_does_and_takes_a_restart_of_the_hub_for_no_silence() {
    let world = World::start().await;
    // It hears no NATS: what it knows of the node it knows by its beats.
    let mut hub = Hub::start(&[]);
    bind(&hub, &Speaker::new(1, "-"), "rack-1");
    let (url, metrics) = (format!("http://{}", hub.at), format!("127.0.0.1:{}", free_port()));
    let agent = world.agent(&[("HUB_URL", &url), ("METRICS_LISTEN", &metrics)]);
    agent.wait_for("takes this node's beats");
    let node = hub.nodes().remove(0);
    assert_eq!((&node["node_id"], &node["computed"]), (&"rack-1".into(), &"UP".into()), "{node}");
    let meta = node["meta"].as_str().expect("a text");
    assert!(meta.starts_with("gpu=none,jobs=0/2,version="), "{meta}");
    world.publish("long", &shell("sleep 60"));
    eventually("the job is in a beat", PATIENCE, || {
        hub.nodes()[0]["meta"].as_str()?.contains("jobs=1/2").then_some(())
    });
    let silent = || Page::at(&metrics)?.value("lamda_node_hub_silent");
    assert_eq!(silent(), Some(0.0));
    assert!(Page::at(&metrics).unwrap().value("lamda_node_hub_last_answer_time_seconds").is_some());
    hub.kill();
    agent.wait_for("takes no beat");
    assert_eq!(silent(), Some(0.0), "a restart of the hub is no silence");
    hub.begin();
    agent.wait_for("takes this node's beats again");
    assert_eq!(silent(), Some(0.0));
    let beats = agent.log().matches("takes no beat:").count();
    assert_eq!(beats, 1, "{}", agent.log());
}

/// Waits as long as a hub must be silent: run by `scripts/test --long`.
mod long {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_says_when_its_hub_is_silent_and_when_it_is_back() {
        let world = World::start().await;
        let mut hub = Hub::start(&[]);
        bind(&hub, &Speaker::new(1, "-"), "rack-1");
        let (url, metrics) = (format!("http://{}", hub.at), format!("127.0.0.1:{}", free_port()));
        let agent = world.agent(&[("HUB_URL", &url), ("METRICS_LISTEN", &metrics)]);
        agent.wait_for("takes this node's beats");
        let silent = || Page::at(&metrics)?.value("lamda_node_hub_silent");
        hub.kill();
        agent.wait_for("takes no beat");
        assert_eq!(silent(), Some(0.0), "a restart of the hub is no silence");
        let three_minutes = Duration::from_secs(230) + PATIENCE;
        eventually("the node says so", three_minutes, || (silent() == Some(1.0)).then_some(()));
        assert!(agent.log().contains("has taken no beat for 3 min"), "{}", agent.log());
        let events = |what: &str| {
            let script = "
sub = await js.subscribe('events.*.hub.' + args[0], stream='EVENTS', ordered_consumer=True)
info = await sub.consumer_info()
for _ in range(info.num_pending + info.delivered.consumer_seq):
    print((await sub.next_msg(timeout=10)).data.decode())";
            let lines = world.nats.python(script, &[what]);
            lines
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect::<Vec<Value>>()
        };
        let told = eventually("it is an event", PATIENCE, || events("silent").pop());
        assert_eq!((&told["level"], &told["node"]), (&"warning".into(), &agent_name()), "{told}");
        hub.begin();
        agent.wait_for("takes this node's beats again");
        assert_eq!(silent(), Some(0.0));
        eventually("that is an event too", PATIENCE, || events("back").pop());
        assert_eq!(events("silent").len(), 1, "it is told once");
        let beats = agent.log().matches("takes no beat:").count();
        assert_eq!(beats, 1, "{}", agent.log());
    }
}

fn agent_name() -> Value {
    World::agent_address().to_string().into()
}
