//! Looks around on this machine for programs that are worth watching: what `sidecar discover` is told.
//!
//! Must hold: nothing is written and no program is started; files are read up to a bound; the file with the login's
//! private key and the one with the node's identity are never opened, also not by way of a link.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::process::{By, Described, Look};
use crate::clock::Clock;
use crate::report::one_line;
use crate::watch::discover::{
    Found, HYDRA_LOG, Kind, LEGACY_LOG, Root, Running, account_of, contract_of, kind_of, peer_of,
};
use crate::watch::pattern::Pattern;

/// Files that hold private keys.
const SECRETS: [&str; 2] = ["userApiKey.json", "swarm.pem"];

/// What a repository of the program has, any of these.
const MARKS: [&str; 4] = ["run_rl_swarm.sh", "code_gen_exp", "rgym_exp", "hivemind_exp"];

/// Where the files are below it: as it is run by hand, and as its containers have it.
const LOGS: [&str; 2] = ["logs", "user/logs"];
const LOGINS: [&str; 2] = ["modal-login/temp-data/userData.json", "user/modal-login/userData.json"];
const CONTRACTS: [&str; 3] =
    ["code_gen_exp/config/code-gen-swarm.yaml", "rgym_exp/config/rg-swarm.yaml", "run_rl_swarm.sh"];

/// Where owners put repositories, besides their homes.
const PLACES: [&str; 4] = ["/root", "/opt", "/srv", "/workspace"];

/// Command lines of programs that a profile knows.
const KNOWN: &str = r"(code_gen_exp|rgym_exp)\.runner|hivemind_exp|(^|/)(llama-server|((llama|ggml)-)?rpc-server)( |$)";

/// Most processes, homes, entries of a folder, repositories and logs that are looked at.
const PROCESSES_MAX: usize = 256;
const HOMES_MAX: usize = 256;
const ENTRIES_MAX: usize = 4_096;
const ROOTS_MAX: usize = 64;
const LOGS_MAX: usize = 256;

/// Most bytes of a setting's file, and of the beginning and the end of a log.
const FILE_BYTES_MAX: u64 = 256 * 1024;
const LOG_BYTES_MAX: u64 = 1 << 20;

/// How far above a program's folder its repository may be.
const ABOVE_MAX: usize = 3;

/// Most sentences about what could not be looked at.
const SENTENCES_MAX: usize = 16;

/// What the owner names.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Folders of programs.
    pub folders: Vec<PathBuf>,
    /// A part of the command line of any program.
    pub command: Option<Pattern>,
}

/// Looks around. Containers are not asked for; [`Found::containers`] is empty.
pub fn look_around(clock: &impl Clock, asked: &Asked) -> Found {
    let homes = std::fs::read_dir("/home").into_iter().flatten().flatten();
    let homes = homes.map(|entry| entry.path()).take(HOMES_MAX);
    let places: Vec<PathBuf> = PLACES.iter().map(PathBuf::from).chain(homes).collect();
    look_around_in(clock, asked, &places)
}

fn look_around_in(clock: &impl Clock, asked: &Asked, places: &[PathBuf]) -> Found {
    let mut found = Found::default();
    processes(clock, asked, &mut found);
    let mut candidates: Vec<PathBuf> = asked.folders.clone();
    for process in &found.processes {
        if matches!(process.kind, Kind::Hydra | Kind::Legacy)
            && let Some(folder) = &process.folder
        {
            candidates.extend(Path::new(folder).ancestors().take(ABOVE_MAX).map(Path::to_owned));
        }
    }
    for place in places {
        candidates.extend(repositories(place, &mut found.could_not));
    }
    let mut seen = BTreeSet::new();
    for candidate in candidates {
        let is_asked = asked.folders.contains(&candidate);
        // One folder may have two names.
        let path = std::fs::canonicalize(&candidate).unwrap_or(candidate);
        if found.roots.len() == ROOTS_MAX || !seen.insert(path.clone()) {
            continue;
        }
        if MARKS.iter().any(|mark| path.join(mark).exists()) || (is_asked && logs(&path).is_some())
        {
            found.roots.push(root(&path, &mut found.could_not));
        } else if is_asked {
            found.could_not.push(format!("{}: it is no folder of such a program.", shown(&path)));
        }
    }
    let more = found.could_not.len().saturating_sub(SENTENCES_MAX);
    if more > 0 {
        found.could_not.truncate(SENTENCES_MAX);
        found.could_not.push(format!("{more} more could not be looked at."));
    }
    found
}

/// The processes of programs that a profile knows, and of the one that was asked for.
fn processes(clock: &impl Clock, asked: &Asked, found: &mut Found) {
    let by = |pattern: Pattern| vec![By::Command { pattern, except: None }];
    // The pattern is one of ours; a test compiles it.
    let mut programs: Vec<Vec<By>> = Pattern::new(KNOWN).map(by).into_iter().collect();
    programs.extend(asked.command.clone().map(by));
    let look = Look::take(clock, &programs);
    if let Err(why) = look.sight() {
        found.could_not.push(format!("Not all processes of this machine can be seen: {why}."));
    }
    let mut pids: Vec<u32> = (0..programs.len()).flat_map(|program| look.roots(program)).collect();
    pids.sort_unstable();
    pids.dedup();
    for pid in pids.into_iter().take(PROCESSES_MAX) {
        let Some(process) = look.describe(pid) else { continue };
        let command = process.arguments.join(" ");
        let is_asked = asked.command.as_ref().is_some_and(|asked| asked.is_match(&command));
        let kind = kind_of(&process.arguments).or(is_asked.then_some(Kind::Other));
        if let Some(kind) = kind {
            found.processes.push(running(process, kind, &mut found.could_not));
        }
    }
}

fn running(process: Described, kind: Kind, could_not: &mut Vec<String>) -> Running {
    let is_swarm = matches!(kind, Kind::Hydra | Kind::Legacy);
    let folder = match (process.folder, &process.container) {
        // A folder of the container's, which may be another one's here.
        (_, Some(_)) => None,
        (Ok(folder), None) => folder.to_str().map(str::to_owned),
        (Err(why), None) => {
            if is_swarm {
                let pid = process.pid;
                could_not.push(format!("The folder of the process {pid} can't be seen: {why}."));
            }
            None
        }
    };
    Running {
        pid: process.pid,
        kind,
        arguments: process.arguments,
        folder,
        unit: process.unit,
        container: process.container,
        screen: process.screen,
    }
}

/// Folders in this one that are called like the program's repository.
fn repositories(place: &Path, could_not: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(err) => {
            if err.kind() == io::ErrorKind::PermissionDenied {
                could_not.push(format!("{} can't be read.", shown(place)));
            }
            return Vec::new();
        }
    };
    let is_called = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.to_ascii_lowercase().replace('_', "-").contains("rl-swarm")
    };
    let paths = entries.flatten().take(ENTRIES_MAX).map(|entry| entry.path());
    paths.filter(is_called).take(ROOTS_MAX).collect()
}

/// The folder with the logs.
fn logs(root: &Path) -> Option<PathBuf> {
    LOGS.iter().map(|logs| root.join(logs)).find(|logs| logs.is_dir())
}

/// What a repository has.
fn root(path: &Path, could_not: &mut Vec<String>) -> Root {
    let mut root = Root { path: path.to_string_lossy().into_owned(), ..Root::default() };
    let mut read = |path: &Path, ends: Ends| match text(path, ends) {
        Ok(text) => Some(text),
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        Err(err) => {
            could_not.push(format!("{}: {}.", shown(path), one_line(&err.to_string(), 200)));
            None
        }
    };
    if let Some(logs) = logs(path) {
        let names = std::fs::read_dir(&logs).into_iter().flatten().flatten().take(LOGS_MAX);
        root.log_files = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        root.log_files.sort_unstable();
        let own = [HYDRA_LOG, LEGACY_LOG].map(|name| logs.join(name));
        root.peer = own.iter().find_map(|log| peer_of(&read(log, Ends::Both)?));
        root.logs = Some(logs.to_string_lossy().into_owned());
    }
    root.account =
        LOGINS.iter().find_map(|login| account_of(&read(&path.join(login), Ends::First)?));
    root.contract =
        CONTRACTS.iter().find_map(|file| contract_of(&read(&path.join(file), Ends::First)?));
    root
}

/// Which part of a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Its beginning, up to [`FILE_BYTES_MAX`].
    First,
    /// Its beginning and its end, up to [`LOG_BYTES_MAX`] of each.
    Both,
}

/// The text of a regular file that is none of [`SECRETS`].
fn text(path: &Path, ends: Ends) -> io::Result<Zeroizing<String>> {
    let refused = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
    // By its real name, wherever links lead.
    let real = std::fs::canonicalize(path)?;
    let name = real.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name)) {
        return Err(refused("it leads to a private key, and is not opened"));
    }
    // Opening a FIFO would wait for a writer, and opening a device can do something.
    if !std::fs::symlink_metadata(&real)?.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut file = File::open(&real)?;
    let mut bytes = Zeroizing::new(Vec::new());
    let most = if ends == Ends::Both { LOG_BYTES_MAX } else { FILE_BYTES_MAX };
    let begun = (&mut file).take(most).read_to_end(&mut bytes)? as u64;
    if ends == Ends::Both && begun == most {
        let end = file.metadata()?.len().saturating_sub(most).max(begun);
        file.seek(SeekFrom::Start(end))?;
        bytes.push(b'\n');
        (&mut file).take(most).read_to_end(&mut bytes)?;
    }
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy(), 300)
}

#[cfg(test)]
mod tests;
