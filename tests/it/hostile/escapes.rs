//! Jobs that look for a way out of their container.

use serde_json::json;

use super::Siege;
use crate::support::crafted::{Crafted, attacks};
use crate::support::world::{World, shell_with};

/// Looks for the engine's sockets wherever they may lie, and for folders of the host.
const SEARCH: &str = "find / -xdev -type s 2>/dev/null | sed 's/^/open: socket /'; \
    for it in /var/run/docker.sock /run/docker.sock /run/containerd /var/lib/docker /host /proc/1/root/host; do \
    [ -e $it ] && echo open: $it; done";

#[tokio::test]
async fn no_job_finds_a_way_out_of_its_container() {
    let world = World::start().await;
    let program = attacks();
    let files: [(&str, u32, &[u8]); 2] =
        [("attacks", 0o755, &program), ("suid-attacks", 0o4755, &program)];
    Crafted::new(json!({})).with(&files).load(&world.engine, "busybox:root").await;
    let of_user = Crafted::new(json!({"User": "1000:1000"})).with(&files);
    of_user.load(&world.engine, "busybox:user").await;
    let siege = Siege::begin(world, &[]);
    let script = format!("/suid-attacks euid; id -u; /attacks; {SEARCH}; echo x > /output/output");
    let cases = [
        ("as-root", "busybox:root", "standard", "0"),
        ("as-user", "busybox:user", "standard", "1000"),
        ("strict", "busybox:root", "strict", "65534"),
    ];
    for (id, image, sandbox, _) in cases {
        let more = json!({"image_name": image, "sandbox": sandbox});
        siege.world.publish(id, &shell_with(&script, &more));
    }
    for (id, _, _, uid) in cases {
        let log = siege.log(&siege.ends(id, "completed", json!(null))).await;
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines, [&format!("euid {uid}"), uid, "tried"], "{id}");
    }
    siege.end().await;
}
