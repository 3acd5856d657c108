//! The sandbox as a job sees it from inside, and how jobs end.

use std::os::unix::fs::PermissionsExt as _;

use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{
    ContainerRuntime as _, ContainerSpec, Error, LogChunk, Network, Sandbox, User,
};
use tokio::sync::mpsc;

use super::{Bench, mounts, node, run, watch};

#[tokio::test]
async fn a_job_has_no_power_no_network_and_no_more_than_its_share() {
    let bench = Bench::start().await;
    let script = "grep -E '^(Cap(Eff|Prm|Bnd)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t' ' '
        echo links $(ls /sys/class/net)
        echo memory $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes)
        echo swap $(cat /sys/fs/cgroup/memory.swap.max /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes)
        echo pids $(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max)
        echo shm $(df -k /dev/shm | tail -n 1 | awk '{print $2}')
        echo core $(ulimit -c) oom $(cat /proc/self/oom_score_adj)
        echo first $(cat /proc/1/comm) cards $NVIDIA_VISIBLE_DEVICES";
    let (_, ending) = bench.finish(&bench.shell(script)).await;
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID
    let inside = "00000000000000fb";
    for line in [
        &format!("CapEff: {inside}"),
        &format!("CapPrm: {inside}"),
        &format!("CapBnd: {inside}"),
        "NoNewPrivs: 1",
        "Seccomp: 2",
        "links lo",
        "memory 67108864",
        "pids 32",
        "shm 1024",
        "core 0 oom 500",
        "first docker-init cards void",
    ] {
        assert!(ending.stdout.lines().any(|told| told == line), "{line}\n{}", ending.stdout);
    }
    // Cgroups v2 count swap alone, v1 counts memory and swap together.
    let swap = ending.stdout.lines().find(|line| line.starts_with("swap")).unwrap();
    assert!(["swap 0", "swap 67108864", "swap"].contains(&swap), "{swap}");
}

#[tokio::test]
async fn ordinary_images_do_inside_their_container_what_they_do_elsewhere() {
    let bench = Bench::start().await;
    let script = "set -e
        mkdir /d; echo x > /d/file; chown 1000:1000 /d/file; chmod 600 /d/file
        tar -cf /archive.tar -C /d file; rm /d/file; tar -xpf /archive.tar -C /d
        stat -c 'owner %u:%g' /d/file; cat /d/file
        cp -a /d/file /copy; stat -c 'copied %u' /copy
        echo 'user:x:1000:1000::/:/bin/sh' > /etc/passwd
        mkdir /data; chown 1000 /data; su user -c 'echo mine > /data/file; id -u'";
    let (_, ending) = bench.finish(&bench.shell(script)).await;
    assert_eq!(ending.exit.code, 0, "{ending:?}");
    for line in ["owner 1000:1000", "x", "copied 1000", "1000"] {
        assert!(ending.stdout.lines().any(|told| told == line), "{line}\n{}", ending.stdout);
    }
}

#[tokio::test]
async fn what_is_not_its_own_stays_closed_to_a_jobs_root() {
    let bench = Bench::start().await;
    let script = "for it in 'mknod /disk b 8 0' 'mount -t tmpfs x /mnt' 'hostname x' \
            'ip link set lo down' 'chroot / true' 'nice -n -5 true' \
            'sysctl -w kernel.hostname=x' 'dmesg'
        do $it >/dev/null 2>&1 && echo \"open: $it\"; done; true";
    let (_, ending) = bench.finish(&bench.shell(script)).await;
    assert_eq!((ending.exit.code, ending.stdout.as_str()), (0, ""), "{ending:?}");
}

#[tokio::test]
async fn a_strict_job_is_nobody_and_writes_to_its_output_and_to_tmp_alone() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mounts = mounts(&folder);
    std::fs::write(folder.path().join("in/input"), "question").unwrap();
    // As the node makes it.
    let everybodys = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path().join("out"), everybodys).unwrap();
    let script = "grep -E '^Cap(Eff|Prm|Bnd):' /proc/self/status | tr -s '\\t' ' '
        id -u; cp /input/input /output/output && echo written
        echo x > /etc/x || echo closed; printf '#!/bin/sh\necho tmp' > /tmp/x && chmod 755 /tmp/x && /tmp/x
        dd if=/dev/zero of=/tmp/large bs=1M count=40 2>/dev/null || echo sized";
    let sandbox = Sandbox::Strict(User::NOBODY);
    let spec = ContainerSpec { mounts, sandbox, ..bench.shell(script) };
    let (_, ending) = bench.finish(&spec).await;
    let none = "0000000000000000";
    let lines = ["Eff", "Prm", "Bnd"].map(|set| format!("Cap{set}: {none}"));
    for line in
        lines.iter().map(String::as_str).chain(["65534", "written", "closed", "tmp", "sized"])
    {
        assert!(ending.stdout.lines().any(|told| told == line), "{line}\n{ending:?}");
    }
    assert_eq!(std::fs::read(folder.path().join("out/output")).unwrap(), b"question");
}

#[tokio::test]
async fn a_job_reads_its_input_and_writes_its_output_and_nothing_the_other_way() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mounts = mounts(&folder);
    std::fs::write(folder.path().join("in/input"), "question").unwrap();
    let script = "cp /input/input /output/output; echo x > /input/new";
    let (_, ending) = bench.finish(&ContainerSpec { mounts, ..bench.shell(script) }).await;
    assert!(ending.stderr.contains("Read-only file system"), "{}", ending.stderr);
    assert_eq!(ending.exit.code, 1);
    assert_eq!(std::fs::read(folder.path().join("out/output")).unwrap(), b"question");
}

#[tokio::test]
async fn a_job_that_asks_for_the_network_gets_the_bridge() {
    let bench = Bench::start().await;
    let spec = ContainerSpec { network: Network::Bridge, ..bench.shell("ls /sys/class/net") };
    let (_, ending) = bench.finish(&spec).await;
    assert!(ending.stdout.lines().any(|link| link == "eth0"), "{}", ending.stdout);
}

#[tokio::test]
async fn a_job_that_takes_too_much_memory_is_said_to_have() {
    let bench = Bench::start().await;
    let (_, ending) = bench.finish(&bench.shell("tail /dev/zero")).await;
    assert!(ending.exit.oom, "{ending:?}");
    assert_eq!(ending.exit.code, 137);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_the_jobs_fault() {
    let bench = Bench::start().await;
    let command = Some(vec!["/no/such/command".to_owned()]);
    let spec = ContainerSpec { command, ..bench.shell("") };
    // The engine's init looks for the command after the container has started.
    let (_, ending) = bench.finish(&spec).await;
    assert_eq!(ending.exit.code, 127);
    assert!(ending.stderr.contains("/no/such/command"), "{}", ending.stderr);
    assert_eq!(bench.docker.list(node()).await.unwrap().len(), 1);

    let spec = ContainerSpec { command: None, ..bench.shell("") };
    let told = run(&bench.docker, &spec).await;
    assert!(matches!(told, Err(Error::Start { .. })), "{told:?}");
}

#[tokio::test]
async fn a_hundred_megabytes_of_output_pass_through_a_small_sink_without_growing_memory() {
    let bench = Bench::start().await;
    let script = "yes $(head -c 999 /dev/zero | tr '\\0' x) | head -c 100000000; echo the end >&2";
    let id = run(&bench.docker, &bench.shell(script)).await.unwrap().id;
    let (sink, mut chunks) = mpsc::channel::<LogChunk>(2);
    let count = async {
        let mut bytes = 0;
        while let Some(chunk) = chunks.recv().await {
            assert!(chunk.bytes.len() <= 64 * 1024);
            bytes += chunk.bytes.len();
        }
        bytes
    };
    let before = peak_memory_kib();
    let (exit, bytes) = tokio::join!(bench.docker.follow(&id, sink, &|| ()), count);
    assert_eq!(exit.unwrap().code, 0);
    assert_eq!(bytes, 100_000_000 + "the end\n".len());
    let grown = peak_memory_kib() - before;
    assert!(grown < 32 * 1024, "{grown} KiB");
}

/// The peak memory of this process so far.
fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn an_engine_that_goes_away_is_told_to_who_follows() {
    let mut bench = Bench::start().await;
    let id = run(&bench.docker, &bench.shell("echo up; sleep 1000")).await.unwrap().id;
    let (sink, mut chunks) = mpsc::channel(1);
    let followed = {
        let docker = bench.engine.docker();
        let follow = docker.follow(&id, sink, &|| ());
        let kill = async {
            chunks.recv().await.expect("the job is up");
            bench.engine.kill();
        };
        tokio::join!(follow, kill).0
    };
    assert!(matches!(followed, Err(Error::Unreachable { .. })), "{followed:?}");
    let listed = bench.docker.list(node()).await;
    assert!(listed.as_ref().is_err_and(Error::is_transient), "{listed:?}");
}

#[tokio::test]
async fn a_node_starts_before_its_engine() {
    let folder = tempfile::tempdir().unwrap();
    let absent = format!("unix://{}", folder.path().join("docker.sock").display());
    let docker = Docker::connect(&Config::new(&absent)).unwrap();
    let told = docker.list(node()).await;
    assert!(matches!(&told, Err(Error::Unreachable { host, .. }) if *host == absent), "{told:?}");
}

#[tokio::test]
async fn a_container_that_was_never_started_has_no_exit() {
    let bench = Bench::start().await;
    let body = bollard::models::ContainerCreateBody {
        image: Some(bench.image_id.clone()),
        cmd: Some(vec!["true".to_owned()]),
        ..Default::default()
    };
    let options = None::<bollard::query_parameters::CreateContainerOptions>;
    let created = bench.engine.client().create_container(options, body).await.unwrap();
    let told = watch(&bench.docker, &lamda_node::container::ContainerId(created.id)).await;
    assert!(
        matches!(&told, Err(Error::Engine { reason }) if reason.contains("never run")),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_engine_tells_of_itself() {
    let bench = Bench::start().await;
    let engine = bench.docker.engine().await.unwrap();
    assert!(!engine.version.is_empty() && engine.api.starts_with("1."), "{engine:?}");
    assert!(engine.runtimes.iter().any(|runtime| runtime == "runc"), "{engine:?}");
    assert!(matches!(engine.cgroup_version, 1 | 2), "{engine:?}");
    assert!(engine.root_dir.ends_with("data"), "{engine:?}");
}
