//! The rules of a sidecar whose profile has none: what its owner wants to be woken for.
//!
//! Must hold: what the whole swarm suffers is told once, and not as a trouble of each node.

use std::time::Duration;

use crate::fleet::notice::Severity;
use crate::fleet::rule::{Condition, Rule, Trouble};

/// For how long nodes that come into the same trouble are one incident.
const GROUP: Duration = Duration::from_mins(5);

/// The rules that hold if a profile names none.
pub fn standard() -> Vec<Rule> {
    let swarm = || vec!["swarm-down".to_owned()];
    vec![
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
    ]
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
