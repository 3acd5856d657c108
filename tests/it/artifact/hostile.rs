//! Gateways that lie, stall and wander: what appears is right or nothing appears.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use lamda_node::artifact::{Error, Fetched, Gateways, seal};
use lamda_node::ids::Cid;
use lamda_node::secret::Secret;
use sha2::Digest as _;

use super::{PLENTY, contents, nested, noise, store};
use crate::support::ipfs::{Scripted, Store, config, oracle};
use crate::support::tools::eventually;

const CAR: &str = "application/vnd.ipld.car; version=1";

/// A file of several blocks, its archive and its CID, as an honest gateway has them.
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

    /// Fetches from these gateways; holds that the file is there and right, or not at all.
    async fn fetch(&self, gateways: &[&str]) -> Result<Fetched, Error> {
        let mut config = config(gateways, "http://127.0.0.1:1");
        // Silence of a second is none on a busy machine.
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

    /// What comes of a gateway that answers everything with this.
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
async fn an_archive_that_is_refused_is_asked_for_as_a_file() {
    let original = Original::new().await;
    for status in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED]
    {
        let flat = Bytes::from(original.flat.clone());
        let strict = Scripted::start(move |request: Request| {
            let flat = flat.clone();
            async move {
                match request.uri().query() {
                    Some(_) => status.into_response(),
                    None => flat.into_response(),
                }
            }
        })
        .await;
        original.fetch(&[&strict.url]).await.unwrap();
        fs::remove_file(original.dest()).unwrap();
    }
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
async fn a_gateway_without_archives_is_held_to_the_flat_file() {
    let original = Original::new().await;
    original.fetch_answer("application/octet-stream", original.flat.clone()).await.unwrap();
    fs::remove_file(original.dest()).unwrap();
    // It refuses the archive by its status, and has the file at the plain address.
    let flat = Bytes::from(original.flat.clone());
    let strict = Scripted::start(move |request: Request| {
        let flat = flat.clone();
        async move {
            match request.uri().query() {
                Some(_) => StatusCode::NOT_ACCEPTABLE.into_response(),
                None => flat.into_response(),
            }
        }
    })
    .await;
    original.fetch(&[&strict.url]).await.unwrap();
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
    let cid = oracle(&["add", "v0"], &[file]).remove(0).parse().unwrap();
    let small = gateways.fetch(&cid, &dir.path().join("small"), 2_499_999, |_| {}).await;
    assert!(matches!(small, Err(Error::TooLarge { limit_bytes: 2_499_999 })), "{small:?}");
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
async fn a_gateway_that_hangs_or_breaks_off_is_waited_for_no_longer_than_its_silence() {
    let original = Original::new().await;
    let silent = Scripted::start(async |_| std::future::pending().await).await;
    let done = original.fetch(&[&silent.url]).await;
    assert!(matches!(done, Err(Error::Unavailable { .. })), "{done:?}");
    for ends in [true, false] {
        let half = Bytes::copy_from_slice(&original.archive[..600_000]);
        let broken = Scripted::start(move |_| {
            let first = stream::iter([Ok(half.clone())]);
            let body = if ends {
                let fault = stream::iter([Err(std::io::Error::other("cut"))]);
                Body::from_stream(first.chain(fault))
            } else {
                Body::from_stream(first.chain(stream::pending()))
            };
            async move { ([(header::CONTENT_TYPE, CAR)], body).into_response() }
        })
        .await;
        let done = original.fetch(&[&broken.url]).await;
        assert!(matches!(done, Err(Error::Unavailable { .. })), "{done:?}");
    }
}

/// A gateway whose archive goes on with what `next` gives, a twentieth of a second apart.
async fn dripping(
    begin: Vec<u8>,
    next: impl Fn(usize) -> Bytes + Clone + Send + Sync + 'static,
) -> Scripted {
    let begin = Bytes::from(begin);
    Scripted::start(move |_| {
        let (begin, next) = (begin.clone(), next.clone());
        let pace = tokio::time::interval(Duration::from_millis(50));
        let drip = stream::unfold((0, pace), move |(at, mut pace)| {
            let piece = next(at);
            async move {
                pace.tick().await;
                Some((Ok::<_, std::io::Error>(piece), (at + 1, pace)))
            }
        });
        let body = Body::from_stream(stream::iter([Ok(begin)]).chain(drip));
        async move { ([(header::CONTENT_TYPE, CAR)], body).into_response() }
    })
    .await
}

/// A valid block that no object of these tests holds, as it stands in an archive.
fn unwanted(bytes: usize, at: usize) -> Vec<u8> {
    let mut block = noise(bytes);
    block[..8].copy_from_slice(&at.to_le_bytes());
    let digest = sha2::Sha256::digest(&block);
    let cid = [&[1, 0x55, 0x12, 0x20][..], &digest].concat();
    let (mut section, mut len) = (Vec::new(), cid.len() + block.len());
    while len > 0x7f {
        section.push(u8::try_from(len & 0x7f).unwrap() | 0x80);
        len >>= 7;
    }
    section.push(u8::try_from(len).unwrap());
    section.extend(cid);
    section.extend(block);
    section
}

#[tokio::test]
async fn a_gateway_that_drips_is_left_for_the_next_one() {
    let original = Original::new().await;
    let rest = original.archive[600_000..].to_vec();
    let drips = dripping(original.archive[..600_000].to_vec(), move |at| {
        Bytes::copy_from_slice(&rest[at..=at])
    })
    .await;
    let done = original.fetch(&[&drips.url]).await.unwrap_err();
    assert!(matches!(&done, Error::Unavailable { what, .. } if what.contains("slow")), "{done:?}");
    let honest = gateway(CAR, original.archive.clone()).await;
    original.fetch(&[&drips.url, &honest.url]).await.unwrap();
}

#[tokio::test]
async fn valid_blocks_that_nobody_wants_are_no_progress_however_fast_they_come() {
    let original = Original::new().await;
    let begin = original.archive[..600_000].to_vec();
    let slow = dripping(once_whole(&begin), |at| unwanted(20_000, at).into()).await;
    let done = original.fetch(&[&slow.url]).await.unwrap_err();
    assert!(matches!(&done, Error::Unavailable { what, .. } if what.contains("slow")), "{done:?}");

    // As fast as they can be read: the archive is longer than any of this size could be.
    let flood: Bytes = (0..16).flat_map(|at| unwanted(1 << 20, at)).collect::<Vec<u8>>().into();
    let start = Bytes::from(once_whole(&begin));
    let flooding = Scripted::start(move |_| {
        let flood = flood.clone();
        let endless = stream::repeat_with(move || Ok::<_, std::io::Error>(flood.clone()));
        let body = Body::from_stream(stream::iter([Ok(start.clone())]).chain(endless));
        async move { ([(header::CONTENT_TYPE, CAR)], body).into_response() }
    })
    .await;
    let honest = gateway(CAR, original.archive.clone()).await;
    let gateways = [&*flooding.url, &honest.url];
    let gateways = Gateways::new(&config(&gateways, "http://127.0.0.1:1")).unwrap();
    let dest = original.dest();
    let done = gateways.fetch(&original.cid, &dest, 2_000_000, |_| {}).await;
    assert_eq!(done.unwrap().bytes, 1_000_000);
    assert_eq!(fs::read(dest).unwrap(), original.flat);
}

/// The sections of an archive that are whole.
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

#[tokio::test]
async fn a_fetch_that_nobody_waits_for_any_more_leaves_nothing_behind() {
    let original = Original::new().await;
    let half = Bytes::copy_from_slice(&original.archive[..600_000]);
    let stalled = Scripted::start(move |_| {
        let body = Body::from_stream(
            stream::iter([Ok::<_, std::io::Error>(half.clone())]).chain(stream::pending()),
        );
        async move { ([(header::CONTENT_TYPE, CAR)], body).into_response() }
    })
    .await;
    let gateways = Gateways::new(&config(&[&stalled.url], &stalled.url)).unwrap();
    let begun = tokio::sync::Notify::new();
    let dest = original.dest();
    let fetch = gateways.fetch(&original.cid, &dest, PLENTY, |_| begun.notify_one());
    tokio::select! {
        done = fetch => panic!("{done:?}"),
        () = begun.notified() => {}
    }
    eventually("the folder is as it was", Duration::from_secs(10), || {
        (fs::read_dir(original.dir.path()).unwrap().count() == 1).then_some(())
    });
}

#[tokio::test]
async fn too_many_questions_and_a_wrong_key_are_told_apart() {
    let original = Original::new().await;
    let busy = Scripted::start(async |_| {
        (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "7")]).into_response()
    })
    .await;
    let limited = original.fetch(&[&busy.url]).await.unwrap_err();
    let wait = Some(Duration::from_secs(7));
    assert!(matches!(limited, Error::RateLimited { retry_after, .. } if retry_after == wait));
    let closed = Scripted::start(async |_| StatusCode::UNAUTHORIZED.into_response()).await;
    let refused = original.fetch(&[&closed.url]).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let down = Scripted::start(async |_| StatusCode::BAD_GATEWAY.into_response()).await;
    let down = original.fetch(&[&down.url]).await.unwrap_err();
    assert!(down.is_transient(), "{down}");
}

#[tokio::test]
async fn a_redirect_is_followed_but_the_token_stays_at_home() {
    let original = Original::new().await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listen = |heard: &Arc<Mutex<Vec<_>>>, answer: Response<()>, body: Bytes| {
        let (heard, answer) = (Arc::clone(heard), answer.into_parts().0);
        move |request: Request| {
            let token = request.headers().get("x-pinata-gateway-token").cloned();
            heard.lock().unwrap().push(token.map(|token| token.to_str().unwrap().to_owned()));
            let answer = Response::from_parts(answer.clone(), Body::from(body.clone()));
            async move { answer }
        }
    };
    let car = Response::builder().header(header::CONTENT_TYPE, CAR).body(()).unwrap();
    let away = Scripted::start(listen(&heard, car, original.archive.clone().into())).await;
    let moved = Response::builder().status(StatusCode::MOVED_PERMANENTLY);
    let moved = moved.header(header::LOCATION, format!("{}/elsewhere", away.url)).body(()).unwrap();
    let home = Scripted::start(listen(&heard, moved, Bytes::new())).await;
    let mut config = config(&[&home.url], &home.url);
    config.gateway_token = Some(Secret::new("mine"));
    let gateways = Gateways::new(&config).unwrap();
    gateways.fetch(&original.cid, &original.dest(), PLENTY, |_| {}).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [Some("mine".to_owned()), None]);

    let round = Scripted::start(async |_| {
        (StatusCode::FOUND, [(header::LOCATION, "/again")]).into_response()
    })
    .await;
    fs::remove_file(original.dest()).unwrap();
    assert!(original.fetch(&[&round.url]).await.is_err());
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

/// The archive without the blocks that stand in it before.
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
