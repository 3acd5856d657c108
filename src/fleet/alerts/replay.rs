//! What rules would have told: the history of standings played once more, without a clock.
//!
//! Must hold: a replay decides with the same code as the hub does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Alerts, Fact, Facts, Flaps, Policy};
use crate::clock::Timestamp;
use crate::fleet::clocks::Standing;
use crate::fleet::notice::Notice;
use crate::fleet::rule::{Condition, Rule};

/// Most looks between two changes: a long time in which nothing changes needs few of them.
const LOOKS_MAX: usize = 64;

/// A node's standing changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// The node.
    pub node: String,
    /// How it stood from then on.
    pub standing: Standing,
    /// Why.
    pub why: String,
}

/// What would have been told by these rules, given how nodes stood: `changes` in their order, until `until`. Only
/// rules about standings and about the share of nodes are played; nothing else of the past is known.
pub fn replay(
    rules: &[Rule],
    changes: &[Change],
    policy: &Policy,
    until: Timestamp,
) -> Vec<Notice> {
    let mut alerts = Alerts::new([], 0, Flaps::default(), Vec::new());
    let mut nodes = BTreeMap::new();
    let (mut told, mut began) = (Vec::new(), BTreeMap::new());
    for (at, change) in changes.iter().enumerate() {
        nodes.insert(change.node.clone(), change);
        let next = changes.get(at + 1).map_or(until, |next| next.at);
        for now in looks(change.at, next, rules, policy) {
            let facts: Vec<Facts> =
                rules.iter().map(|rule| facts(rule, &nodes, &mut began, now)).collect();
            let decision = alerts.decide(rules, &facts, policy, now);
            alerts.apply(&decision, policy, now);
            told.extend(decision.notices);
        }
    }
    told
}

/// The moments at which something can be decided until the next change: at once, and when a span ends.
fn looks(from: Timestamp, next: Timestamp, rules: &[Rule], policy: &Policy) -> Vec<Timestamp> {
    let spans = rules.iter().flat_map(|rule| {
        [rule.hold, rule.clear, rule.remind.unwrap_or_default(), policy.flapping.calm]
    });
    let mut moments: Vec<Timestamp> =
        spans.chain([Duration::ZERO, policy.update_every]).map(|span| from.plus(span)).collect();
    if let Some(every) = rules.iter().filter_map(|rule| rule.remind).min() {
        let mut moment = from.plus(every);
        while moment < next && moments.len() < LOOKS_MAX {
            moments.push(moment);
            moment = moment.plus(every);
        }
    }
    moments.retain(|moment| *moment == from || *moment < next);
    moments.sort();
    moments.dedup();
    moments
}

fn facts(
    rule: &Rule,
    nodes: &BTreeMap<String, &Change>,
    began: &mut BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> Facts {
    match &rule.when {
        Condition::Standing(standings) => {
            let of_rule = nodes.values().filter(|change| rule.is_about(&change.node, &[]));
            let mut facts = Facts::default();
            for change in of_rule {
                if standings.contains(&change.standing) {
                    facts.holds.push(fact(change));
                } else if change.standing != Standing::Up {
                    facts.unknown.insert(change.node.clone());
                }
            }
            facts
        }
        Condition::Share { percent, of_at_least } => {
            let standings = nodes.values().map(|change| change.standing);
            let (not_up, all) = count(standings);
            let Some(why) = share_holds((not_up, all), *percent, *of_at_least) else {
                began.remove(&rule.name);
                let is_seen = !nodes.values().any(|it| it.standing == Standing::NotWatched);
                let unknown = if is_seen { None } else { Some(super::FLEET.to_owned()) };
                return Facts { unknown: unknown.into_iter().collect(), ..Facts::default() };
            };
            let since = *began.entry(rule.name.clone()).or_insert(now);
            let node = super::FLEET.to_owned();
            let fact = Fact { node, since, why, ip: String::new(), heard: None };
            Facts { holds: vec![fact], ..Facts::default() }
        }
        Condition::Event { .. }
        | Condition::Figure { .. }
        | Condition::Trouble(_)
        | Condition::Anomaly(_) => Facts::default(),
    }
}

fn fact(change: &Change) -> Fact {
    Fact {
        node: change.node.clone(),
        since: change.at,
        why: change.why.clone(),
        ip: String::new(),
        heard: None,
    }
}

/// How many of these are not up, and how many there are that somebody watches.
pub(crate) fn count(standings: impl Iterator<Item = Standing>) -> (usize, usize) {
    standings
        .filter(|standing| *standing != Standing::NotWatched)
        .fold((0, 0), |(bad, all), it| (bad + usize::from(it != Standing::Up), all + 1))
}

/// Whether so large a share of nodes is not up, and in which words.
pub(crate) fn share_holds(
    (not_up, all): (usize, usize),
    percent: f64,
    of_at_least: usize,
) -> Option<String> {
    #[expect(clippy::cast_precision_loss, reason = "a fleet has fewer nodes than an f64 counts")]
    let share = 100.0 * not_up as f64 / all.max(1) as f64;
    (all >= of_at_least && share >= percent).then(|| format!("{not_up} of {all} nodes are not up"))
}
