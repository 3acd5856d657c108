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
        drop(agent);
    }
    world.wait_until_clean().await;
}
