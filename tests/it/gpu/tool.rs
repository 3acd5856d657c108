//! `nvidia-smi` in place of a library that can't be loaded, and the cards of other makers.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use lamda_node::gpu::host::Host;
use lamda_node::gpu::{Error, GpuProbe as _};
use lamda_node::node::GpuUuid;
use lamda_node::node::card::CardProcess;
use tempfile::TempDir;

use super::{DRIVER, H100, gpu};
use crate::support::nvml::FakeNvml;

/// What an H100's tool prints; the head of `-q` is a real one.
const GOOD: &str = r#"case "$1" in
--query-gpu=uuid,name,*) echo "GPU-a1, NVIDIA H100 80GB HBM3, 81559, 580.159.04, 00000000:00:06.0, 9.0, 700.00, Enabled, Disabled, Enabled" ;;
--query-gpu=uuid,util*) echo "GPU-a1, 97, 73931, 7148, 512.25, 1980, 2619, 61, 0" ;;
--query-compute-apps=*) echo "GPU-a1, 2914, 73922" ;;
-q) cat "$HEAD" ;;
*) exit 2 ;;
esac
"#;
const MIB: u64 = 1024 * 1024;

/// A host without the library, with a tool that does this, and with an empty bus.
fn host(script: &str) -> (TempDir, Host) {
    let dir = tempfile::tempdir().expect("a folder");
    let (tool, bus) = (dir.path().join("nvidia-smi"), dir.path().join("bus"));
    let head = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/h100/nvidia-smi-q.txt");
    std::fs::write(&tool, format!("#!/bin/sh\nHEAD={head}\n{script}")).expect("a tool");
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).expect("it runs");
    std::fs::create_dir(&bus).expect("a folder");
    let host = Host::new(Some("/nonexistent/libnvidia-ml.so.1".into()));
    (dir, host.with_tool(tool).with_devices(bus))
}

#[tokio::test]
async fn the_tool_tells_cards_and_samples_where_the_library_cant_be_loaded() {
    let (_dir, host) = host(GOOD);
    let told = host.inventory().await.unwrap();
    assert_eq!(told.gpus, [gpu("GPU-a1", "NVIDIA H100 80GB HBM3", 81_559)]);
    assert_eq!((told.driver.as_str(), told.cuda.as_str()), ("580.159.04", "13.0"));
    let why = told.stand_in.unwrap();
    assert!(why.contains("/nonexistent/") && why.contains("nvidia-smi tells the cards"), "{why}");
    let round = host.sample().await.unwrap();
    let sample = round[&GpuUuid::new("GPU-a1").unwrap()].clone().unwrap();
    assert_eq!(sample.processes, Ok(vec![CardProcess { pid: 2914, bytes: Ok(73_922 * MIB) }]));
    assert_eq!(sample.power_mw, Ok(512_250));
}

#[tokio::test]
async fn the_tool_is_not_asked_where_the_library_answers_or_fails_for_another_reason() {
    let library = FakeNvml::build(&format!("{DRIVER}{H100}"));
    let (dir, _) = host("touch \"$0\".asked; exit 1");
    let host = Host::new(Some(library.library())).with_tool(dir.path().join("nvidia-smi"));
    assert_eq!(host.inventory().await.unwrap().stand_in, None);
    library.tell("init 9\n");
    let host = Host::new(Some(library.library())).with_tool(dir.path().join("nvidia-smi"));
    assert!(matches!(host.inventory().await, Err(Error::Driver { .. })));
    assert!(matches!(host.sample().await, Err(Error::Driver { .. })));
    assert!(!dir.path().join("nvidia-smi.asked").exists());
}

#[tokio::test]
async fn a_hostile_or_failing_tool_is_refused_with_its_reason() {
    for (script, reason) in [
        (
            "echo NVIDIA-SMI has failed because it could not talk to the driver; exit 9",
            "exit status: 9",
        ),
        ("exec yes GPU-a1, x", "longer than"),
        ("echo No devices were found", "where 10 values were asked for"),
        (r"printf 'GPU-a1, \377, 1, 1, 1, 1, 1, 1, 1, 1\n'", "no text"),
        (r"printf 'GPU-a1, \033[2J, 1, 1, 1, 1, 1, 1, 1, 1\n'", "where 10 values"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let (_dir, host) = host(script);
        let told = host.inventory().await;
        let Err(Error::Tool { reason: told, library }) = told else { panic!("{script}: {told:?}") };
        assert!(told.contains(reason) && !told.contains('\u{1b}'), "{script}: {told}");
        assert!(matches!(*library, Error::NoLibrary { .. }));
        assert!(matches!(host.sample().await, Err(Error::Tool { .. })), "{script}");
    }
}

#[tokio::test]
async fn a_tool_that_hangs_is_given_up_at_its_deadline() {
    let (_dir, host) = host("exec sleep 600");
    let host = host.with_deadline(Duration::from_millis(200));
    let told = host.inventory().await;
    assert!(
        matches!(&told, Err(Error::Tool { reason, .. }) if reason.contains("no answer")),
        "{told:?}"
    );
}

#[tokio::test]
async fn the_tool_gets_nothing_of_the_nodes_environment() {
    let (dir, host) = host("env > \"$0\".env; exit 1");
    assert!(host.inventory().await.is_err());
    let env = std::fs::read_to_string(dir.path().join("nvidia-smi.env")).unwrap();
    let names = env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
    // A shell sets the last three itself.
    let names = names.filter(|name| !["PWD", "SHLVL", "_"].contains(name)).collect::<Vec<_>>();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH"]);
    assert!(
        env.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"),
        "{env}"
    );
}

#[tokio::test]
async fn cards_of_other_makers_are_told_beside_nvidias() {
    let (dir, host) = host(GOOD);
    let card = dir.path().join("bus/0000:03:00.0");
    std::fs::create_dir(&card).unwrap();
    for (file, text) in [("class", "0x030000"), ("vendor", "0x1002"), ("device", "0x744c")] {
        std::fs::write(card.join(file), text).unwrap();
    }
    let told = host.inventory().await.unwrap();
    assert_eq!(told.others, ["AMD GPU at 0000:03:00.0 (1002:744c): seen, not supported"]);
    assert_eq!(told.gpus.len(), 1);
}
