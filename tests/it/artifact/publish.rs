//! Publishing to a service that misbehaves.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use lamda_node::artifact::{Error, Pinata, Sealed, seal};
use lamda_node::ids::Cid;

use super::{PLENTY, nested, noise};
use crate::support::ipfs::{Scripted, config, oracle};

/// The result of publishing `path` to a service that accepts everything and answers `answer`.
async fn publish(path: &std::path::Path, answer: (u16, &str)) -> Result<Cid, Error> {
    let sealed = seal(path, PLENTY).await.unwrap();
    publish_sealed(path, &sealed, answer).await
}

async fn publish_sealed(
    path: &std::path::Path,
    sealed: &Sealed,
    (status, body): (u16, &str),
) -> Result<Cid, Error> {
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    let body = body.to_owned();
    let service = Scripted::start(move |request| {
        let body = body.clone();
        async move {
            let all = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            drop(all);
            (status, [("retry-after", "7")], body).into_response()
        }
    })
    .await;
    let pinata = Pinata::new(&config(&[], &service.url)).unwrap();
    pinata.publish(path, sealed, "job", |_| {}).await
}

fn hash(cid: &str) -> String {
    serde_json::json!({ "IpfsHash": cid, "PinSize": 1, "Timestamp": "now" }).to_string()
}

#[tokio::test]
async fn a_cid_of_the_same_bytes_under_another_profile_is_taken_and_another_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
    fs::write(&file, noise(2_500_000)).unwrap();
    nested(&folder);
    for profile in ["v0", "v1", "v1-2025"] {
        let cids = oracle(&["add", profile], &[file.clone(), folder.clone()]);
        for (path, cid) in [&file, &folder].into_iter().zip(cids) {
            let published = publish(path, (200, &hash(&cid))).await.unwrap();
            assert_eq!(published.to_string(), cid, "{profile}");
        }
    }
    let other = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    let refused = publish(&file, (200, &hash(other))).await.unwrap_err();
    assert!(matches!(refused, Error::Mismatch { .. }), "{refused}");
    assert!(!refused.is_transient());
}

#[tokio::test]
async fn bytes_that_changed_after_they_were_sealed_are_not_published_as_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, noise(300_000)).unwrap();
    let sealed = seal(&file, PLENTY).await.unwrap();
    fs::write(&file, vec![1; 300_000]).unwrap();
    let changed = oracle(&["add", "v0"], std::slice::from_ref(&file)).remove(0);
    let done = publish_sealed(&file, &sealed, (200, &hash(&changed))).await;
    assert!(matches!(done, Err(Error::Mismatch { .. })), "{done:?}");
}

#[tokio::test]
async fn a_service_that_refuses_or_waits_is_told_apart_from_one_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "hello").unwrap();
    for status in [401, 403] {
        let refused = publish(&file, (status, "no")).await.unwrap_err();
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    }
    let wait = Some(Duration::from_secs(7));
    let limited = publish(&file, (429, "slow down")).await.unwrap_err();
    assert!(matches!(limited, Error::RateLimited { retry_after, .. } if retry_after == wait));
    let down = publish(&file, (503, "later")).await.unwrap_err();
    assert!(down.is_transient(), "{down}");
    let words = "{\"error\":\n  \"File too large\"}";
    let large = publish(&file, (413, words)).await.unwrap_err();
    assert!(large.to_string().contains("too large"), "{large}");
    assert!(!large.is_transient());
    let odd = publish(&file, (200, "{}")).await.unwrap_err();
    assert!(matches!(odd, Error::Rejected { .. }), "{odd}");
    let nobody = Pinata::new(&config(&[], "http://127.0.0.1:1")).unwrap().check().await;
    assert!(nobody.unwrap_err().is_transient());
}

#[tokio::test]
async fn the_key_goes_in_the_header_and_a_name_that_no_form_carries_is_refused_by_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bell\u{7}.txt"), "x").unwrap();
    let refused = seal(dir.path(), PLENTY).await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    // A service that does not decode the form's escapes in a name is told apart from one that lies.
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("quote\".txt"), "x").unwrap();
    let other = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";
    let refused = publish(dir.path(), (200, &hash(other))).await.unwrap_err();
    let named = |path: &str| path == "quote\\\".txt";
    assert!(matches!(&refused, Error::Unsupported { path, .. } if named(path)), "{refused:?}");

    let heard = Arc::new(Mutex::new(String::new()));
    let ear = Arc::clone(&heard);
    let service = Scripted::start(move |request: axum::extract::Request| {
        let key = request.headers()["authorization"].to_str().unwrap().to_owned();
        *ear.lock().unwrap() = format!("{key} {}", request.uri());
        std::future::ready(Response::default())
    })
    .await;
    Pinata::new(&config(&[], &service.url)).unwrap().check().await.unwrap();
    assert_eq!(*heard.lock().unwrap(), "Bearer test-jwt /data/testAuthentication");
}
