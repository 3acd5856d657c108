//! The file `HUB_RULES` (`hub.toml`): what somebody wants to be woken for, and how.
//!
//! Must hold: a file with any mistake is refused as a whole, with its line and key.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::env::shown;
use crate::fleet::alerts::{Daily, Policy, Quiet, Weekdays};
use crate::fleet::rule::{Condition, PROGRAM_FIGURES, Rule, Written};

/// Largest file, in bytes: two hundred rules with their remedies take a tenth of it.
const BYTES_MAX: u64 = 1 << 20;

/// Most quiet hours.
const QUIET_MAX: usize = 50;

/// The shortest and the longest time between two messages about one incident, in seconds.
const UPDATE_S: (u64, u64) = (10, 86_400);

/// What a file says.
#[derive(Debug, Clone, PartialEq)]
pub struct HubFile {
    /// What somebody wants to know.
    pub rules: Vec<Rule>,
    /// How they want to be told.
    pub policy: Policy,
    /// When they are told of the day.
    pub digest: Option<Daily>,
}

impl Default for HubFile {
    /// What holds without a file.
    fn default() -> Self {
        Self { rules: Rule::standard(), policy: Policy::default(), digest: None }
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    rule: Vec<Written>,
    #[serde(default)]
    quiet: Vec<Hours>,
    digest: Option<Morning>,
    update_every_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hours {
    from: String,
    to: String,
    #[serde(default)]
    days: Vec<String>,
    #[serde(default)]
    zone: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Morning {
    at: String,
    #[serde(default)]
    zone: String,
}

/// What a file says, or what is wrong with it.
pub fn hub_file(path: &Path) -> Result<HubFile, String> {
    let text = text(path, BYTES_MAX)?;
    parse(&text).map_err(|what| format!("{}: {what}", path.display()))
}

/// The text of a file that its owner wrote, of at most so many bytes.
pub(super) fn text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let shown = path.display();
    let unreadable = |err: std::io::Error| format!("{shown} can't be read: {err}");
    let is_file = std::fs::metadata(path).map_err(unreadable)?.is_file();
    if !is_file {
        return Err(format!("{shown} is no regular file"));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{shown} has more than {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))
}

fn parse(text: &str) -> Result<HubFile, String> {
    let tables: Tables = toml::from_str(text).map_err(|err| {
        let at = err.span().map_or(text.len(), |span| span.start);
        format!("{}: {}", place(text, at), crate::report::one_line(err.message(), 300))
    })?;
    let policy = policy(tables.quiet, tables.update_every_s)?;
    let digest = tables.digest.map(|morning| Daily::new(&morning.at, &morning.zone)).transpose();
    let digest = digest.map_err(|err| format!("[digest]: {err}"))?;
    let rules = match tables.rule {
        none if none.is_empty() => Rule::standard(),
        rules => Rule::all(rules).map_err(|err| err.to_string())?,
    };
    if let Some(rule) = rules.iter().find(|rule| matches!(rule.when, Condition::Trouble(_))) {
        let name = shown(&rule.name);
        return Err(format!("rule {name}: when.trouble is for the rules of a sidecar's profile"));
    }
    let is_of_programs = |rule: &&Rule| matches!(&rule.when, Condition::Figure { figure, .. } if PROGRAM_FIGURES.contains(&figure.as_str()));
    if let Some(rule) = rules.iter().find(is_of_programs) {
        let name = shown(&rule.name);
        return Err(format!(
            "rule {name}: when.figure names what only a sidecar knows of a program"
        ));
    }
    Ok(HubFile { rules, policy, digest })
}

/// How people want to be told.
pub(super) fn policy(quiet: Vec<Hours>, update_every_s: Option<u64>) -> Result<Policy, String> {
    if quiet.len() > QUIET_MAX {
        return Err(format!("it has more than {QUIET_MAX} [[quiet]]"));
    }
    let mut policy = Policy::default();
    for (number, hours) in (1..).zip(quiet) {
        let quiet = Weekdays::of(&hours.days)
            .and_then(|days| Quiet::new(&hours.from, &hours.to, days, &hours.zone));
        policy.quiet.push(quiet.map_err(|err| format!("[[quiet]] {number}: {err}"))?);
    }
    if let Some(seconds) = update_every_s {
        if !(UPDATE_S.0..=UPDATE_S.1).contains(&seconds) {
            return Err(format!("update_every_s is from {} to {}", UPDATE_S.0, UPDATE_S.1));
        }
        policy.update_every = Duration::from_secs(seconds);
    }
    Ok(policy)
}

/// Where in a file something is: the line, the rule and the key.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let key = |line: &str| Some(line.split_once('=')?.0.trim().to_owned());
    let is_head = |line: &&str| line.trim_start().starts_with("[[rule");
    let heads = text.lines().take(number).filter(is_head).count();
    let own = text.lines().scan(0, |seen, line| {
        *seen += usize::from(is_head(&line));
        Some((*seen, line))
    });
    let name = own
        .filter(|(seen, _)| *seen == heads && heads > 0)
        .find_map(|(_, line)| line.trim().strip_prefix("name")?.trim_start().strip_prefix('='))
        .map(|name| name.trim().trim_matches('"').to_owned());
    let rule = match (heads, name) {
        (0, _) => String::new(),
        (_, Some(name)) => format!(", rule {}", shown(&name)),
        (number, None) => format!(", rule {number}"),
    };
    let key = key(line).map(|key| format!(", {}", crate::report::one_line(&key, 40)));
    format!("line {number}{rule}{}", key.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_with_its_line_its_rule_and_its_key() {
        let good = "[[rule]]\nname = \"a\"\nwhen = { standing = [\"down\"] }\n";
        assert_eq!(parse(good).unwrap().rules.len(), 1);
        for (more, says) in [
            ("[[rule]]\nname = \"hot\"\nhold = 3\n", "line 6, rule \"hot\", hold: unknown field"),
            (
                "[[rule]]\nname = \"hot\"\nhold_s = \"3\"\n",
                "line 6, rule \"hot\", hold_s: invalid type",
            ),
            ("[[rule]]\nhold_s = -1\nname = \"x\"\n", "line 5, rule \"x\", hold_s: "),
            (
                "[[rule]]\nname = \"hot\"\nwhen = { event = \"*\", figure = \"slots\" }\n",
                "rule \"hot\": when",
            ),
            ("[[rule]]\nname = \"a\"\nwhen = { event = \"*\" }\n", "two rules have the name"),
            ("[[rules]]\nname = \"b\"\n", "unknown field `rules`"),
            (
                "[[rule]]\nname = \"b\"\nwhen = { trouble = [\"down\"] }\n",
                "for the rules of a sidecar",
            ),
            (
                "[[rule]]\nname = \"b\"\nwhen = { figure = \"cpu_percent\", above = 1 }\n",
                "only a sidecar knows",
            ),
            ("[[rule]]\nname = \"b\n", "line 5, rule"),
            ("[[quiet]]\nfrom = \"22:00\"\nto = \"25:00\"\n", "[[quiet]] 1: \"25:00\""),
            ("[digest]\nat = \"08:00\"\nzone = \"Mars\"\n", "[digest]: \"Mars\""),
        ] {
            let told = parse(&format!("{good}{more}")).unwrap_err();
            assert!(told.contains(says), "{told}");
        }
        assert!(parse("update_every_s = 1\n").unwrap_err().contains("from 10 to 86400"));
    }

    #[test]
    fn a_file_without_rules_has_those_that_hold_without_a_file() {
        let file = parse("[digest]\nat = \"08:00\"\n[[quiet]]\nfrom = \"22:00\"\nto = \"07:00\"\n");
        let file = file.unwrap();
        assert_eq!(file.rules, Rule::standard());
        assert!(file.digest.is_some() && file.policy.quiet.len() == 1);
    }
}
