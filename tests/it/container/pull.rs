//! Pulling from a real registry.

use std::process::Stdio;
use std::time::Duration;

use lamda_node::container::docker::{Config, Docker, RegistryAuth};
use lamda_node::container::{ContainerRuntime as _, Error};
use lamda_node::secret::Secret;

use super::Bench;
use crate::support::odd_engine::OddEngine;
use crate::support::registry::{ACCOUNT, ADDRESS, PORT, Registry};
use crate::support::tools::{Running, tool};

#[tokio::test]
async fn an_image_is_pulled_once_and_known_by_its_manifests_digest() {
    let bench = Bench::start().await;
    let registry = Registry::start(&bench.engine);
    let digest = registry.take_busybox(&bench.engine, "t/busybox", "v1").await;
    let name = format!("{ADDRESS}/t/busybox:v1");

    // All three wait for one pull, and all are told that the image was pulled.
    let (a, b, c) = tokio::join!(
        bench.docker.image(&name),
        bench.docker.image(&name),
        bench.docker.image(&name)
    );
    let pulled = a.unwrap();
    assert!(pulled.pulled);
    assert_eq!(pulled.digest, digest);
    assert!(pulled.size_bytes > 1_000_000, "{pulled:?}");
    assert_eq!((&b.unwrap(), &c.unwrap()), (&pulled, &pulled));

    for name in [name, format!("{ADDRESS}/t/busybox@{digest}")] {
        let here = bench.docker.image(&name).await.unwrap();
        assert!(!here.pulled, "{name}");
        assert_eq!((here.digest, here.id), (digest.clone(), pulled.id.clone()));
    }
}

#[tokio::test]
async fn an_image_is_pulled_by_its_digest() {
    let bench = Bench::start().await;
    let registry = Registry::start(&bench.engine);
    let digest = registry.take_busybox(&bench.engine, "t/busybox", "v1").await;
    let image = bench.docker.image(&format!("{ADDRESS}/t/busybox:v9@{digest}")).await.unwrap();
    assert_eq!((image.pulled, image.digest), (true, digest));
}

#[tokio::test]
async fn an_image_that_was_made_here_is_known_by_its_id() {
    let bench = Bench::start().await;
    let image = bench.docker.image("busybox:test").await.unwrap();
    assert!(!image.pulled);
    assert_eq!(image.id, bench.image_id);
    assert_eq!(image.digest, format!("image-id:{}", bench.image_id));
}

#[tokio::test]
async fn what_a_registry_does_not_have_is_refused_for_good() {
    let bench = Bench::start().await;
    let registry = Registry::start(&bench.engine);
    registry.take_busybox(&bench.engine, "t/busybox", "v1").await;
    let name = format!("{ADDRESS}/t/busybox:absent");
    let told = bench.docker.image(&name).await;
    assert!(
        matches!(&told, Err(Error::ImageRefused { reference, reason })
            if *reference == name && reason.contains("does not have it")),
        "{told:?}"
    );
    for rubbish in ["", "Not An Image", "../x"] {
        let told = bench.docker.image(rubbish).await;
        assert!(matches!(told, Err(Error::ImageNotAllowed { .. })), "{told:?}");
    }
}

#[tokio::test]
async fn a_registry_that_is_away_or_breaks_off_is_tried_again_later() {
    let bench = Bench::start().await;
    let away = bench.docker.image(&format!("{ADDRESS}/t/busybox:v1")).await;
    let Err(Error::Pull { reason: of_no_listener, .. }) = &away else { panic!("{away:?}") };
    // A requester who may name any registry must not learn which ports are open.
    for word in ["refused", "dial", "5000", "tcp", "http"] {
        assert!(!of_no_listener.contains(word), "{word}: {of_no_listener}");
    }
    let of_no_listener = of_no_listener.clone();
    assert!(away.is_err_and(|err| err.is_transient()));

    // A failure after the manifest: the engine has answered 200 by then and reports it in its stream.
    let registry = Registry::start(&bench.engine);
    registry.take_busybox(&bench.engine, "t/busybox", "v1").await;
    registry.spoil_layers();
    let broken = bench.docker.image(&format!("{ADDRESS}/t/busybox:v1")).await;
    assert!(
        matches!(&broken, Err(Error::Pull { reason, .. }) if *reason == of_no_listener),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_registry_that_says_nothing_is_given_up() {
    let bench = Bench::start().await;
    let _mute = Running::start(
        bench
            .engine
            .command(&tool("busybox"))
            .args(["nc", "-l", "-p", "5000"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null()),
    );
    bench.engine.wait_for_port(PORT);
    let config = Config { pull_stall_timeout: Duration::from_millis(200), ..bench.engine.config() };
    let docker = Docker::connect(&config).unwrap();
    let told = docker.image(&format!("{ADDRESS}/t/busybox:v1")).await;
    assert!(
        matches!(&told, Err(Error::Pull { reason, .. }) if reason.contains("did not give it")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_layer_may_be_unpacked_in_silence_and_not_downloaded() {
    let bench = Bench::start().await;
    for (word, is_given_up) in [("Downloading", true), ("Extracting", false)] {
        let silence = Duration::from_secs(2);
        let odd = OddEngine::start_slow_to(&bench.engine.host(), word, silence);
        let stall = Duration::from_millis(300);
        let images = bench.engine.config().images;
        let config = Config { images, pull_stall_timeout: stall, ..Config::new(odd.host()) };
        let docker = Docker::connect(&config).unwrap();
        let told = docker.image(&format!("{ADDRESS}/t/busybox:v1")).await;
        let Err(Error::Pull { reason, .. }) = &told else { panic!("{told:?}") };
        // If the engine's answer ends before the time limit, the adapter looks for the image.
        let says = if is_given_up { "did not give it" } else { "the engine pulled it" };
        assert!(reason.contains(says), "{word}: {reason}");
    }
}

#[tokio::test]
async fn a_private_registry_is_opened_by_its_account_alone() {
    let bench = Bench::start().await;
    let registry = Registry::start_private(&bench.engine);
    let digest = registry.take_busybox(&bench.engine, "t/busybox", "v1").await;
    let name = format!("{ADDRESS}/t/busybox:v1");

    let told = bench.docker.image(&name).await;
    assert!(matches!(&told, Err(Error::ImageRefused { .. })), "{told:?}");
    let with = |password: &str| {
        let mut config = bench.engine.config();
        config.registry_auth.push(RegistryAuth {
            server: ADDRESS.to_owned(),
            username: ACCOUNT.0.to_owned(),
            password: Secret::new(password),
        });
        Docker::connect(&config).unwrap()
    };
    let told = with("wrong").image(&name).await;
    assert!(matches!(&told, Err(Error::ImageRefused { .. })), "{told:?}");
    assert_eq!(with(ACCOUNT.1).image(&name).await.unwrap().digest, digest);
    assert!(!format!("{:?}", with(ACCOUNT.1)).contains(ACCOUNT.1));
}
