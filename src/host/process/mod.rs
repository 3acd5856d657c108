//! Programs of others, from outside: which processes they are, what these use, whether their ports and logs live.
//!
//! [`Look`] reads `/proc` once for all watched programs, [`Eyes`] again and again; [`session`] knows sessions of screen, [`port`] ports, and
//! [`facts()`] gathers what the checks of the original agent want to know.
//!
//! Must hold: nothing of a program is touched, no process is started to find out; what can't be read is unknown, with
//! the reason, and never 0; "not there" is said only if all processes could be seen. Every read is bounded.

mod describe;
mod eyes;
mod facts;
mod members;
mod one;
pub mod port;
pub mod session;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::usage::{Reading, Unknown};
use crate::watch::checks::Fact;
use crate::watch::pattern::Pattern;
use one::Process;

pub use describe::Described;
pub use eyes::{ALL_EVERY, Eyes};
pub use facts::{facts, log_age};
pub use members::{Member, container_of, micros, own_group};
pub use one::{disk_bytes, is_container_id, open_files};
pub(super) use one::{sees_kernel, small_file, why};
pub use tree::files_of;

/// Most processes that are looked at.
const PROCESSES_MAX: usize = 100_000;

/// The longest command line that is compared, in bytes. The class paths of Java take tens of KiB.
const COMMAND_BYTES_MAX: u64 = 128 * 1024;

/// Most bytes of a file with a process's number.
const PID_BYTES_MAX: u64 = 64;

/// How much later than its file a process may have begun: clocks and file systems round.
const PID_FILE_SLACK: Duration = Duration::from_secs(3);

/// Most sessions of screen that are kept of one look at the processes.
const SCREENS_MAX: usize = 256;

/// What one program is found by.
#[derive(Debug, Clone)]
pub enum By {
    /// Its command line, arguments with spaces between them.
    Command {
        /// What it has.
        pattern: Pattern,
        /// What it must not have: what only starts the program.
        except: Option<Pattern>,
    },
    /// A file with the number of its process.
    PidFile(PathBuf),
    /// A unit of systemd, such as `rl-swarm.service`.
    Unit(String),
    /// The id of its container, or at least the first 12 digits of it; no name.
    Container(String),
    /// A session of screen.
    Session(String),
}

/// All processes at one moment, and which of them each program was found by.
#[derive(Debug)]
pub struct Look {
    /// In the order of their numbers.
    processes: Vec<Process>,
    /// For each program the places in `processes` that it was found by.
    roots: Vec<Vec<usize>>,
    /// For each program why one of its ways could not be looked at.
    blind: Vec<Option<Unknown>>,
    /// Whether a process that isn't seen isn't there.
    sight: Result<(), Unknown>,
    screens: Vec<session::Session>,
    /// Processes of screen that don't say which session they keep.
    nameless: Vec<u32>,
    now: Timestamp,
    since_boot: Duration,
}

/// What a program uses. Each value is of all its processes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// Number of processes.
    pub processes: Reading,
    /// CPU time in milliseconds, of children that have ended too. It starts again with the program.
    pub cpu_ms: Reading,
    /// Resident memory in bytes; what processes share counts for each.
    pub resident_bytes: Reading,
    /// Number of threads.
    pub threads: Reading,
    /// Number of open files.
    pub files: Reading,
}

/// A program's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether the program runs.
    pub is_there: Fact<bool>,
    /// The numbers of its processes, those first that it was found by.
    pub pids: Vec<u32>,
    /// The oldest of those that it was found by, and when that began, in clock ticks since the boot: together they mean
    /// one process and no other.
    pub first: Option<(u32, u64)>,
    /// When that was.
    pub started: Fact<Timestamp>,
    /// What its processes use.
    pub uses: Use,
}

impl Look {
    /// Looks at all processes once, for these programs. Each is found by any of its ways.
    pub fn take(clock: &impl Clock, programs: &[Vec<By>]) -> Self {
        Self::take_at(Path::new("/proc"), &session::folders(), clock, programs)
    }

    fn take_at(proc: &Path, folders: &[PathBuf], clock: &impl Clock, programs: &[Vec<By>]) -> Self {
        let mut look = Self {
            processes: Vec::new(),
            roots: vec![Vec::new(); programs.len()],
            blind: vec![None; programs.len()],
            sight: Ok(()),
            screens: Vec::new(),
            nameless: Vec::new(),
            now: clock.now(),
            since_boot: clock.monotonic(),
        };
        let wants = Wants::of(programs);
        match one::numbers(proc, PROCESSES_MAX) {
            Ok((pids, is_all)) => {
                if !is_all {
                    look.sight = Err(Unknown::NotSupported);
                }
                for pid in pids {
                    look.read(proc, pid, programs, &wants);
                }
                look.judge_sight(proc);
            }
            Err(why) => look.sight = Err(why),
        }
        look.find_others(folders, programs);
        look
    }

    /// Reads one process, and compares it with what is wanted.
    fn read(&mut self, proc: &Path, pid: u32, programs: &[Vec<By>], wants: &Wants) {
        let folder = proc.join(pid.to_string());
        let process = match Process::read(&folder, pid) {
            Ok(process) => process,
            // It ended meanwhile.
            Err(Unknown::Gone) => return,
            Err(why) => {
                self.sight = Err(why);
                return;
            }
        };
        // The kernel's own have no command line, and no group.
        let is_program = !process.is_kernels() && pid != std::process::id();
        let place = self.processes.len();
        if is_program && (wants.commands || process.is_screen()) {
            let arguments = one::arguments(&folder, COMMAND_BYTES_MAX);
            if process.is_screen() && self.screens.len() + self.nameless.len() < SCREENS_MAX {
                match session::of_command(pid, &arguments) {
                    Some(session) => self.screens.push(session),
                    None if session::is_keeper(&arguments) => self.nameless.push(pid),
                    None => {}
                }
            }
            let command = one::command(&arguments);
            self.matched(place, programs, |by| match by {
                By::Command { pattern, except } => {
                    pattern.is_match(&command)
                        && !except.as_ref().is_some_and(|except| except.is_match(&command))
                }
                _ => false,
            });
            if arguments.len() as u64 >= COMMAND_BYTES_MAX {
                self.missed(place, programs);
            }
        }
        if is_program && wants.groups {
            let groups = one::groups(&folder);
            self.matched(place, programs, |by| match by {
                By::Unit(unit) => one::is_of_unit(&groups, unit),
                By::Container(id) => one::is_of_container(&groups, id),
                _ => false,
            });
        }
        self.processes.push(process);
    }

    fn matched(&mut self, place: usize, programs: &[Vec<By>], is_it: impl Fn(&By) -> bool) {
        for (roots, ways) in self.roots.iter_mut().zip(programs) {
            if ways.iter().any(&is_it) && roots.last() != Some(&place) {
                roots.push(place);
            }
        }
    }

    /// A command line was cut: whoever it did not match may be named by the rest of it.
    fn missed(&mut self, place: usize, programs: &[Vec<By>]) {
        let is_by_command = |by: &By| matches!(by, By::Command { .. });
        for ((blind, roots), ways) in self.blind.iter_mut().zip(&self.roots).zip(programs) {
            if roots.last() != Some(&place) && ways.iter().any(is_by_command) {
                *blind = Some(Unknown::NotSupported);
            }
        }
    }

    /// Whether what isn't seen isn't there: not where others' processes are hidden, nor within a container of our own.
    fn judge_sight(&mut self, proc: &Path) {
        if self.sight.is_err() {
            return;
        }
        if self.process(1).is_none() {
            self.sight = Err(Unknown::Denied);
            return;
        }
        let sees_kernel = self.processes.iter().take(16).any(Process::is_kernels);
        let is_contained =
            ["/.dockerenv", "/run/.containerenv"].iter().any(|it| Path::new(it).exists())
                || std::process::id() == 1
                || one::is_on_layers(proc);
        if is_contained && !sees_kernel {
            self.sight = Err(Unknown::NotSupported);
        }
    }

    /// Programs that are found by a file or a session.
    fn find_others(&mut self, folders: &[PathBuf], programs: &[Vec<By>]) {
        let has_session = |by: &By| matches!(by, By::Session(_));
        let wants_sessions = programs.iter().flatten().any(has_session);
        let none = || (Vec::new(), false);
        let sessions = if wants_sessions { self.sessions_in(folders) } else { none() };
        for (program, ways) in programs.iter().enumerate() {
            for by in ways {
                let found = match by {
                    By::PidFile(path) => self.of_file(path),
                    By::Session(name) => of_session(&sessions, name),
                    _ => continue,
                };
                let pids = match found {
                    Ok(pids) => pids,
                    Err(why) => {
                        self.blind.iter_mut().skip(program).take(1).for_each(|it| *it = Some(why));
                        continue;
                    }
                };
                let places: Vec<usize> =
                    pids.into_iter().filter_map(|pid| self.place(pid)).collect();
                self.roots.iter_mut().skip(program).take(1).for_each(|it| it.extend(&places));
            }
        }
        for roots in &mut self.roots {
            roots.sort_unstable();
            roots.dedup();
        }
    }

    /// The process that a file names, unless it began after the file was written: then the number is another's now.
    fn of_file(&self, path: &Path) -> Fact<Vec<u32>> {
        let Some(written) = facts::changed(path)? else { return Ok(Vec::new()) };
        let text = small_file(path, PID_BYTES_MAX)?;
        let pid = text.split_whitespace().next().and_then(|word| word.parse().ok());
        let process = pid.and_then(|pid| self.process(pid));
        let process = process.filter(|it| self.began(it) <= written.plus(PID_FILE_SLACK));
        Ok(process.into_iter().map(|process| process.pid).collect())
    }

    fn place(&self, pid: u32) -> Option<usize> {
        self.processes.binary_search_by_key(&pid, |process| process.pid).ok()
    }

    fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(self.place(pid)?)
    }

    /// When a process began.
    fn began(&self, process: &Process) -> Timestamp {
        let ago = self.since_boot.saturating_sub(one::span(process.started_ticks));
        let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_ms(self.now.unix_ms().saturating_sub(ago))
    }

    /// The sessions of screen that are alive, by their sockets and by their processes; and whether some may be
    /// hidden.
    pub fn sessions(&self) -> (Vec<session::Session>, bool) {
        self.sessions_in(&session::folders())
    }

    fn sessions_in(&self, folders: &[PathBuf]) -> (Vec<session::Session>, bool) {
        let (mut sessions, is_all) = session::listed(folders);
        sessions.retain(|session| self.sight.is_err() || self.place(session.pid).is_some());
        for session in &self.screens {
            if !sessions.contains(session) {
                sessions.push(session.clone());
            }
        }
        // Whoever hides his sockets can't hide the process that keeps the session.
        let is_known = |pid: &u32| sessions.iter().any(|session| session.pid == *pid);
        let may_hide = self.sight.is_err() || !self.nameless.iter().all(is_known);
        (sessions, !is_all && may_hide)
    }

    /// Whether all processes of this machine could be seen; if not, why.
    pub const fn sight(&self) -> Result<(), Unknown> {
        self.sight
    }
}

/// The processes of the sessions with this name; `sessions` has the visible ones, and whether there may be others.
fn of_session((sessions, may_hide): &(Vec<session::Session>, bool), name: &str) -> Fact<Vec<u32>> {
    let named = sessions.iter().filter(|session| session.name == name);
    let pids: Vec<u32> = named.map(|session| session.pid).collect();
    if pids.is_empty() && *may_hide { Err(Unknown::Denied) } else { Ok(pids) }
}

/// What has to be read of each process.
struct Wants {
    commands: bool,
    groups: bool,
}

impl Wants {
    fn of(programs: &[Vec<By>]) -> Self {
        let any = |is_it: fn(&By) -> bool| programs.iter().flatten().any(is_it);
        Self {
            commands: any(|by| matches!(by, By::Command { .. })),
            groups: any(|by| matches!(by, By::Unit(_) | By::Container(_))),
        }
    }
}

#[cfg(test)]
mod tests;
