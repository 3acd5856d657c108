//! Publishing through Pinata's pinning call.
//!
//! Invariants: a file is streamed from disk, never held in memory. A publish succeeds only if the
//! CID that the service answers names the local bytes, under the requested profile or another known
//! one. The key goes to the service and nowhere else. Publishing the same bytes again is harmless.
//! The trial upload has the same content as long as the program runs, so that at most one pin of it
//! can be left.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::dag::BlockId;
use super::form::Form;
use super::local::Tree;
use super::unixfs::{self, KNOWN};
use super::{Config, Error, Sealed, http, names, task};
use crate::http::{Client, RequestBuilder, Response, StatusCode, Url};
use crate::ids::Cid;
use crate::report::BoxError;
use crate::secret::Secret;

/// How long the service may take to hash and store a complete upload.
const ANSWER_WAIT: Duration = Duration::from_mins(5);
/// How often progress is reported and silence is checked.
const TICK: Duration = Duration::from_millis(200);
/// Maximum bytes of an answer; a normal one has a few hundred.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Maximum characters of a pin's name.
const NAME_CHARS_MAX: usize = 100;

/// A client of the pinning service.
#[derive(Debug, Clone)]
pub struct Pinata {
    client: Client,
    base: Url,
    jwt: Secret,
    idle: Duration,
    pace: Arc<Pace>,
    traffic: Arc<Traffic>,
    /// Content of the trial upload. Trials run one at a time, or one would unpin another's.
    trial: Arc<tokio::sync::Mutex<String>>,
}

/// The outcome of a trial upload.
#[derive(Debug)]
pub enum Tried {
    /// It was pinned and unpinned again.
    TakenBack,
    /// It was pinned and could not be unpinned.
    Stays {
        /// CID of the pin that is left.
        cid: Cid,
        /// Why it could not be unpinned.
        why: Error,
    },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "IpfsHash")]
    ipfs_hash: String,
}

impl Pinata {
    /// Checks the settings; opens no connection.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            client: http::client(config)?,
            base: http::base_url(&config.pinata_url)?,
            jwt: config.pinata_jwt.clone(),
            idle: config.idle_timeout,
            pace: Arc::new(Pace::new(config.pinata_rate_per_min)),
            traffic: Arc::default(),
            trial: Arc::new(format!("lamda-node try {:032x}", fastrand::u128(..)).into()),
        })
    }

    /// Tries the service by bytes of this name from here on: the same at each start, so that a key that can't
    /// unpin leaves one pin, however often the program starts.
    #[must_use]
    pub fn tried_as(self, name: &str) -> Self {
        Self { trial: Arc::new(format!("lamda-node try {name}").into()), ..self }
    }

    /// Uploads that are under way, and bytes of files sent since the program began, repetitions and trials included.
    pub fn traffic(&self) -> (u64, u64) {
        let Traffic { under_way, sent } = &*self.traffic;
        (under_way.load(Ordering::Relaxed), sent.load(Ordering::Relaxed))
    }

    /// Checks that the service answers and accepts the key.
    pub async fn check(&self) -> Result<(), Error> {
        self.pace.wait().await;
        let request = self.client.get(self.url("data/testAuthentication")?);
        let sent =
            crate::http::within(self.idle, request.bearer_auth(self.jwt.expose()).send()).await;
        let response = sent.map_err(|source| self.silent(source))?;
        if response.status().is_success() { Ok(()) } else { Err(self.refusal(response).await) }
    }

    /// Checks that the service accepts an upload: pins a few unique bytes and unpins them.
    pub async fn try_upload(&self) -> Result<Tried, Error> {
        let words = self.trial.lock().await;
        let dir = tempfile::Builder::new().prefix("lamda-node-try-").tempdir()?;
        let path = dir.path().join("try");
        std::fs::write(&path, words.as_bytes())?;
        let sealed = unixfs::seal(&path, 4096).await?;
        let cid = self.publish(&path, &sealed, "lamda-node-try", |_| {}).await?;
        Ok(match self.unpin(&cid).await {
            Ok(()) => Tried::TakenBack,
            Err(why) => Tried::Stays { cid, why },
        })
    }

    /// Removes a pin; one that doesn't exist counts as removed.
    async fn unpin(&self, cid: &Cid) -> Result<(), Error> {
        self.pace.wait().await;
        let request = self.client.delete(self.url(&format!("pinning/unpin/{cid}"))?);
        let sent =
            crate::http::within(self.idle, request.bearer_auth(self.jwt.expose()).send()).await;
        let response = sent.map_err(|source| self.silent(source))?;
        match response.status() {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.refusal(response).await),
        }
    }

    /// Uploads the file or folder at `path`, for which [`super::seal`] returned `sealed`, and
    /// returns the CID under which the service pinned it. `progress` is called with the bytes sent
    /// so far.
    pub async fn publish(
        &self,
        path: &Path,
        sealed: &Sealed,
        name: &str,
        progress: impl Fn(u64) + Send + Sync,
    ) -> Result<Cid, Error> {
        let (path, view) = (path.to_owned(), sealed.view.clone());
        let tree = Arc::new(task::blocking(move |_| Tree::open(&path, &view)).await?);
        let _under_way = self.traffic.begin();
        let sent = Arc::new(AtomicU64::new(0));
        let form = Form::new(&tree, &plain_name(name), &sealed.cid);
        let odd = odd_name(&tree);
        self.pace.wait().await;
        let request = self.client.post(self.url("pinning/pinFileToIPFS")?);
        let request = request.bearer_auth(self.jwt.expose());
        let request = form.put_into(request, Arc::clone(&tree), Arc::clone(&sent));
        let response = self.watch(request, &sent, sealed.bytes, &progress).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let answered = self.answered(response).await?;
        if answered.same_content(&sealed.cid) {
            return Ok(answered);
        }
        // Another CID is right if it names the sealed bytes under another known profile.
        let expected = sealed.cid;
        let same = task::blocking(move |stop| {
            let hash = |profile| unixfs::hash_tree(&tree, profile, stop).map(|made| made.id);
            if hash(&KNOWN[0])? != BlockId::from_cid(&expected) {
                return Ok(false);
            }
            let others = KNOWN[1..].iter().map(hash).collect::<Result<Vec<_>, _>>()?;
            Ok(others.contains(&BlockId::from_cid(&answered)))
        });
        if same.await? {
            return Ok(answered);
        }
        if let Some(path) = odd {
            // A further attempt would be misread the same way.
            let reason = "the pinning service misreads such a name".into();
            return Err(Error::Unsupported { path, reason });
        }
        Err(Error::Mismatch { expected: Box::new(expected), answered: Box::new(answered) })
    }

    /// Sends the upload and waits for the answer; gives up if no bytes go out for too long.
    async fn watch(
        &self,
        request: RequestBuilder,
        sent: &AtomicU64,
        bytes: u64,
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<Response, Error> {
        let mut answer = std::pin::pin!(request.send());
        let mut tick = tokio::time::interval(TICK);
        let (mut before, mut moved_at) = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut answer => {
                    let now = sent.load(Ordering::Relaxed);
                    self.traffic.sent.fetch_add(now - before, Ordering::Relaxed);
                    progress(now);
                    return answer.map_err(|err| self.silent(crate::http::boxed(err)));
                }
                _ = tick.tick() => {}
            }
            let now = sent.load(Ordering::Relaxed);
            let patience = if now < bytes { self.idle } else { self.idle.max(ANSWER_WAIT) };
            if now != before {
                self.traffic.sent.fetch_add(now - before, Ordering::Relaxed);
                (before, moved_at) = (now, Instant::now());
                progress(now);
            } else if moved_at.elapsed() > patience {
                return Err(self.silent(format!("{now} of {bytes} bytes went out").into()));
            }
        }
    }

    async fn answered(&self, mut response: Response) -> Result<Cid, Error> {
        let mut body = Vec::new();
        let begun = Instant::now();
        while let Some(piece) = crate::http::within(self.idle, response.chunk())
            .await
            .map_err(|source| self.silent(source))?
        {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX || begun.elapsed() > ANSWER_WAIT {
                return Err(Error::Rejected { reason: "an answer without an end".into() });
            }
        }
        let answer = serde_json::from_slice::<Answer>(&body).ok();
        let cid = answer.and_then(|answer| answer.ipfs_hash.parse().ok());
        cid.ok_or_else(|| Error::Rejected { reason: "an answer without a CID".into() })
    }

    async fn refusal(&self, response: Response) -> Error {
        let (status, known) = (response.status(), http::refusal(&response));
        let is_refused = matches!(known, Some(Error::Refused { .. }));
        if let Some(known) = known
            && !is_refused
        {
            return known;
        }
        let service = crate::http::shown(&self.base);
        // A service may repeat the key in its answer.
        let reason =
            crate::http::explanation(response, self.idle).await.replace(self.key(), "[secret]");
        match status {
            _ if is_refused => Error::Refused { service, words: Some(reason) },
            StatusCode::PAYMENT_REQUIRED => Error::Declined { service, reason },
            StatusCode::PAYLOAD_TOO_LARGE => Error::Oversized { service, reason },
            _ => Error::Rejected { reason },
        }
    }

    /// The text to replace in answers; never empty, because an empty one would match everywhere.
    fn key(&self) -> &str {
        match self.jwt.expose() {
            "" => "\0",
            key => key,
        }
    }

    fn silent(&self, source: BoxError) -> Error {
        let what = format!("{} does not answer", crate::http::shown(&self.base));
        Error::Unavailable { what, source: Some(source) }
    }

    fn url(&self, path: &str) -> Result<Url, Error> {
        self.base.join(path).map_err(|err| Error::Setting {
            setting: crate::http::shown(&self.base),
            source: Box::new(err),
        })
    }
}

/// The first path that the form encodes differently, if there is one; escaped for messages.
fn odd_name(tree: &Tree) -> Option<String> {
    let paths = tree.item.files().into_iter().map(|(path, _)| path.join("/"));
    let odd = paths.filter(|path| names::written(path) != *path);
    odd.map(|path| names::shown(&path)).next()
}

/// A pin's name that is valid in a header and as the name of a folder.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = name.chars().take(NAME_CHARS_MAX).map(plain).collect();
    if name.trim_matches('.').is_empty() { "output".to_owned() } else { name }
}

/// What goes out, of all clones of a client together.
#[derive(Debug, Default)]
struct Traffic {
    under_way: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Counts an upload until the answer is dropped.
    fn begin(&self) -> UnderWay<'_> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self)
    }
}

struct UnderWay<'a>(&'a Traffic);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Spreads calls so that no minute has many more of them than the plan allows.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    /// When the next call is due if all are spread evenly.
    due: Mutex<Option<Instant>>,
}

/// Calls that may go out at once after a quiet time.
const BURST: u32 = 5;

impl Pace {
    fn new(per_min: u32) -> Self {
        Self { interval: Duration::from_mins(1) / per_min.max(1), due: Mutex::new(None) }
    }

    async fn wait(&self) {
        let now = Instant::now();
        let span = self.reserve(now);
        if !span.is_zero() {
            tokio::time::sleep_until(now + span).await;
        }
    }

    /// Reserves the next place in the schedule; returns how long to wait for it.
    fn reserve(&self, now: Instant) -> Duration {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = due.filter(|due| *due > now).unwrap_or(now);
        *due = Some(mine + self.interval);
        (mine - now).saturating_sub(self.interval * (BURST - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_out_at_once_until_the_burst_is_spent_and_then_evenly() {
        let (pace, now) = (Pace::new(60), Instant::now());
        let waits: Vec<u64> = (0..8).map(|_| pace.reserve(now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 1, 2, 3]);
        assert_eq!(pace.reserve(now + Duration::from_mins(1)), Duration::ZERO);
    }

    #[test]
    fn a_pins_name_can_stand_in_a_header() {
        assert_eq!(plain_name("job-1.log"), "job-1.log");
        assert_eq!(plain_name("a\"b\r\n/c"), "a_b___c");
        assert_eq!(plain_name(".."), "output");
        assert_eq!(plain_name(""), "output");
        assert_eq!(plain_name(&"x".repeat(500)).len(), NAME_CHARS_MAX);
    }
}
