//! Which nodes come into incidents, and which leave them.
//!
//! Must hold: a node is a live member of at most one incident of a rule; of whom nothing is known neither comes
//! nor goes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::incident::{Fact, Facts, Flaps, Head, Incident, Member};
use super::{Policy, Work};
use crate::fleet::rule::{Condition, Rule};

/// Takes note of members whose trouble is over, or comes back before it counts as over.
pub(super) fn end(work: &mut Work, rule: &Rule, facts: &Facts, flaps: &Flaps, policy: &Policy) {
    let now = work.now;
    let troubled: BTreeSet<&str> = facts.holds.iter().map(|fact| fact.node.as_str()).collect();
    let mut touched = Vec::new();
    for incident in work.open.values_mut().filter(|incident| incident.rule == rule.name) {
        for (name, member) in &mut incident.members {
            if member.ended.is_some() || facts.unknown.contains(name) {
                continue;
            }
            let clear = match &rule.when {
                // Such a fact has lasted for the rule's calm already.
                Condition::Event { .. } => Duration::ZERO,
                _ if member.is_flapping => rule.clear.max(policy.flapping.calm),
                _ => rule.clear,
            };
            let is_troubled = troubled.contains(name.as_str());
            let calm = (!is_troubled).then(|| member.calm.unwrap_or(now));
            let is_removed = !is_troubled && facts.removed.contains(name);
            let is_over = calm.is_some_and(|since| now.since(since) >= clear);
            // Within calm it came back: only flapping nodes have so long a calm that this counts.
            let is_flapping = member.is_flapping
                || flaps.count(&rule.name, name, policy.flapping.within, now)
                    >= policy.flapping.times;
            if is_removed || is_over {
                member.ended = Some(now);
                member.is_removed = is_removed;
                incident.head.is_news = true;
            } else if member.calm == calm && member.is_flapping == is_flapping {
                continue;
            }
            member.calm = calm;
            member.is_flapping = is_flapping;
            touched.push((incident.id, name.clone()));
        }
    }
    for (id, name) in touched {
        work.touch_member(id, &name);
    }
}

/// Takes nodes whose condition has held for long enough into an incident, a new one if none takes them.
pub(super) fn join(work: &mut Work, rule: &Rule, facts: &Facts, flaps: &Flaps, policy: &Policy) {
    let now = work.now;
    let members: BTreeSet<String> = work
        .open
        .values()
        .filter(|incident| incident.rule == rule.name)
        .flat_map(|incident| incident.live().map(|(name, _)| name.clone()))
        .collect();
    let due = facts.holds.iter().filter(|fact| {
        now.since(fact.since) >= rule.hold
            && !members.contains(&fact.node)
            && !facts.unknown.contains(&fact.node)
    });
    for fact in due {
        let id = place(work, rule, fact);
        let before = flaps.count(&rule.name, &fact.node, policy.flapping.within, now);
        let member = Member {
            joined: now,
            since: fact.since,
            why: fact.why.clone(),
            ip: fact.ip.clone(),
            heard: fact.heard,
            calm: None,
            ended: None,
            is_removed: false,
            is_flapping: before + 1 >= policy.flapping.times,
        };
        if let Some(incident) = work.open.get_mut(&id) {
            incident.head.is_news = true;
            incident.members.insert(fact.node.clone(), member);
        }
        work.touch_member(id, &fact.node);
    }
}

/// The incident that takes this node: one of the same rule that opened lately, else a new one.
fn place(work: &mut Work, rule: &Rule, fact: &Fact) -> u64 {
    let now = work.now;
    let takes = |incident: &&Incident| {
        incident.rule == rule.name
            && incident.closed.is_none()
            && now.since(incident.opened) <= rule.group
            && !incident.members.contains_key(&fact.node)
    };
    if let Some(id) = work.open.values().find(takes).map(|incident| incident.id) {
        return id;
    }
    work.newest += 1;
    let incident = Incident {
        id: work.newest,
        rule: rule.name.clone(),
        opened: now,
        closed: None,
        head: Head { severity: rule.severity, ..Head::default() },
        members: std::collections::BTreeMap::new(),
    };
    work.open.insert(work.newest, incident);
    work.newest
}
