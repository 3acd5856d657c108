//! GPUs through a real engine with a fake NVIDIA hook.

use std::time::Duration;

use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{ContainerRuntime as _, ContainerSpec, Error, FoundState};
use lamda_node::node::GpuUuid;

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
