//! The embedded store as clients see it, also clients that this project did not write.

use std::fs;
use std::time::Duration;

use lamda_node::artifact::{self, Error, Kind, View, seal, seal_output};
use lamda_node::ids::Cid;
use reqwest::{Client, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::{PLENTY, contents, many, nested, noise, store};
use crate::support::ipfs::{Store, oracle};

#[tokio::test]
async fn what_is_published_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    nested(&dir.path().join("nested"));
    many(&dir.path().join("many"));
    fs::write(dir.path().join("file"), noise(3_000_000)).unwrap();
    fs::write(dir.path().join("empty"), "").unwrap();
    fs::create_dir_all(dir.path().join("odd/fol\"der\\")).unwrap();
    for name in ["a\"b", "back\\slash\\", "line\nbreak", "return\r", "tab\tbed", "100%"] {
        fs::write(dir.path().join("odd").join(name), name).unwrap();
        fs::write(dir.path().join("odd/fol\"der\\").join(name), name).unwrap();
    }
    let (_folder, store) = store().await;
    let (pinata, gateways) = (store.pinata(), store.gateways());
    pinata.check().await.unwrap();
    gateways.check().await.unwrap();
    for name in ["nested", "many", "odd", "file", "empty"] {
        let path = dir.path().join(name);
        let sealed = seal(&path, PLENTY).await.unwrap();
        let sent = std::sync::atomic::AtomicU64::new(0);
        let progress = |bytes| sent.store(bytes, std::sync::atomic::Ordering::Relaxed);
        let cid = pinata.publish(&path, &sealed, "job 1", progress).await.unwrap();
        assert_eq!(cid, sealed.cid, "{name}");
        assert_eq!(sent.into_inner(), sealed.bytes, "{name}");

        let dest = dir.path().join(format!("{name}.back"));
        let fetched = gateways.fetch(&cid, &dest, sealed.bytes, |_| {}).await.unwrap();
        assert_eq!((fetched.bytes, fetched.kind), (sealed.bytes, sealed.kind), "{name}");
        assert_eq!(contents(&dest), contents(&path), "{name}");
    }
}

#[tokio::test]
async fn whatever_is_published_of_an_output_can_be_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("output");
    fs::create_dir_all(output.join(["d"; 66].join("/"))).unwrap();
    for depth in [1, 63, 64, 65] {
        fs::write(output.join(vec!["d"; depth].join("/")).join("file"), "x").unwrap();
    }
    let name = "n".repeat(250);
    for depth in [1, 7, 8, 12] {
        let folder = output.join(vec![&*name; depth].join("/"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("x".repeat(40)), "x").unwrap();
    }
    std::os::unix::fs::symlink("d", output.join("again")).unwrap();
    let (_folder, store) = store().await;
    let view = View { seen_as: "/output".to_owned(), bytes_max: PLENTY };
    let (sealed, notes) = seal_output(&output, view).await.unwrap();
    // Of each chain the file at the limit is carried, the next one is not.
    for why in ["more than 64 folders in one another", "a path of more than 2048 bytes"] {
        assert!(notes.iter().any(|note| note.contains(why)), "{notes:?}");
    }
    let cid = store.pinata().publish(&output, &sealed, "job", |_| {}).await.unwrap();
    let dest = dir.path().join("back");
    let fetched = store.gateways().fetch(&cid, &dest, PLENTY, |_| {}).await.unwrap();
    assert_eq!(fetched.bytes, sealed.bytes);
    assert!(dest.join(["d"; 63].join("/")).join("file").is_file());
    assert!(dest.join([&*name; 7].join("/")).join("x".repeat(40)).is_file());
}

#[tokio::test]
async fn another_implementation_reads_the_stores_archives() {
    let dir = tempfile::tempdir().unwrap();
    nested(&dir.path().join("nested"));
    many(&dir.path().join("many"));
    let (_folder, store) = store().await;
    for name in ["nested", "many"] {
        let path = dir.path().join(name);
        let cid = publish(&store, &path).await;
        let archive = get(&store, &format!("/ipfs/{cid}?format=car")).await;
        let kind = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
        assert_eq!(archive.headers()["content-type"], kind);
        let car = dir.path().join(format!("{name}.car"));
        fs::write(&car, archive.bytes().await.unwrap()).unwrap();
        let mut read = oracle(&["read"], &[car]);
        let mut expected: Vec<_> = contents(&path)
            .into_iter()
            .map(|(name, bytes)| format!("{:x} {name}", Sha256::digest(bytes)))
            .collect();
        read.sort();
        expected.sort();
        assert_eq!(read, expected, "{name}");
    }
}

#[tokio::test]
async fn flat_files_have_ranges_and_heads_and_folders_have_paths_and_listings() {
    let dir = tempfile::tempdir().unwrap();
    nested(dir.path());
    let (_folder, store) = store().await;
    let cid = publish(&store, dir.path()).await;
    let weights = fs::read(dir.path().join("a/weights.bin")).unwrap();
    let path = format!("/ipfs/{cid}/a/weights.bin");
    assert_eq!(get(&store, &path).await.bytes().await.unwrap(), weights);
    let special = format!("/ipfs/{cid}/Z/with%20space%20&%20%C3%BCmlaut.txt");
    assert_eq!(get(&store, &special).await.text().await.unwrap(), "z");

    let client = Client::new();
    let url = format!("{}{path}", store.url);
    let head = client.head(&url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "700000");
    let part = client.get(&url).header("range", "bytes=262140-262149").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 262140-262149/700000");
    assert_eq!(part.bytes().await.unwrap(), weights[262_140..262_150]);
    let beyond = client.get(&url).header("range", "bytes=700000-").send().await.unwrap();
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    let listing: serde_json::Value =
        get(&store, &format!("/ipfs/{cid}")).await.json().await.unwrap();
    let names: Vec<_> =
        listing["entries"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["Z", "a", "top"]);
    let raw = get(&store, &format!("/ipfs/{cid}?format=raw")).await.bytes().await.unwrap();
    assert_eq!(&Sha256::digest(&raw)[..], cid.inner().hash().digest());
}

#[tokio::test]
async fn what_is_not_here_or_not_allowed_is_said_at_once() {
    let (_folder, store) = store().await;
    let client = Client::new();
    let status = async |path: &str| {
        client.get(format!("{}{path}", store.url)).send().await.unwrap().status()
    };
    let unknown = "QmT5NvUtoM5nWFfrQdVrFtvGfKFmG7AHE8P34isapyhCxX";
    assert_eq!(status(&format!("/ipfs/{unknown}")).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&format!("/ipfs/{unknown}?format=car")).await, StatusCode::NOT_FOUND);
    assert_eq!(status("/ipfs/not-a-cid").await, StatusCode::BAD_REQUEST);
    assert_eq!(status("/healthz").await, StatusCode::OK);
    assert_eq!(status("/data/testAuthentication").await, StatusCode::UNAUTHORIZED);
    let pin = client.post(format!("{}/pinning/pinFileToIPFS", store.url));
    let form = reqwest::multipart::Form::new().text("file", "x");
    let refused = pin.multipart(form).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

    let dir = tempfile::tempdir().unwrap();
    let dest = dir.path().join("dest");
    let missing = store.gateways().fetch(&unknown.parse().unwrap(), &dest, PLENTY, |_| {}).await;
    let missing = missing.unwrap_err();
    assert!(missing.is_transient() && missing.to_string().contains(unknown), "{missing}");
}

#[tokio::test]
async fn names_that_lead_out_of_a_folder_are_refused_by_the_store() {
    let (_folder, store) = store().await;
    for name in ["root/../x", "../x", "root//x", "root/./x"] {
        let part = reqwest::multipart::Part::text("x").file_name(name);
        let form = reqwest::multipart::Form::new().percent_encode_noop().part("file", part);
        let pin = Client::new().post(format!("{}/pinning/pinFileToIPFS", store.url));
        let answer = pin.bearer_auth("any").multipart(form).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{name}");
    }
}

#[tokio::test]
async fn a_pin_survives_a_restart_and_a_folder_has_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, noise(600_000)).unwrap();
    let (folder, store) = store().await;
    let cid = publish(&store, &path).await;
    // Left by an upload that a crash cut off.
    fs::write(folder.path().join("incoming/left-over"), "half").unwrap();

    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let second = artifact::store::serve(folder.path(), listener, std::future::pending());
    assert!(matches!(second.await, Err(Error::Setting { .. })));

    store.stop().await;
    let store = Store::start(folder.path()).await;
    let dest = dir.path().join("back");
    let fetched = store.gateways().fetch(&cid, &dest, PLENTY, |_| {}).await.unwrap();
    assert_eq!(fetched.kind, Kind::File);
    assert_eq!(fs::read(dest).unwrap(), noise(600_000));
    assert_eq!(fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
}

async fn publish(store: &Store, path: &std::path::Path) -> Cid {
    let sealed = seal(path, PLENTY).await.unwrap();
    store.pinata().publish(path, &sealed, "pin", |_| {}).await.unwrap()
}

async fn get(store: &Store, path: &str) -> reqwest::Response {
    let url = format!("{}{path}", store.url);
    let request = Client::new().get(url).timeout(Duration::from_secs(30));
    request.send().await.unwrap().error_for_status().unwrap()
}
