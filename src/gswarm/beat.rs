//! Heartbeats to the original monitor, or to a hub of ours, as the original Linux agent posts them.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{Accepted, Endpoint, InvalidEndpoint, Refused, post};
use crate::http::{self, Client};
use crate::report::BoxError;
use crate::secret::Secret;

/// The original's name for where its settings are.
pub const ENV_FILE: &str = "ENV_FILE";

/// Longest name of a node, and other texts that go into a heartbeat, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The longest that one try takes.
const TRY_MAX: Duration = Duration::from_secs(8);

/// One heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Beat {
    /// The node's name.
    pub node_id: String,
    /// Its address, if it knows one.
    pub ip: String,
    /// Whatever else its owner wants to see.
    pub meta: String,
    /// Whether the program is well.
    pub status: Status,
    /// The owner's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gswarm_eoa: Option<String>,
    /// The node's peer ids, with commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gswarm_peer_ids: Option<String>,
    /// The owner's number at Telegram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gswarm_tgid: Option<String>,
}

/// Whether the program is well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// It is.
    #[default]
    Up,
    /// It isn't.
    Down,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "UP",
            Self::Down => "DOWN",
        })
    }
}

/// Settings that are wrong, and why.
type Wrong = Vec<(&'static str, String)>;

/// A text of the settings that goes over the wire; empty is none.
fn text(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    wrong: &mut Wrong,
) -> Option<String> {
    let text = get(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty())?;
    if text.len() > TEXT_BYTES_MAX || text.chars().any(crate::report::is_obeyed) {
        wrong.push((name, "it is too long, or has a control character".to_owned()));
        return None;
    }
    Some(text)
}

impl Beat {
    /// The heartbeat of a program that is well, by the original agent's settings. `host` is this machine's name.
    pub fn read(get: impl Fn(&str) -> Option<String>, host: &str) -> Result<Self, Wrong> {
        let mut wrong = Wrong::new();
        let mut text = |name| text(&get, name, &mut wrong);
        let beat = Self {
            node_id: text("NODE_ID").unwrap_or_else(|| format!("{host}-gensyn")),
            meta: text("META").unwrap_or_default(),
            gswarm_eoa: text("GSWARM_EOA"),
            gswarm_peer_ids: text("GSWARM_PEER_IDS"),
            gswarm_tgid: text("GSWARM_TGID"),
            ..Self::default()
        };
        if wrong.is_empty() { Ok(beat) } else { Err(wrong) }
    }

    /// Says that the program is not well, and why, in the agent's words.
    pub fn set_down(&mut self, reason: &str) {
        self.status = Status::Down;
        if !self.meta.is_empty() {
            self.meta.push(',');
        }
        self.meta.push_str("reason=");
        self.meta.push_str(reason);
    }
}

/// Who takes heartbeats.
#[derive(Debug, Clone)]
pub struct Monitor {
    client: Client,
    endpoint: Endpoint,
}

/// Why there can be no such monitor.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMonitor {
    /// Its address or its secret can't be used.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// There can be no client.
    #[error("a client can't be made")]
    Client(#[source] BoxError),
}

impl Monitor {
    /// The monitor that the original agent's settings name, if they do.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Wrong> {
        let mut wrong = Wrong::new();
        let server = text(&get, "SERVER_URL", &mut wrong);
        let secret = get("SHARED_SECRET").filter(|secret| !secret.is_empty());
        let monitor = match (server, secret) {
            (None, _) => Ok(None),
            (Some(_), None) => {
                Err(("SHARED_SECRET", "it is not set, and SERVER_URL is".to_owned()))
            }
            (Some(server), Some(secret)) => Self::new(&server, Secret::new(secret))
                .map(Some)
                .map_err(|err| ("SERVER_URL, SHARED_SECRET", err.to_string())),
        };
        match monitor {
            Ok(monitor) if wrong.is_empty() => Ok(monitor),
            Ok(_) => Err(wrong),
            Err(mistake) => Err(vec![mistake]),
        }
    }

    /// The monitor at this address, with the secret that nodes prove themselves by. Nothing is called.
    pub fn new(server: &str, secret: Secret) -> Result<Self, InvalidMonitor> {
        let endpoint = Endpoint::new(server, "/api/heartbeat", secret)?;
        let client = http::client().timeout(TRY_MAX).build().map_err(http::boxed);
        Ok(Self { client: client.map_err(InvalidMonitor::Client)?, endpoint })
    }

    /// Posts a heartbeat, once. Repeatable.
    pub async fn post(&self, beat: &Beat) -> Result<Accepted, Refused> {
        post(&self.client, &self.endpoint, beat).await
    }

    /// The monitor for people: only its host.
    pub fn shown(&self) -> String {
        self.endpoint.shown()
    }
}
