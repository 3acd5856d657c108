//! Verified fetch from untrusted IPFS gateways.
//!
//! A gateway is asked for an archive of blocks (`?format=car`), each of which is verified as it
//! arrives. A gateway that serves no archives is asked for the flat file, which is hashed again
//! under every known profile. Invariants: what appears at the destination is exactly what the CID
//! names, or nothing appears; wrong bytes from a gateway cost one attempt and are never used; only
//! verified blocks say that an object is too large, never the length of an answer. See
//! <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.

mod block;
mod failure;
mod probe;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::assemble::{self, AssembleError};
use super::dag::BlockId;
use super::patience::{Patience, Tally, archive_bytes_max};
use super::staging::Staging;
use super::{Config, Error, Kind, car, hop, http, task, unixfs};
use crate::http::dns::Resolve;
use crate::http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION};
use crate::http::{Client, Response, StatusCode, Url};
use crate::ids::Cid;
use crate::secret::Secret;

use failure::{FetchFailure, nobody, verdict};

/// Pieces buffered between network and disk: a few MiB, so that a short stall of one is absorbed.
const PIECES_MAX: usize = 16;
/// Maximum number of redirects followed for one request.
const REDIRECTS_MAX: usize = 5;
/// `dups=y`: a repeated block is sent each time, which costs less than remembering every block.
const ACCEPT_CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
/// Header in which Pinata's dedicated gateways expect their key.
const TOKEN_HEADER: &str = "x-pinata-gateway-token";

/// Size and kind of a fetched object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Total size of all files in bytes.
    pub bytes: u64,
    /// Whether it is a file or a folder.
    pub kind: Kind,
}

/// The gateways of this node, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Gateways {
    client: Client,
    /// Follows redirects from the public network; connects to public addresses only.
    public: Client,
    is_public: hop::Judge,
    all: Vec<Gateway>,
    idle: Duration,
}

#[derive(Debug, Clone)]
struct Gateway {
    base: Url,
    token: Option<Secret>,
}

impl Gateways {
    /// Checks the settings; opens no connection.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Self::with(config, Arc::new(hop::System), hop::is_public)
    }

    /// Whether only one gateway is set, so that no other can contradict its wrong bytes.
    pub fn is_lone(&self) -> bool {
        self.all.len() == 1
    }

    /// [`Self::new`] with another resolver and another judge of public addresses.
    fn with(
        config: &Config,
        names: Arc<dyn Resolve>,
        is_public: hop::Judge,
    ) -> Result<Self, Error> {
        let gateway = |(at, text): (usize, &String)| {
            let token = config.gateway_token.clone().filter(|_| at == 0);
            Ok(Gateway { base: http::base_url(text)?, token })
        };
        let gateways = config.gateways.iter().enumerate().map(gateway);
        let gateways = gateways.collect::<Result<_, Error>>()?;
        Ok(Self {
            client: http::client_with(config, Arc::clone(&names))?,
            public: http::client_with(config, Arc::new(hop::PublicOnly { names, is_public }))?,
            is_public,
            all: gateways,
            idle: config.idle_timeout,
        })
    }

    /// Fetches the object that `cid` names to `dest`, which must not exist. Its files may have at
    /// most `bytes_max` bytes in total. `progress` is called with the bytes received so far from
    /// the gateway being asked. Dropping the future leaves nothing behind.
    pub async fn fetch(
        &self,
        cid: &Cid,
        dest: &Path,
        bytes_max: u64,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Fetched, Error> {
        let mut faults = Vec::new();
        for gateway in &self.all {
            let want = Want { cid, dest, bytes_max, progress: &progress };
            match self.fetch_from(gateway, &want).await {
                Ok(fetched) => return Ok(fetched),
                Err(FetchFailure::Final(err)) => return Err(err),
                Err(fault) => {
                    let gateway = crate::http::shown(&gateway.base);
                    tracing::debug!(%gateway, %cid, ?fault, "a gateway did not give {cid}");
                    faults.push((gateway, fault));
                }
            }
        }
        Err(verdict(cid, faults))
    }

    async fn fetch_from(
        &self,
        gateway: &Gateway,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, FetchFailure> {
        let path = format!("ipfs/{}", want.cid);
        let answer = self.ask(gateway, &format!("{path}?format=car"), Some(ACCEPT_CAR)).await?;
        let answer = match answer.status() {
            StatusCode::OK if is_car(&answer) => match self.receive_car(answer, want).await {
                Err(FetchFailure::NotCar) => self.ask(gateway, &path, None).await?,
                done => return done,
            },
            StatusCode::OK => answer,
            StatusCode::NOT_FOUND
            | StatusCode::GONE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::REQUEST_TIMEOUT => return Err(FetchFailure::of(&answer)),
            // It serves no archives, or not in answer to this form, or only to others.
            status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
                self.ask(gateway, &path, None).await?
            }
            _ => return Err(FetchFailure::of(&answer)),
        };
        if answer.status() != StatusCode::OK {
            return Err(FetchFailure::of(&answer));
        }
        match self.receive_flat(answer, want).await {
            Err(FetchFailure::Overlong { limit_bytes })
                if self.is_larger(gateway, want.cid, limit_bytes).await =>
            {
                Err(FetchFailure::Final(Error::TooLarge { limit_bytes }))
            }
            done => done,
        }
    }

    /// Sends the request and follows redirects. The token goes to the gateway's own origin only.
    async fn ask(
        &self,
        gateway: &Gateway,
        path: &str,
        accept: Option<&'static str>,
    ) -> Result<Response, FetchFailure> {
        let setting = |err| {
            FetchFailure::Final(Error::Setting {
                setting: crate::http::shown(&gateway.base),
                source: Box::new(err),
            })
        };
        let mut url = gateway.base.join(path).map_err(setting)?;
        let mut public_only = false;
        for _ in 0..=REDIRECTS_MAX {
            let client = if public_only { &self.public } else { &self.client };
            let mut request = client.get(url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(token) = &gateway.token
                && url.origin() == gateway.base.origin()
                && let Ok(mut value) = HeaderValue::from_str(token.expose())
            {
                value.set_sensitive(true);
                request = request.header(TOKEN_HEADER, value);
            }
            let response = match crate::http::within(self.idle, request.send()).await {
                Ok(response) => response,
                Err(source) => {
                    return Err(FetchFailure::silent(&crate::http::shown(&gateway.base), source));
                }
            };
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(Ok(to)) = location.map(|to| url.join(to)) else {
                return Err(FetchFailure::Missing("a redirect to nowhere".to_owned()));
            };
            // Judge the address that answered: looking its name up again may give another one.
            let from = response.remote_addr().map(|address| address.ip());
            public_only |= from.is_none_or(self.is_public);
            let judge = public_only.then_some(self.is_public);
            hop::check(&url, &to, judge).map_err(|why| {
                FetchFailure::Later(nobody("a redirect is refused".to_owned(), Some(why.into())))
            })?;
            url = to;
        }
        Err(FetchFailure::Missing("too many redirects".to_owned()))
    }

    async fn receive_car(
        &self,
        answer: Response,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, FetchFailure> {
        let (root, bytes_max) = (BlockId::from_cid(want.cid), want.bytes_max);
        let staging = Staging::new(want.dest)?;
        let tally = Arc::new(Tally::default());
        let counting = Arc::clone(&tally);
        let work = move |mut pieces: mpsc::Receiver<Bytes>| {
            assemble::receive(root, staging, bytes_max, counting, || pieces.blocking_recv())
        };
        let (done, broken) = self.pump(answer, want, &tally, work).await?;
        match done {
            Ok((bytes, kind)) => Ok(Fetched { bytes, kind }),
            Err(AssembleError::Final(err)) => Err(FetchFailure::Final(err)),
            Err(AssembleError::NotCar) => Err(FetchFailure::NotCar),
            Err(AssembleError::Wrong(why)) => Err(FetchFailure::Wrong(why.to_string())),
            Err(AssembleError::Garbled(why)) => {
                Err(FetchFailure::Missing(format!("an archive with {why}")))
            }
            // Truncated by the connection, or by a gateway that considers this the whole archive.
            Err(AssembleError::Incomplete) => Err(broken.unwrap_or_else(|| {
                let bytes = tally.useful.load(Ordering::Relaxed);
                FetchFailure::Missing(format!(
                    "an archive that ends too early, after {bytes} bytes"
                ))
            })),
        }
    }

    async fn receive_flat(
        &self,
        answer: Response,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, FetchFailure> {
        let (root, bytes_max) = (BlockId::from_cid(want.cid), want.bytes_max);
        if answer.content_length().is_some_and(|bytes| bytes > bytes_max) {
            return Err(FetchFailure::Overlong { limit_bytes: bytes_max });
        }
        let length = answer.content_length();
        // An error page, or a body without a length that may be truncated, contradicts nothing.
        let is_content = length.is_some_and(|length| length > 0) && !is_page(&answer);
        let staging = Staging::new(want.dest)?;
        let tally = Arc::new(Tally::default());
        // Without a length, the time limit grows with the bytes received.
        tally.know(length.unwrap_or(0));
        let counting = Arc::clone(&tally);
        let work = move |mut pieces: mpsc::Receiver<Bytes>| {
            let pull = || pieces.blocking_recv().inspect(|piece| counting.add(piece.len()));
            write_flat(staging, bytes_max, pull)
        };
        let (done, broken) = self.pump(answer, want, &tally, work).await?;
        if let Some(broken) = broken {
            return Err(broken);
        }
        let (staging, bytes) = match done? {
            Flat::Overlong => return Err(FetchFailure::Overlong { limit_bytes: bytes_max }),
            Flat::All { bytes, .. } if length.is_some_and(|length| length != bytes) => {
                return Err(FetchFailure::Missing("a file that ends too early".to_owned()));
            }
            Flat::All { staging, bytes } => (staging, bytes),
        };
        let right = task::blocking(move |stop| {
            let open = || std::fs::File::open(staging.object()).map_err(Error::from);
            let right = unixfs::matching(open, root, stop)?;
            if right { staging.finish().map(|()| true) } else { Ok(false) }
        });
        if right.await? {
            return Ok(Fetched { bytes, kind: Kind::File });
        }
        let what = "a flat file that is not what the CID says".to_owned();
        Err(if is_content { FetchFailure::Wrong(what) } else { FetchFailure::Missing(what) })
    }

    /// Feeds an answer's body to `take`, which runs on a blocking thread, until either ends.
    /// Returns the result of `take` and, if the body broke off, the reason.
    async fn pump<T: Send + 'static>(
        &self,
        mut answer: Response,
        want: &Want<'_, impl Fn(u64)>,
        tally: &Tally,
        take: impl FnOnce(mpsc::Receiver<Bytes>) -> T + Send + 'static,
    ) -> Result<(T, Option<FetchFailure>), FetchFailure> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let work = tokio::task::spawn_blocking(move || take(receiver));
        let (mut bytes, mut patience) = (0, Patience::new(self.idle));
        let broken = loop {
            let asked = Instant::now();
            let piece = match crate::http::within(self.idle, answer.chunk()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break None,
                Err(source) => {
                    let what = "a gateway stopped half-way".to_owned();
                    break Some(FetchFailure::Later(nobody(what, Some(source))));
                }
            };
            let waited = asked.elapsed();
            let piece_bytes = piece.len() as u64;
            bytes += piece_bytes;
            (want.progress)(bytes);
            if bytes > archive_bytes_max(want.bytes_max) {
                let what = "more bytes than an archive of it can have".to_owned();
                break Some(FetchFailure::Missing(what));
            }
            if pieces.send(piece).await.is_err() {
                break None;
            }
            if let Err(slow) = patience.waited(waited, piece_bytes, tally) {
                let what = "a gateway is too slow".to_owned();
                break Some(FetchFailure::Later(nobody(what, Some(slow.into()))));
            }
        };
        drop(pieces);
        let done = work.await.map_err(|panic| Error::Io(std::io::Error::other(panic)))?;
        Ok((done, broken))
    }
}

/// What to fetch, where to, and how much at most.
struct Want<'a, P> {
    cid: &'a Cid,
    dest: &'a Path,
    bytes_max: u64,
    progress: &'a P,
}

enum Flat {
    Overlong,
    All { staging: Staging, bytes: u64 },
}

fn write_flat(
    staging: Staging,
    bytes_max: u64,
    mut pull: impl FnMut() -> Option<Bytes>,
) -> Result<Flat, Error> {
    let (mut file, mut bytes) = (std::fs::File::create_new(staging.object())?, 0);
    // Any user in the container may read and run it, whatever this process's umask is.
    file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    while let Some(piece) = pull() {
        bytes += piece.len() as u64;
        if bytes > bytes_max {
            return Ok(Flat::Overlong);
        }
        file.write_all(&piece)?;
    }
    Ok(Flat::All { staging, bytes })
}

fn is_car(answer: &Response) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(car::MEDIA_TYPE)
}

/// Whether the body is not a flat file: an error or sign-in page, a JSON message, an archive.
fn is_page(answer: &Response) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().trim().to_ascii_lowercase();
    is_car(answer)
        || ["text/html", "application/xhtml", "application/json"]
            .iter()
            .any(|page| kind.starts_with(page))
}

#[cfg(test)]
mod tests;
