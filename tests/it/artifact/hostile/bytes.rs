//! Wrong, missing and repeated bytes.

use std::fs;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use lamda_node::artifact::{Error, Fetched, Gateways};

use super::{CAR, Original, PLENTY, gateway, noise, once_whole, publish, store};
use crate::artifact::{contents, nested};
use crate::support::ipfs::{Scripted, config, oracle};

#[tokio::test]
async fn wrong_bytes_never_appear() {
    let original = Original::new().await;
    let unverified = |done: Result<Fetched, Error>| {
        assert!(matches!(done, Err(Error::Unverified { .. })), "{done:?}");
    };
    let mut flipped = original.archive.clone();
    flipped[700_000] ^= 1;
    unverified(original.fetch_answer(CAR, flipped).await);
    let mut flipped = original.flat.clone();
    flipped[999_999] ^= 1;
    unverified(original.fetch_answer("application/octet-stream", flipped).await);
    let cut = original.flat[..999_999].to_vec();
    unverified(original.fetch_answer("application/octet-stream", cut).await);
}

/// The archive without repeated blocks.
fn once(archive: &[u8]) -> Vec<u8> {
    let mut seen = std::collections::HashSet::new();
    let (mut out, mut rest) = (Vec::new(), archive);
    while !rest.is_empty() {
        let digits = rest.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let len =
            rest[..digits].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        let (section, after) = rest.split_at(digits + len);
        if seen.insert(section) {
            out.extend_from_slice(section);
        }
        rest = after;
    }
    assert!(out.len() < archive.len(), "nothing was repeated");
    out
}

#[tokio::test]
async fn what_is_missing_is_asked_for_again_and_is_never_called_wrong() {
    let original = Original::new().await;
    let header = 1 + usize::from(original.archive[0]);
    let page = || b"<!doctype html><h1>Sign in</h1>".to_vec();
    let mut patched = once_whole(&original.archive[..500_000]);
    patched.extend_from_slice(b"upstream timed out");
    for (kind, body) in [
        (CAR, original.archive[..header].to_vec()),
        (CAR, once_whole(&original.archive[..500_000])),
        (CAR, original.archive[..500_000].to_vec()),
        (CAR, patched),
        (CAR, Vec::new()),
        (CAR, b"no archive at all".to_vec()),
        ("text/html", page()),
        ("application/json", br#"{"error":"sign in"}"#.to_vec()),
        ("application/octet-stream", Vec::new()),
    ] {
        let bytes = body.len();
        let done = original.fetch_answer(kind, body).await;
        let told = done.expect_err("it is not there");
        assert!(told.is_transient(), "{bytes} bytes of {kind}: {told:?}");
    }
    let half = original.archive[..500_000].to_vec();
    let halves = gateway(CAR, half).await;
    let absent = Scripted::start(async |_| StatusCode::NOT_FOUND.into_response()).await;
    let told = original.fetch(&[&halves.url, &absent.url]).await.unwrap_err();
    assert!(told.is_transient(), "{told:?}");
    let told = format!("{told}: {:?}", std::error::Error::source(&told));
    assert!(told.contains("ends too early") && told.contains("does not have it"), "{told}");
    let honest = gateway(CAR, original.archive.clone()).await;
    original.fetch(&[&halves.url, &absent.url, &honest.url]).await.unwrap();
}

#[tokio::test]
async fn a_gateway_is_vouched_for_only_by_the_bytes_of_a_cid() {
    let block = vec![0x0a, 2, 8, 1];
    for (kind, status, body, is_fit) in [
        ("application/vnd.ipld.raw", 200, block.clone(), true),
        ("application/vnd.ipld.raw", 200, vec![0x0a, 2, 8, 2], false),
        ("text/html", 200, b"<h1>Sign in</h1>".to_vec(), false),
        ("text/html", 200, block.repeat(1 << 20), false),
        ("text/plain", 401, b"no".to_vec(), false),
        ("text/plain", 403, b"no".to_vec(), false),
        ("text/plain", 404, b"no".to_vec(), false),
    ] {
        let body = Bytes::from(body);
        let gateway = Scripted::start(move |_| {
            let status = StatusCode::from_u16(status).unwrap();
            let body = body.clone();
            async move { (status, [(header::CONTENT_TYPE, kind)], body).into_response() }
        })
        .await;
        let gateways = Gateways::new(&config(&[&gateway.url], &gateway.url)).unwrap();
        let told = gateways.check().await;
        assert_eq!(told.is_ok(), is_fit, "{status} {kind}: {told:?}");
    }
    let (_folder, store) = store().await;
    let page = gateway("text/html", b"<h1>Sign in</h1>".to_vec()).await;
    let both = Gateways::new(&config(&[&page.url, &store.url], &store.url)).unwrap();
    let unfit = both.check().await.unwrap();
    assert!(matches!(&*unfit, [(_, only)] if only.contains("a web page")), "{unfit:?}");
}

#[tokio::test]
async fn a_flat_file_is_known_under_every_profile() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, noise(2_500_000)).unwrap();
    let gateway = gateway("application/octet-stream", noise(2_500_000)).await;
    let gateways = Gateways::new(&config(&[&gateway.url], &gateway.url)).unwrap();
    for profile in ["v0", "v1", "v1-2025"] {
        let cid = oracle(&["add", profile], std::slice::from_ref(&file)).remove(0);
        let dest = dir.path().join(profile);
        let fetched = gateways.fetch(&cid.parse().unwrap(), &dest, PLENTY, |_| {}).await;
        assert_eq!(fetched.unwrap().bytes, 2_500_000, "{profile}");
    }
}

/// What a gateway without archives answers to a request for a flat file.
fn flat_answer(how: &str, flat: &[u8]) -> Response {
    match how {
        "flat" => flat.to_vec().into_response(),
        "claims" => {
            let endless = stream::pending::<Result<Bytes, std::io::Error>>();
            ([(header::CONTENT_LENGTH, "99999999999999")], Body::from_stream(endless))
                .into_response()
        }
        "endless" => {
            let pieces = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(noise(9000))));
            Body::from_stream(pieces).into_response()
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn only_checked_blocks_say_that_an_object_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let (_folder, store) = store().await;
    for (bytes, limit) in [(751, 10_000), (751, 750), (2_500_000, 2_499_999)] {
        let file = dir.path().join(format!("{bytes}"));
        fs::write(&file, noise(bytes)).unwrap();
        let (cid, _) = publish(&store, &file).await;
        let root = format!("{}/ipfs/{cid}?format=raw", store.url);
        let root = reqwest::get(root).await.unwrap().bytes().await.unwrap();
        for how in ["flat", "claims", "endless"] {
            for shows_root in [true, false] {
                let (root, flat) = (root.clone(), noise(bytes));
                let gateway = Scripted::start(move |request: Request| {
                    let wants_root =
                        request.uri().query().is_some_and(|query| query.contains("format=raw"));
                    let answer = if wants_root && shows_root {
                        root.clone().into_response()
                    } else if wants_root {
                        StatusCode::NOT_IMPLEMENTED.into_response()
                    } else {
                        flat_answer(how, &flat)
                    };
                    async move { answer }
                })
                .await;
                let gateways = Gateways::new(&config(&[&gateway.url], &gateway.url)).unwrap();
                let dest = dir.path().join("dest");
                let done = gateways.fetch(&cid, &dest, limit, |_| {}).await;
                let row = format!("{bytes} of {limit}, {how}, {shows_root}: {done:?}");
                match done {
                    Ok(_) => assert!(how == "flat" && limit > 751, "{row}"),
                    Err(Error::TooLarge { .. }) => {
                        assert!(shows_root && u64::try_from(bytes).unwrap() > limit, "{row}");
                    }
                    Err(err) => assert!(
                        err.is_transient() && !(shows_root && limit < bytes as u64),
                        "{row}"
                    ),
                }
                fs::remove_file(dest).ok();
            }
        }
    }
}

#[tokio::test]
async fn the_next_gateway_makes_up_for_a_bad_one() {
    let original = Original::new().await;
    let mut flipped = original.archive.clone();
    flipped[700_000] ^= 1;
    let lying = gateway(CAR, flipped).await;
    let absent = Scripted::start(async |_| StatusCode::NOT_FOUND.into_response()).await;
    let honest = gateway(CAR, original.archive.clone()).await;
    let gateways = [&*lying.url, &absent.url, "http://127.0.0.1:1", &honest.url];
    original.fetch(&gateways).await.unwrap();
}

#[tokio::test]
async fn a_folder_arrives_from_a_gateway_that_sends_every_block_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    nested(&folder);
    let (_folder, store) = store().await;
    let (cid, archive) = publish(&store, &folder).await;
    let gateway = gateway(CAR, once(&archive)).await;
    let gateways = Gateways::new(&config(&[&gateway.url], &gateway.url)).unwrap();
    let dest = dir.path().join("back");
    gateways.fetch(&cid, &dest, PLENTY, |_| {}).await.unwrap();
    assert_eq!(contents(&dest), contents(&folder));
}

#[tokio::test]
async fn what_is_already_at_the_destination_stays() {
    let original = Original::new().await;
    fs::write(original.dest(), "precious").unwrap();
    let honest = gateway(CAR, original.archive.clone()).await;
    let gateways = Gateways::new(&config(&[&honest.url], &honest.url)).unwrap();
    let done = gateways.fetch(&original.cid, &original.dest(), PLENTY, |_| {}).await;
    assert!(matches!(done, Err(Error::Io(_))), "{done:?}");
    assert_eq!(fs::read_to_string(original.dest()).unwrap(), "precious");
}
