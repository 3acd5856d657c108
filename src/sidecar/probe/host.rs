//! Whether the programs run, as their host says: by command line, unit, container or session of screen.
//!
//! Invariants: one look at the processes serves all programs; a container's name says nothing until the engine was
//! asked for it, and an engine that can't be asked holds up no look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::usage::Ways;
use super::{Programs, again};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::container::docker::{self, Listed};
use crate::host::process::{By, Eyes, Found, is_container_id};
use crate::sidecar::program::Program;
use crate::supervise::Failure;
use crate::watch::observation::{PROCESS, Seen};
use crate::watch::profile::Filled;

/// How often processes are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// How often it is noted that nothing changed.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// How often the container engine is asked if all containers are found.
const ASK_EVERY: Duration = Duration::from_mins(1);

/// By how much two looks may differ on when a process began: it is counted back from the time of the look.
const STARTED_SLACK: Duration = Duration::from_secs(1);

/// How units are called; systemd takes a name without such an end for a service.
const UNIT_ENDS: [&str; 11] = [
    "service",
    "scope",
    "slice",
    "socket",
    "target",
    "timer",
    "mount",
    "automount",
    "path",
    "swap",
    "device",
];

/// What the container engine said.
#[derive(Debug, Clone)]
struct Told {
    /// When it was asked, since the boot.
    at: Duration,
    /// The containers that run, or why it can't be asked.
    containers: Result<Arc<Vec<Listed>>, String>,
}

impl Told {
    /// The id of the container with this name; the error says why the engine can't be asked.
    fn id_of(&self, name: &str) -> Option<Result<String, &str>> {
        match &self.containers {
            Ok(all) => all.iter().find(|it| it.name == name).map(|it| Ok(it.id.clone())),
            Err(why) => Some(Err(why)),
        }
    }
}

/// The container engine, asked aside.
#[derive(Debug)]
struct Engine {
    told: watch::Sender<Option<Told>>,
    /// Rings when a container isn't found.
    wanted: Notify,
}

impl Engine {
    /// Asks until it is aborted, if some program is found by a container's name.
    async fn ask(&self, is_needed: bool, clock: SystemClock) {
        if !is_needed {
            return std::future::pending().await;
        }
        loop {
            let at = clock.monotonic();
            let containers = docker::listed().await.map(Arc::new);
            self.told.send_replace(Some(Told { at, containers }));
            clock.sleep(EVERY).await;
            tokio::select! {
                () = self.wanted.notified() => {}
                () = clock.sleep(ASK_EVERY) => {}
            }
        }
    }
}

/// By what each program is found, before the container engine was asked for ids.
pub fn first_ways(programs: &Programs) -> Ways {
    Arc::new(ways(programs, &vec![None; programs.len()]))
}

/// Looks until it is aborted, and tells by what each program is found now.
pub async fn run(state: (Programs, Arc<watch::Sender<Ways>>)) -> Result<(), Failure> {
    let (programs, told) = state;
    let clock = SystemClock;
    let engine = Engine { told: watch::Sender::new(None), wanted: Notify::new() };
    let is_needed = programs.iter().any(|it| container(&it.watching.profile).is_some());
    tokio::select! {
        ended = look(&programs, &engine, &told, clock) => ended,
        () = engine.ask(is_needed, clock) => Ok(()),
    }
}

async fn look(
    programs: &Programs,
    engine: &Engine,
    tell: &watch::Sender<Ways>,
    clock: SystemClock,
) -> Result<(), Failure> {
    let mut ids: Vec<Option<String>> = vec![None; programs.len()];
    let mut found_by = ways(programs, &ids);
    let mut eyes = Eyes::new(found_by.clone());
    // Since when each container isn't found: what the engine said before that may be over.
    let mut missing: Vec<Option<Duration>> = vec![None; programs.len()];
    loop {
        let told = engine.told.borrow().clone();
        if resolve(programs, told.as_ref(), &mut ids) {
            found_by = ways(programs, &ids);
            tell.send_replace(Arc::new(found_by.clone()));
            eyes = Eyes::new(found_by.clone());
        }
        let looked = tokio::task::spawn_blocking(move || {
            eyes.look(&clock);
            eyes
        });
        eyes = looked.await.unwrap_or_else(|_| Eyes::new(found_by.clone()));
        if let Some(look) = eyes.seen() {
            for ((at, program), missing) in programs.iter().enumerate().zip(&mut missing) {
                let state = match container(&program.watching.profile) {
                    None if found_by.get(at).is_none_or(Vec::is_empty) => continue,
                    None => of_processes(&look.found(at)),
                    Some(name) => {
                        let found = look.found(at);
                        let fresh = fresh(&found, told.as_ref(), (missing, engine), clock);
                        let Some(told) = fresh else { continue };
                        of_container(&program.watching.profile, name, &found, told)
                    }
                };
                note(program, state, clock).await?;
            }
        }
        clock.sleep(EVERY).await;
    }
}

/// What the engine said since the container isn't found, and nothing if it is found; `None` until it has said something.
#[expect(clippy::option_option, reason = "not needed and not there yet are different answers")]
fn fresh<'a>(
    found: &Found,
    told: Option<&'a Told>,
    (missing, engine): (&mut Option<Duration>, &Engine),
    clock: SystemClock,
) -> Option<Option<&'a Told>> {
    if found.is_there == Ok(true) {
        *missing = None;
        return Some(None);
    }
    let since = *missing.get_or_insert_with(|| clock.monotonic());
    engine.wanted.notify_one();
    told.filter(|told| told.at >= since).map(Some)
}

/// Takes over what the engine said of the containers' ids; whether one is another one now. Of an engine that can't be
/// asked the last ids stay: a process in such a group runs.
fn resolve(programs: &Programs, told: Option<&Told>, ids: &mut [Option<String>]) -> bool {
    let Some(told) = told.filter(|told| told.containers.is_ok()) else { return false };
    let mut is_new = false;
    for (program, id) in programs.iter().zip(ids) {
        let Some(name) = container(&program.watching.profile) else { continue };
        if let Some(Ok(now)) = told.id_of(name)
            && id.as_ref() != Some(&now)
        {
            *id = Some(now);
            is_new = true;
        }
    }
    is_new
}

fn ways(programs: &Programs, ids: &[Option<String>]) -> Vec<Vec<By>> {
    let each = programs.iter().zip(ids);
    each.map(|(program, id)| by(&program.watching.profile, id.as_ref())).collect()
}

/// The name of the container by which a program is found.
fn container(profile: &Filled) -> Option<&str> {
    let named = profile.process.container.as_deref().filter(|name| !is_container_id(name));
    named.filter(|_| profile.command.is_none())
}

/// By what a program is found, with the id of the container that has its name.
fn by(filled: &Filled, id: Option<&String>) -> Vec<By> {
    // A session or a unit outlives the program in it: only a program without a pattern is known by them.
    if let Some(pattern) = &filled.command {
        return vec![By::Command { pattern: pattern.clone(), except: None }];
    }
    let mut by = Vec::new();
    by.extend(filled.process.unit.as_deref().map(|unit| By::Unit(unit_name(unit))));
    let own = filled.process.container.as_ref().filter(|name| is_container_id(name));
    by.extend(own.or(id).cloned().map(By::Container));
    by.extend(filled.process.screens.iter().cloned().map(By::Session));
    by
}

/// A unit as systemd calls it.
fn unit_name(unit: &str) -> String {
    let has_end = unit.rsplit_once('.').is_some_and(|(_, end)| UNIT_ENDS.contains(&end));
    if has_end { unit.to_owned() } else { format!("{unit}.service") }
}

/// Whether a program runs, since when, and what was found or is missing.
#[derive(Debug, PartialEq)]
struct State {
    is_running: bool,
    started: Option<Timestamp>,
    why: String,
}

/// What its processes say; the error says why that can't be told.
fn of_processes(found: &Found) -> Result<State, String> {
    let is_running = found.is_there.map_err(|why| why.to_string())?;
    let why = match (is_running, found.pids.as_slice()) {
        (true, [pid]) => format!("process {pid}"),
        (true, [pid, rest @ ..]) => format!("process {pid} and {} more", rest.len()),
        (true, []) => "its session is there".to_owned(),
        (false, _) => "no process matches".to_owned(),
    };
    Ok(State { is_running, started: found.started.ok(), why })
}

/// What its processes and the engine say of a program in a container with this name.
fn of_container(
    profile: &Filled,
    name: &str,
    found: &Found,
    told: Option<&Told>,
) -> Result<State, String> {
    let Some(told) = told else { return of_processes(found) };
    match told.id_of(name) {
        Some(Err(why)) => Err(why.to_owned()),
        // Its processes may be those of another machine, as with Docker Desktop.
        Some(Ok(_)) => {
            let why = "its container runs".to_owned();
            Ok(State { is_running: true, started: None, why })
        }
        None if profile.process.unit.is_some() || !profile.process.screens.is_empty() => {
            of_processes(found)
        }
        None => {
            let why = "no container with its name runs".to_owned();
            Ok(State { is_running: false, started: None, why })
        }
    }
}

/// When a program began: as before, if the two differ by what a look's own time makes.
fn steady(was: Option<Timestamp>, is: Option<Timestamp>) -> Option<Timestamp> {
    let (Some(before), Some(now)) = (was, is) else { return is };
    let apart = before.since(now).max(now.since(before));
    if apart <= STARTED_SLACK { was } else { is }
}

async fn note(
    program: &Program,
    state: Result<State, String>,
    clock: SystemClock,
) -> Result<(), Failure> {
    let State { is_running, started, why } = match state {
        Ok(state) => state,
        Err(why) => return program.source(PROCESS, Some(why)).await.map_err(again),
    };
    let known = program.look();
    let was = known.state.process.as_ref();
    let started = steady(was.and_then(|was| was.started), started);
    let is_same = was.is_some_and(|was| {
        was.is_running == is_running
            && was.started == started
            && clock.now().since(was.at) < NOTE_EVERY
    });
    if is_same && !known.state.troubles.contains_key(PROCESS) {
        return Ok(());
    }
    program.saw(Seen::Process { is_running, started, why }).await.map_err(again)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::process::Look;
    use crate::usage::Unknown;
    use crate::watch::profile::Shelf;

    fn profile(key: &str, value: &str) -> Filled {
        let mut shelf = Shelf::default();
        let text = format!("name = \"own\"\nabout = \"A test.\"\n[process]\n{key} = \"{value}\"\n");
        shelf.put("own", text).unwrap();
        let values = [("name", "one"), ("home", "/home/rig")];
        let values: BTreeMap<String, String> =
            values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        shelf.get("own").unwrap().fill(&values).unwrap()
    }

    fn found(is_there: Result<bool, Unknown>) -> Found {
        let clock = SystemClock;
        let look = Look::take(&clock, &[Vec::new()]);
        Found { is_there, ..look.found(0) }
    }

    fn told(containers: Result<Vec<(&str, &str)>, &str>) -> Told {
        let listed = |(id, name): (&str, &str)| Listed {
            id: id.to_owned(),
            name: name.to_owned(),
            image: String::new(),
            mounts: Vec::new(),
        };
        let containers = containers.map(|all| Arc::new(all.into_iter().map(listed).collect()));
        Told { at: Duration::ZERO, containers: containers.map_err(str::to_owned) }
    }

    #[test]
    fn a_containers_name_is_looked_for_by_the_id_that_the_engine_gives_it() {
        let id = "ab".repeat(32);
        let named = profile("container", "rig-node");
        assert_eq!(container(&named), Some("rig-node"));
        assert!(by(&named, None).is_empty(), "a name is in no group's path");
        assert!(matches!(by(&named, Some(&id)).as_slice(), [By::Container(it)] if *it == id));
        let by_id = profile("container", &id);
        assert_eq!(container(&by_id), None);
        assert!(matches!(by(&by_id, None).as_slice(), [By::Container(it)] if *it == id));
    }

    #[test]
    fn a_container_is_unknown_while_the_engine_cant_be_asked_and_down_only_if_it_says_so() {
        let named = profile("container", "rig-node");
        let none = found(Ok(false));
        let of = |told: &Told| of_container(&named, "rig-node", &none, Some(told));
        assert_eq!(of(&told(Err("no socket"))), Err("no socket".to_owned()));
        assert!(!of(&told(Ok(vec![("ab", "other")]))).unwrap().is_running);
        assert!(of(&told(Ok(vec![("ab", "rig-node")]))).unwrap().is_running);
        let hidden = found(Err(Unknown::Denied));
        let answer = told(Ok(Vec::new()));
        let of = of_container(&named, "rig-node", &hidden, Some(&answer));
        assert!(!of.unwrap().is_running, "the engine sees what we don't");
        let seen = found(Ok(true));
        assert!(of_container(&named, "rig-node", &seen, None).unwrap().is_running);
    }

    #[test]
    fn what_the_engine_said_before_a_container_was_missed_does_not_count() {
        let engine = Engine { told: watch::Sender::new(None), wanted: Notify::new() };
        let (clock, mut missing) = (SystemClock, None);
        let none = found(Ok(false));
        let old = told(Ok(Vec::new()));
        assert!(fresh(&none, Some(&old), (&mut missing, &engine), clock).is_none());
        let new = Told { at: clock.monotonic(), ..old };
        assert!(fresh(&none, Some(&new), (&mut missing, &engine), clock).is_some());
        let seen = found(Ok(true));
        assert!(fresh(&seen, None, (&mut missing, &engine), clock).is_some());
        assert_eq!(missing, None);
    }

    #[test]
    fn a_unit_without_an_end_is_a_service() {
        for (unit, name) in [
            ("rl-swarm", "rl-swarm.service"),
            ("rl-swarm.service", "rl-swarm.service"),
            ("a.b", "a.b.service"),
            ("user.slice", "user.slice"),
        ] {
            let by = by(&profile("unit", unit), None);
            assert!(matches!(by.as_slice(), [By::Unit(it)] if it == name), "{unit}: {by:?}");
        }
    }

    #[test]
    fn a_millisecond_between_two_looks_is_no_new_start() {
        let at = |ms| Some(Timestamp::from_unix_ms(ms));
        assert_eq!(steady(at(5_000), at(5_001)), at(5_000));
        assert_eq!(steady(at(5_000), at(4_000)), at(5_000));
        assert_eq!(steady(at(5_000), at(6_001)), at(6_001));
        assert_eq!((steady(None, at(1)), steady(at(1), None)), (at(1), None));
    }
}
