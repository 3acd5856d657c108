//! The line that says what is the matter: the first thing that somebody who was woken reads.

use super::FLEET;
use super::incident::Incident;
use crate::clock::Timestamp;
use crate::fleet::anomaly::Anomaly;
use crate::fleet::clocks::Standing;
use crate::fleet::notice::NoticeKind;
use crate::fleet::rule::{Condition, Rule, Trouble};
use crate::fleet::words;

/// How many names a title holds.
const NAMED_MAX: usize = 3;

pub(super) fn of(incident: &Incident, rule: &Rule, kind: NoticeKind, now: Timestamp) -> String {
    let lasted = words::age(now.since(incident.opened));
    let live: Vec<&str> = incident.live().map(|(name, _)| name.as_str()).collect();
    // Those that their owner removed are nobody's trouble, and not well again either.
    let there = || incident.members.iter().filter(|(_, member)| !member.is_removed);
    let all: Vec<&str> = there().map(|(name, _)| name.as_str()).collect();
    let is_flapping = there().all(|(_, member)| member.is_flapping);
    let flapping = if is_flapping { ", again and again" } else { "" };
    if incident.members.contains_key(FLEET) {
        return match kind {
            NoticeKind::Resolved => format!("{}: over after {lasted}", rule.name),
            NoticeKind::Reminder => format!("{}: still so after {lasted}", rule.name),
            _ => rule.name.clone(),
        };
    }
    let trouble = trouble(rule, live.len());
    match kind {
        NoticeKind::Resolved => format!("{} well again after {lasted}{flapping}", subject(&all)),
        NoticeKind::Reminder => format!("{} {trouble} for {lasted} now{flapping}", subject(&live)),
        _ => {
            let back = all.len() - live.len();
            let back = if back == 0 {
                String::new()
            } else {
                format!("; {} well again", subject_of_count(back))
            };
            format!("{} {trouble}{flapping}{back}", subject(&live))
        }
    }
}

/// `a`, `a and b`, `12 nodes`.
fn subject(names: &[&str]) -> String {
    match names {
        [one] => (*one).to_owned(),
        [rest @ .., last] if names.len() <= NAMED_MAX => {
            format!("{} and {last}", rest.join(", "))
        }
        _ => words::nodes(names.len()),
    }
}

fn subject_of_count(count: usize) -> String {
    if count == 1 { "1 is".to_owned() } else { format!("{count} are") }
}

/// What is the matter with so many nodes: `is down`, `are down`.
fn trouble(rule: &Rule, count: usize) -> String {
    let be = if count == 1 { "is" } else { "are" };
    match &rule.when {
        Condition::Standing(standings) => match standings.as_slice() {
            [Standing::Down] => format!("{be} down"),
            [Standing::Zombie] => format!("{be} on the chain but not on NATS"),
            [Standing::Clash] => {
                let have = if count == 1 { "has" } else { "have" };
                format!("{have} two programs with one key")
            }
            [Standing::NotWatched] => format!("{be} not watched"),
            _ => format!("{be} in trouble ({})", rule.name),
        },
        Condition::Trouble(troubles) => match troubles.as_slice() {
            [Trouble::Down] => format!("{be} down"),
            [Trouble::Stuck] => format!("{be} up, but not at work"),
            [Trouble::Unpublished] => format!("{be} at work, but nothing of it is published"),
            [Trouble::Unpaid] => format!("{be} not paid"),
            [Trouble::SwarmDown] => format!("{be} in a swarm that stands still"),
            [Trouble::Blind] => format!("{be} not to be seen in full"),
            _ => format!("{be} in trouble ({})", rule.name),
        },
        Condition::Anomaly(Anomaly::MemorySlope) => {
            let have = if count == 1 { "has" } else { "have" };
            format!("{have} a job whose memory grows all the time")
        }
        Condition::Anomaly(Anomaly::SlowerThanLike) => {
            let have = if count == 1 { "has" } else { "have" };
            format!("{have} a job that is slower than its like")
        }
        _ => format!("{be} in trouble ({})", rule.name),
    }
}
