//! What the pages' part of the server needs, and who may see what.
//!
//! Must hold: who may see names and standings only gets nothing else from any route of the pages.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::earned::Told;
use super::kept::Kept;
use super::live::Live;
use crate::fleet::clocks::Patience;
use crate::hub::fleet::Fleet;
use crate::hub::page;
use crate::hub::pair::Pair;
use crate::hub::store::Error;
use crate::hub::store::view::Eyes;
use crate::ids::Address;
use crate::web::Json;
use crate::web::extract::{FromRequestParts, Query};
use crate::web::http::request::Parts;
use crate::web::http::{HeaderMap, StatusCode, header};
use crate::web::response::{IntoResponse, Response};

/// An answer of this many bytes is compressed for who takes that.
const COMPRESSED_FROM: usize = 16 * 1024;

/// What people see who are not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Everything that can be read.
    Full,
    /// Names and standings.
    Status,
    /// Nothing.
    Off,
}

pub use super::live::Now;

/// What a page says of the hub itself.
#[derive(Debug, Clone)]
pub struct Site {
    /// The owner's title.
    pub title: String,
    /// What people see who are not logged in.
    pub show: Show,
    /// How long each clock may be silent.
    pub patience: Patience,
    /// Whether who asks reads what jobs write.
    pub shows_logs: bool,
    /// The contract that the hub reads.
    pub project: Project,
}

/// The chain and the contract that the hub reads, once its endpoint has said which chain it is of. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Project(Arc<OnceLock<OnChain>>);

/// A contract and its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OnChain {
    /// The chain's id.
    pub chain_id: u64,
    /// The contract.
    pub contract: Address,
}

impl Project {
    /// Notes them; once, since the settings that they come from don't change.
    pub fn set(&self, it: OnChain) {
        self.0.set(it).ok();
    }

    /// They, if they are known.
    pub fn get(&self) -> Option<OnChain> {
        self.0.get().copied()
    }
}

/// Who asks, if they are logged in: their name.
#[derive(Debug, Clone)]
pub(super) struct Reader(pub(super) Arc<str>);

/// What the pages' part of the server needs. Clones share it.
#[derive(Debug, Clone)]
pub struct Pages {
    pub(super) fleet: Fleet,
    pub(super) eyes: Eyes,
    pub(super) site: Arc<Site>,
    pub(super) live: Live,
    pub(super) now: Now,
    /// What nodes earn, by the first day and the node.
    pub(super) earned: Kept<(u64, Option<String>), Told>,
    /// What this hub shares with another one.
    pub(super) pair: Option<Pair>,
}

impl Pages {
    /// The pages of this fleet. Who watches them gets changes as long as somebody runs [`Live::tell`] of `live`.
    pub fn new(fleet: Fleet, eyes: Eyes, site: Site, live: Live, now: Now) -> Self {
        Self { fleet, eyes, site: Arc::new(site), live, now, earned: Kept::default(), pair: None }
    }

    /// The same pages of a hub that shares its alerts with another one.
    #[must_use]
    pub fn of_pair(self, pair: Option<Pair>) -> Self {
        Self { pair, ..self }
    }

    /// `Err` unless everything may be seen.
    pub(super) fn all(&self) -> Result<(), Refused> {
        match self.site.show {
            Show::Full => Ok(()),
            Show::Status | Show::Off => Err(Refused::LogIn),
        }
    }

    /// `Err` if nothing may be seen; otherwise whether everything may be.
    pub(super) fn some(&self) -> Result<bool, Refused> {
        match self.site.show {
            Show::Full => Ok(true),
            Show::Status => Ok(false),
            Show::Off => Err(Refused::LogIn),
        }
    }
}

/// The query of a question.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Pages> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, pages: &Pages) -> Result<Self, Refused> {
        let query = Query::<T>::from_request_parts(parts, pages).await;
        query.map(|Query(asked)| Self(asked)).map_err(|err| Refused::Wrong(err.body_text()))
    }
}

/// Why a question of the page has no answer.
#[derive(Debug)]
pub(super) enum Refused {
    /// It is for people who are logged in.
    LogIn,
    /// The question is wrong.
    Wrong(String),
    /// There is no such thing.
    Unknown(&'static str),
    /// The database failed.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(err: Error) -> Self {
        Self::Failed(err)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::LogIn => (StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
            Self::Wrong(why) => (StatusCode::BAD_REQUEST, why),
            Self::Unknown(what) => (StatusCode::NOT_FOUND, what.to_owned()),
            Self::Failed(err) => {
                tracing::warn!("a page can't be answered: {}", crate::report::causes(&err));
                (StatusCode::SERVICE_UNAVAILABLE, "the hub's database failed".to_owned())
            }
        };
        (status, FRESH, Json(json!({ "detail": detail }))).into_response()
    }
}

/// No answer is kept, since each is of its moment; none is taken for anything else than it says.
pub(super) const FRESH: [(header::HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];

/// This as JSON, compressed if it is large and the client takes that.
pub(super) fn answer(asked: &HeaderMap, body: &impl Serialize) -> Response {
    let Ok(text) = serde_json::to_vec(body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let kind = [(header::CONTENT_TYPE, "application/json")];
    if text.len() < COMPRESSED_FROM || !page::takes_gzip(asked) {
        return (FRESH, kind, text).into_response();
    }
    let coding = [(header::CONTENT_ENCODING, "gzip")];
    (FRESH, kind, coding, page::gzip(&text, page::Effort::Quick)).into_response()
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::hub::fleet::Node;
    use crate::hub::store::Store;
    use crate::web;

    /// The pages of this fleet, on an empty database.
    pub(in super::super) fn pages(fleet: Fleet, show: Show) -> Pages {
        let span = Duration::from_mins(3);
        let patience = Patience { own: span, nats: span, chain: span, clash: span };
        let (title, project) = ("<Ann's>".to_owned(), Project::default());
        project.set(OnChain { chain_id: 5, contract: Address::new([9; 20]) });
        let site = Site { title, show, patience, shows_logs: false, project };
        let eyes = Eyes::of(Store::in_memory().unwrap());
        let now = Now::new(|| Timestamp::from_unix_ms(1_000_000));
        Pages::new(fleet, eyes, site, Live::default(), now)
    }

    /// What a server of these pages says to each of these paths, head and body.
    async fn told(pages: Pages, paths: &[&str]) -> Vec<String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = web::serve(listener, pages.routes(), std::future::pending(), Duration::ZERO);
        let ask = async {
            let mut all = Vec::new();
            for path in paths {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                let asked = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
                stream.write_all(asked.as_bytes()).await.unwrap();
                let mut said = String::new();
                let read = stream.read_to_string(&mut said);
                tokio::time::timeout(Duration::from_mins(1), read).await.expect("it ends").unwrap();
                all.push(said);
            }
            all
        };
        tokio::select! { _ = served => panic!("it ended"), all = ask => all }
    }

    #[tokio::test]
    async fn who_may_see_standings_only_gets_nothing_else() {
        let fleet = || {
            let mut node = Node::new("<b>".to_owned(), Timestamp::from_unix_ms(5));
            (node.ip, node.why) = ("203.0.113.9".to_owned(), "a secret reason".to_owned());
            node.tags = vec!["tagged".to_owned()];
            Fleet::new([node])
        };
        let all = [
            "/api/fleet?q=203.0.113.9",
            "/api/fleet?sort=ip",
            "/api/fleet/node?name=%3Cb%3E",
            "/api/fleet/seen?name=%3Cb%3E",
            "/api/events",
            "/api/alerts",
            "/api/jobs?node=%3Cb%3E",
            "/api/job?node=%3Cb%3E&job=j",
            "/api/usage?node=%3Cb%3E",
            "/api/jobs/%3Cb%3E/j/usage",
            "/api/earnings",
            "/api/receipts?node=%3Cb%3E&job=j",
            "/api/stream?topics=fleet&log_node=%3Cb%3E&log_job=j",
        ];
        let open: Vec<&str> = [&all[..7], &["/check"], &all[8..11]].concat();
        for said in told(pages(fleet(), Show::Full), &open).await {
            if said.contains("text/html") {
                assert!(said.contains("connect-src 'self' https:"), "{said}");
                continue;
            }
            assert!(said.starts_with("HTTP/1.1 200"), "{said}");
            assert!(said.contains("nosniff") && said.contains("no-store"), "{said}");
        }
        let public = told(pages(fleet(), Show::Status), &all).await;
        assert!(
            public[0].contains("\"total\":0"),
            "nobody finds a node by its address: {}",
            public[0]
        );
        let row = r#""rows":[{"name":"<b>","standing":"up","since":5,"first":5}]"#;
        assert!(public[1].contains(row) && !public[1].contains("tagged"), "{}", public[1]);
        let off = told(pages(fleet(), Show::Off), &all).await;
        for said in public[2..].iter().chain(&off) {
            assert!(said.starts_with("HTTP/1.1 401"), "{said}");
            assert!(said.ends_with("{\"detail\":\"Unauthorized\"}"), "{said}");
        }
        let open = told(pages(fleet(), Show::Off), &["/", "/static/app.js", "/api/site"]).await;
        assert!(open[2].contains("\"chain\":null"), "{}", open[2]);
        assert!(open.iter().all(|said| said.starts_with("HTTP/1.1 200")));
        assert!(open[0].contains("<title>&lt;Ann&#39;s&gt;</title>"), "{}", open[0]);
        assert!(open[2].contains("\"public\":\"off\""), "{}", open[2]);
    }

    #[tokio::test]
    async fn wrong_questions_get_an_answer_that_says_what_is_wrong() {
        let fleet = Fleet::new([Node::new("a".to_owned(), Timestamp::from_unix_ms(5))]);
        let asked = [
            "/api/fleet?sort=secret",
            "/api/fleet?limit=x",
            "/api/fleet/node?name=b",
            "/api/job?node=a&job=none",
            "/api/stream?topics=",
        ];
        let said = told(pages(fleet, Show::Full), &asked).await;
        for (said, status) in said.iter().zip([400, 400, 404, 404, 400]) {
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        }
        assert!(said[0].contains("there is no such column to sort by"), "{}", said[0]);
    }
}
