//! Gateways: a row has the behaviour of two gateways with one input, and the required end of its job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};

use crate::support::ipfs::Scripted;
use crate::support::world::{World, shell};

const CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
const BYTES: usize = 700_000;

/// What a gateway does with a request for an input.
#[derive(Clone, Copy)]
enum Does {
    /// Answers correctly.
    Serves,
    /// Sends the first so many thousandths of the archive, and ends the body properly.
    Cuts(usize),
    /// Sends only the archive's header.
    OnlyHeader,
    /// Sends the archive with one wrong byte.
    Flips,
    /// Sends a web page with status 200.
    Page,
    /// Answers with this status.
    Says(u16),
    /// Claims to have 100 TB.
    Claims,
    /// Sends bytes for as long as somebody reads.
    Endless,
    /// Refuses archives with this status, and serves the flat file.
    NoArchives(u16),
    /// For so many requests behaves as the first, and then as the second.
    Later(usize, &'static Self, &'static Self),
}

/// A row: name, the two gateways, the end and its reason, and a part of the error.
type Row = (&'static str, [Does; 2], [&'static str; 2], &'static str);

const NOT_FOUND: Does = Does::Says(404);
const DONE: [&str; 2] = ["completed", ""];
const UNAVAILABLE: [&str; 2] = ["failed", "input_unavailable"];
const UNVERIFIED: [&str; 2] = ["failed", "input_unverified"];

const ROWS: &[Row] = &[
    ("header-once", [Does::Later(1, &Does::OnlyHeader, &Does::Serves), NOT_FOUND], DONE, ""),
    ("half-once", [Does::Later(1, &Does::Cuts(500), &Does::Serves), NOT_FOUND], DONE, ""),
    ("end-once", [Does::Later(1, &Does::Cuts(999), &Does::Serves), NOT_FOUND], DONE, ""),
    ("half-beside-a-good-one", [Does::Cuts(500), Does::Serves], DONE, ""),
    ("page-beside-a-good-one", [Does::Page, Does::Serves], DONE, ""),
    ("flips-beside-a-good-one", [Does::Flips, Does::Serves], DONE, ""),
    ("refuses-beside-a-good-one", [Does::Says(403), Does::Serves], DONE, ""),
    ("page-first", [Does::Later(3, &Does::Page, &Does::Serves), NOT_FOUND], DONE, ""),
    ("found-later", [Does::Later(5, &NOT_FOUND, &Does::Serves), NOT_FOUND], DONE, ""),
    ("no-archives", [Does::NoArchives(403), NOT_FOUND], DONE, ""),
    ("always-half", [Does::Cuts(500), NOT_FOUND], UNAVAILABLE, "ends too early"),
    ("always-page", [Does::Page, Does::Page], UNAVAILABLE, "flat file that is not"),
    ("flips-beside-none", [Does::Flips, NOT_FOUND], UNAVAILABLE, "not what its CID says"),
    ("all-flip", [Does::Flips, Does::Flips], UNVERIFIED, "contradict"),
    ("all-refuse", [Does::Says(403), Does::Says(401)], UNAVAILABLE, "refuses the key"),
    ("claims-once", [Does::Later(1, &Does::Claims, &Does::Serves), NOT_FOUND], DONE, ""),
    ("endless-once", [Does::Later(1, &Does::Endless, &Does::Serves), NOT_FOUND], DONE, ""),
    ("claims-beside-none", [Does::Claims, NOT_FOUND], UNAVAILABLE, "there is room for"),
    ("claims-always", [Does::Claims, Does::Endless], UNAVAILABLE, "there is room for"),
    ("nowhere", [NOT_FOUND, NOT_FOUND], UNAVAILABLE, "does not have it"),
];

/// An input: its bytes, and the archive that the store makes of it.
struct Object {
    flat: Bytes,
    archive: Bytes,
}

impl Does {
    fn answer(&self, nth: usize, object: &Object, wants_archive: bool) -> Response {
        let car = |bytes: &[u8]| {
            ([(header::CONTENT_TYPE, CAR)], Bytes::copy_from_slice(bytes)).into_response()
        };
        match self {
            Self::Later(count, first, _) if nth < *count => {
                first.answer(nth, object, wants_archive)
            }
            Self::Later(count, _, then) => then.answer(nth - count, object, wants_archive),
            Self::Says(status) => StatusCode::from_u16(*status).expect("a status").into_response(),
            Self::NoArchives(status) if wants_archive => {
                Self::Says(*status).answer(nth, object, wants_archive)
            }
            Self::Claims => {
                let nothing = stream::pending::<Result<Bytes, std::io::Error>>();
                let length = [(header::CONTENT_LENGTH, "99999999999999")];
                (length, Body::from_stream(nothing)).into_response()
            }
            Self::Endless => {
                let piece = Bytes::from(vec![7; 65_536]);
                let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
                Body::from_stream(pieces).into_response()
            }
            Self::Page => {
                ([(header::CONTENT_TYPE, "text/html")], "<h1>Sign in</h1>").into_response()
            }
            Self::Serves | Self::NoArchives(_) if !wants_archive => {
                let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
                (kind, object.flat.clone()).into_response()
            }
            Self::OnlyHeader => car(&object.archive[..=usize::from(object.archive[0])]),
            Self::Cuts(of_thousand) => car(&object.archive[..BYTES / 1000 * of_thousand]),
            Self::Flips => {
                let mut flipped = object.archive.to_vec();
                flipped[BYTES / 2] ^= 1;
                car(&flipped)
            }
            Self::Serves | Self::NoArchives(_) => car(&object.archive),
        }
    }
}

// A second thread, so that the gateways answer while the test blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_gateways_do_with_an_input_its_job_ends_as_its_row_says() {
    let world = World::start().await;
    let mut objects = HashMap::new();
    let mut cids = Vec::new();
    for (at, (name, does, ..)) in ROWS.iter().enumerate() {
        let flat: Vec<u8> =
            (0..BYTES).map(|byte| (byte * (at + 3) % 251).to_le_bytes()[0]).collect();
        let cid = world.pin(&flat).await;
        let archive = format!("{}/ipfs/{cid}?format=car", world.store());
        let archive =
            reqwest::get(archive).await.expect("an answer").bytes().await.expect("a body");
        objects.insert(cid.clone(), (*does, Object { flat: flat.into(), archive }));
        cids.push((*name, cid));
    }
    let (objects, asked) = (Arc::new(objects), Arc::new(Mutex::new(HashMap::new())));
    let gateways = Scripted::start(move |request: Request| {
        let path = request.uri().path().to_owned();
        let wants_archive = request.uri().query().is_some_and(|query| query.contains("format=car"));
        // The root block, of which a node learns how large the object really is.
        let wants_root = request.uri().query().is_some_and(|query| query.contains("format=raw"));
        let mut asked = asked.lock().expect("nobody panics with it");
        let nth = asked.entry(path.clone()).or_insert(0);
        *nth += usize::from(!wants_root);
        let nth = nth.saturating_sub(1);
        let cid = path.rsplit('/').next().unwrap_or_default();
        let answer = match objects.get(cid) {
            Some(_) if wants_root => StatusCode::NOT_IMPLEMENTED.into_response(),
            Some((does, object)) => {
                does[usize::from(path.starts_with("/two/"))].answer(nth, object, wants_archive)
            }
            None => StatusCode::NOT_FOUND.into_response(),
        };
        async move { answer }
    })
    .await;
    let both = format!("{0}/one,{0}/two", gateways.url);
    let settings = [("IPFS_GATEWAYS", &*both), ("FETCH_GIVE_UP_S", "15"), ("JOB_SLOTS", "8")];
    let agent = world.agent(&settings);
    for (name, cid) in &cids {
        let mut job = shell("cp /input/input /output/output");
        job["input_file_cid"] = json!(cid);
        job["disk_mib"] = json!(16);
        world.publish(name, &job);
    }
    let mut told = Vec::new();
    for ((name, _, end, error), (_, cid)) in ROWS.iter().zip(&cids) {
        let statuses = world.outcome(name);
        let last = statuses.last().unwrap_or(&Value::Null);
        let reason = last["reason_code"].as_str().unwrap_or_default();
        let words = last["error"].as_str().unwrap_or_default();
        let is_right = [last["status"].as_str().unwrap_or_default(), reason] == *end;
        let is_whole = end != &DONE || last["output_cid"] == **cid;
        if !(is_right && is_whole && words.contains(error)) {
            told.push(format!("{name}: {last}"));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
    let log = agent.log();
    assert!(!log.contains("panicked"), "{log}");
}
