//! `GET /ipfs/…`: flat files with ranges, archives, single blocks, listings.
//!
//! See <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.

use std::sync::Arc;

use serde::Deserialize;

use super::super::dag::{self, BlockId, Content};
use super::super::{Kind, car};
use super::objects::{Objects, Record, Skeleton};
use super::stream::{self, Scope};
use super::{Error, HttpProblem};
use crate::ids::Cid;
use crate::web;
use crate::web::body::Body;
use crate::web::extract::{Path, Query, State};
use crate::web::http::{HeaderMap, HeaderValue, StatusCode, header};
use crate::web::response::{IntoResponse as _, Response};

const RAW_TYPE: &str = "application/vnd.ipld.raw";
const CAR_TYPE: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=y";

/// Query parameters of a gateway request.
#[derive(Debug, Deserialize)]
pub(super) struct Options {
    format: Option<String>,
    #[serde(rename = "dag-scope")]
    scope: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Flat,
    Car,
    Raw,
}

/// An object and the directories that lead to it.
struct Resolved {
    above: Vec<(BlockId, Skeleton)>,
    id: BlockId,
    skeleton: Skeleton,
}

/// `GET /ipfs/{cid}`: the object itself.
pub(super) async fn object(
    State(objects): State<Arc<Objects>>,
    Path(cid): Path<String>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    answer(objects, cid, String::new(), options, headers).await
}

/// `GET /ipfs/{cid}/{path}`: an object below a directory.
pub(super) async fn object_below(
    State(objects): State<Arc<Objects>>,
    Path((cid, path)): Path<(String, String)>,
    Query(options): Query<Options>,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    answer(objects, cid, path, options, headers).await
}

async fn answer(
    objects: Arc<Objects>,
    cid: String,
    path: String,
    options: Options,
    headers: HeaderMap,
) -> Result<Response, HttpProblem> {
    let bad = |err| HttpProblem::new(StatusCode::BAD_REQUEST, "BAD_CID", format!("{err}"));
    let cid: Cid = cid.parse().map_err(|err: crate::ids::cid::InvalidCid| bad(err))?;
    let format = format(&options, &headers)?;
    let scope = match options.scope.as_deref() {
        None | Some("all") => Scope::All,
        Some("entity") => Scope::Entity,
        Some("block") => Scope::Block,
        Some(_) => return Err(refuse(StatusCode::BAD_REQUEST, "an unknown dag-scope")),
    };
    let respond = move || {
        let found = resolve(&objects, BlockId::from_cid(&cid), &path)?;
        match format {
            Format::Car => Ok(archive(&objects, found, scope)),
            Format::Raw => {
                let block = stream::root_block(&objects, found.id, &found.skeleton)?;
                Ok(typed(RAW_TYPE, block.len() as u64, Body::from(block)))
            }
            Format::Flat if found.skeleton.kind == Kind::File => {
                Ok(flat(&objects, &found, &headers))
            }
            Format::Flat => listing(&objects, &found),
        }
    };
    let done = tokio::task::spawn_blocking(respond).await;
    let mut response = done.map_err(|panic| Error::Io(std::io::Error::other(panic)))??;
    // The content of a CID never changes.
    let forever = HeaderValue::from_static("public, max-age=29030400, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

fn format(options: &Options, headers: &HeaderMap) -> Result<Format, HttpProblem> {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    match options.format.as_deref() {
        Some("car") => Ok(Format::Car),
        Some("raw") => Ok(Format::Raw),
        Some(_) => Err(refuse(StatusCode::NOT_ACCEPTABLE, "formats are car and raw")),
        None if accept.is_some_and(|accept| accept.contains(car::MEDIA_TYPE)) => Ok(Format::Car),
        None if accept.is_some_and(|accept| accept.contains(RAW_TYPE)) => Ok(Format::Raw),
        None => Ok(Format::Flat),
    }
}

fn resolve(objects: &Objects, root: BlockId, path: &str) -> Result<Resolved, HttpProblem> {
    let find = |id| objects.find(id)?.ok_or_else(missing);
    let mut found = Resolved { above: Vec::new(), id: root, skeleton: find(root)? };
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let entries = entries(&found.skeleton)?;
        let (_, id) = entries.into_iter().find(|(entry, _)| entry == name).ok_or_else(missing)?;
        let below = find(id)?;
        found.above.push((found.id, std::mem::replace(&mut found.skeleton, below)));
        found.id = id;
    }
    Ok(found)
}

/// The entries of a directory, sharded or not.
fn entries(skeleton: &Skeleton) -> Result<Vec<(String, BlockId)>, HttpProblem> {
    let mut entries = Vec::new();
    if skeleton.kind == Kind::File {
        return Ok(entries);
    }
    for record in &skeleton.records {
        let Record::Node { block, .. } = record else { continue };
        let node = dag::decode(block).map_err(|err| Error::Io(std::io::Error::other(err)))?;
        let prefix = if let Content::Shard { prefix } = node.content { prefix } else { 0 };
        for link in node.links {
            // A name that consists of the slot alone leads to a shard below.
            if let Some(name) = link.name.get(prefix..).filter(|name| !name.is_empty()) {
                entries.push((String::from_utf8_lossy(name).into_owned(), link.id));
            }
        }
    }
    Ok(entries)
}

fn archive(objects: &Arc<Objects>, found: Resolved, scope: Scope) -> Response {
    let Resolved { above, id, skeleton } = found;
    let whole = above.is_empty() && scope == Scope::All;
    let header = car::header(id, skeleton.version).len() as u64;
    let bytes = whole.then_some(header + skeleton.archive_bytes);
    let body = stream::archive(objects, above, (id, skeleton), scope);
    match bytes {
        Some(bytes) => typed(CAR_TYPE, bytes, body),
        None => ([(header::CONTENT_TYPE, CAR_TYPE)], body).into_response(),
    }
}

fn flat(objects: &Arc<Objects>, found: &Resolved, headers: &HeaderMap) -> Response {
    let all = found.skeleton.bytes;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let accept = [(header::ACCEPT_RANGES, "bytes")];
    let Some((start, end)) = range.and_then(|range| parse_range(range, all)) else {
        let body = stream::flat(objects, found.id, 0, all);
        return (accept, typed("application/octet-stream", all, body)).into_response();
    };
    if start >= end {
        let none = [(header::CONTENT_RANGE, format!("bytes */{all}"))];
        return (StatusCode::RANGE_NOT_SATISFIABLE, none).into_response();
    }
    let part = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{all}", end - 1))];
    let body = stream::flat(objects, found.id, start, end - start);
    let body = typed("application/octet-stream", end - start, body);
    (StatusCode::PARTIAL_CONTENT, accept, part, body).into_response()
}

/// One range as `start..end`, empty if it can't be satisfied; `None` if the header is ignored.
fn parse_range(range: &str, all: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => Some((all.saturating_sub(last.parse().ok()?), all)),
        (first, "") => Some((first.parse().ok()?, all)),
        (first, last) => {
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            (first <= last).then(|| (first, last.saturating_add(1).min(all)))
        }
    }
}

fn listing(objects: &Objects, found: &Resolved) -> Result<Response, HttpProblem> {
    let mut listed = Vec::new();
    for (name, id) in entries(&found.skeleton)? {
        let cid = super::super::unixfs::cid(id, found.skeleton.version)?;
        let entry = objects.find(id)?.ok_or_else(missing)?;
        listed.push(serde_json::json!({
            "name": name, "cid": cid, "kind": entry.kind, "bytes": entry.bytes
        }));
    }
    Ok(web::Json(serde_json::json!({ "entries": listed })).into_response())
}

fn typed(kind: &'static str, bytes: u64, body: Body) -> Response {
    let length = HeaderValue::from(bytes);
    let kind = HeaderValue::from_static(kind);
    ([(header::CONTENT_TYPE, kind), (header::CONTENT_LENGTH, length)], body).into_response()
}

fn missing() -> HttpProblem {
    refuse(StatusCode::NOT_FOUND, "nothing of this name is here")
}

fn refuse(status: StatusCode, details: &str) -> HttpProblem {
    let reason = if status == StatusCode::NOT_FOUND { "NOT_FOUND" } else { "BAD_REQUEST" };
    HttpProblem::new(status, reason, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_has_them() {
        for (range, read) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=2-", Some((2, 10))),
            ("bytes=-3", Some((7, 10))),
            ("bytes=-30", Some((0, 10))),
            ("bytes=4-99", Some((4, 10))),
            ("bytes=10-", Some((10, 10))),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(parse_range(range, 10), read, "{range}");
        }
    }
}
