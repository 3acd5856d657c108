//! Gateways that lie, stall and redirect: the right file appears at the destination, or none.

mod answers;
mod bytes;
mod silence;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse as _;
use lamda_node::artifact::{Error, Fetched, Gateways, seal};
use lamda_node::ids::Cid;

use super::{PLENTY, noise, store};
use crate::support::ipfs::{Scripted, Store, config};

const CAR: &str = "application/vnd.ipld.car; version=1";

/// A file of several blocks with the archive and the CID that an honest gateway has.
struct Original {
    cid: Cid,
    flat: Vec<u8>,
    archive: Vec<u8>,
    dir: tempfile::TempDir,
}

impl Original {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("original");
        let flat = noise(1_000_000);
        fs::write(&file, &flat).unwrap();
        let (_folder, store) = store().await;
        let (cid, archive) = publish(&store, &file).await;
        Self { cid, flat, archive, dir }
    }

    fn dest(&self) -> PathBuf {
        self.dir.path().join("dest")
    }

    /// Fetches from these gateways, and asserts that the file is complete and right, or absent.
    async fn fetch(&self, gateways: &[&str]) -> Result<Fetched, Error> {
        let mut config = config(gateways, "http://127.0.0.1:1");
        // A second is short for a busy machine and long enough for an honest gateway.
        config.idle_timeout = Duration::from_secs(1);
        let gateways = Gateways::new(&config).unwrap();
        let done = gateways.fetch(&self.cid, &self.dest(), PLENTY, |_| {}).await;
        let mut left: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        if done.is_ok() {
            assert_eq!(left, ["dest", "original"]);
            assert_eq!(fs::read(self.dest()).unwrap(), self.flat);
        } else {
            assert_eq!(left, ["original"]);
        }
        done
    }

    /// The result of a fetch from a gateway that answers everything with `body`.
    async fn fetch_answer(&self, kind: &'static str, body: Vec<u8>) -> Result<Fetched, Error> {
        let gateway = gateway(kind, body).await;
        self.fetch(&[&gateway.url]).await
    }
}

async fn gateway(kind: &'static str, body: Vec<u8>) -> Scripted {
    let body = Bytes::from(body);
    Scripted::start(move |_| {
        let body = body.clone();
        async move { ([(header::CONTENT_TYPE, kind)], body).into_response() }
    })
    .await
}

async fn publish(store: &Store, path: &Path) -> (Cid, Vec<u8>) {
    let sealed = seal(path, PLENTY).await.unwrap();
    let cid = store.pinata().publish(path, &sealed, "pin", |_| {}).await.unwrap();
    let url = format!("{}/ipfs/{cid}?format=car", store.url);
    let archive = reqwest::get(url).await.unwrap().bytes().await.unwrap();
    (cid, archive.to_vec())
}

/// The complete sections of an archive that was cut off.
fn once_whole(archive: &[u8]) -> Vec<u8> {
    let mut end = 0;
    loop {
        let rest = &archive[end..];
        let Some(digits) = rest.iter().position(|byte| byte & 0x80 == 0) else { break };
        let digits = digits + 1;
        let len =
            rest[..digits].iter().rev().fold(0, |len, byte| len << 7 | usize::from(byte & 0x7f));
        if rest.len() < digits + len {
            break;
        }
        end += digits + len;
    }
    archive[..end].to_vec()
}
