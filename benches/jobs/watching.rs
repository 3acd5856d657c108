//! What it costs to look at jobs: the CPU time of one sample, and of many jobs each second.
//!
//! Needs root, which may make control groups.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use lamda_node::host::cgroup::{Group, remove};
use lamda_node::host::thread_cpu;
use lamda_node::usage::watch::Place;
use serde_json::{Value, json};

use super::Failure;

/// Where the kernel shows control groups.
const ROOT: &str = "/sys/fs/cgroup";
/// The groups of this row.
const PARENT: &str = "/lamda-bench";
/// The name of each container's group.
const CONTAINER: &str = "c";
/// Processes of the job that is looked at alone.
const PROCESSES: usize = 10;
/// How often it is looked at.
const LOOKS: u32 = 5_000;
/// Rounds over all jobs.
const ROUNDS: u32 = 20;

/// Control groups that go when this is dropped, with the processes in them.
struct Groups {
    paths: Vec<String>,
    processes: Vec<Child>,
}

impl Drop for Groups {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.kill().ok();
            process.wait().ok();
        }
        for path in self.paths.iter().rev() {
            remove(path).ok();
        }
    }
}

/// One job with ten processes, and `jobs` jobs without any.
pub(super) fn watching(jobs: usize) -> Result<Value, Failure> {
    let mut groups = Groups { paths: Vec::new(), processes: Vec::new() };
    make(&mut groups, PARENT)?;
    let place = |at: usize| Place::Parent {
        path: format!("{PARENT}/{at}"),
        container: CONTAINER.to_owned(),
    };
    for at in 0..jobs.max(1) {
        make(&mut groups, &format!("{PARENT}/{at}"))?;
        make(&mut groups, &format!("{PARENT}/{at}/{CONTAINER}"))?;
    }
    for _ in 0..PROCESSES {
        let process = Command::new("sleep").arg("600").spawn()?;
        for hierarchy in hierarchies() {
            let list = hierarchy.join(format!("lamda-bench/0/{CONTAINER}/cgroup.procs"));
            std::fs::write(list, process.id().to_string())?;
        }
        groups.processes.push(process);
    }
    let mut first = Group::open(&place(0)).map_err(|why| why.to_string())?;
    let alone = cpu_of(LOOKS, || {
        std::hint::black_box(first.read(|_| true));
    });
    let opened: Result<Vec<Group>, _> = (0..jobs).map(|at| Group::open(&place(at))).collect();
    let mut opened = opened.map_err(|why| why.to_string())?;
    let round = cpu_of(ROUNDS, || {
        for group in &mut opened {
            std::hint::black_box(group.read(|_| true));
        }
    });
    Ok(json!({
        "processes": PROCESSES, "sample_us": alone.as_secs_f64() * 1e6,
        "jobs": jobs, "core_share_at_1_hz": round.as_secs_f64(),
    }))
}

/// CPU time of this thread for one of so many runs.
fn cpu_of(runs: u32, mut run: impl FnMut()) -> Duration {
    run();
    let begun = thread_cpu();
    for _ in 0..runs {
        run();
    }
    thread_cpu().saturating_sub(begun) / runs
}

fn make(groups: &mut Groups, path: &str) -> Result<(), Failure> {
    for hierarchy in hierarchies() {
        std::fs::create_dir_all(hierarchy.join(path.trim_start_matches('/')))?;
    }
    groups.paths.push(path.to_owned());
    Ok(())
}

fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    // As the engine does: those that need no settings before a process may enter.
    let names = ["cpu", "cpuacct", "memory", "blkio", "pids", "unified"];
    names.iter().map(|name| root.join(name)).filter(|path| path.is_dir()).collect()
}
