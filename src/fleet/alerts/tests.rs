//! Decisions over simulated time: what people would have been told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fleet::clocks::Standing;
use crate::fleet::notice::NoticeKind::{Opened, Resolved};
use crate::fleet::notice::{NODES_MAX, NoticeKind, Severity};
use crate::fleet::rule::Condition;

/// A hub whose clock moves when told, with one rule.
struct Hub {
    alerts: Alerts,
    rules: Vec<Rule>,
    policy: Policy,
    now: Timestamp,
    told: Vec<Notice>,
}

impl Hub {
    fn new(rules: Vec<Rule>) -> Self {
        Self {
            alerts: Alerts::default(),
            rules,
            policy: Policy::default(),
            now: Timestamp::from_unix_ms(1_800_000_000_000),
            told: Vec::new(),
        }
    }

    /// So much later these nodes are in trouble by the first rule.
    fn after(&mut self, span: Duration, nodes: &[&str]) -> Vec<NoticeKind> {
        self.now = self.now.plus(span);
        let mut facts = vec![Facts::default(); self.rules.len()];
        facts[0] = self.holds(nodes);
        self.look(&facts)
    }

    fn holds(&self, nodes: &[&str]) -> Facts {
        let holds = nodes.iter().map(|node| self.fact(node)).collect();
        Facts { holds, ..Facts::default() }
    }

    fn fact(&self, node: &str) -> Fact {
        let why = "its last beat is 3 min old".to_owned();
        Fact { node: node.to_owned(), since: self.now, why, ip: String::new(), heard: None }
    }

    fn look(&mut self, facts: &[Facts]) -> Vec<NoticeKind> {
        let decision = self.alerts.decide(&self.rules, facts, &self.policy, self.now);
        let again = self.alerts.decide(&self.rules, facts, &self.policy, self.now);
        assert_eq!(decision, again, "a hub that is killed before it acts decides the same");
        self.alerts.apply(&decision, &self.policy, self.now);
        let kinds = decision.notices.iter().map(|notice| notice.kind).collect();
        self.told.extend(decision.notices);
        kinds
    }

    fn last(&self) -> &Notice {
        self.told.last().unwrap()
    }
}

fn down() -> Rule {
    Rule::standard().into_iter().find(|rule| rule.name == "node-down").unwrap()
}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_node_that_goes_down_and_comes_back_is_told_twice() {
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &[]), []);
    assert_eq!(hub.after(SECOND, &["a"]), [Opened]);
    assert_eq!(hub.last().title, "a is down");
    assert!(hub.last().is_node_down && !hub.last().remedy.is_empty());
    for _ in 0..120 {
        assert_eq!(hub.after(SECOND, &["a"]), []);
    }
    assert_eq!(hub.after(SECOND, &[]), [Resolved]);
    assert_eq!(hub.last().title, "a well again after 2 min");
    assert_eq!(hub.after(SECOND, &[]), []);
}

#[test]
fn a_thousand_nodes_that_die_in_a_second_are_one_incident() {
    let names: Vec<String> = (0..1_500).map(|number| format!("node-{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &names[..1_000]), [Opened]);
    assert_eq!(hub.last().title, "1000 nodes are down");
    assert_eq!((hub.last().nodes.len(), hub.last().more), (NODES_MAX, 1_000 - NODES_MAX));
    let mut told = Vec::new();
    for second in 1..60 {
        told.extend(hub.after(SECOND, &names[..1_000 + 8 * second]));
    }
    assert_eq!(told, [], "later nodes wait for the minute");
    assert_eq!(hub.after(SECOND, &names), [NoticeKind::Updated]);
    assert_eq!(hub.last().title, "1500 nodes are down");
    assert_eq!(hub.after(MINUTE, &names[..10]), [NoticeKind::Updated]);
    assert_eq!(hub.last().title, "10 nodes are down; 1490 are well again");
    assert_eq!(hub.after(SECOND, &[]), [Resolved]);
    assert_eq!(hub.alerts.open().count(), 0);
}

#[test]
fn a_node_that_goes_down_later_is_an_incident_of_its_own() {
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &["a"]), [Opened]);
    assert_eq!(hub.after(HOUR, &["a", "b"]), [Opened]);
    assert_eq!(hub.last().title, "b is down");
    assert_eq!(hub.after(SECOND, &["a"]), [Resolved]);
    assert_eq!(hub.after(SECOND, &[]), [Resolved]);
    assert!(hub.last().title.starts_with("a well again"));
}

#[test]
fn trouble_counts_after_its_hold_and_is_over_after_its_calm() {
    let mut hub = Hub::new(vec![Rule { hold: MINUTE, clear: 2 * MINUTE, ..down() }]);
    let since = hub.now;
    let fact = Facts { holds: vec![Fact { since, ..hub.fact("a") }], ..Facts::default() };
    for (after, facts, told) in [
        (59, &fact, None),
        (60, &fact, Some(Opened)),
        (90, &Facts::default(), None),
        (200, &fact, None),
        (210, &Facts::default(), None),
        (329, &Facts::default(), None),
        (330, &Facts::default(), Some(Resolved)),
    ] {
        hub.now = since.plus(Duration::from_secs(after));
        assert_eq!(hub.look(std::slice::from_ref(facts)).first().copied(), told, "after {after} s");
    }
}

#[test]
fn of_a_node_that_is_not_watched_nothing_is_told() {
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &["a"]), [Opened]);
    let unknown = Facts { unknown: BTreeSet::from(["a".to_owned()]), ..Facts::default() };
    hub.now = hub.now.plus(HOUR);
    assert_eq!(hub.look(&[unknown]), [], "the hub was away: a may be down or up");
    assert_eq!(hub.after(SECOND, &["a"]), [], "it is still the same incident");
    assert_eq!(hub.after(SECOND, &[]), [Resolved]);
}

#[test]
fn a_flapping_node_is_told_a_few_times_and_then_once() {
    let mut hub = Hub::new(vec![Rule { group: Duration::ZERO, ..down() }]);
    for _ in 0..20 {
        hub.after(MINUTE, &["a"]);
        hub.after(MINUTE, &[]);
    }
    let kinds: Vec<_> = hub.told.iter().map(|notice| notice.kind).collect();
    assert_eq!(kinds, [Opened, Resolved, Opened, Resolved, Opened]);
    assert_eq!(hub.last().title, "a is down, again and again");
    assert_eq!(hub.after(29 * MINUTE, &[]), []);
    assert_eq!(hub.after(MINUTE, &[]), [Resolved]);
    assert!(hub.last().title.ends_with(", again and again"), "{}", hub.last().title);
}

#[test]
fn what_is_silenced_is_told_when_it_outlasts_the_silence() {
    let mut hub = Hub::new(vec![down()]);
    let until = hub.now.plus(HOUR);
    let silence = Silence {
        id: 1,
        rule: None,
        nodes: Some("rack-*".to_owned()),
        until,
        by: String::new(),
        why: String::new(),
    };
    hub.alerts.set_silences(vec![silence]);
    assert_eq!(hub.after(SECOND, &["rack-1"]), []);
    assert_eq!(hub.alerts.open().next().unwrap().head.muted.as_deref(), Some("silenced"));
    assert_eq!(hub.after(SECOND, &["rack-1", "home"]), [Opened]);
    assert_eq!(hub.after(SECOND, &[]), [Resolved]);
    assert_eq!(hub.after(6 * MINUTE, &["rack-2"]), []);
    assert_eq!(hub.after(SECOND, &[]), [], "nobody knew of it");
    assert_eq!(hub.after(SECOND, &["rack-3"]), []);
    assert_eq!(hub.after(HOUR, &["rack-3"]), [Opened]);
}

#[test]
fn what_follows_from_something_else_is_not_told() {
    let swarm = Rule {
        name: "swarm-down".to_owned(),
        when: Condition::Share { percent: 50.0, of_at_least: 3 },
        ..down()
    };
    let rule = Rule { silenced_by: vec!["swarm-down".to_owned()], ..down() };
    let mut hub = Hub::new(vec![rule, swarm]);
    let nodes = hub.holds(&["a", "b", "c"]);
    let fleet = hub.holds(&[FLEET]);
    hub.look(&[nodes.clone(), fleet]);
    let rules: Vec<_> = hub.told.iter().map(|notice| notice.rule.as_str()).collect();
    assert_eq!(rules, ["swarm-down"]);
    let one = hub.holds(&["a"]);
    hub.now = hub.now.plus(SECOND);
    hub.look(&[one, Facts::default()]);
    let titles: Vec<_> = hub.told.iter().map(|notice| notice.title.as_str()).collect();
    assert_eq!(titles[1..], ["a is down; 2 are well again", "swarm-down: over after 1 s"]);
}

#[test]
fn in_quiet_hours_only_what_is_critical_is_told() {
    let warning = Rule { name: "warm".to_owned(), severity: Severity::Warning, ..down() };
    let mut hub = Hub::new(vec![warning, down()]);
    // 2027-01-15T08:00:00Z.
    hub.policy.quiet = vec![Quiet::new("08:00", "09:00", Weekdays::ALL, "UTC").unwrap()];
    let facts = hub.holds(&["a"]);
    assert_eq!(hub.look(&[facts.clone(), facts.clone()]), [Opened]);
    assert_eq!(hub.last().rule, "node-down");
    hub.now = hub.now.plus(HOUR);
    assert_eq!(hub.look(&[facts.clone(), facts]), [Opened]);
    assert_eq!(hub.last().rule, "warm");
}

#[test]
fn who_asks_for_it_is_reminded() {
    let mut hub = Hub::new(vec![Rule { remind: Some(HOUR), ..down() }]);
    assert_eq!(hub.after(SECOND, &["a"]), [Opened]);
    assert_eq!(hub.after(59 * MINUTE, &["a"]), []);
    assert_eq!(hub.after(MINUTE, &["a"]), [NoticeKind::Reminder]);
    assert_eq!(hub.last().title, "a is down for 1 h now");
    assert_eq!(hub.after(HOUR, &["a"]), [NoticeKind::Reminder]);
}

#[test]
fn a_node_that_its_owner_removed_is_not_told_as_well_again() {
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &["a"]), [Opened]);
    let removed = Facts { removed: BTreeSet::from(["a".to_owned()]), ..Facts::default() };
    assert_eq!(hub.look(&[removed]), []);
    assert_eq!(hub.alerts.open().count(), 0);
}

#[test]
fn a_removed_node_is_not_counted_among_those_that_are_well_again() {
    let mut hub = Hub::new(vec![down()]);
    assert_eq!(hub.after(SECOND, &["a", "b"]), [Opened]);
    let removed = Facts { removed: BTreeSet::from(["a".to_owned()]), ..hub.holds(&["b"]) };
    hub.now = hub.now.plus(MINUTE);
    assert_eq!(hub.look(&[removed]), [NoticeKind::Updated]);
    assert_eq!(hub.last().title, "b is down");
    assert_eq!(hub.after(MINUTE, &[]), [Resolved]);
    assert_eq!(hub.last().title, "b well again after 2 min");
    assert_eq!(hub.last().nodes.len(), 1);
}

#[test]
fn the_past_is_judged_by_the_same_rules() {
    let start = Timestamp::from_unix_ms(1_800_000_000_000);
    let change = |minutes: u64, node: &str, standing| Change {
        at: start.plus(Duration::from_secs(60 * minutes)),
        node: node.to_owned(),
        standing,
        why: String::new(),
    };
    let past = [
        change(0, "a", Standing::Up),
        change(1, "b", Standing::Up),
        change(10, "a", Standing::Down),
        change(12, "a", Standing::Up),
        change(50, "b", Standing::Down),
        change(90, "b", Standing::Up),
    ];
    let rules = [Rule { hold: 5 * MINUTE, ..down() }];
    let told = replay(&rules, &past, &Policy::default(), start.plus(3 * HOUR));
    let told: Vec<_> = told.iter().map(|notice| (notice.kind, notice.title.as_str())).collect();
    assert_eq!(told, [(Opened, "b is down"), (Resolved, "b well again after 35 min")]);
}

proptest! {
    /// Whatever happens in whatever order: what was told as open is told as over exactly once, nothing else is, and
    /// a node is in one incident of a rule at a time.
    #[test]
    fn every_beginning_has_one_end(steps in proptest::collection::vec((0_u64..400, 0_u8..32, 0_u8..32), 1..60)) {
        let names = ["a", "b", "c", "d", "e"];
        let pick = |bits: u8| names.iter().enumerate().filter(move |(at, _)| bits >> at & 1 == 1).map(|(_, name)| *name);
        let mut hub = Hub::new(vec![Rule { hold: Duration::ZERO, clear: Duration::from_secs(30), ..down() }]);
        for (seconds, troubled, unknown) in steps {
            hub.now = hub.now.plus(Duration::from_secs(seconds));
            let unknown: BTreeSet<String> = pick(unknown).map(str::to_owned).collect();
            let troubled: Vec<&str> = pick(troubled).filter(|name| !unknown.contains(*name)).collect();
            let facts = Facts { unknown, ..hub.holds(&troubled) };
            hub.look(&[facts]);
            let mut live = BTreeMap::new();
            for incident in hub.alerts.open() {
                for (name, _) in incident.live() {
                    prop_assert!(live.insert(name.clone(), incident.id).is_none(), "{name} is in two");
                }
            }
        }
        hub.after(SECOND, &[]);
        hub.after(HOUR, &[]);
        let count = |kind, id| hub.told.iter().filter(|it| it.kind == kind && it.incident == id).count();
        for notice in &hub.told {
            prop_assert_eq!(count(Opened, notice.incident), 1);
            prop_assert_eq!(count(Resolved, notice.incident), 1);
        }
        prop_assert_eq!(hub.alerts.open().count(), 0);
    }
}
