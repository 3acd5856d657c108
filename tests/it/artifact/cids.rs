//! The same bytes have the same CID here and in ipfs-unixfs-importer.

use std::fs;
use std::path::PathBuf;

use lamda_node::artifact::{Kind, seal};
use reqwest::multipart::{Form, Part};

use super::{PLENTY, contents, many, nested, noise, store};
use crate::support::ipfs::{Store, oracle};

const CHUNK: usize = 256 * 1024;

#[tokio::test]
async fn files_of_all_shapes_have_the_cid_that_another_implementation_gives() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [0, 10, CHUNK, CHUNK + 1, 5_000_000, 174 * CHUNK, 174 * CHUNK + 1];
    let paths: Vec<PathBuf> = sizes
        .iter()
        .map(|size| {
            let path = dir.path().join(size.to_string());
            fs::write(&path, noise(*size)).unwrap();
            path
        })
        .collect();
    let expected = oracle(&["add", "v1"], &paths);
    let expected_v0 = oracle(&["add", "v0"], &paths);
    let (_folder, store) = store().await;
    for (at, path) in paths.iter().enumerate() {
        let sealed = seal(path, PLENTY).await.unwrap();
        assert_eq!(sealed.cid.to_string(), expected[at], "{} bytes, v1", sizes[at]);
        assert_eq!((sealed.bytes, sealed.kind), (sizes[at] as u64, Kind::File));
        let part = Part::bytes(fs::read(path).unwrap()).file_name("f");
        let pinned = pin(&store, Form::new().part("file", part)).await;
        assert_eq!(pinned, expected_v0[at], "{} bytes, v0", sizes[at]);
    }
}

#[tokio::test]
async fn folders_nested_and_sharded_have_the_cid_that_another_implementation_gives() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("nested"), dir.path().join("many")];
    nested(&paths[0]);
    many(&paths[1]);
    let expected = oracle(&["add", "v1"], &paths);
    let expected_v0 = oracle(&["add", "v0"], &paths);
    let (_folder, store) = store().await;
    for (at, path) in paths.iter().enumerate() {
        let sealed = seal(path, PLENTY).await.unwrap();
        assert_eq!(sealed.cid.to_string(), expected[at], "{}, v1", path.display());
        assert_eq!(sealed.kind, Kind::Directory);
        // In the order of a browser's form: the options last.
        let mut form = Form::new().percent_encode_noop();
        for (name, bytes) in contents(path) {
            form = form.part("file", Part::bytes(bytes).file_name(format!("root/{name}")));
        }
        let pinned = pin(&store, form.text("pinataOptions", r#"{"cidVersion":0}"#)).await;
        assert_eq!(pinned, expected_v0[at], "{}, v0", path.display());
    }
}

#[tokio::test]
async fn an_empty_folder_inside_changes_nothing_and_one_alone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    nested(dir.path());
    let before = seal(dir.path(), PLENTY).await.unwrap();
    fs::create_dir_all(dir.path().join("empty/inside")).unwrap();
    assert_eq!(seal(dir.path(), PLENTY).await.unwrap(), before);
    let refused = seal(&dir.path().join("empty"), PLENTY).await.unwrap_err();
    assert!(refused.to_string().contains("without a file"), "{refused}");
}

/// The CID that an independent client gets for a pin.
async fn pin(store: &Store, form: Form) -> String {
    let url = format!("{}/pinning/pinFileToIPFS", store.url);
    let request = reqwest::Client::new().post(url).bearer_auth("any").multipart(form);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert!(answer["PinSize"].is_u64() && answer["Timestamp"].is_string(), "{answer}");
    answer["IpfsHash"].as_str().unwrap().to_owned()
}
