//! The rules of a sidecar whose profile has none: what its owner wants to be woken for.
//!
//! Must hold: what the whole swarm suffers is told once, and not as a trouble of each node.

use std::time::Duration;

use super::expect::Expect;
use crate::fleet::event::Level;
use crate::fleet::notice::Severity;
use crate::fleet::rule::{Condition, Rule, Trouble};

/// For how long nodes that come into the same trouble are one incident.
const GROUP: Duration = Duration::from_mins(5);

/// The rules about failures: their names, and what they look for.
const FAILURES: [(&str, &str); 2] =
    [("failed", "watched.crash"), ("out-of-memory", "watched.out_of_memory")];

/// The rules that hold if a profile names none.
pub fn standard() -> Vec<Rule> {
    let swarm = || vec!["swarm-down".to_owned()];
    let mut rules = vec![
        rule(
            "swarm-down",
            Trouble::SwarmDown,
            Severity::Info,
            Vec::new(),
            "It is not your node: wait.",
        ),
        rule(
            "node-down",
            Trouble::Down,
            Severity::Critical,
            swarm(),
            "Look whether its machine has power and network, then at the end of its log.",
        ),
        rule(
            "stuck",
            Trouble::Stuck,
            Severity::Warning,
            swarm(),
            "Look at its log; a restart often helps.",
        ),
        rule(
            "unpublished",
            Trouble::Unpublished,
            Severity::Warning,
            swarm(),
            "Its peers have nothing of it: look whether its ports are open to them, then start it again.",
        ),
        rule(
            "unpaid",
            Trouble::Unpaid,
            Severity::Warning,
            swarm(),
            "Look at the log of its login server, and whether another node uses its account.",
        ),
        rule(
            "blind",
            Trouble::Blind,
            Severity::Info,
            Vec::new(),
            "The sidecar can't see all that it should.",
        ),
    ];
    // Of a program whose log doesn't say when it works, nothing else tells of its failures.
    rules.extend(FAILURES.map(|(name, kind)| failure(name, kind)));
    rules
}

/// Whether a rule is about programs of this kind. A failure in the log of one that says when it works is told as
/// such, and over when it works again.
pub fn is_about(rule: &Rule, expect: &Expect) -> bool {
    !expect.says_work || !FAILURES.iter().any(|(name, kind)| *rule == failure(name, kind))
}

/// What the log says of a failure, unless that is told already.
fn failure(name: &str, kind: &str) -> Rule {
    let told = ["swarm-down", "stuck", "node-down"].map(ToOwned::to_owned).to_vec();
    let remedy = "Look at the end of its log.";
    let when = Condition::Event { kind: kind.to_owned(), level: Level::Error };
    let clear = Duration::from_mins(10);
    let rule = rule(name, Trouble::Down, Severity::Warning, told, remedy);
    Rule { when, clear, ..rule }
}

fn rule(
    name: &str,
    trouble: Trouble,
    severity: Severity,
    silenced_by: Vec<String>,
    remedy: &str,
) -> Rule {
    Rule {
        name: name.to_owned(),
        when: Condition::Trouble(vec![trouble]),
        hold: Duration::ZERO,
        clear: Duration::ZERO,
        group: GROUP,
        severity,
        remind: None,
        channels: Vec::new(),
        silenced_by,
        nodes: None,
        tag: None,
        remedy: remedy.to_owned(),
    }
}
