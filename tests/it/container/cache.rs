//! What a node may remove of the engine's images: what it pulled itself, and nothing of the owner's.

use futures_util::TryStreamExt as _;
use lamda_node::clock::{Clock as _, SystemClock, Timestamp};
use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{ContainerRuntime as _, ContainerSpec, ImagePolicy};

use super::{Bench, spec};
use crate::support::registry::{ADDRESS, Registry};

/// The adapter with its record in this folder.
fn docker(bench: &Bench, folder: &std::path::Path) -> Docker {
    let images = ImagePolicy::new(&[ADDRESS], &[]).expect("a policy");
    let cached = Some(folder.join("pulled.json"));
    Docker::connect(&Config { images, cached, ..Config::new(bench.engine.host()) }).expect("it")
}

fn past() -> Timestamp {
    Timestamp::from_unix_ms(0)
}

#[tokio::test]
async fn only_an_image_that_this_node_pulled_and_nobody_needs_is_removed() {
    let bench = Bench::start().await;
    let (registry, dir) = (Registry::start(&bench.engine), tempfile::tempdir().unwrap());
    registry.take_busybox(&bench.engine, "app", "1").await;
    bench.engine.import_marked("the owner's").await;
    let name = format!("{ADDRESS}/app:1");
    let id = docker(&bench, dir.path()).image(&name).await.expect("it is pulled").id;
    // Another process finds the record.
    let docker = docker(&bench, dir.path());
    let cached = docker.cached().await.expect("a list");
    assert_eq!(cached.len(), 1, "{cached:?}");
    assert_eq!((&cached[0].id, cached[0].names.as_slice()), (&id, &[name.clone()][..]));
    assert!(cached[0].bytes > 100_000, "{cached:?}");
    assert!(!docker.evict(&id, past()).await.unwrap(), "a job asked for it a moment ago");
    let owners = bench.engine.client().inspect_image("busybox:test").await.unwrap().id.unwrap();
    assert!(!docker.evict(&owners, SystemClock.now()).await.unwrap(), "it is the owner's");
    let job = ContainerSpec { image_id: id.clone(), ..spec("uses-it", &id) };
    let container = docker.create(&job).await.expect("a container");
    assert!(!docker.evict(&id, SystemClock.now()).await.unwrap(), "a container needs it");
    docker.remove(&container).await.unwrap();
    assert!(docker.evict(&id, SystemClock.now()).await.unwrap());
    assert!(bench.engine.client().inspect_image(&id).await.is_err(), "it is gone");
    assert_eq!(docker.cached().await.unwrap(), []);
    bench.engine.client().inspect_image("busybox:test").await.expect("the owner's stays");
}

#[tokio::test]
async fn what_the_owner_pulled_or_named_as_well_is_the_owners() {
    let bench = Bench::start().await;
    let (registry, dir) = (Registry::start(&bench.engine), tempfile::tempdir().unwrap());
    registry.take_busybox(&bench.engine, "app", "1").await;
    let (client, docker) = (bench.engine.client(), docker(&bench, dir.path()));
    let name = format!("{ADDRESS}/app:1");
    // The owner pulls it before a job does.
    let pull = bollard::query_parameters::CreateImageOptionsBuilder::default()
        .from_image(&format!("{ADDRESS}/app"))
        .tag("1")
        .build();
    client.create_image(Some(pull), None, None).try_for_each(|_| async { Ok(()) }).await.unwrap();
    docker.image(&name).await.expect("its registry gives it");
    assert_eq!(docker.cached().await.unwrap(), []);
    let forced =
        || bollard::query_parameters::RemoveImageOptionsBuilder::default().force(true).build();
    client.remove_image(&name, Some(forced()), None).await.unwrap();
    // The owner names it after a job has pulled it.
    let id = docker.image(&name).await.expect("it is pulled").id;
    assert_eq!(docker.cached().await.unwrap().len(), 1);
    let tag = bollard::query_parameters::TagImageOptionsBuilder::default();
    client.tag_image(&id, Some(tag.repo("mine").tag("1").build())).await.unwrap();
    assert!(!docker.evict(&id, SystemClock.now()).await.unwrap());
    client.inspect_image("mine:1").await.expect("it is the owner's");
    assert_eq!(docker.cached().await.unwrap(), [], "and no longer this node's");
}
