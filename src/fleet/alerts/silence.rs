//! Silences: what somebody doesn't want to be told for a while, because they know.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::fleet::rule::matches;

/// What isn't told until a moment. Incidents that it matches are still noted and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its number.
    pub id: u64,
    /// Only this rule; `*` stands for any text. `None`: all rules.
    #[serde(default)]
    pub rule: Option<String>,
    /// Only nodes whose name matches; `*` stands for any text. `None`: all nodes.
    #[serde(default)]
    pub nodes: Option<String>,
    /// When it ends.
    pub until: Timestamp,
    /// Who asked for it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: String,
}

impl Silence {
    /// Whether it covers this node's trouble now.
    pub fn covers(&self, rule: &str, node: &str, now: Timestamp) -> bool {
        self.until > now
            && self.rule.as_ref().is_none_or(|pattern| matches(pattern, rule))
            && self.nodes.as_ref().is_none_or(|pattern| matches(pattern, node))
    }
}
