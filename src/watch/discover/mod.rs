//! From what was found on a machine to a configuration of the sidecar, and to what its owner has to add.
//!
//! Must hold: nothing is made up: what was not found is left out and told in a sentence; what stands in the
//! configuration is quoted as TOML wants it, whatever a program or a folder is called. Pure: the adapters gather.

mod llama;
mod read;
mod text;

use std::collections::BTreeMap;

pub use read::{Kind, account_of, contract_of, kind_of, option_of, peer_of};

/// Most programs of one configuration: what a sidecar watches at most.
const WATCHED_MAX: usize = 64;

/// Programs that run others: what they run says which program it is.
const INTERPRETERS: [&str; 8] = ["python", "node", "nodejs", "java", "bash", "sh", "dash", "zsh"];

/// How much of a script is part of a pattern, in bytes.
const SCRIPT_BYTES_MAX: usize = 256;

/// The profile for the programs of today.
const HYDRA: &str = "rl-swarm-hydra";
/// The profile for those of the time before.
const LEGACY: &str = "rl-swarm-legacy";
/// The profile for anything else.
const GENERIC: &str = "generic";

/// The log of today's program, below `logs`.
pub const HYDRA_LOG: &str = "swarm_launcher.log";
/// The log of the time before, below `logs`.
pub const LEGACY_LOG: &str = "swarm.log";

/// What was found on a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Processes that may be worth watching.
    pub processes: Vec<Running>,
    /// Containers, if the engine could be asked.
    pub containers: Vec<Container>,
    /// Folders that hold a program's repository.
    pub roots: Vec<Root>,
    /// What could not be looked at, a sentence each.
    pub could_not: Vec<String>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// What it is.
    pub kind: Kind,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory, if that could be seen and is one of this machine.
    pub folder: Option<String>,
    /// The unit of systemd that it belongs to.
    pub unit: Option<String>,
    /// The id of its container.
    pub container: Option<String>,
    /// The session of screen that it runs in.
    pub screen: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image that it was made of.
    pub image: String,
    /// Folders of this machine that it has, and where.
    pub mounts: Vec<(String, String)>,
}

/// A folder with a program's repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Root {
    /// The folder.
    pub path: String,
    /// The folder with its logs, if there is one.
    pub logs: Option<String>,
    /// The names of the files in it.
    pub log_files: Vec<String>,
    /// The owner's account, of the file that the login leaves.
    pub account: Option<String>,
    /// The node's peer id, of its log.
    pub peer: Option<String>,
    /// The coordinator, of its configuration.
    pub contract: Option<String>,
}

/// What is to be watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// Its name, each once.
    pub name: String,
    /// The profile that it is watched by.
    pub profile: &'static str,
    /// The node's peer id.
    pub peer: Option<String>,
    /// The owner's account.
    pub account: Option<String>,
    /// The values of the profile's variables.
    pub values: BTreeMap<&'static str, String>,
}

/// A configuration, and what is missing in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    /// What is to be watched.
    pub proposals: Vec<Proposal>,
    /// The configuration as TOML; without a proposal it is a comment that says so.
    pub toml: String,
    /// What its owner has to look after, a sentence each.
    pub missing: Vec<String>,
}

/// Makes a configuration of what was found.
pub fn discover(found: &Found) -> Discovery {
    let mut all = Vec::new();
    let mut missing = found.could_not.clone();
    let mut used = Vec::new();
    for root in &found.roots {
        let running = running_in(found, root);
        used.extend(running.iter().map(|process| process.pid));
        all.push(swarm(found, root, running.first().copied(), &mut missing));
    }
    for process in found.processes.iter().filter(|process| !used.contains(&process.pid)) {
        // What belongs together is watched once.
        let is_known = all.iter().any(|proposal: &Proposal| is_same(proposal, process, found));
        match process.kind {
            _ if is_known => {}
            Kind::Hydra | Kind::Legacy => {
                all.push(homeless(found, process, &mut missing));
            }
            Kind::LlamaServer => all.push(llama::coordinator(process)),
            // A backend is asked by the coordinator that names it.
            Kind::LlamaBackend => {}
            Kind::Other => all.push(generic(found, process)),
        }
    }
    llama::backends(found, &mut all, &mut missing);
    if all.len() > WATCHED_MAX {
        missing.push(format!("Of {} programs, the first {WATCHED_MAX} are listed.", all.len()));
        all.truncate(WATCHED_MAX);
    }
    name_each(&mut all);
    if all.is_empty() {
        missing.push(
            "Nothing was found that a profile knows. Name the folder of the program, or a part of its command line."
                .to_owned(),
        );
    }
    Discovery { toml: text::toml(&all), proposals: all, missing }
}

/// The processes of a repository: they run in its folder, or in a container that has its logs.
fn running_in<'a>(found: &'a Found, root: &Root) -> Vec<&'a Running> {
    let is_its = |process: &&Running| {
        let is_swarm = matches!(process.kind, Kind::Hydra | Kind::Legacy);
        let is_in = process.folder.as_deref().is_some_and(|folder| is_below(folder, &root.path));
        let container = process.container.as_deref().and_then(|id| container(found, id));
        let has_it = container.is_some_and(|it| has_folder(it, root));
        is_swarm && (is_in || has_it)
    };
    found.processes.iter().filter(is_its).collect()
}

fn has_folder(container: &Container, root: &Root) -> bool {
    container.mounts.iter().any(|(here, _)| is_below(here, &root.path))
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn container<'a>(found: &'a Found, id: &str) -> Option<&'a Container> {
    found.containers.iter().find(|container| container.id == id)
}

/// A repository of the swarm's program.
fn swarm(
    found: &Found,
    root: &Root,
    process: Option<&Running>,
    missing: &mut Vec<String>,
) -> Proposal {
    let has = |name: &str| root.log_files.iter().any(|file| file == name);
    let is_legacy = match process.map(|process| process.kind) {
        Some(kind) => kind == Kind::Legacy,
        None => has(LEGACY_LOG) && !has(HYDRA_LOG),
    };
    // The profile has the logs below its root.
    let logs = root.logs.as_deref().and_then(|logs| logs.strip_suffix("/logs"));
    let mut proposal = Proposal {
        name: last_part(&root.path).to_owned(),
        profile: if is_legacy { LEGACY } else { HYDRA },
        peer: root.peer.clone(),
        account: root.account.clone(),
        values: [("root", logs.unwrap_or(&root.path).to_owned())].into(),
    };
    if let Some(contract) = &root.contract {
        proposal.values.insert("contract", contract.clone());
    }
    let stopped = found.containers.iter().find(|container| has_folder(container, root));
    if let Some(process) = process {
        place(found, process, &mut proposal);
    } else {
        if let Some(container) = stopped {
            proposal.values.insert("container", container.name.clone());
        }
        missing.push(format!("{}: it does not run now.", root.path));
    }
    let log = if is_legacy { LEGACY_LOG } else { HYDRA_LOG };
    if !has(log) {
        missing.push(format!("{}: there is no log {log} yet.", root.path));
    }
    ask_for(&root.path, &proposal, missing);
    proposal
}

/// A program of the swarm whose folder can't be seen.
fn homeless(found: &Found, process: &Running, missing: &mut Vec<String>) -> Proposal {
    let profile = if process.kind == Kind::Legacy { LEGACY } else { HYDRA };
    let mut proposal = Proposal { name: "rl-swarm".to_owned(), profile, ..Proposal::default() };
    place(found, process, &mut proposal);
    let who = format!("The program with the process {}", process.pid);
    if let Some(folder) = &process.folder {
        proposal.values.insert("root", folder.clone());
    } else {
        missing.push(format!("{who}: its folder can't be seen: set root to where its logs are."));
    }
    ask_for(&who, &proposal, missing);
    proposal
}

/// What the other two witnesses need.
fn ask_for(who: &str, proposal: &Proposal, missing: &mut Vec<String>) {
    if proposal.peer.is_none() {
        missing.push(format!(
            "{who}: its peer id is not in the log: without peer neither the DHT nor the chain can be asked."
        ));
    }
    if !proposal.values.contains_key("contract") {
        missing.push(format!(
            "{who}: no contract is named in its configuration: the profile's is taken; set contract if it is another one."
        ));
    }
    if proposal.account.is_none() {
        missing.push(format!("{who}: nobody has logged in, or that can't be read: the chain is asked for the account."));
    }
}

/// Where a process runs: the innermost of container, unit and session.
fn place(found: &Found, process: &Running, proposal: &mut Proposal) {
    if let Some(id) = &process.container {
        let name = container(found, id).map_or(id, |container| &container.name);
        proposal.values.insert("container", name.clone());
    } else if let Some(screen) = &process.screen {
        proposal.values.insert("screen", screen.clone());
    } else if let Some(unit) = &process.unit {
        proposal.values.insert("unit", unit.clone());
    }
}

/// Whether a process is one of a program that is proposed already.
fn is_same(proposal: &Proposal, process: &Running, found: &Found) -> bool {
    let mut its = Proposal::default();
    place(found, process, &mut its);
    let is_placed = |key: &str| {
        its.values.get(key).is_some_and(|value| proposal.values.get(key) == Some(value))
    };
    let is_swarm = matches!(process.kind, Kind::Hydra | Kind::Legacy);
    let is_alike = if is_swarm {
        proposal.profile == HYDRA || proposal.profile == LEGACY
    } else {
        proposal.profile == GENERIC && process.kind == Kind::Other
    };
    let is_below_root = process.folder.as_deref().is_some_and(|folder| {
        proposal.values.get("root").is_some_and(|root| is_below(folder, root))
    });
    let is_same_command =
        proposal.values.get("command").is_some_and(|command| *command == pattern(process));
    is_alike
        && (["container", "unit", "screen"].into_iter().any(is_placed)
            || is_same_command
            || (is_swarm && is_below_root))
}

/// Any other program that was asked for.
fn generic(found: &Found, process: &Running) -> Proposal {
    let program = process.arguments.first().map_or("program", |program| last_part(program));
    // Some programs write a sentence there.
    let name = program.split([':', ' ']).next().unwrap_or(program);
    let mut proposal = Proposal { name: name.to_owned(), profile: GENERIC, ..Proposal::default() };
    place(found, process, &mut proposal);
    if proposal.values.is_empty() {
        proposal.values.insert("command", pattern(process));
    }
    proposal
}

/// A pattern that the process's program matches; of an interpreter's, with what it runs.
fn pattern(process: &Running) -> String {
    let first = process.arguments.first().map(String::as_str).unwrap_or_default();
    let program = first.split([':', ' ']).next().unwrap_or_default();
    let mut pattern = format!("^{}", regex::escape(program));
    let name = last_part(program).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_script = |word: &&String| !word.is_empty() && !word.starts_with('-');
    if INTERPRETERS.contains(&name)
        && let Some(script) = process.arguments.iter().skip(1).find(is_script)
    {
        let line = script.lines().next().unwrap_or_default();
        let start = line.get(..line.floor_char_boundary(SCRIPT_BYTES_MAX)).unwrap_or(line);
        let end = if start.len() == script.len() { "(?: |$)" } else { "" };
        pattern.extend([" (?:.* )?", &regex::escape(start), end]);
    }
    pattern
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Gives each its own name, of letters that stand in a label.
fn name_each(all: &mut [Proposal]) {
    let mut taken: Vec<String> = Vec::new();
    for proposal in all {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let base: String = proposal.name.chars().filter(|c| is_plain(*c)).take(48).collect();
        let base = if base.is_empty() { "program".to_owned() } else { base };
        let mut names =
            std::iter::once(base.clone()).chain((2..).map(|number| format!("{base}-{number}")));
        let name = names.find(|name| !taken.contains(name)).unwrap_or(base);
        taken.push(name.clone());
        proposal.name = name;
    }
}

#[cfg(test)]
mod tests;
