//! Verified fetch from IPFS gateways that nobody trusts.
//!
//! A gateway is asked for an archive of blocks (`?format=car`), each of which is checked as it
//! comes; one that can't give archives gives the flat file, which is hashed again under every
//! known profile. What must hold: what appears at the destination is what the CID says, whole, or
//! nothing appears; a gateway that gives wrong bytes costs one try and no trust.
//! See <https://specs.ipfs.tech/http-gateways/trustless-gateway/>.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::assemble::{self, Failure};
use super::dag::BlockId;
use super::patience::{Patience, Tally, archive_bytes_max};
use super::staging::Staging;
use super::{BoxError, Config, Error, Kind, car, hop, http, task, unixfs};
use crate::job::Cid;
use crate::secret::Secret;

/// Pieces between the network and the disk: some MiB, so that neither waits for the other's hiccup.
const PIECES_MAX: usize = 16;
/// Hops that a gateway may send us on.
const REDIRECTS_MAX: usize = 5;
/// Repeated blocks are asked for again and again: they cost less than remembering all of them.
const ACCEPT_CAR: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=y";
/// Where Pinata's dedicated gateways look for their key.
const TOKEN_HEADER: &str = "x-pinata-gateway-token";
/// The empty directory, which every gateway knows.
const PROBE: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes of all files together.
    pub bytes: u64,
    /// File or folder.
    pub kind: Kind,
}

/// The gateways of this node, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Gateways {
    client: Client,
    /// For where a public gateway sends us on.
    public: Client,
    all: Vec<Gateway>,
    idle: Duration,
}

#[derive(Debug, Clone)]
struct Gateway {
    base: Url,
    token: Option<Secret>,
}

impl Gateways {
    /// Checks the settings; connects to nothing.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let gateway = |(at, text): (usize, &String)| {
            let token = config.gateway_token.clone().filter(|_| at == 0);
            Ok(Gateway { base: http::base_url(text)?, token })
        };
        let gateways = config.gateways.iter().enumerate().map(gateway);
        let gateways = gateways.collect::<Result<_, Error>>()?;
        Ok(Self {
            client: http::client(config)?,
            public: http::client_of_public(config)?,
            all: gateways,
            idle: config.idle_timeout,
        })
    }

    /// Fetches what `cid` names to `dest`, which must not exist and then is a file or a folder
    /// with files of at most `bytes_max` together. `progress` hears how many bytes came so far
    /// from the gateway that is being asked. Dropping the future leaves nothing behind.
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
                Err(Fault::Final(err)) => return Err(err),
                Err(fault) => {
                    let gateway = http::shown(&gateway.base);
                    tracing::debug!(%gateway, %cid, ?fault, "a gateway did not give {cid}");
                    faults.push(fault);
                }
            }
        }
        Err(verdict(cid, faults))
    }

    /// Whether any gateway answers at all.
    pub async fn check(&self) -> Result<(), Error> {
        let mut last = None;
        for gateway in &self.all {
            match self.ask(gateway, &format!("ipfs/{PROBE}?format=raw"), None).await {
                Ok(response) if !response.status().is_server_error() => return Ok(()),
                Ok(response) => last = http::refusal(&response),
                Err(Fault::Later(err)) => last = Some(err),
                Err(_) => {}
            }
        }
        Err(last.unwrap_or_else(|| nobody("no gateway answers", None)))
    }

    async fn fetch_from(
        &self,
        gateway: &Gateway,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, Fault> {
        let path = format!("ipfs/{}", want.cid);
        let answer = self.ask(gateway, &format!("{path}?format=car"), Some(ACCEPT_CAR)).await?;
        let answer = match answer.status() {
            StatusCode::OK if is_car(&answer) => match self.receive_car(answer, want).await {
                Err(Fault::NotCar) => self.ask(gateway, &path, None).await?,
                done => return done,
            },
            StatusCode::OK => answer,
            // It knows no archives, or not this way of asking for them.
            StatusCode::BAD_REQUEST
            | StatusCode::NOT_ACCEPTABLE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::NOT_IMPLEMENTED => self.ask(gateway, &path, None).await?,
            _ => return Err(Fault::of(&answer)),
        };
        if answer.status() != StatusCode::OK {
            return Err(Fault::of(&answer));
        }
        self.receive_flat(answer, want).await
    }

    /// Asks, and goes where it is sent. The token goes to the gateway's own origin only.
    async fn ask(
        &self,
        gateway: &Gateway,
        path: &str,
        accept: Option<&'static str>,
    ) -> Result<Response, Fault> {
        let setting = |err| {
            Fault::Final(Error::Setting {
                setting: http::shown(&gateway.base),
                source: Box::new(err),
            })
        };
        let mut url = gateway.base.join(path).map_err(setting)?;
        let mut client = &self.client;
        for _ in 0..=REDIRECTS_MAX {
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
            let response = match http::within(self.idle, request.send()).await {
                Ok(response) => response,
                Err(source) => return Err(Fault::later(gateway, source)),
            };
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let Some(Ok(to)) = location.map(|to| url.join(to)) else {
                return Err(Fault::Wrong("a redirect to nowhere".into()));
            };
            let is_own = to.origin() == gateway.base.origin();
            let to_public_only = !is_own && !hop::is_at_home(&gateway.base).await;
            hop::check(&url, &to, to_public_only)
                .map_err(|why| Fault::Later(nobody("a gateway leads astray", Some(why.into()))))?;
            client = if to_public_only { &self.public } else { &self.client };
            url = to;
        }
        Err(Fault::Wrong("too many redirects".into()))
    }

    async fn receive_car(
        &self,
        answer: Response,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, Fault> {
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
            Err(Failure::Final(err)) => Err(Fault::Final(err)),
            Err(Failure::NotCar) => Err(Fault::NotCar),
            Err(Failure::Wrong(why)) => Err(Fault::Wrong(why.into())),
            // Cut off: by the connection, or by a gateway that thinks that this was all.
            Err(Failure::Incomplete) => Err(match broken {
                Some(broken) => broken,
                None => Fault::Wrong("an archive that ends too early".into()),
            }),
        }
    }

    async fn receive_flat(
        &self,
        answer: Response,
        want: &Want<'_, impl Fn(u64)>,
    ) -> Result<Fetched, Fault> {
        let (root, bytes_max) = (BlockId::from_cid(want.cid), want.bytes_max);
        if answer.content_length().is_some_and(|bytes| bytes > bytes_max) {
            return Err(Fault::TooLarge { limit_bytes: bytes_max });
        }
        let length = answer.content_length();
        let staging = Staging::new(want.dest)?;
        let tally = Arc::new(Tally::default());
        tally.know(length.unwrap_or(bytes_max));
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
            Flat::TooLarge => return Err(Fault::TooLarge { limit_bytes: bytes_max }),
            Flat::All { bytes, .. } if length.is_some_and(|length| length != bytes) => {
                return Err(Fault::Wrong("a file that ends too early".into()));
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
        Err(Fault::Wrong("a file of another CID".into()))
    }

    /// Carries an answer's body to `take`, which runs where it may block, until either ends.
    /// Gives what `take` made of it and, where the body broke off, why.
    async fn pump<T: Send + 'static>(
        &self,
        mut answer: Response,
        want: &Want<'_, impl Fn(u64)>,
        tally: &Tally,
        take: impl FnOnce(mpsc::Receiver<Bytes>) -> T + Send + 'static,
    ) -> Result<(T, Option<Fault>), Fault> {
        let (pieces, receiver) = mpsc::channel(PIECES_MAX);
        let work = tokio::task::spawn_blocking(move || take(receiver));
        let (mut bytes, mut patience) = (0, Patience::new(self.idle));
        let broken = loop {
            let asked = Instant::now();
            let piece = match http::within(self.idle, answer.chunk()).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break None,
                Err(source) => {
                    break Some(Fault::Later(nobody("a gateway stopped half-way", Some(source))));
                }
            };
            let waited = asked.elapsed();
            bytes += piece.len() as u64;
            (want.progress)(bytes);
            if bytes > archive_bytes_max(want.bytes_max) {
                break Some(Fault::Wrong("more than an archive of it can have".into()));
            }
            if pieces.send(piece).await.is_err() {
                break None;
            }
            if let Err(slow) = patience.waited(waited, tally) {
                break Some(Fault::Later(nobody("a gateway is too slow", Some(slow.into()))));
            }
        };
        drop(pieces);
        let done = work.await.map_err(|panic| Error::Io(std::io::Error::other(panic)))?;
        Ok((done, broken))
    }
}

/// What is fetched, and where to.
struct Want<'a, P> {
    cid: &'a Cid,
    dest: &'a Path,
    bytes_max: u64,
    progress: &'a P,
}

enum Flat {
    TooLarge,
    All { staging: Staging, bytes: u64 },
}

fn write_flat(
    staging: Staging,
    bytes_max: u64,
    mut pull: impl FnMut() -> Option<Bytes>,
) -> Result<Flat, Error> {
    let (mut file, mut bytes) = (std::fs::File::create_new(staging.object())?, 0);
    while let Some(piece) = pull() {
        bytes += piece.len() as u64;
        if bytes > bytes_max {
            return Ok(Flat::TooLarge);
        }
        file.write_all(&piece)?;
    }
    Ok(Flat::All { staging, bytes })
}

/// Why one gateway did not give it.
#[derive(Debug)]
enum Fault {
    /// No other gateway can do better.
    Final(Error),
    /// It may do better later.
    Later(Error),
    /// It does not let us.
    Refused(Error),
    /// It doesn't have it.
    Absent,
    /// It gave something else.
    #[expect(dead_code, reason = "for the debug log")]
    Wrong(BoxError),
    /// It says that this is larger than allowed, which nobody can check.
    TooLarge { limit_bytes: u64 },
    /// It said that it gives an archive, but didn't.
    NotCar,
}

impl Fault {
    fn later(gateway: &Gateway, source: BoxError) -> Self {
        let what = format!("{} does not answer", http::shown(&gateway.base));
        Self::Later(nobody(&what, Some(source)))
    }

    fn of(answer: &Response) -> Self {
        match http::refusal(answer) {
            Some(err @ Error::Refused { .. }) => Self::Refused(err),
            Some(err) => Self::Later(err),
            None if answer.status().is_client_error() => Self::Absent,
            None => Self::Wrong(format!("an answer {}", answer.status()).into()),
        }
    }
}

impl From<Error> for Fault {
    fn from(err: Error) -> Self {
        Self::Final(err)
    }
}

/// What it comes to when no gateway gave it: the kindest fault decides.
fn verdict(cid: &Cid, faults: Vec<Fault>) -> Error {
    let (mut later, mut refused, mut wrong, mut large, mut absent) = (None, None, None, None, None);
    for fault in faults {
        match fault {
            Fault::Final(err) => return err,
            // Who only wants to be asked less often is nearer to an answer than who is silent.
            Fault::Later(err @ Error::RateLimited { .. }) => later = Some(err),
            Fault::Later(err) => later = later.or(Some(err)),
            Fault::Refused(err) => refused = Some(err),
            Fault::Absent => absent = Some(nobody(&format!("no gateway has {cid} now"), None)),
            Fault::Wrong(_) | Fault::NotCar => wrong = Some(Error::Unverified { cid: *cid }),
            Fault::TooLarge { limit_bytes } => large = Some(Error::TooLarge { limit_bytes }),
        }
    }
    later
        .or(wrong)
        .or(large)
        .or(absent)
        .or(refused)
        .unwrap_or_else(|| nobody("no gateway is set", None))
}

fn nobody(what: &str, source: Option<BoxError>) -> Error {
    Error::Unavailable { what: what.to_owned(), source }
}

fn is_car(answer: &Response) -> bool {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(car::MEDIA_TYPE)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers every request with this; counts them.
    fn server(answer: String) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counting = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                drop(client.read(&mut [0; 4096]));
                counting.fetch_add(1, Ordering::SeqCst);
                client.write_all(answer.as_bytes()).ok();
            }
        });
        (address, asked)
    }

    #[tokio::test]
    async fn a_public_gateway_sends_nobody_into_the_private_network() {
        let (secret, asked) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned());
        let sends_to = |host: &str| {
            let to = format!("http://{host}:{}/latest/meta-data", secret.port());
            format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nconnection: close\r\n\r\n")
        };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"] {
            let (address, _) = server(sends_to(host));
            let config = Config {
                gateways: vec![format!("http://gateway.invalid:{}", address.port())],
                gateway_token: None,
                pinata_url: String::new(),
                pinata_jwt: Secret::new(""),
                pinata_rate_per_min: 1,
                connect_timeout: Duration::from_secs(5),
                idle_timeout: Duration::from_secs(5),
            };
            let mut gateways = Gateways::new(&config).unwrap();
            // What a public name would lead to; nothing but this client knows it.
            let known = Client::builder().redirect(reqwest::redirect::Policy::none());
            gateways.client = known.resolve("gateway.invalid", address).build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let (cid, dest) = (PROBE.parse().unwrap(), dir.path().join("x"));
            let refused = gateways.fetch(&cid, &dest, 9, |_| {}).await.unwrap_err();
            assert!(matches!(refused, Error::Unavailable { .. }), "{host}: {refused:?}");
            assert_eq!(asked.load(Ordering::SeqCst), 0, "{host} was asked");
            // The owner's own gateway may send to the owner's own machines.
            let at_home = config.gateways[0].replace("gateway.invalid", "127.0.0.1");
            let gateways = Gateways::new(&Config { gateways: vec![at_home], ..config }).unwrap();
            gateways.fetch(&cid, &dest, 9, |_| {}).await.unwrap_err();
            assert!(asked.swap(0, Ordering::SeqCst) > 0, "{host} was not asked");
        }
    }
}
