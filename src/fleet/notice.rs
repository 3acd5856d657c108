//! What somebody is told about an incident: the content, from which each channel makes its own form.
//!
//! Must hold: a notice is bounded, however many nodes it is about; it names each of the first [`NODES_MAX`] and
//! counts the others. Its texts may have been written by strangers: each channel escapes them.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// The channels over which people can be told.
pub const CHANNELS: [&str; 4] = ["telegram", "webhook", "mail", "ntfy"];

/// How many nodes a notice names.
pub const NODES_MAX: usize = 20;

/// How urgent an incident is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To know, when there is time.
    Info,
    /// Somebody should look today.
    #[default]
    Warning,
    /// Somebody should look now; quiet hours don't hold it back.
    Critical,
}

impl Severity {
    /// The severity as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Why a notice is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The incident is new.
    Opened,
    /// More nodes joined it, or some are well again.
    Updated,
    /// Nothing changed, and it still lasts.
    Reminder,
    /// All its nodes are well again.
    Resolved,
    /// What happened in a day.
    Digest,
    /// Somebody tries the channel.
    Test,
}

impl NoticeKind {
    /// The kind as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }
}

/// A node that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeNode {
    /// What it calls itself.
    pub name: String,
    /// The address that it told in its last beat; empty if it has told none.
    pub ip: String,
    /// Why it is in the incident, in words.
    pub why: String,
    /// Since when it has been in it.
    pub since: Timestamp,
    /// When the hub last heard it, by any clock but the chain.
    pub heard: Option<Timestamp>,
    /// Since when it has been well again.
    pub ended: Option<Timestamp>,
}

/// A message to people, the same for all channels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The incident's number; 0 for a notice of no incident.
    pub incident: u64,
    /// Why it is sent.
    pub kind: NoticeKind,
    /// The rule that decided it; empty for a notice of no incident.
    pub rule: String,
    /// How urgent it is.
    pub severity: Severity,
    /// What is the matter, in one line, without markup: `3 of 40 nodes are down`.
    pub title: String,
    /// When the incident opened.
    pub opened: Timestamp,
    /// When this was decided.
    pub decided: Timestamp,
    /// Its nodes, those in trouble first; [`NODES_MAX`] at most.
    pub nodes: Vec<NoticeNode>,
    /// How many nodes more it is about.
    pub more: usize,
    /// Further lines, of a digest for example.
    pub lines: Vec<String>,
    /// What to do about it; empty if there is nothing to do.
    pub remedy: String,
    /// Whether it is about nodes that are down, and reads as the original monitor's message if it names one.
    pub is_node_down: bool,
    /// The channels that the rule names; empty: all that are set.
    pub channels: Vec<String>,
}
