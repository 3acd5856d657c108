//! The file `sidecar.toml`: which programs are watched, by which profiles, and whom somebody wants to be woken for.
//!
//! Must hold: a file with any mistake is refused as a whole, with the program and the key.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::env::shown;
use super::hub_file::{self, Hours};
use crate::fleet::alerts::Policy;
use crate::fleet::rule::{Condition, PROGRAM_FIGURES, Rule, Written};
use crate::gswarm;
use crate::notify::telegram;
use crate::sidecar::settings::PROGRAMS_MAX;
use crate::sidecar::{Restart, RestartBy, Watching};
use crate::watch::expect::Expect;
use crate::watch::profile::{PROFILE_BYTES_MAX, Shelf};
use crate::watch::rules;

/// Where a sidecar is asked if nobody says otherwise.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Largest file, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// Most profiles of an owner's folder.
const PROFILES_MAX: usize = 200;

/// How many last lines are read of a log that was never read.
const FIRST_LINES: usize = 100;
const FIRST_LINES_MAX: usize = 10_000;

/// The longest name of a program, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The shortest and the longest trouble before a restart, in seconds.
const RESTART_AFTER_S: (u64, u64) = (60, 86_400);

/// Most restarts within a day.
const RESTARTS_MAX: u32 = 24;

/// What a file says.
#[derive(Debug, Clone)]
pub struct SidecarFile {
    /// What is watched.
    pub programs: Vec<Watching>,
    /// What somebody wants to know.
    pub rules: Vec<Rule>,
    /// How they want to be told.
    pub policy: Policy,
    /// Where the original's file wants to be asked.
    pub listen: Option<SocketAddr>,
    /// Where the original's file wants state to be kept.
    pub data: Option<PathBuf>,
    /// How often the original's file wants samples.
    pub sample: Option<Duration>,
    /// The original's service.
    pub original: Option<gswarm::Config>,
    /// The original's channel.
    pub telegram: Option<telegram::Config>,
    /// What the owner should know of the file; a sentence each.
    pub notes: Vec<String>,
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    watch: Vec<Program>,
    #[serde(default)]
    rule: Vec<Written>,
    #[serde(default)]
    quiet: Vec<Hours>,
    update_every_s: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    name: String,
    profile: String,
    #[serde(default)]
    set: BTreeMap<String, toml::Value>,
    peer: Option<String>,
    first_lines: Option<usize>,
    restart: Option<Again>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    unit: Option<String>,
    container: Option<String>,
    after_s: Option<u64>,
    a_day: Option<u32>,
}

/// Reads a file, with the profiles of the owner's folder. The error is a sentence.
pub(super) fn read(path: &Path, profiles: Option<&Path>) -> Result<SidecarFile, String> {
    let text = hub_file::text(path, BYTES_MAX)?;
    let shelf = shelf(profiles)?;
    parse(&text, &shelf).map_err(|what| format!("{}: {what}", path.display()))
}

/// This program's profiles, and those of an owner's folder.
pub(super) fn shelf(folder: Option<&Path>) -> Result<Shelf, String> {
    let mut shelf = Shelf::default();
    let Some(folder) = folder else { return Ok(shelf) };
    let unreadable = |err: std::io::Error| format!("{} can't be read: {err}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|it| it == "toml") {
            paths.push(path);
        }
        if paths.len() > PROFILES_MAX {
            return Err(format!("{} has more than {PROFILES_MAX} profiles", folder.display()));
        }
    }
    paths.sort();
    for path in paths {
        let text = hub_file::text(&path, PROFILE_BYTES_MAX as u64)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        shelf.put(&name, text).map_err(|err| format!("{}: {err}", path.display()))?;
    }
    Ok(shelf)
}

/// Whether a file is a profile: it watches nothing, and says how.
pub(super) fn is_profile(path: &Path) -> Result<bool, String> {
    let text = hub_file::text(path, BYTES_MAX)?;
    let is_table = |line: &str| line.trim_start().starts_with("[[watch]]");
    Ok(!text.lines().any(is_table))
}

/// What a profile holds, a sentence each; or what is wrong with it.
pub(super) fn check_profile(path: &Path) -> Result<Vec<String>, String> {
    let text = hub_file::text(path, PROFILE_BYTES_MAX as u64)?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut shelf = Shelf::default();
    shelf.put(&name, text).map_err(|err| err.to_string())?;
    let profile = shelf.get(&name).map_err(|err| err.to_string())?;
    // As an owner would have it who sets nothing.
    let usual = [("home", "/home/you"), ("name", &*name)];
    let usual = usual.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    profile.fill(&usual).map_err(|err| err.to_string())?;
    let variables: Vec<&str> = profile.variables.keys().map(String::as_str).collect();
    let logs: Vec<&str> = profile.logs.iter().map(|log| log.name.as_str()).collect();
    let counts = [
        (profile.means.len(), "meanings"),
        (profile.causes.len(), "causes"),
        (profile.ports.len(), "ports"),
        (profile.rules.len(), "rules"),
    ];
    let counts: Vec<String> =
        counts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    Rule::all(profile.rules.clone()).map_err(|err| format!("profile {name}: {err}"))?;
    Ok(vec![
        format!("profile {}: {}", profile.name, profile.about),
        format!("variables: {}", variables.join(", ")),
        format!("logs: {}; {}", logs.join(", "), counts.join(", ")),
    ])
}

fn parse(text: &str, shelf: &Shelf) -> Result<SidecarFile, String> {
    let tables: Tables = toml::from_str(text).map_err(|err| {
        let at = err.span().map_or(text.len(), |span| span.start);
        let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
        format!("line {line}: {}", crate::report::one_line(err.message(), 300))
    })?;
    if tables.watch.is_empty() {
        return Err("it has no [[watch]]: nothing would be watched".to_owned());
    }
    if tables.watch.len() > PROGRAMS_MAX {
        return Err(format!("it has more than {PROGRAMS_MAX} [[watch]]"));
    }
    let mut names = BTreeSet::new();
    let mut programs = Vec::new();
    for program in tables.watch {
        let name = program.name.clone();
        if !names.insert(name.clone()) {
            return Err(format!("two [[watch]] have the name {}", shown(&name)));
        }
        let watching = watching(program, shelf);
        programs.push(watching.map_err(|what| format!("[[watch]] {}: {what}", shown(&name)))?);
    }
    let policy = hub_file::policy(tables.quiet, tables.update_every_s)?;
    let rules = rules(tables.rule, &programs)?;
    let (listen, data, original, telegram) = (None, None, None, None);
    let notes = Vec::new();
    Ok(SidecarFile {
        programs,
        rules,
        policy,
        listen,
        data,
        sample: None,
        original,
        telegram,
        notes,
    })
}

fn watching(program: Program, shelf: &Shelf) -> Result<Watching, String> {
    let Program { name, profile, set, peer, first_lines, restart } = program;
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    if !is_name || name.chars().any(|c| crate::report::is_obeyed(c) || c == '/') {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, without / and controls"));
    }
    let mut values = BTreeMap::new();
    for (key, value) in set {
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(format!("set.{key} is neither a text nor a whole number")),
        };
        values.insert(key, text);
    }
    let first_lines = first_lines.unwrap_or(FIRST_LINES);
    if first_lines > FIRST_LINES_MAX {
        return Err(format!("first_lines is at most {FIRST_LINES_MAX}"));
    }
    let restart = restart.map(again).transpose()?;
    let watching = of_profile(&name, &profile, values, shelf)?;
    Ok(Watching { peer, first_lines, restart, ..watching })
}

/// A program by its profile and its owner's values.
pub(super) fn of_profile(
    name: &str,
    profile: &str,
    mut set: BTreeMap<String, String>,
    shelf: &Shelf,
) -> Result<Watching, String> {
    let profile = shelf.get(profile).map_err(|err| err.to_string())?;
    set.insert("name".to_owned(), name.to_owned());
    if let Some(home) = std::env::home_dir() {
        set.entry("home".to_owned()).or_insert_with(|| home.to_string_lossy().into_owned());
    }
    let filled = profile.fill(&set).map_err(|err| err.to_string())?;
    let expect = Expect::of(&profile, &filled);
    Ok(Watching {
        name: name.to_owned(),
        profile: filled,
        expect,
        peer: None,
        first_lines: FIRST_LINES,
        restart: None,
    })
}

fn again(again: Again) -> Result<Restart, String> {
    let by = match (again.unit, again.container) {
        (Some(unit), None) => RestartBy::Unit(unit),
        (None, Some(container)) => RestartBy::Container(container),
        _ => return Err("restart names either a unit or a container".to_owned()),
    };
    let (RestartBy::Unit(named) | RestartBy::Container(named)) = &by;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    if named.is_empty() || named.starts_with('-') || !named.chars().all(is_plain) {
        return Err(format!("restart: {} is no name of a unit or container", shown(named)));
    }
    let after = again.after_s.unwrap_or(600);
    if !(RESTART_AFTER_S.0..=RESTART_AFTER_S.1).contains(&after) {
        let (least, most) = RESTART_AFTER_S;
        return Err(format!("restart.after_s is from {least} to {most}"));
    }
    let a_day = again.a_day.unwrap_or(3);
    if !(1..=RESTARTS_MAX).contains(&a_day) {
        return Err(format!("restart.a_day is from 1 to {RESTARTS_MAX}"));
    }
    Ok(Restart { by, after: Duration::from_secs(after), a_day })
}

/// The rules of the file, or those of the profiles, or the usual ones. A program whose profile has none keeps the usual
/// ones beside those of other profiles.
pub(super) fn rules(written: Vec<Written>, programs: &[Watching]) -> Result<Vec<Rule>, String> {
    let of_profiles = || {
        let mut seen = BTreeSet::new();
        let new = |it: &&Watching| seen.insert(it.profile.profile.clone());
        let each: Vec<&Watching> = programs.iter().filter(new).collect();
        each.into_iter().flat_map(|it| it.profile.rules.clone()).collect::<Vec<Written>>()
    };
    let is_by_profiles = written.is_empty();
    let written = if is_by_profiles { of_profiles() } else { written };
    let mut rules = Rule::all(written).map_err(|err| err.to_string())?;
    for rule in &rules {
        let is_known = match &rule.when {
            Condition::Trouble(_) | Condition::Event { .. } => true,
            Condition::Figure { figure, .. } => PROGRAM_FIGURES.contains(&figure.as_str()),
            Condition::Standing(_) | Condition::Share { .. } | Condition::Anomaly(_) => false,
        };
        if !is_known {
            let (name, figures) = (shown(&rule.name), PROGRAM_FIGURES.join(", "));
            return Err(format!(
                "rule {name}: a sidecar knows only when.trouble, when.event, and when.figure with one of {figures}"
            ));
        }
    }
    if is_by_profiles && programs.iter().any(|it| it.profile.rules.is_empty()) {
        add_usual(&mut rules);
    }
    Ok(rules)
}

/// Adds the usual rules, but for what another rule tells of all programs: nobody is told of one trouble twice.
fn add_usual(rules: &mut Vec<Rule>) {
    let mut called: BTreeMap<String, String> = BTreeMap::new();
    for usual in rules::standard() {
        let tells = rules.iter().find(|it| tells_as_much(it, &usual)).map(|it| it.name.clone());
        if let Some(name) = tells {
            called.insert(usual.name, name);
            continue;
        }
        let is_free = |name: &String| rules.iter().all(|it| it.name != *name);
        let numbered = (2..=rules.len() + 2).map(|number| format!("{}-{number}", usual.name));
        let name = std::iter::once(usual.name.clone()).chain(numbered).find(is_free);
        let name = name.unwrap_or_else(|| usual.name.clone());
        called.insert(usual.name.clone(), name.clone());
        let named = |of: String| called.get(&of).cloned().unwrap_or(of);
        let silenced_by = usual.silenced_by.into_iter().map(named).collect();
        rules.push(Rule { name, silenced_by, ..usual });
    }
}

/// Whether a rule is about all programs and about each trouble of another one.
fn tells_as_much(rule: &Rule, other: &Rule) -> bool {
    let (Condition::Trouble(its), Condition::Trouble(others)) = (&rule.when, &other.when) else {
        return false;
    };
    rule.nodes.is_none() && rule.tag.is_none() && others.iter().all(|it| its.contains(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(own_rules: &str) -> Vec<(String, Vec<String>)> {
        let mut shelf = Shelf::default();
        let own = format!("name = \"own\"\nabout = \"A test.\"\n{own_rules}");
        shelf.put("own", own).unwrap();
        let file = "[[watch]]\nname = \"a\"\nprofile = \"own\"\n\
                    [[watch]]\nname = \"b\"\nprofile = \"generic\"\n";
        let rules = parse(file, &shelf).unwrap().rules;
        rules.into_iter().map(|rule| (rule.name, rule.silenced_by)).collect()
    }

    #[test]
    fn a_program_whose_profile_has_no_rules_keeps_the_usual_ones_beside_those_of_others() {
        let usual: Vec<String> = rules::standard().into_iter().map(|rule| rule.name).collect();
        let only = |all: Vec<(String, Vec<String>)>| -> Vec<String> {
            all.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(only(names("")), usual);
        let crash = "[[rule]]\nname = \"crash\"\nwhen = { event = \"watched.crash\" }\n";
        let all = only(names(crash));
        assert_eq!((all[0].as_str(), &all[1..]), ("crash", usual.as_slice()));
    }

    #[test]
    fn a_rule_may_name_a_figure_of_a_program_and_none_of_a_fleet() {
        let file = |figure: &str| {
            let rule = format!("when = {{ figure = \"{figure}\", above = 1 }}");
            let watch = "[[watch]]\nname = \"a\"\nprofile = \"generic\"\n";
            parse(&format!("{watch}[[rule]]\nname = \"x\"\n{rule}\n"), &Shelf::default())
        };
        for figure in PROGRAM_FIGURES {
            assert_eq!(file(figure).unwrap().rules.len(), 1, "{figure}");
        }
        let told = file("free_slots").unwrap_err();
        assert!(told.contains("rule \"x\"") && told.contains("memory_mib"), "{told}");
    }

    #[test]
    fn a_usual_rule_takes_another_name_where_its_own_is_taken_and_is_left_out_where_one_tells_the_same()
     {
        let own = "[[rule]]\nname = \"stuck\"\nnodes = \"a\"\nwhen = { trouble = [\"stuck\"] }\n\
                   [[rule]]\nname = \"all-stand\"\nwhen = { trouble = [\"swarm_down\"] }\n";
        let all = names(own);
        let called: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            called,
            [
                "stuck",
                "all-stand",
                "node-down",
                "stuck-2",
                "unpublished",
                "unpaid",
                "blind",
                "failed",
                "out-of-memory"
            ]
        );
        assert_eq!(all[3].1, ["all-stand"], "what silenced it has another name here");
    }
}
