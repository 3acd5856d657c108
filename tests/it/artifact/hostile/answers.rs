//! Statuses and redirects in place of the archive.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use lamda_node::artifact::{Error, Gateways};
use lamda_node::secret::Secret;

use super::{CAR, Original, PLENTY};
use crate::support::ipfs::{Scripted, config};

/// A gateway that refuses archives with this status, and serves the file at the plain address.
async fn without_archives(original: &Original, status: StatusCode) -> Scripted {
    let flat = Bytes::from(original.flat.clone());
    Scripted::start(move |request: Request| {
        let flat = flat.clone();
        async move {
            match request.uri().query() {
                Some(_) => status.into_response(),
                None => flat.into_response(),
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_archive_that_is_refused_is_asked_for_as_a_file() {
    let original = Original::new().await;
    for status in [StatusCode::FORBIDDEN, StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED]
    {
        let strict = without_archives(&original, status).await;
        original.fetch(&[&strict.url]).await.unwrap();
        fs::remove_file(original.dest()).unwrap();
    }
}

#[tokio::test]
async fn a_gateway_without_archives_is_held_to_the_flat_file() {
    let original = Original::new().await;
    original.fetch_answer("application/octet-stream", original.flat.clone()).await.unwrap();
    fs::remove_file(original.dest()).unwrap();
    let strict = without_archives(&original, StatusCode::NOT_ACCEPTABLE).await;
    original.fetch(&[&strict.url]).await.unwrap();
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
