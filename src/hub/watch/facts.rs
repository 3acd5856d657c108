//! What is so now, of each node, for each rule.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::super::fleet::Node;
use super::super::happened::Happened;
use super::super::odd::Found;
use super::Memory;
use crate::clock::Timestamp;
use crate::fleet::alerts::{Alerts, FLEET, Fact, Facts, count, share_holds};
use crate::fleet::clocks::Standing;
use crate::fleet::rule::{Condition, Rule};

/// What is so now for this rule.
pub(super) fn of(
    rule: &Rule,
    nodes: &[Arc<Node>],
    (happened, odd): (&Happened, &Found),
    memory: &mut Memory,
    alerts: &Alerts,
    now: Timestamp,
) -> Facts {
    let mut facts = Facts::default();
    let about = nodes.iter().filter(|node| is_about(rule, node));
    match &rule.when {
        Condition::Standing(standings) => {
            for node in about {
                if standings.contains(&node.standing) {
                    facts.holds.push(fact(node, node.standing_since, node.why.clone()));
                } else if node.standing != Standing::Up {
                    // Its trouble has another name, or can't be seen: it isn't well again.
                    facts.unknown.insert(node.name.clone());
                }
            }
        }
        Condition::Figure { figure, above, below } => {
            for node in about {
                let Some(value) = current(node, figure) else {
                    memory.since(rule, &node.name, false, now);
                    facts.unknown.insert(node.name.clone());
                    continue;
                };
                let holds = above.is_some_and(|limit| value > limit)
                    || below.is_some_and(|limit| value < limit);
                let since = memory.since(rule, &node.name, holds, now);
                facts
                    .holds
                    .extend(since.map(|since| fact(node, since, format!("{figure} is {value}"))));
            }
        }
        Condition::Share { percent, of_at_least } => {
            let about: Vec<_> = about.collect();
            let shares = count(about.iter().map(|node| node.standing));
            let is_seen = !about.iter().any(|node| node.standing == Standing::NotWatched);
            let holds = share_holds(shares, *percent, *of_at_least);
            let since = memory.since(rule, FLEET, holds.is_some(), now);
            if let (Some(why), Some(since)) = (holds, since) {
                let node = FLEET.to_owned();
                facts.holds.push(Fact { node, since, why, ip: String::new(), heard: None });
            } else if !is_seen {
                facts.unknown.insert(FLEET.to_owned());
            }
        }
        // Refused where a hub reads its rules: only a sidecar knows.
        Condition::Trouble(_) => {}
        Condition::Anomaly(anomaly) => {
            for node in about {
                let why = node.address.and_then(|address| odd.get(&(*anomaly, address)));
                let since = memory.since(rule, &node.name, why.is_some(), now);
                let fired = why.zip(since);
                facts.holds.extend(fired.map(|(why, since)| fact(node, since, why.clone())));
            }
        }
        Condition::Event { .. } => {
            let mut told = happened.lately(rule, now);
            for node in about {
                let said = node.address.and_then(|address| told.remove(&address));
                facts.holds.extend(said.map(|said| fact(node, said.at, said.message)));
            }
        }
    }
    facts.removed = removed(rule, nodes, alerts);
    facts
}

/// The members of this rule's incidents that the hub knows no more, or that the rule is about no more.
fn removed(rule: &Rule, nodes: &[Arc<Node>], alerts: &Alerts) -> BTreeSet<String> {
    let members = alerts.open().filter(|incident| incident.rule == rule.name);
    members
        .flat_map(|incident| incident.live().map(|(name, _)| name))
        .filter(|name| {
            let at = nodes.binary_search_by(|node| node.name.as_str().cmp(name));
            let node = at.ok().and_then(|at| nodes.get(at));
            *name != FLEET && !node.is_some_and(|node| is_about(rule, node))
        })
        .cloned()
        .collect()
}

fn is_about(rule: &Rule, node: &Node) -> bool {
    let tags: Vec<&str> = node.tags.iter().map(String::as_str).collect();
    rule.is_about(&node.name, &tags)
}

fn fact(node: &Node, since: Timestamp, why: String) -> Fact {
    Fact { node: node.name.clone(), since, why, ip: node.ip.clone(), heard: heard(node) }
}

fn heard(node: &Node) -> Option<Timestamp> {
    node.heard.own.max(node.heard.nats)
}

/// A figure of a node that is there; what an absent one told last says nothing of now.
fn current(node: &Node, figure: &str) -> Option<f64> {
    if node.standing != Standing::Up {
        return None;
    }
    let presence = node.presence.as_ref()?;
    let cards = presence.get("gpus").and_then(Value::as_array);
    let of_cards = |figure: &dyn Fn(&Value) -> Option<f64>| {
        cards.map(|cards| cards.iter().map(figure).sum::<Option<f64>>()).unwrap_or_default()
    };
    match figure {
        "gpus" => of_cards(&|_| Some(1.0)),
        "gpus_sick" => of_cards(&|card| {
            let health = card.get("health")?.as_str()?;
            Some(if matches!(health, "ok" | "aside") { 0.0 } else { 1.0 })
        }),
        "free_vram_mib" => of_cards(&|card| card.get("free_mib")?.as_f64()),
        "free_slots" | "slots" => presence.get(figure)?.as_f64(),
        _ => None,
    }
}

impl Memory {
    /// Since when a condition holds; forgets it if it doesn't.
    fn since(&mut self, rule: &Rule, node: &str, holds: bool, now: Timestamp) -> Option<Timestamp> {
        let key = (rule.name.clone(), node.to_owned());
        if holds {
            return Some(*self.since.entry(key).or_insert(now));
        }
        self.since.remove(&key);
        None
    }
}
