//! Which sandbox a job gets: the stricter of what it asks for and what the owner sets.

use serde_json::json;

use crate::support::world::{World, last, shell_with};

#[tokio::test]
async fn a_job_is_closed_in_as_far_as_it_or_its_nodes_owner_wants() {
    let world = World::start().await;
    let who = |uid: &str| format!("[ $(id -u) = {uid} ] && cp /proc/self/status /output/output");
    let cases = [
        (&[][..], [("as-usual", json!({}), "0"), ("asks", json!({"sandbox": "strict"}), "65534")]),
        (
            &[("JOB_SANDBOX", "strict"), ("JOB_USER", "1234")][..],
            [("forced", json!({}), "1234"), ("insists", json!({"sandbox": "standard"}), "1234")],
        ),
    ];
    for (settings, jobs) in cases {
        let agent = world.agent(settings);
        for (id, more, uid) in &jobs {
            world.publish(id, &shell_with(&who(uid), more));
        }
        for (id, ..) in &jobs {
            let statuses = world.outcome(id);
            let end = last(&statuses);
            assert_eq!(end["status"], "completed", "{id}: {end}");
        }
        // Only a node that runs clears up after its jobs.
        world.wait_until_clean().await;
        drop(agent);
    }
}

#[tokio::test]
async fn a_job_that_its_sandbox_refused_something_is_told_what_it_may_do() {
    let world = World::start().await;
    let _agent = world.agent(&[("JOB_SLOTS", "4")]);
    let strict = json!({"sandbox": "strict"});
    for (id, script, more, hint) in [
        ("chown", "chown 1000 /output || exit 3", &strict, "another user than the image's"),
        ("write", "echo x > /etc/x || exit 3", &strict, "only /output, /tmp and /dev/shm"),
        ("mount", "mount -t tmpfs x /tmp || exit 3", &json!({}), "no other privilege"),
        ("input", "touch /input/x || exit 3", &json!({}), "/input, /proc/sys and /sys"),
        // The log's own words are nobody's hint.
        ("plain", "echo 'Operation permitted, honestly'; exit 3", &json!({}), "exit code 3"),
    ] {
        world.publish(id, &shell_with(script, more));
        let statuses = world.outcome(id);
        let end = last(&statuses);
        assert_eq!(end["reason_code"], "nonzero_exit", "{end}");
        let error = end["error"].as_str().expect("a sentence");
        assert!(error.contains(hint) && error.len() < 500, "{id}: {error}");
        assert_eq!(error.contains("; its log ends in"), id != "plain", "{id}: {error}");
    }
}
