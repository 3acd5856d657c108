//! What there is to know about a program that somebody else wrote, as data: a profile.
//!
//! A file in TOML becomes a [`Profile`]; with an owner's values for its variables that becomes a [`Filled`], which
//! the monitors read. docs/profiles.md has the format.
//!
//! Must hold: a file with any mistake is refused as a whole, with a sentence that names the profile, the table and
//! the key; whatever it holds, its size, its counts and its patterns are bounded.

mod bounds;
mod check;
mod fill;
mod grammars;
mod place;
mod shelf;
mod template;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::grammar::Grammar;
use super::meaning::{Cause, Classifier, Means};
use super::pattern::Pattern;
use crate::fleet::rule::Written;

pub use shelf::Shelf;
pub use template::Template;

/// The largest file of a profile, in bytes.
pub const PROFILE_BYTES_MAX: usize = 256 * 1024;

/// A profile or a value for it that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile {profile}: {what}")]
pub struct InvalidProfile {
    /// The profile's name.
    pub profile: String,
    /// What is wrong, and where, as one clause.
    pub what: String,
}

impl InvalidProfile {
    fn new(profile: &str, what: impl Into<String>) -> Self {
        Self { profile: profile.to_owned(), what: what.into() }
    }
}

impl Profile {
    /// Reads the file of a profile. `name` is what the file is called, without its ending.
    pub fn parse(name: &str, text: &str) -> Result<Self, InvalidProfile> {
        let named = |what: String| InvalidProfile::new(&crate::report::one_line(name, 64), what);
        let tables = written::read(text).map_err(named)?;
        check::profile(name, tables).map_err(named)
    }
}

/// A profile as it stands in its file, with templates where variables stand.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name, by which a configuration asks for it.
    pub name: String,
    /// What it is for, as one sentence.
    pub about: String,
    /// Its variables and their defaults.
    pub variables: BTreeMap<String, String>,
    /// The logs.
    pub logs: Vec<Log<Template>>,
    /// The grammars: those of the file, then the standard ones, by name.
    pub grammars: BTreeMap<String, Arc<Grammar>>,
    /// What records mean, in the order in which they are tried.
    pub means: Vec<Means>,
    /// What the records of each log mean, by the log's name.
    pub classifiers: BTreeMap<String, Arc<Classifier>>,
    /// Why the program doesn't do what its owner wants.
    pub causes: Vec<Cause>,
    /// How the program is found on its host.
    pub process: Process<Template>,
    /// The ports at which it answers.
    pub ports: Vec<Port<Template>>,
    /// How long it may be silent; none: its silence says nothing.
    pub idle: Option<Idle>,
    /// Where its peers keep what it published.
    pub dht: Option<Dht<Template>>,
    /// Where it is paid.
    pub chain: Option<Chain<Template>>,
    /// When it should have been paid.
    pub earning: Option<Earning>,
    /// The programs that it uses on other hosts.
    pub backends: Vec<Backends<Template>>,
    /// What somebody wants to be woken for, checked as in a hub.
    pub rules: Vec<Written>,
}

/// A profile with the owner's values in place of its variables: what the monitors read.
#[derive(Debug, Clone)]
pub struct Filled {
    /// The profile's name.
    pub profile: String,
    /// The values of all variables.
    pub variables: BTreeMap<String, String>,
    /// The logs, without those whose path is empty.
    pub logs: Vec<FilledLog>,
    /// Why the program doesn't do what its owner wants, by id.
    pub causes: BTreeMap<String, Cause>,
    /// How the program is found on its host.
    pub process: Process<String>,
    /// The pattern that its command line matches.
    pub command: Option<Pattern>,
    /// The ports at which it answers, without those whose number is empty.
    pub ports: Vec<FilledPort>,
    /// How long it may be silent; none: its silence says nothing.
    pub idle: Option<Idle>,
    /// Where its peers keep what it published.
    pub dht: Option<Dht<String>>,
    /// Where it is paid; none also if the contract is empty.
    pub chain: Option<FilledChain>,
    /// When it should have been paid.
    pub earning: Option<Earning>,
    /// The programs that it uses on other hosts, by their group's name: `host:port` each.
    pub backends: BTreeMap<String, FilledBackends>,
    /// What somebody wants to be woken for.
    pub rules: Vec<Written>,
}

impl Filled {
    /// Where its peers keep what it published, if somebody says by whom they are found: where a contract names the
    /// bootnodes and there is none, nobody can be asked.
    pub fn asked_dht(&self) -> Option<&Dht<String>> {
        let is_named =
            |dht: &&Dht<String>| dht.bootnodes != Bootnodes::Chain || self.chain.is_some();
        self.dht.as_ref().filter(is_named)
    }
}

/// A log: `[[log]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log<T> {
    /// Its name in this profile, such as `swarm`.
    pub name: String,
    /// Where it is; empty: it isn't watched.
    pub path: T,
    /// The name of its grammar.
    pub grammar: T,
    /// Whether the program works without it: its absence is no fault.
    pub is_optional: bool,
}

/// A log, ready to be read.
#[derive(Debug, Clone)]
pub struct FilledLog {
    /// Its name in the profile.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// How its lines become records.
    pub grammar: Arc<Grammar>,
    /// What its records mean.
    pub classifier: Arc<Classifier>,
    /// Whether the program works without it.
    pub is_optional: bool,
}

/// How the program is found on its host: `[process]`. What is empty is not looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process<T> {
    /// A pattern that its command line matches.
    pub command: Option<T>,
    /// Its systemd unit.
    pub unit: Option<T>,
    /// Its container's name.
    pub container: Option<T>,
    /// The names of the screen sessions in which it may run.
    pub screens: Vec<T>,
}

/// A port at which it answers: `[[port]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port<T> {
    /// Its name in this profile.
    pub name: String,
    /// The host; 127.0.0.1 if the profile doesn't say.
    pub host: T,
    /// The number.
    pub port: T,
    /// Whether the program works without it.
    pub is_optional: bool,
}

/// A port, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledPort {
    /// Its name in the profile.
    pub name: String,
    /// A name or an address.
    pub host: String,
    /// The number, not 0.
    pub port: u16,
    /// Whether the program works without it.
    pub is_optional: bool,
}

/// How long the program may be silent: `[idle]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// The longest that it waits between two rounds without a word. Silence up to this is not down.
    pub longest: Duration,
    /// How long past that, or past the time that it named itself, until it counts as silent.
    pub grace: Duration,
}

/// Where the program's peers keep what it published: `[dht]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dht<T> {
    /// Keys that are bytes: looked up by the hash of the bytes.
    pub byte_keys: Vec<T>,
    /// Keys that are text: looked up by the hash of their msgpack. `{round}` stands for the current round, which
    /// is filled in when it is looked up.
    pub text_keys: Vec<T>,
    /// By whom peers are found.
    pub bootnodes: Bootnodes<T>,
    /// How long a value stays after it was stored: it was published at its expiration less this.
    pub expiration: Duration,
}

/// By whom peers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bootnodes<T> {
    /// The contract names them: `bootnodes = "chain"`.
    Chain,
    /// These multiaddresses.
    These(Vec<T>),
}

/// Where the program is paid: `[chain]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain<T> {
    /// What kind of contract it is.
    pub kind: ChainKind,
    /// The contract's address.
    pub contract: T,
    /// Where the chain is asked, as URLs with commas between them.
    pub rpc: T,
    /// The chain's id, a number.
    pub chain_id: T,
}

/// Where the program is paid, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledChain {
    /// What kind of contract it is.
    pub kind: ChainKind,
    /// The contract's address: `0x` and 40 digits of hex.
    pub contract: String,
    /// URLs, the preferred first; at least one.
    pub rpc: Vec<String>,
    /// The chain's id.
    pub chain_id: u64,
}

/// A kind of contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// The coordinator of an RL swarm: `kind = "swarm-coordinator"`.
    SwarmCoordinator,
}

/// When the program should have been paid: `[earning]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earning {
    /// The first submission is due so long after the start.
    pub first: Duration,
    /// Each further one is due so long after the one before.
    pub every: Duration,
}

/// Programs on other hosts that it uses: `[[backend]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backends<T> {
    /// The group's name, such as `rpc`.
    pub name: String,
    /// `host:port`, with commas between them; empty: none.
    pub hosts: T,
    /// The program that uses them: `host:port`; empty: none is asked.
    pub coordinator: T,
}

/// A group of backends, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilledBackends {
    /// `host` and `port` of each.
    pub hosts: Vec<(String, u16)>,
    /// `host` and `port` of the program that uses them.
    pub coordinator: Option<(String, u16)>,
}

#[cfg(test)]
mod tests;
