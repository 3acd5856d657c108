//! The file of a profile as it is written.
//!
//! Must hold: a key that nobody knows is refused, and named.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PROFILE_BYTES_MAX;
use super::place::place;
use crate::fleet::Level;
use crate::fleet::rule::Written as Rule;
use crate::report;
use crate::watch::meaning::Kind;

/// All tables of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tables {
    pub(super) name: String,
    #[serde(default)]
    pub(super) about: String,
    #[serde(default)]
    pub(super) variables: BTreeMap<String, Scalar>,
    #[serde(default)]
    pub(super) log: Vec<Log>,
    #[serde(default)]
    pub(super) grammar: Vec<Grammar>,
    #[serde(default)]
    pub(super) means: Vec<Means>,
    #[serde(default)]
    pub(super) cause: Vec<Cause>,
    #[serde(default)]
    pub(super) process: Process,
    #[serde(default)]
    pub(super) port: Vec<Port>,
    pub(super) idle: Option<Idle>,
    pub(super) dht: Option<Dht>,
    pub(super) chain: Option<Chain>,
    pub(super) earning: Option<Earning>,
    #[serde(default)]
    pub(super) backend: Vec<Backend>,
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
}

/// A file of nothing but grammars.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grammars {
    pub(super) grammar: Vec<Grammar>,
}

/// A text, or a number that stands for its text.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Scalar {
    Text(String),
    Number(u64),
}

impl Scalar {
    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) name: String,
    pub(super) path: String,
    #[serde(default = "plain")]
    pub(super) grammar: String,
    #[serde(default)]
    pub(super) optional: bool,
}

fn plain() -> String {
    "plain".to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grammar {
    pub(super) name: String,
    pub(super) header: Option<String>,
    pub(super) json: Option<JsonKeys>,
    pub(super) time: Option<String>,
    #[serde(default)]
    pub(super) zone: Zone,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Zone {
    #[default]
    Local,
    Utc,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct JsonKeys {
    pub(super) time: Vec<String>,
    pub(super) level: Vec<String>,
    pub(super) logger: Vec<String>,
    pub(super) message: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Means {
    #[serde(rename = "in")]
    pub(super) log: Option<String>,
    #[serde(rename = "match")]
    pub(super) pattern: String,
    pub(super) is: Kind,
    pub(super) level: Option<Level>,
    pub(super) cause: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cause {
    pub(super) id: String,
    pub(super) says: String,
    pub(super) remedy: String,
    #[serde(rename = "match")]
    pub(super) pattern: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Process {
    pub(super) command: Option<String>,
    pub(super) unit: Option<String>,
    pub(super) container: Option<String>,
    pub(super) screens: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) host: Option<String>,
    #[serde(rename = "port")]
    pub(super) number: Scalar,
    #[serde(default)]
    pub(super) optional: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Idle {
    pub(super) longest_s: u64,
    pub(super) grace_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dht {
    #[serde(default)]
    pub(super) byte_keys: Vec<String>,
    #[serde(default)]
    pub(super) text_keys: Vec<String>,
    pub(super) bootnodes: Bootnodes,
    pub(super) expiration_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Bootnodes {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    pub(super) kind: ChainKind,
    pub(super) contract: String,
    pub(super) rpc: String,
    #[serde(rename = "chain_id")]
    pub(super) id: Scalar,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ChainKind {
    SwarmCoordinator,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Earning {
    pub(super) first_s: u64,
    pub(super) every_s: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) hosts: String,
    #[serde(default)]
    pub(super) coordinator: String,
}

/// The tables of a file. The error is a clause with the place.
pub(super) fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.len() > PROFILE_BYTES_MAX {
        return Err(format!("the file has more than {PROFILE_BYTES_MAX} bytes"));
    }
    toml::from_str(text).map_err(|err| {
        let at = err.span().map_or(0, |span| span.start);
        format!("{}: {}", place(text, at), report::one_line(err.message(), 300))
    })
}
