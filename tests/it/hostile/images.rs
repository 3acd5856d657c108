//! Images whose author means harm: what they bring has no effect beyond their container.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Siege;
use crate::support::crafted::Crafted;
use crate::support::registry::{ADDRESS, Registry};
use crate::support::world::{World, shell_with};

/// An entrypoint that will not go, and shows what it was given.
const ENTRYPOINT: &str = "#!/bin/sh\ntrap '' TERM INT HUP\nexport PATH=/bin\nenv | sort\n\
    echo x > /data/left; echo x > /output/output\n";

/// The settings of such an image.
fn hostile() -> Value {
    json!({
        "Entrypoint": ["/entry"], "Cmd": ["arg"], "StopSignal": "SIGUSR1", "WorkingDir": "/data",
        "Env": [
            "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all", "PATH=/nowhere", "LD_PRELOAD=/evil.so",
            "JOB_ID=forged", "OUTPUT_PATH=/etc/passwd", "DOCKER_HOST=tcp://172.17.0.1:2375", "MINE=1",
        ],
        "Volumes": {"/data": {}, "/output": {}, "/input": {}, "/deep/er": {}},
        "Labels": {"com.docker.compose.project": "owners", "traefik.enable": "true", "lamda.job_id": "other"},
        "Healthcheck": {"Test": ["CMD-SHELL", "echo healthy >> /output/health"], "Interval": 1_000_000_000},
    })
}

#[tokio::test]
async fn what_an_image_brings_along_has_no_effect_on_its_host() {
    let world = World::start().await;
    Crafted::new(hostile())
        .with(&[("entry", 0o755, ENTRYPOINT.as_bytes())])
        .load(&world.engine, "busybox:evil")
        .await;
    let many: Vec<String> = (0..10_000).map(|n| format!("VARIABLE_{n}=x")).collect();
    Crafted::new(json!({"Env": many})).load(&world.engine, "busybox:many").await;
    let registry = Registry::start(&world.engine);
    registry.put(Crafted::new(json!({})).of_layers(127), "too-deep", "1");
    let siege = Siege::begin(world, &[]);
    let world = &siege.world;
    world.publish("evil", &json!({"image_name": "busybox:evil"}));
    let variables: HashMap<String, &str> = (0..10_000).map(|n| (format!("V{n}"), "x")).collect();
    world.publish("variables", &json!({"env": variables}));
    world.publish("many", &shell_with("true", &json!({"image_name": "busybox:many"})));
    world.publish(
        "too-deep",
        &shell_with("true", &json!({"image_name": format!("{ADDRESS}/too-deep:1")})),
    );
    let own = json!({"env": {"PATH": "/nowhere", "LD_PRELOAD": "/evil.so", "HOME": "/proc"}});
    world.publish("own", &shell_with("/bin/env > /output/output", &own));

    siege.ends("variables", "rejected", json!("malformed"));
    siege.ends("many", "failed", json!("start_failed"));
    siege.ends("too-deep", "failed", json!("image_unavailable"));
    siege.ends("own", "completed", Value::Null);
    let log = siege.log(&siege.ends("evil", "completed", Value::Null)).await;
    for line in
        ["JOB_ID=evil", "OUTPUT_PATH=/output/output", "NVIDIA_VISIBLE_DEVICES=void", "MINE=1"]
    {
        assert!(log.lines().any(|said| said == line), "{line} is not in\n{log}");
    }
    siege.end().await;
}
