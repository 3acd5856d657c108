//! Gateways that hang, drip, or flood with blocks that nobody asked for.

use std::fs;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::IntoResponse as _;
use futures_util::{StreamExt as _, stream};
use lamda_node::artifact::{Error, Gateways};
use sha2::Digest as _;

use super::{CAR, Original, PLENTY, gateway, noise, once_whole};
use crate::support::ipfs::{Scripted, config};
use crate::support::tools::eventually;

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

/// A gateway that sends `begin` and then, every 50 ms, the next piece that `next` returns.
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

/// An archive's section with a valid block that belongs to no object of these tests.
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

    // As fast as they can be read, until the archive is longer than one of this size can be.
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
