//! Whether the programs run, as their host says: by command line, unit, container or session of screen.
//!
//! Invariant: one look at the processes serves all programs.

use std::time::Duration;

use super::{Programs, again};
use crate::clock::{Clock as _, SystemClock};
use crate::host::process::{By, Eyes, Look};
use crate::sidecar::program::Program;
use crate::supervise::Failure;
use crate::watch::observation::{PROCESS, Seen};

/// How often processes are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// How often it is noted that nothing changed.
const NOTE_EVERY: Duration = Duration::from_mins(1);

/// Looks until it is aborted.
pub async fn run(programs: Programs) -> Result<(), Failure> {
    let found_by: Vec<Vec<By>> = programs.iter().map(|it| by(it)).collect();
    let clock = SystemClock;
    let mut eyes = Eyes::new(found_by.clone());
    loop {
        let looked = tokio::task::spawn_blocking(move || {
            eyes.look(&clock);
            eyes
        });
        eyes = looked.await.unwrap_or_else(|_| Eyes::new(found_by.clone()));
        if let Some(look) = eyes.seen() {
            for (at, program) in programs.iter().enumerate() {
                if found_by.get(at).is_some_and(|by| !by.is_empty()) {
                    note(program, look, at, clock).await?;
                }
            }
        }
        clock.sleep(EVERY).await;
    }
}

/// By what a program is found.
fn by(program: &Program) -> Vec<By> {
    let filled = &program.watching.profile;
    let mut by = Vec::new();
    if let Some(pattern) = &filled.command {
        by.push(By::Command { pattern: pattern.clone(), except: None });
    }
    // A session or a unit outlives the program in it: only a program without a pattern is known by them.
    if !by.is_empty() {
        return by;
    }
    by.extend(filled.process.unit.clone().map(By::Unit));
    by.extend(filled.process.container.clone().map(By::Container));
    by.extend(filled.process.screens.iter().cloned().map(By::Session));
    by
}

async fn note(
    program: &Program,
    look: &Look,
    at: usize,
    clock: SystemClock,
) -> Result<(), Failure> {
    let found = look.found(at);
    let is_running = match found.is_there {
        Ok(is_running) => is_running,
        Err(why) => {
            let why = Some(why.to_string());
            return program.source(PROCESS, why).await.map_err(again);
        }
    };
    let known = program.look();
    let was = known.state.process.as_ref();
    let started = found.started.ok();
    let is_same = was.is_some_and(|was| {
        was.is_running == is_running
            && was.started == started
            && clock.now().since(was.at) < NOTE_EVERY
    });
    if is_same && !known.state.troubles.contains_key(PROCESS) {
        return Ok(());
    }
    let why = match (is_running, found.pids.as_slice()) {
        (true, [pid]) => format!("process {pid}"),
        (true, [pid, rest @ ..]) => format!("process {pid} and {} more", rest.len()),
        (true, []) => "its session is there".to_owned(),
        (false, _) => "no process matches".to_owned(),
    };
    program.saw(Seen::Process { is_running, started, why }).await.map_err(again)
}
