//! Bad messages and bad jobs: each ends with one terminal status and a reason, and the node goes on.

use serde_json::{Value, json};

use crate::support::world::{World, last, shell, shell_with};

/// Jobs that can't complete: the id, the changes to a good job, and the end.
fn bad_jobs() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let nowhere = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    vec![
        ("no-image", json!({"image_name": ""}), "rejected", "image_missing"),
        ("strange-image", json!({"image_name": "a b"}), "rejected", "image_invalid"),
        (
            "unknown-image",
            json!({"image_name": "docker.io/lamda-node/none:1"}),
            "failed",
            "image_pull_failed",
        ),
        ("no-reference", json!({"image_name": "Not/An/Image"}), "rejected", "image_invalid"),
        ("router", json!({"image_name": "169.254.169.254/x"}), "rejected", "image_not_allowed"),
        ("a-port", json!({"image_name": "127.0.0.1:22/x:1"}), "rejected", "image_not_allowed"),
        ("wrong-cid", json!({"input_file_cid": "nope"}), "rejected", "input_cid_invalid"),
        ("absent-cid", json!({"input_file_cid": nowhere}), "failed", "input_unavailable"),
        ("exit-3", shell("exit 3"), "failed", "nonzero_exit"),
        ("no-command", json!({"command": ["/no/such"]}), "failed", "nonzero_exit"),
        ("for-ever", shell_with("sleep 1000", &json!({"timeout_s": 1})), "timed_out", "timeout"),
        ("too-late", json!({"deadline": "2020-01-01T00:00:00Z"}), "rejected", "deadline_passed"),
        ("no-output", shell("true"), "failed", "output_missing"),
        ("a-link", shell("ln -s /etc/shadow /output/output"), "failed", "output_unsupported"),
        (
            "a-link-on-the-way",
            shell_with("ln -s / /output/x", &json!({"output_path": "/output/x/etc/shadow"})),
            "failed",
            "output_unsupported",
        ),
        ("a-pipe", shell("mkfifo /output/p"), "failed", "output_unsupported"),
        (
            "too-large",
            shell_with("dd if=/dev/zero of=/output/output bs=1M count=3", &json!({"disk_mib": 2})),
            "failed",
            "output_too_large",
        ),
        (
            "large-elsewhere",
            shell_with(
                "dd if=/dev/zero of=/big bs=1M count=3",
                &json!({"output_path": "/big", "disk_mib": 2}),
            ),
            "failed",
            "output_too_large",
        ),
        (
            "hungry",
            shell_with("tail /dev/zero", &json!({"memory_mib": 16})),
            "failed",
            "out_of_memory",
        ),
        ("wants-gpu", json!({"gpus": 1}), "rejected", "no_gpu"),
        ("wants-much", json!({"memory_mib": 60_000_000}), "rejected", "no_node_fits"),
        ("wants-net", json!({"network": "bridge"}), "rejected", "network_not_allowed"),
        ("wrong-type", json!({"gpus": "many"}), "rejected", "malformed"),
    ]
}

#[tokio::test]
async fn every_bad_job_ends_in_one_terminal_status_with_a_reason() {
    let world = World::start().await;
    let _agent = world.agent(&[("JOB_SLOTS", "4")]);
    let cases = bad_jobs();
    for (id, job, _, _) in &cases {
        world.publish(id, job);
    }
    for (id, _, status, reason) in &cases {
        let statuses = world.outcome(id);
        let end = last(&statuses);
        assert_eq!(
            (&end["status"], &end["reason_code"]),
            (&json!(status), &json!(reason)),
            "{end}"
        );
        let error = end["error"].as_str().expect("a sentence");
        assert!(error.len() > 10, "{id}: {error}");
        // An image that the job itself names with an address is told as it was named.
        let is_private = error.contains("://127.0.0.1");
        assert!(!is_private, "{id}: strangers are told where the gateway is: {error}");
    }
    world.publish("still-alive", &shell("echo yes > /output/output"));
    assert_eq!(last(&world.outcome("still-alive"))["status"], "completed");
    world.wait_until_clean().await;
}

#[tokio::test]
async fn messages_that_are_no_jobs_are_answered_under_ids_of_their_own() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let long = format!(r#"{{"job_id":"{}","image_name":"x"}}"#, "x".repeat(900_000));
    let bodies = [
        ("not json", "malformed"),
        ("{}", "malformed"),
        (r#"{"job_id":"../../x","image_name":"x"}"#, "malformed"),
        (r#"{"job_id":"a\u0000b","image_name":"x"}"#, "malformed"),
        (r#"{"job_id":"a\nb","image_name":"x"}"#, "malformed"),
        (r#"{"job_id":"a.b","image_name":"x"}"#, "malformed"),
        (r#"{"job_id":"a","job_id":"b","image_name":"x"}"#, "malformed"),
        (r#"{"job_id":"a","image_name":"x","n":9007199254740993}"#, "malformed"),
        (&long, "message_too_large"),
    ];
    for (body, reason) in bodies {
        let id = lamda_node::ids::JobId::of_invalid(body.as_bytes());
        world.publish_raw(body);
        let statuses = world.outcome(id.as_str());
        assert_eq!(last(&statuses)["status"], "rejected");
        assert_eq!(last(&statuses)["reason_code"], reason, "{body:.60}");
    }
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_flood_of_log_is_kept_in_part_and_harms_nothing() {
    let world = World::start().await;
    let agent = world.agent(&[]);
    let script = "echo first; yes \"$(printf %2000s)\" | head -c 40000000; echo; \
        echo last; echo x > /output/output";
    world.publish("flood", &shell(script));
    let end = last(&world.outcome("flood")).clone();
    assert_eq!(end["status"], "completed", "{end}");
    let log = world.content(end["log_cid"].as_str().expect("a log")).await;
    let text = String::from_utf8_lossy(&log);
    assert!(log.len() < 2 << 20, "{} bytes", log.len());
    assert!(text.starts_with("first\n") && text.trim_end().ends_with("last"));
    assert!(text.contains("bytes left out"));
    assert!(agent.log().len() < 1 << 20, "the node's own log grew");
}

#[tokio::test]
async fn a_jobs_disk_is_of_all_its_inputs_together() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    let inputs = [("/input/a", "a"), ("/input/b", "b")];
    let mut named = Vec::new();
    for (path, byte) in inputs {
        named.push(json!({"cid": world.pin(byte.repeat(6 << 20).as_bytes()).await, "path": path}));
    }
    let script = "cat /input/a /input/b | wc -c > /output/output";
    for (id, disk_mib, reason) in
        [("ten", 10, json!("input_too_large")), ("twelve", 12, Value::Null)]
    {
        world.publish(id, &shell_with(script, &json!({"inputs": named, "disk_mib": disk_mib})));
        let statuses = world.outcome(id);
        let end = last(&statuses);
        assert_eq!(end["reason_code"], reason, "{end}");
        let said = "disk_mib, 10 MiB: no room for /input/b";
        assert!(
            disk_mib == 12 || end["error"].as_str().is_some_and(|text| text.ends_with(said)),
            "{end}"
        );
    }
}
