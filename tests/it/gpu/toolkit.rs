//! The version of NVIDIA's container toolkit, by stand-ins for its programs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use lamda_node::gpu::toolkit::Toolkit;
use lamda_node::node::toolkit::{Verdict, Version};

/// Puts a program of this name into the folder.
pub(crate) fn install(folder: &Path, name: &str, script: &str) {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it runs");
}

#[tokio::test]
async fn the_oldest_part_of_the_toolkit_says_which_ways_out_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let asked = Toolkit::searched(&[dir.path().to_owned()]);
    let ctk =
        "[ \"$*\" = --version ] && echo 'NVIDIA Container Toolkit CLI version 1.17.8\ncommit: x'";
    install(dir.path(), "nvidia-ctk", ctk);
    assert_eq!(asked.look().await, Verdict::Safe(Version::new(1, 17, 8)));
    install(dir.path(), "nvidia-container-cli", "echo 'cli-version: 1.17.3\nlib-version: 1.17.3'");
    let Verdict::Unsafe(escapes) = asked.look().await else { panic!("1.17.3 is not safe") };
    assert_eq!(escapes.known, ["CVE-2025-23359", "CVE-2025-23266"]);
}

#[tokio::test]
async fn programs_that_hang_fail_talk_without_end_or_tell_rubbish_leave_the_version_unknown() {
    for (script, why) in [
        ("exec sleep 1000", "no answer in 0.3 s"),
        ("echo broken; exit 3", "exit status: 3: broken"),
        ("exec yes 1.17.8", "longer than 16384 bytes"),
        ("printf '\\377\\376'", "no text"),
        ("echo version 1.17", "it tells no version"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        install(dir.path(), "nvidia-ctk", script);
        let asked = Toolkit::searched(&[dir.path().to_owned()]);
        let told = asked.with_deadline(Duration::from_millis(300)).look().await;
        assert!(
            matches!(&told, Verdict::Unknown(told) if told.contains(why)),
            "{script}: {told:?}"
        );
    }
}
