//! What an owner is told of a program that somebody else wrote.

use serde_json::{Value, json};

use super::process::{PATIENCE, Sidecar};
use crate::support::receiver::{CHAT, Receiver, TOKEN};
use crate::support::tools::{Running, eventually};

fn answers(one: &Value) -> [Value; 2] {
    [one["alive"].clone(), one["training"].clone()]
}

#[test]
fn a_node_that_runs_out_of_memory_is_told_with_the_remedy_and_well_again_when_it_trains() {
    let telegram = Receiver::telegram([]);
    let settings = [
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_CHAT_ID", CHAT),
        ("TELEGRAM_API_URL", &telegram.url()),
    ];
    let sidecar = Sidecar::swarm(&settings);
    sidecar.says("INFO", "Starting round: 15579/1000000.");
    sidecar.says("INFO", "🐝 Joining round: 15579");
    sidecar.says("INFO", "Using Model: Gensyn/Qwen2.5-0.5B-Instruct");
    let one = sidecar.until("it trains", |it| answers(it) == [json!("yes"), json!("yes")]);
    assert_eq!(one["round"], 15_579);
    assert_eq!(one["troubles"], json!([]));

    sidecar.says("ERROR", "Exception occurred during game run.");
    sidecar.append(
        "logs/swarm_launcher.log",
        "Traceback (most recent call last):\n  File \"/home/alice/rl-swarm/x.py\", line 1, in run\n\
         torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n",
    );
    let texts = || -> Vec<String> {
        let sent =
            telegram.taken().into_iter().filter_map(|it| it["text"].as_str().map(Into::into));
        sent.collect()
    };
    let told = eventually("the owner is told", PATIENCE, || {
        texts().into_iter().find(|text| text.contains("one") && text.contains("memory"))
    });
    assert!(told.contains("not at work"), "{told}");
    assert!(!told.contains("alice") && !sidecar.log().contains("alice"), "{told}");
    let one = sidecar.one();
    assert_eq!(one["troubles"], json!(["stuck"]), "{one:#}");
    assert_ne!(one["verdict"]["training"]["remedy"], Value::Null, "{one:#}");

    sidecar.says("INFO", "🐝 Joining round: 15580");
    eventually("the owner is told that it is over", PATIENCE, || {
        texts().into_iter().find(|text| text.contains("well again"))
    });
    // One more trouble and its end: nothing else was told in between.
    sidecar.says("ERROR", "torch.OutOfMemoryError: CUDA out of memory");
    sidecar.until("it failed again", |it| it["troubles"][0] == "stuck");
    sidecar.says("INFO", "🐝 Joining round: 15581");
    let all = eventually("both ends are told", PATIENCE * 3, || {
        Some(texts())
            .filter(|all| all.iter().filter(|text| text.contains("well again")).count() == 2)
    });
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        !all.iter().any(|text| text.contains("(failed)") || text.contains("out-of-memory)")),
        "{all:?}"
    );
}

#[test]
fn any_program_is_watched_by_its_port() {
    use std::net::TcpListener;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let config =
        format!("[[watch]]\nname = \"one\"\nprofile = \"generic\"\nset = {{ port = {port} }}\n");
    let mut sidecar = Sidecar::with(&config, &[]);
    sidecar.begin();
    sidecar.until("its port answers", |it| it["alive"] == "yes");
    drop(listener);
    sidecar.until("its port is closed", |it| {
        it["sources"][format!("port {}", "main")]["open"] == false
            || it["sources"].to_string().contains("\"open\":false")
    });
    eventually("it is down", PATIENCE * 3, || {
        Some(sidecar.one()).filter(|it| it["alive"] == "no" && it["troubles"] == json!(["down"]))
    });
    let health = sidecar.ask("/health");
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(health.json()["programs"][0]["name"], "one");
    let metrics = sidecar.ask("/metrics").body;
    assert!(
        metrics.contains(r#"lamda_sidecar_trouble{program="one",trouble="down"} 1"#),
        "{metrics}"
    );
}

#[test]
fn any_program_is_watched_by_its_process() {
    let sleeper = |config: &str| {
        let mut command = std::process::Command::new("sleep");
        command.arg(config);
        Running::start(&mut command)
    };
    // A number that no other test sleeps for.
    let config =
        "[[watch]]\nname = \"one\"\nprofile = \"generic\"\nset = { command = '^sleep 86399$' }\n";
    let mut sidecar = Sidecar::with(config, &[]);
    let running = sleeper("86399");
    sidecar.begin();
    sidecar.until("it runs", |it| it["alive"] == "yes");
    drop(running);
    sidecar.until("it is gone", |it| it["alive"] == "waiting");
    let _again = sleeper("86399");
    sidecar.until("it runs again", |it| it["alive"] == "yes");
}
