//! Rules: what somebody wants to be woken for, as data. The hub and a lone sidecar read the same form, TOML
//! tables `[[rule]]`.
//!
//! Must hold: a file with any mistake is refused as a whole, with a sentence that names the rule and the key.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::anomaly::Anomaly;
use super::clocks::Standing;
use super::event::{Event, Level};
use super::kinds::GPU_HELD_IDLE;
use super::notice::{CHANNELS, Severity};

/// Most rules that a file may hold: each is held against each node.
pub const RULES_MAX: usize = 200;

/// The longest span of a rule: 90 days.
const SPAN_MAX_S: u64 = 90 * 86_400;

/// How long an event keeps its incident open if the rule doesn't say.
const EVENT_KEEP_S: u64 = 600;

/// How long an incident takes further nodes if the rule doesn't say.
const GROUP_S: u64 = 300;

/// What somebody wants to know.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, which is unique.
    pub name: String,
    /// What must be so.
    pub when: Condition,
    /// For how long it must be so.
    pub hold: Duration,
    /// For how long it must not be so any more before the node counts as well again.
    pub clear: Duration,
    /// For how long after its opening an incident takes further nodes.
    pub group: Duration,
    /// How urgent it is.
    pub severity: Severity,
    /// How often somebody is reminded while it lasts.
    pub remind: Option<Duration>,
    /// The channels that are told; empty: all.
    pub channels: Vec<String>,
    /// Rules that keep this one from being told while they fire.
    pub silenced_by: Vec<String>,
    /// Only nodes whose name matches: `*` stands for any text.
    pub nodes: Option<String>,
    /// Only nodes with this tag.
    pub tag: Option<String>,
    /// What to do about it.
    pub remedy: String,
}

/// What a rule looks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// A node stands in one of these ways.
    Standing(Vec<Standing>),
    /// A watched program has one of these troubles; only a sidecar knows.
    Trouble(Vec<Trouble>),
    /// A node told such an event.
    Event {
        /// `component.event_type`, where `*` stands for any text.
        kind: String,
        /// At least this level.
        level: Level,
    },
    /// A figure of a node is above or below a limit.
    Figure {
        /// The figure's name, one of [`FIGURES`] or [`PROGRAM_FIGURES`].
        figure: String,
        /// Fires above it.
        above: Option<f64>,
        /// Fires below it.
        below: Option<f64>,
    },
    /// Something is odd about a job of a node. What a node tells as an event is an [`Condition::Event`].
    Anomaly(Anomaly),
    /// So many of all nodes are not up.
    Share {
        /// In percent.
        percent: f64,
        /// Only of a fleet of at least so many nodes.
        of_at_least: usize,
    },
}

/// What can be wrong with a program that a sidecar watches: the first of its witnesses that says no, and what
/// keeps them from saying anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// It is not there.
    Down,
    /// It is there, and does not do its work.
    Stuck,
    /// It works, and its peers have nothing of it.
    Unpublished,
    /// It published, and was not paid.
    Unpaid,
    /// Nobody of its swarm goes on.
    SwarmDown,
    /// A source can't be asked.
    Blind,
}

impl Trouble {
    /// All troubles, in the order in which they are looked for.
    pub const ALL: [Self; 6] =
        [Self::SwarmDown, Self::Down, Self::Stuck, Self::Unpublished, Self::Unpaid, Self::Blind];

    /// The trouble as it is written: `swarm_down`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Stuck => "stuck",
            Self::Unpublished => "unpublished",
            Self::Unpaid => "unpaid",
            Self::SwarmDown => "swarm_down",
            Self::Blind => "blind",
        }
    }
}

/// The figures of nodes that rules can name: what one of our nodes tells of itself on NATS.
pub const FIGURES: [&str; 5] = ["gpus", "gpus_sick", "free_slots", "slots", "free_vram_mib"];

/// The figures of watched programs that rules of a sidecar can name: its share of one core, its memory, its busiest GPU,
/// and what is free on the disk of its folder.
pub const PROGRAM_FIGURES: [&str; 4] =
    ["cpu_percent", "memory_mib", "gpu_busy_percent", "disk_free_mib"];

/// A file of rules that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRule(String);

/// A rule as it stands in a file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    name: String,
    when: When,
    #[serde(default)]
    hold_s: u64,
    #[serde(default)]
    clear_s: u64,
    group_s: Option<u64>,
    #[serde(default)]
    severity: Severity,
    remind_s: Option<u64>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    silenced_by: Vec<String>,
    nodes: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    remedy: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct When {
    standing: Option<Vec<Standing>>,
    trouble: Option<Vec<Trouble>>,
    event: Option<String>,
    level: Option<Level>,
    figure: Option<String>,
    above: Option<f64>,
    below: Option<f64>,
    not_up_percent: Option<f64>,
    of_at_least: Option<usize>,
    anomaly: Option<Anomaly>,
}

impl Rule {
    /// The rules of a file, checked together.
    pub fn all(written: Vec<Written>) -> Result<Vec<Self>, InvalidRule> {
        if written.len() > RULES_MAX {
            return Err(InvalidRule(format!("there are more than {RULES_MAX} rules")));
        }
        let rules: Vec<Self> = written.into_iter().map(Self::of).collect::<Result<_, _>>()?;
        for (at, rule) in rules.iter().enumerate() {
            let is_again = rules.iter().take(at).any(|other| other.name == rule.name);
            if is_again {
                return Err(InvalidRule(format!("two rules have the name {:?}", rule.name)));
            }
            for other in &rule.silenced_by {
                if *other == rule.name || !rules.iter().any(|rule| rule.name == *other) {
                    let what =
                        format!("rule {:?}: silenced_by names no other rule: {other:?}", rule.name);
                    return Err(InvalidRule(what));
                }
            }
        }
        for rule in &rules {
            if is_silenced_by_itself(rule, &rules) {
                let what = format!("rule {:?} is silenced by itself, by way of others", rule.name);
                return Err(InvalidRule(what));
            }
        }
        Ok(rules)
    }

    /// The rules of a hub that has none of its own: those of the original monitor, and what only we see.
    pub fn standard() -> Vec<Self> {
        let rule = |name: &str, standing: Standing, severity: Severity, remedy: &str| Self {
            name: name.to_owned(),
            when: Condition::Standing(vec![standing]),
            hold: Duration::ZERO,
            clear: Duration::ZERO,
            group: Duration::from_secs(GROUP_S),
            severity,
            remind: None,
            channels: Vec::new(),
            silenced_by: Vec::new(),
            nodes: None,
            tag: None,
            remedy: remedy.to_owned(),
        };
        vec![
            rule(
                "node-down",
                Standing::Down,
                Severity::Critical,
                "Look whether the machine has power and network, then at the service's log: \
                 journalctl -u lamda-node (or of the program that it runs).",
            ),
            rule(
                "zombie",
                Standing::Zombie,
                Severity::Warning,
                "The node pays for heartbeats and gets no jobs: look at its connection to NATS with \
                 lamda-node doctor.",
            ),
            rule(
                "key-clash",
                Standing::Clash,
                Severity::Critical,
                "Stop one of the two programs: they spend each other's transactions.",
            ),
        ]
    }

    fn of(written: Written) -> Result<Self, InvalidRule> {
        let name = written.name.trim().to_owned();
        let wrong = |what: String| InvalidRule(format!("rule {name:?}: {what}"));
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(wrong("a name has 1 to 64 bytes".to_owned()));
        }
        let when = condition(written.when).map_err(|what| wrong(what.to_owned()))?;
        if let Some(unknown) = written.channels.iter().find(|it| !CHANNELS.contains(&it.as_str())) {
            return Err(wrong(format!(
                "{unknown:?} is none of the channels {}",
                CHANNELS.join(", ")
            )));
        }
        if written.nodes.as_deref() == Some("") || written.tag.as_deref() == Some("") {
            return Err(wrong("an empty nodes or tag matches nobody: leave it out".to_owned()));
        }
        if matches!(when, Condition::Event { .. }) && written.hold_s > 0 {
            return Err(wrong("an event happens in a moment: it has no hold_s".to_owned()));
        }
        let keep = if matches!(when, Condition::Event { .. }) { EVENT_KEEP_S } else { 0 };
        let clear = if written.clear_s == 0 { keep } else { written.clear_s };
        let group = written.group_s.unwrap_or(GROUP_S);
        let remind = written.remind_s.unwrap_or(60);
        if [written.hold_s, clear, group, remind].iter().any(|span| *span > SPAN_MAX_S) {
            return Err(wrong(format!("a span is at most {SPAN_MAX_S} seconds")));
        }
        if remind < 60 {
            return Err(wrong("remind_s is at least 60".to_owned()));
        }
        Ok(Self {
            when,
            hold: Duration::from_secs(written.hold_s),
            clear: Duration::from_secs(clear),
            group: Duration::from_secs(group),
            severity: written.severity,
            remind: written.remind_s.map(Duration::from_secs),
            channels: written.channels,
            silenced_by: written.silenced_by,
            nodes: written.nodes,
            tag: written.tag,
            remedy: written.remedy,
            name,
        })
    }

    /// Whether the rule is about this node.
    pub fn is_about(&self, name: &str, tags: &[&str]) -> bool {
        self.nodes.as_ref().is_none_or(|pattern| matches(pattern, name))
            && self.tag.as_ref().is_none_or(|tag| tags.contains(&tag.as_str()))
    }

    /// Whether the event is one that this rule looks for.
    pub fn is_for(&self, event: &Event) -> bool {
        match &self.when {
            Condition::Event { kind, level } => {
                let told = format!("{}.{}", event.component, event.event_type);
                event.level >= *level && matches(kind, &told)
            }
            _ => false,
        }
    }
}

const ONE_OF: &str = "when has one of standing, trouble, anomaly, event (component.type), figure, not_up_percent (above 0, at most 100)";

fn condition(when: When) -> Result<Condition, &'static str> {
    let When { standing, trouble, event, level, figure, above, below, not_up_percent, .. } = when;
    let (of_at_least, anomaly) = (when.of_at_least, when.anomaly);
    if trouble.is_some() || anomaly.is_some() {
        let is_alone =
            standing.is_none() && event.is_none() && figure.is_none() && not_up_percent.is_none();
        return match (trouble, anomaly) {
            (Some(troubles), None) if is_alone && !troubles.is_empty() => {
                Ok(Condition::Trouble(troubles))
            }
            (None, Some(anomaly)) if is_alone => Ok(odd(anomaly)),
            _ => Err(ONE_OF),
        };
    }
    match (standing, event, figure, not_up_percent) {
        (Some(standings), None, None, None) if !standings.is_empty() => {
            Ok(Condition::Standing(standings))
        }
        (None, Some(kind), None, None) if kind.contains(['.', '*']) => {
            Ok(Condition::Event { kind, level: level.unwrap_or(Level::Debug) })
        }
        (None, None, Some(figure), None) => {
            if !FIGURES.iter().chain(&PROGRAM_FIGURES).any(|it| *it == figure) {
                return Err("when.figure names no figure that a hub or a sidecar knows");
            }
            if [above, below].iter().flatten().any(|limit| !limit.is_finite()) {
                return Err("when.above and when.below are finite");
            }
            if above.is_none() && below.is_none() {
                return Err("when.figure needs above or below");
            }
            Ok(Condition::Figure { figure, above, below })
        }
        (None, None, None, Some(percent)) if percent > 0.0 && percent <= 100.0 => {
            Ok(Condition::Share { percent, of_at_least: of_at_least.unwrap_or(3) })
        }
        _ => Err(ONE_OF),
    }
}

/// What is odd, as what a rule looks for: a node says by itself that its cards are held and idle.
fn odd(anomaly: Anomaly) -> Condition {
    match anomaly {
        Anomaly::HeldIdle => {
            let kind = format!("{}.{}", GPU_HELD_IDLE.component, GPU_HELD_IDLE.event_type);
            Condition::Event { kind, level: Level::Debug }
        }
        Anomaly::MemorySlope | Anomaly::SlowerThanLike => Condition::Anomaly(anomaly),
    }
}

/// Whether a rule can keep itself from being told, so that nobody is told of anything.
fn is_silenced_by_itself(rule: &Rule, rules: &[Rule]) -> bool {
    let mut reached: Vec<&str> = rule.silenced_by.iter().map(String::as_str).collect();
    let mut at = 0;
    while let Some(name) = reached.get(at).copied() {
        let by =
            rules.iter().filter(|other| other.name == name).flat_map(|other| &other.silenced_by);
        for next in by {
            if !reached.contains(&next.as_str()) {
                reached.push(next);
            }
        }
        at += 1;
    }
    reached.contains(&rule.name.as_str())
}

/// Whether the text matches a pattern in which `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<Vec<Rule>, InvalidRule> {
        let written: Vec<Written> =
            serde_json::from_value(json).map_err(|err| InvalidRule(err.to_string()))?;
        Rule::all(written)
    }

    #[test]
    fn a_pattern_matches_with_any_text_for_its_stars() {
        for (pattern, text, is_match) in [
            ("rack-*", "rack-12", true),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b", "a-b-c", false),
            ("a*a", "a", false),
            ("abc", "abcd", false),
            ("*.failed", "job.failed", true),
        ] {
            assert_eq!(matches(pattern, text), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn a_wrong_rule_is_refused_by_its_name_and_key() {
        let when = serde_json::json!({"standing": ["down"]});
        for (rules, says) in [
            (serde_json::json!([{"name": "a", "when": {}}]), "\"a\": when has one of"),
            (
                serde_json::json!([{"name": "a", "when": {"figure": "mood", "above": 1}}]),
                "no figure",
            ),
            (serde_json::json!([{"name": "a", "when": {"figure": "slots"}}]), "above or below"),
            (serde_json::json!([{"name": "a", "when": when, "remind_s": 5}]), "remind_s"),
            (serde_json::json!([{"name": "a", "when": when, "channels": ["pager"]}]), "pager"),
            (serde_json::json!([{"name": "a", "when": when, "nodes": ""}]), "matches nobody"),
            (
                serde_json::json!([{"name": "a", "when": {"event": "x.y"}, "hold_s": 1}]),
                "no hold_s",
            ),
            (
                serde_json::json!([
                    {"name": "a", "when": when, "silenced_by": ["b"]},
                    {"name": "b", "when": when, "silenced_by": ["a"]},
                ]),
                "silenced by itself",
            ),
            (serde_json::json!([{"name": "a", "when": when, "hold_s": 99_999_999}]), "a span"),
            (serde_json::json!([{"name": "a", "when": when, "hold": 5}]), "hold"),
            (serde_json::json!([{"name": "a", "when": when, "silenced_by": ["b"]}]), "silenced_by"),
            (
                serde_json::json!([{"name": "a", "when": when}, {"name": "a", "when": when}]),
                "two rules",
            ),
        ] {
            let refused = read(rules.clone()).unwrap_err().to_string();
            assert!(refused.contains(says), "{rules}: {refused}");
        }
    }

    #[test]
    fn what_is_odd_is_the_nodes_own_event_or_the_hubs_own_look_and_stands_alone() {
        let of = |when: serde_json::Value| read(serde_json::json!([{"name": "a", "when": when}]));
        let rules = of(serde_json::json!({"anomaly": "memory_slope"})).unwrap();
        assert_eq!(rules[0].when, Condition::Anomaly(Anomaly::MemorySlope));
        let idle = of(serde_json::json!({"anomaly": "held_idle"})).unwrap();
        let at = crate::clock::Timestamp::default();
        let node = crate::ids::Address::new([1; 20]);
        assert!(idle[0].is_for(&Event::new(GPU_HELD_IDLE, node, at, "m")));
        assert_eq!(idle[0].clear, Duration::from_secs(EVENT_KEEP_S));
        for wrong in [
            serde_json::json!({"anomaly": "mood"}),
            serde_json::json!({"anomaly": "memory_slope", "figure": "slots", "above": 1}),
            serde_json::json!({"anomaly": "memory_slope", "trouble": ["down"]}),
        ] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let rules = read(serde_json::json!([{
            "name": "sick",
            "when": {"figure": "gpus_sick", "above": 0.0},
            "hold_s": 300,
            "severity": "critical",
            "nodes": "rack-*",
            "tag": "own",
        }]))
        .unwrap();
        assert_eq!(rules[0].hold, Duration::from_mins(5));
        assert!(rules[0].is_about("rack-1", &["own"]));
        assert!(!rules[0].is_about("home", &["own"]) && !rules[0].is_about("rack-1", &[]));
    }
}
