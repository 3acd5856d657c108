//! What an image can't bring along, and which images a requester may name, on a real engine.

use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{
    ContainerId, ContainerRuntime as _, ContainerSpec, Error, ImagePolicy,
};
use lamda_node::node::GpuUuid;

use super::{Bench, run};
use crate::support::engine::{Engine, GPUS};
use crate::support::registry::{ADDRESS, Registry};

/// Adds an image made of busybox with these lines of a Dockerfile; returns its id.
async fn image_with(engine: &Engine, name: &str, lines: &[&str]) -> String {
    let (repo, tag) = name.rsplit_once(':').expect("a tag");
    let client = engine.client();
    let container = client.create_container(
        None::<bollard::query_parameters::CreateContainerOptions>,
        bollard::models::ContainerCreateBody {
            image: Some("busybox:test".to_owned()),
            cmd: Some(vec!["true".to_owned()]),
            ..Default::default()
        },
    );
    let id = container.await.expect("a container").id;
    let options = bollard::query_parameters::CommitContainerOptionsBuilder::default()
        .container(&id)
        .repo(repo)
        .tag(tag)
        .changes(&lines.join("\n"))
        .build();
    let config = bollard::models::ContainerConfig::default();
    let made = client.commit_container(options, config).await;
    let remove = bollard::query_parameters::RemoveContainerOptionsBuilder::default().force(true);
    client.remove_container(&id, Some(remove.build())).await.expect("it goes");
    made.expect("an image").id
}

fn with(bench: &Bench, images: ImagePolicy) -> Docker {
    Docker::connect(&Config { images, ..Config::new(bench.engine.host()) }).expect("an address")
}

fn policy(registries: &[&str], local: &[&str]) -> ImagePolicy {
    ImagePolicy::new(registries, local).expect("a policy")
}

#[tokio::test]
async fn no_variable_of_a_job_or_image_asks_the_toolkit_for_more_than_its_cards() {
    let bench = Bench::start().await;
    let image_id = image_with(
        &bench.engine,
        "greedy:1",
        &[
            "ENV NVIDIA_VISIBLE_DEVICES=all",
            "ENV NVIDIA_MOFED=enabled",
            "ENV NVIDIA_GDRCOPY=enabled",
            "ENV NVIDIA_SOMETHING_NEW=enabled",
            "ENV NVIDIA_REQUIRE_CUDA=cuda>=99.0",
            "ENV NVIDIA_DRIVER_CAPABILITIES=all",
            "ENV CUDA_VERSION=12.4",
        ],
    )
    .await;
    let own = ["NVIDIA_GDS", "NVIDIA_NVSWITCH", "NVIDIA_IMEX_CHANNELS", "NVIDIA_CTK_DEBUG"];
    let env = own.map(|name| (name.to_owned(), "enabled".to_owned())).to_vec();
    let card = GpuUuid::new(GPUS[0]).expect("a UUID");
    let script = "env | grep -E 'NVIDIA|CUDA' | sort";
    let spec = ContainerSpec { image_id, env, gpus: vec![card], ..bench.shell(script) };
    let (_, ending) = bench.finish(&spec).await;
    let visible = format!("NVIDIA_VISIBLE_DEVICES={}", GPUS[0]);
    let told: Vec<&str> = ending.stdout.lines().collect();
    assert_eq!(
        told,
        [
            "CUDA_VERSION=12.4",
            "NVIDIA_DISABLE_REQUIRE=false",
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video",
            "NVIDIA_GDRCOPY=disabled",
            "NVIDIA_GDS=disabled",
            "NVIDIA_IMEX_CHANNELS=void",
            "NVIDIA_MIG_CONFIG_DEVICES=",
            "NVIDIA_MIG_MONITOR_DEVICES=",
            "NVIDIA_MOFED=disabled",
            "NVIDIA_NVSWITCH=disabled",
            // An image's requirements of the driver give it no further access.
            "NVIDIA_REQUIRE_CUDA=cuda>=99.0",
            "NVIDIA_SOMETHING_NEW=",
            &visible,
        ]
    );
}

#[tokio::test]
async fn no_label_of_an_image_makes_other_programs_of_the_host_act() {
    let bench = Bench::start().await;
    let labels = "LABEL traefik.enable=true com.docker.compose.project=web \
        com.centurylinklabs.watchtower.enable=true lamda.node=0x00";
    let image_id = image_with(&bench.engine, "labelled:1", &[labels]).await;
    let spec = ContainerSpec { image_id, ..bench.shell("true") };
    let ContainerId(id) = run(&bench.docker, &spec).await.expect("it is started").id;
    let client = bench.engine.client();
    let seen =
        client.inspect_container(&id, None::<bollard::query_parameters::InspectContainerOptions>);
    let labels = seen.await.expect("it is there").config.and_then(|config| config.labels);
    let labels = labels.expect("labels");
    let said = |name: &str| labels.get(name).map(String::as_str);
    for name in
        ["traefik.enable", "com.docker.compose.project", "com.centurylinklabs.watchtower.enable"]
    {
        assert_eq!(said(name), Some(""), "{name}");
    }
    assert_eq!(said("lamda.node"), Some(super::node().to_string().as_str()));
}

#[tokio::test]
async fn a_working_folder_named_like_nvidias_tools_is_not_blamed_on_the_card() {
    let bench = Bench::start().await;
    for line in ["USER nvidia-container-cli", "USER root\nENTRYPOINT [\"/nvidia-container\"]"] {
        let image_id = image_with(&bench.engine, "named:1", &[line]).await;
        let mut spec = ContainerSpec { image_id, ..bench.shell("true") };
        spec.command = None;
        let told = run(&bench.docker, &spec).await;
        assert!(!matches!(told, Err(Error::Gpu { .. })), "{line}: {told:?}");
    }
}

#[tokio::test]
async fn an_image_that_lies_on_the_host_is_no_strangers() {
    let bench = Bench::start().await;
    image_with(&bench.engine, "127.0.0.1:5000/own/secret:1", &["ENV A=1"]).await;
    image_with(&bench.engine, "secret:1", &["ENV A=1"]).await;
    // A registry that is not allowed: the engine is not asked at all.
    for name in ["127.0.0.1:5000/own/secret:1", "169.254.169.254/x", "10.0.0.5:22/x:1"] {
        let told = bench.docker_of(&[], &[]).image(name).await;
        assert!(matches!(told, Err(Error::ImageNotAllowed { .. })), "{name}: {told:?}");
    }
    // A registry that is allowed but does not have the image.
    let _registry = Registry::start(&bench.engine);
    let told = bench.docker_of(&[ADDRESS], &[]).image("127.0.0.1:5000/own/secret:1").await;
    assert!(matches!(told, Err(Error::ImageRefused { .. })), "{told:?}");
    // Docker Hub can't be reached from here, and without its answer the image is not used.
    let told = with(&bench, ImagePolicy::default()).image("secret:1").await;
    assert!(matches!(told, Err(Error::Pull { .. })), "{told:?}");
    // An image that the owner names may be used by everybody.
    assert!(!bench.docker_of(&[], &["secret:*"]).image("secret:1").await.unwrap().pulled);
}

#[tokio::test]
async fn what_a_registry_gives_everybody_never_moves_a_tag_of_the_owner() {
    let bench = Bench::start().await;
    let registry = Registry::start(&bench.engine);
    let digest = registry.take_busybox(&bench.engine, "t/app", "v1").await;
    bench.engine.import_busybox().await;
    let name = format!("{ADDRESS}/t/app:v1");
    let owners = image_with(&bench.engine, &name, &["ENV OWNERS=1"]).await;

    let got = bench.docker_of(&[ADDRESS], &[]).image(&name).await.unwrap();
    assert_eq!(got.digest, digest);
    assert_ne!(got.id, owners);
    let there = bench.engine.client().inspect_image(&name).await.unwrap().id;
    assert_eq!(there, Some(owners), "the owner's tag");
}

#[tokio::test]
async fn what_was_pulled_for_a_job_is_used_again_without_its_registry() {
    let bench = Bench::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let docker = || {
        let config = Config {
            images: policy(&[ADDRESS], &[]),
            pulled: Some(folder.path().join("images.json")),
            ..Config::new(bench.engine.host())
        };
        Docker::connect(&config).expect("an address")
    };
    let name = format!("{ADDRESS}/t/app:v1");
    let registry = Registry::start(&bench.engine);
    registry.take_busybox(&bench.engine, "t/app", "v1").await;
    let pulled = docker().image(&name).await.unwrap();
    drop(registry);
    // Another process of the node, and the owner has moved the tag meanwhile.
    bench.engine.import_busybox().await;
    image_with(&bench.engine, &name, &["ENV OWNERS=1"]).await;
    let again = docker().image(&name).await.unwrap();
    assert_eq!((again.id, again.pulled), (pulled.id, false));
    // Without the record the registry would be asked.
    let told = bench.docker_of(&[ADDRESS], &[]).image(&name).await;
    assert!(matches!(told, Err(Error::Pull { .. })), "{told:?}");
}
