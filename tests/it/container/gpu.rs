//! GPUs through a real engine with a fake NVIDIA hook.

use std::time::Duration;

use lamda_node::container::docker::{Config, Docker, DriverFolders};
use lamda_node::container::{Access, ContainerRuntime as _, ContainerSpec, Error, FoundState};
use lamda_node::node::GpuUuid;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::{Bench, node, run};
use crate::support::engine::GPUS;

fn card(number: usize) -> GpuUuid {
    GpuUuid::new(GPUS[number]).expect("a UUID")
}

#[tokio::test]
async fn a_job_sees_the_cards_that_it_was_given_and_no_other() {
    let bench = Bench::start().await;
    let script = "cd /dev; ls -d nvidia*; echo $NVIDIA_VISIBLE_DEVICES";
    let spec = ContainerSpec { gpus: vec![card(1)], ..bench.shell(script) };
    let (_, ending) = bench.finish(&spec).await;
    assert_eq!(ending.stdout, format!("nvidia1\nnvidiactl\n{}\n", GPUS[1]));

    let env = vec![("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned())];
    let spec = ContainerSpec { gpus: vec![card(0)], env, ..bench.shell(script) };
    let (_, ending) = bench.finish(&spec).await;
    assert_eq!(ending.stdout, format!("nvidia0\nnvidiactl\n{}\n", GPUS[0]));

    let (_, ending) = bench.finish(&bench.shell("ls -d /dev/nvidia*")).await;
    assert_eq!(ending.stdout, "");
}

#[tokio::test]
async fn cards_come_as_device_nodes_where_the_owner_says_so_and_no_others_do() {
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (cards, nodes) = (dir.path().join("gpus"), dir.path().to_owned());
    for (number, uuid) in GPUS.iter().enumerate() {
        let place = cards.join(format!("0000:00:0{number}.0"));
        std::fs::create_dir_all(&place).unwrap();
        let told = format!("GPU UUID: \t {uuid}\nDevice Minor: \t {number}\n");
        std::fs::write(place.join("information"), told).unwrap();
    }
    for (name, minor) in [("nvidia0", 0), ("nvidia1", 1), ("nvidiactl", 255)] {
        let (mode, number) = (Mode::from_raw_mode(0o666), makedev(195, minor));
        mknodat(CWD, nodes.join(name), FileType::CharacterDevice, mode, number).unwrap();
    }
    let config = Config {
        gpu_access: Access::Devices,
        driver: DriverFolders { cards, nodes },
        ..Config::new(bench.engine.host())
    };
    // The hook would fail, if it was asked.
    bench.engine.break_gpus("fail");
    let by_nodes = Bench { docker: Docker::connect(&config).unwrap(), ..bench };
    let script = "cd /dev; ls -l nvidia* | tr -s ' ' | cut -d ' ' -f 5,6,10; echo $NVIDIA_VISIBLE_DEVICES; \
        (: <nvidia1) 2>&1 | grep -o 'No such device or address'";
    let spec = ContainerSpec { gpus: vec![card(1)], ..by_nodes.shell(script) };
    let (_, ending) = by_nodes.finish(&spec).await;
    // Its control group lets it open its card, behind which no driver is here.
    let seen = "195, 1 nvidia1\n195, 255 nvidiactl\nvoid\nNo such device or address\n";
    assert_eq!(ending.stdout, seen);
    by_nodes.docker.gpu_ready(node(), &card(0)).await.unwrap();
    let gone = GpuUuid::new("GPU-gone").unwrap();
    let told = by_nodes.docker.gpu_ready(node(), &gone).await;
    assert!(
        matches!(&told, Err(Error::Gpu { reason }) if reason.contains("no device node for GPU-gone")),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_engine_without_cdi_is_told_as_such() {
    let bench = Bench::start().await;
    let config = Config { gpu_access: Access::Cdi, ..Config::new(bench.engine.host()) };
    let told = Docker::connect(&config).unwrap().gpu_ready(node(), &card(0)).await;
    assert!(
        matches!(&told, Err(Error::Driver { reason }) if reason.contains("GPU_ACCESS=cdi: the engine has no CDI")),
        "{told:?}"
    );
    // Without a word of the owner it is not asked for any.
    bench.docker.gpu_ready(node(), &card(0)).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_is_down_is_the_nodes_fault_and_the_container_starts_later() {
    let bench = Bench::start().await;
    bench.engine.break_gpus("fail");
    let spec = ContainerSpec { gpus: vec![card(0)], ..bench.shell("true") };
    let told = run(&bench.docker, &spec).await;
    assert!(
        matches!(&told, Err(Error::Driver { reason }) if reason.contains("driver not loaded")),
        "{told:?}"
    );
    assert_eq!(bench.docker.list(node()).await.unwrap()[0].state, FoundState::Created);

    bench.engine.mend_gpus();
    assert!(run(&bench.docker, &spec).await.unwrap().started_now);
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up_and_its_container_goes() {
    let bench = Bench::start().await;
    bench.engine.break_gpus("hang");
    let config = Config {
        start_timeout: Duration::from_millis(300),
        call_timeout: Duration::from_secs(1),
        ..Config::new(bench.engine.host())
    };
    let hasty = Docker::connect(&config).unwrap();
    let spec = ContainerSpec { gpus: vec![card(0)], ..bench.shell("sleep 1000") };
    let told = run(&hasty, &spec).await;
    assert!(matches!(told, Err(Error::Engine { .. })), "{told:?}");

    // The engine can't remove a container that it is still starting; it does so once the start returns.
    bench.engine.mend_gpus();
    let gone = async {
        while !bench.docker.list(node()).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
}

#[tokio::test]
async fn whether_the_engine_hands_out_cards_is_known_without_any_image() {
    let bench = Bench::start().await;
    bench.docker.hands_out(node(), "doctor", &[card(0), card(1)]).await.unwrap();
    bench.engine.break_gpus(&format!("card {}", GPUS[0]));
    let told = bench.docker.gpu_ready(node(), &card(0)).await;
    assert!(matches!(told, Err(Error::Gpu { .. })), "{told:?}");
    bench.docker.gpu_ready(node(), &card(1)).await.unwrap();
    bench.engine.break_gpus("fail");
    let told = bench.docker.gpu_ready(node(), &card(1)).await;
    assert!(matches!(told, Err(Error::Driver { .. })), "{told:?}");
    assert_eq!(all_names(&bench).await, [""; 0]);
}

/// The names of all containers, of any node.
async fn all_names(bench: &Bench) -> Vec<String> {
    let all = bollard::query_parameters::ListContainersOptionsBuilder::default().all(true).build();
    let listed = bench.engine.client().list_containers(Some(all)).await.expect("a list");
    listed.into_iter().flat_map(|one| one.names.unwrap_or_default()).collect()
}

#[tokio::test]
async fn a_probe_that_hangs_leaves_one_container_of_the_nodes_that_the_next_one_removes() {
    let bench = Bench::start().await;
    let config = Config {
        start_timeout: Duration::from_millis(300),
        call_timeout: Duration::from_secs(1),
        ..Config::new(bench.engine.host())
    };
    let hasty = Docker::connect(&config).unwrap();
    // Imports the probe's image; the short timeouts of `hasty` leave no time for that.
    bench.docker.gpu_ready(node(), &card(0)).await.unwrap();
    bench.engine.break_gpus("hang");
    for _ in 0..2 {
        let told = hasty.gpu_ready(node(), &card(0)).await;
        assert!(matches!(told, Err(Error::Engine { .. })), "{told:?}");
        let name = format!("/lamda-probe-a1a1a1a1-{}", GPUS[0]);
        assert_eq!(all_names(&bench).await, [name]);
        let found = bench.docker.list(node()).await.unwrap();
        assert_eq!((found.len(), found[0].job_id.clone()), (1, None), "found by its label");
    }
    // A probe that its caller cuts off leaves a container with the same name.
    let probe = async { hasty.gpu_ready(node(), &card(0)).await };
    assert!(tokio::time::timeout(Duration::from_millis(200), probe).await.is_err());
    bench.engine.mend_gpus();
    bench.docker.gpu_ready(node(), &card(0)).await.unwrap();
    assert_eq!(all_names(&bench).await, [""; 0]);
}

#[tokio::test]
async fn a_container_that_was_made_for_a_card_that_failed_is_made_anew_for_another() {
    let bench = Bench::start().await;
    bench.engine.break_gpus(&format!("card {}", GPUS[0]));
    let spec = ContainerSpec { gpus: vec![card(0)], ..bench.shell("ls -d /dev/nvidia?") };
    let told = run(&bench.docker, &spec).await;
    assert!(matches!(told, Err(Error::Gpu { .. })), "{told:?}");
    let other = ContainerSpec { gpus: vec![card(1)], ..spec };
    let (_, ending) = bench.finish(&other).await;
    assert_eq!(ending.stdout, "/dev/nvidia1\n");
    // A container that has run does not start again.
    let id = bench.docker.create(&ContainerSpec { gpus: vec![card(0)], ..other }).await.unwrap();
    assert!(!bench.docker.start(&id).await.unwrap().started_now);
}
