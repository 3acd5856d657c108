//! GPUs through a real engine, whose NVIDIA hook is our own.

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
        matches!(&told, Err(Error::Gpu { reason }) if reason.contains("driver not loaded")),
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

    // The engine can't remove what it is still starting; it does so once the start returns.
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
    bench.docker.gpu_ready(&[card(0), card(1)]).await.unwrap();
    bench.engine.break_gpus("fail");
    let told = bench.docker.gpu_ready(&[card(0)]).await;
    assert!(matches!(told, Err(Error::Gpu { .. })), "{told:?}");
    let all = bollard::query_parameters::ListContainersOptionsBuilder::default().all(true).build();
    assert_eq!(bench.engine.client().list_containers(Some(all)).await.unwrap(), []);
}
