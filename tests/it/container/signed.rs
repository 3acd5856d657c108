//! An owner's key decides which images are pulled, and `JOB_PULL` when a registry is asked.

use std::path::Path;

use data_encoding::BASE64;
use lamda_node::container::docker::{Config, Docker, SigningKey, WhenToPull};
use lamda_node::container::{ContainerRuntime as _, Error, ImagePolicy, NotAllowed};
use serde_json::json;

use super::Bench;
use crate::support::nats_auth::openssl;
use crate::support::registry::{ADDRESS, Registry};

/// A key pair in a folder: `<name>.pem` and `<name>.pub`.
fn key_pair(dir: &Path, name: &str) -> SigningKey {
    openssl(dir, &format!("ecparam -name prime256v1 -genkey -noout -out {name}.pem"));
    openssl(dir, &format!("ec -in {name}.pem -pubout -out {name}.pub"));
    std::fs::read_to_string(dir.join(format!("{name}.pub")))
        .expect("a file")
        .parse()
        .expect("a key")
}

/// What cosign signs for the image with this digest.
fn payload(digest: &str) -> Vec<u8> {
    let image = json!({"docker-manifest-digest": digest});
    let (identity, kind) = (json!({"docker-reference": ""}), "cosign container image signature");
    let critical = json!({"identity": identity, "image": image, "type": kind});
    json!({"critical": critical, "optional": null}).to_string().into_bytes()
}

/// The signature of these bytes by this key, in base64.
fn sign(dir: &Path, name: &str, payload: &[u8]) -> String {
    std::fs::write(dir.join("payload"), payload).expect("a file");
    openssl(dir, &format!("dgst -sha256 -sign {name}.pem -out signature payload"));
    BASE64.encode(&std::fs::read(dir.join("signature")).expect("a file"))
}

fn docker(bench: &Bench, change: impl FnOnce(Config) -> Config) -> Docker {
    let images = ImagePolicy::new(&[ADDRESS], &[]).expect("a policy");
    let config = Config { images, ..Config::new(bench.engine.host()) };
    Docker::connect(&change(config)).expect("an address")
}

#[tokio::test]
async fn only_an_image_that_the_owners_key_signed_is_pulled() {
    let (bench, dir) = (Bench::start().await, tempfile::tempdir().unwrap());
    let registry = Registry::start(&bench.engine);
    let mut digests = Vec::new();
    for name in ["signed", "unsigned", "theirs", "moved", "torn"] {
        bench.engine.import_marked(name).await;
        digests.push(registry.take_busybox(&bench.engine, name, "1").await);
    }
    let (key, _) = (key_pair(dir.path(), "owner"), key_pair(dir.path(), "other"));
    let put = |name: &str, of: usize, by: &str, about: usize| {
        let payload = payload(&digests[about]);
        let signature = sign(dir.path(), by, &payload);
        registry.put_signature(name, &digests[of], &payload, &signature);
    };
    put("signed", 0, "owner", 0);
    put("theirs", 2, "other", 2);
    // The owner's own signature, of another image.
    put("moved", 3, "owner", 0);
    let (good, bad) = (payload(&digests[0]), payload(&digests[4]));
    registry.put_signature("torn", &digests[4], &bad, &sign(dir.path(), "owner", &good));
    bench.engine.enter_network();
    let signed = docker(&bench, |config| Config { cosign_key: Some(key.clone()), ..config });
    for (name, said) in [
        ("unsigned", "it has no signature"),
        ("theirs", "no signature by this node's key"),
        ("moved", "its signature is for another image"),
        ("torn", "no signature by this node's key"),
    ] {
        let name = format!("{ADDRESS}/{name}:1");
        let told = signed.image(&name).await;
        let Err(Error::ImageNotAllowed { reason: NotAllowed::Unsigned(why), .. }) = &told else {
            panic!("{name}: {told:?}");
        };
        assert!(why.contains(said), "{name}: {why}");
    }
    let here = bench.engine.client();
    let list = here.list_images(None::<bollard::query_parameters::ListImagesOptions>).await;
    let tags: Vec<_> = list.unwrap().into_iter().flat_map(|image| image.repo_digests).collect();
    assert!(!tags.iter().any(|name| name.contains(ADDRESS)), "nothing was pulled: {tags:?}");
    let name = format!("{ADDRESS}/signed:1");
    let size = signed.download_size(&name).await.unwrap().expect("its registry says so");
    assert!((100_000..100_000_000).contains(&size), "{size}");
    let image = signed.image(&name).await.expect("it is signed");
    assert_eq!((image.pulled, image.digest.as_str()), (true, digests[0].as_str()));
    let by_digest = format!("{ADDRESS}/signed@{}", digests[0]);
    assert_eq!(signed.download_size(&by_digest).await.unwrap(), None, "it is here");
    // By digest too; and what was pulled without the check is checked before it is used.
    assert!(!signed.image(&by_digest).await.expect("it is signed").pulled);
    let record = Some(dir.path().join("images.json"));
    let without = docker(&bench, |config| Config { pulled: record.clone(), ..config });
    without.image(&format!("{ADDRESS}/unsigned:1")).await.expect("without a key");
    let with = docker(&bench, |config| Config {
        pulled: record.clone(),
        cosign_key: Some(key.clone()),
        ..config
    });
    let told = with.image(&format!("{ADDRESS}/unsigned:1")).await;
    assert!(matches!(told, Err(Error::ImageNotAllowed { .. })), "{told:?}");
}

#[test]
fn a_key_is_one_of_cosigns_or_none() {
    let dir = tempfile::tempdir().unwrap();
    key_pair(dir.path(), "owner");
    openssl(dir.path(), "genrsa -out rsa.pem 2048");
    openssl(dir.path(), "rsa -in rsa.pem -pubout -out rsa.pub");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    for wrong in [read("rsa.pub"), read("owner.pem"), String::new(), read("owner.pub")[1..].into()]
    {
        assert!(wrong.parse::<SigningKey>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_tag_that_moved_is_asked_for_as_the_owner_wants_it() {
    let (bench, dir) = (Bench::start().await, tempfile::tempdir().unwrap());
    let registry = Registry::start(&bench.engine);
    bench.engine.import_marked("old").await;
    let old = registry.take_busybox(&bench.engine, "app", "1").await;
    bench.engine.import_marked("new").await;
    let new = registry.take_busybox(&bench.engine, "app", "2").await;
    let name = format!("{ADDRESS}/app:1");
    let record = Some(dir.path().join("images.json"));
    let with = |pull| docker(&bench, |config| Config { pulled: record.clone(), pull, ..config });
    assert_eq!(with(WhenToPull::Newer).image(&name).await.unwrap().digest, old);
    registry.move_tag("app", "1", "2");
    let missing = with(WhenToPull::Missing);
    assert_eq!(missing.image(&name).await.unwrap().digest, old, "it is here");
    let always = with(WhenToPull::Always);
    assert_eq!(always.image(&name).await.unwrap().digest, new);
    drop(registry);
    let told = always.image(&name).await;
    assert!(matches!(told, Err(Error::Pull { .. })), "{told:?}");
    let image = missing.image(&name).await.unwrap();
    assert!(!image.pulled && !image.unconfirmed, "{image:?}");
    let newer = with(WhenToPull::Newer).image(&name).await.unwrap();
    assert!(newer.unconfirmed, "{newer:?}");
}
