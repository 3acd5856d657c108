//! What a call of another system's API asks for, read before its handler runs.
//!
//! Must hold: a handler that takes [`Sees`] first answers nobody who may not see everything; what can't be read is
//! refused in the other system's form.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Shared;
use super::foreign::{Foreign, sees_all};
use crate::hub::store::proplets::Span;
use crate::web::Peer;
use crate::web::extract::{ConnectInfo, FromRequestParts, Path, Query};
use crate::web::http::StatusCode;
use crate::web::http::request::Parts;

/// The most entries of an answer, and how many there are if nobody says.
pub(super) const LIMIT_MAX: u64 = 100;

/// Whoever asks may see everything.
#[derive(Debug)]
pub(super) struct Sees;

/// The query.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

/// The id in the path.
#[derive(Debug)]
pub(super) struct Id(pub(super) String);

/// Which part of a list is asked for, by `?offset=` and `?limit=`.
#[derive(Debug)]
pub(super) struct Part(pub(super) Span);

impl FromRequestParts<Shared> for Sees {
    type Rejection = Foreign;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Foreign> {
        let peer = ConnectInfo::<Peer>::from_request_parts(parts, shared).await;
        // The server adds it to each request.
        let ConnectInfo(peer) =
            peer.map_err(|err| Foreign::Said(StatusCode::INTERNAL_SERVER_ERROR, err.body_text()))?;
        sees_all(shared, &parts.headers, &peer).await?;
        Ok(Self)
    }
}

impl<T: DeserializeOwned> FromRequestParts<Shared> for Asked<T> {
    type Rejection = Foreign;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Foreign> {
        let query = Query::<T>::from_request_parts(parts, shared).await;
        query.map(|Query(asked)| Self(asked)).map_err(|err| Foreign::bad(err.body_text()))
    }
}

impl FromRequestParts<Shared> for Id {
    type Rejection = Foreign;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Foreign> {
        let path = Path::<String>::from_request_parts(parts, shared).await;
        path.map(|Path(id)| Self(id)).map_err(|err| Foreign::bad(err.body_text()))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bounds {
    offset: Option<u64>,
    limit: Option<u64>,
}

impl FromRequestParts<Shared> for Part {
    type Rejection = Foreign;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Foreign> {
        let Asked(Bounds { offset, limit }) = Asked::from_request_parts(parts, shared).await?;
        let limit = limit.unwrap_or(LIMIT_MAX);
        if limit > LIMIT_MAX {
            return Err(Foreign::bad("invalid limit size"));
        }
        Ok(Self(Span { offset: offset.unwrap_or_default(), limit }))
    }
}
