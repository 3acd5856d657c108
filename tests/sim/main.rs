//! Simulates whole bad days of the agent, each determined by one seed, in milliseconds.
//!
//! The intake and its loop, the plan, the board, the leases, the publisher, the recovery, the
//! shutdown and the journal (the same SQLite, on a disk in memory) are the agent's own; [`effects`]
//! and [`bus`] simulate everything outside. Processes are killed at every write and every effect,
//! hosts lose power, messages arrive twice, late and in any order, calls fail before or after they
//! took effect, and containers are removed by others. [`dice`] adds up to two rarer faults to a day: a
//! journal that is slow or does not know what it wrote; calls that take effect after their process died;
//! a host that is cut off from the bus, stands still, is away for a day, or has a wrong clock; messages
//! that age out; operators who purge, restore and edit; cards that fail; an engine that is away for an
//! hour; a `JetStream` without a leader; a store that refuses.
//!
//! [`check`] and [`held`] check the promises of docs/job-lifecycle.md at every step. [`plant`] tests
//! these checks: each planted defect must be found. [`leave`] is the orderly end of a process.
//!
//! A failed day prints its seed and its last events. `LAMDA_SIM_SEED=<seed> cargo test --test sim --
//! --nocapture one_day` prints all of them.

mod agent;
mod befall;
mod bus;
mod check;
mod day;
mod dice;
mod effects;
mod held;
mod leave;
mod plant;
mod time;
mod work;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;

use lamda_node::journal::SCHEMA;
use lamda_node::sql::Disk;

use plant::Plant;

/// How many of its last events a failed day prints.
const SHOWN: usize = 400;

/// How many days are tried per planted defect until one finds it.
const DAYS_MAX: u64 = 4_000;

/// Simulates these days. Panics with the trace of the first one that breaks a promise.
fn live_through(seeds: Range<u64>, plant: Plant) {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    for seed in seeds {
        if day::live(seed, false, &empty, plant).broken.is_some() {
            let again = day::live(seed, true, &empty, plant);
            let trace = &again.trace[again.trace.len().saturating_sub(SHOWN)..];
            let broken = again.broken.unwrap_or_else(|| "not broken when traced".to_owned());
            panic!("seed {seed}: {broken}\n{}\nseed {seed}: {broken}", trace.join("\n"));
        }
    }
}

/// Plants these defects one at a time. Panics unless each makes some day break a promise.
#[expect(clippy::print_stdout, reason = "the run reports how many defects it found")]
fn find_each(plants: &[Plant]) {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    let mut missed = Vec::new();
    for plant in plants {
        let found = (0..DAYS_MAX).find_map(|seed| {
            let broken = day::live(seed, false, &empty, *plant).broken?;
            // The defect must be the cause: without it, the same day breaks no promise.
            let sound = day::live(seed, false, &empty, Plant::Watched).broken.is_none();
            sound.then_some((seed, broken))
        });
        match found {
            Some((seed, broken)) => println!("{plant:?}: day {seed}: {broken:.200}"),
            None => missed.push(plant),
        }
    }
    println!("planted {}, found {}", plants.len(), plants.len() - missed.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}

// Two tests, so that they run on two cores in parallel.
#[test]
fn bad_days_break_no_promise() {
    live_through(0..150, Plant::Nothing);
}

#[test]
fn more_bad_days_break_no_promise() {
    live_through(150..300, Plant::Nothing);
}

/// Every `every`th plant, to keep the suite short. The tests in `long` plant all of them.
fn some(plants: &[Plant], every: usize) -> Vec<Plant> {
    plants.iter().copied().step_by(every).collect()
}

/// Tests the checks: they must find a defect in the agent.
#[test]
fn a_write_that_is_left_out_is_found() {
    find_each(&some(&plant::WRITES.map(Plant::Forgets), 4));
}

#[test]
fn a_defect_of_the_shutdown_is_found() {
    find_each(&[Plant::StopsWithoutGrace, Plant::LeavesWhatRuns]);
}

#[test]
fn a_defect_that_somebody_could_write_is_found() {
    find_each(&some(&plant::DEFECTS, 4));
}

#[test]
fn every_write_of_the_agent_is_planted() {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    let mut made: BTreeSet<&str> =
        (0..250).flat_map(|seed| day::live(seed, false, &empty, Plant::Nothing).writes).collect();
    // Skipping it makes the journal grow, but breaks no promise.
    assert!(made.remove("packed"));
    // Skipping these has broken no promise on any day: each step is repeatable, and the write after it
    // records the same.
    for write in ["letting_go", "returning", "unable"] {
        assert!(made.remove(write), "{write}");
    }
    assert_eq!(made, BTreeSet::from(plant::WRITES), "what the journal writes, and plant::WRITES");
}

mod long {
    use super::plant::{self, Plant};

    #[test]
    fn every_write_that_is_left_out_is_found() {
        super::find_each(&plant::WRITES.map(Plant::Forgets));
    }

    #[test]
    fn every_defect_that_somebody_could_write_is_found() {
        super::find_each(&plant::DEFECTS);
    }

    #[test]
    fn a_thousand_bad_days_break_no_promise() {
        super::live_through(0..1_000, Plant::Nothing);
    }

    #[test]
    fn a_hundred_thousand_bad_days_break_no_promise() {
        super::live_through(10_000..110_000, Plant::Nothing);
    }

    #[test]
    fn a_hundred_thousand_more_bad_days_break_no_promise() {
        super::live_through(110_000..200_000, Plant::Nothing);
    }
}

#[test]
fn a_day_is_the_same_each_time() {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    for seed in 0..15 {
        let [one, other] =
            [false, true].map(|traced| day::live(seed, traced, &empty, Plant::Nothing));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
    }
}

/// Prints the whole day of `LAMDA_SIM_SEED`, for debugging; a range such as `1000..2000` is only
/// simulated. `LAMDA_SIM_PLANT=SaysOnce` plants that defect.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a developer chooses the day by environment variables"
)]
fn one_day_can_be_looked_at() {
    let named = std::env::var("LAMDA_SIM_SEED").unwrap_or_else(|_| "1".to_owned());
    let number = |text: &str| text.parse().expect("LAMDA_SIM_SEED is a number, or two: 1..100");
    let planted = std::env::var("LAMDA_SIM_PLANT").unwrap_or_default();
    let plants = plant::WRITES.map(Plant::Forgets).into_iter().chain(plant::DEFECTS);
    let plant = plants.into_iter().find(|plant| format!("{plant:?}") == planted);
    let plant = plant.unwrap_or(Plant::Nothing);
    if let Some((from, to)) = named.split_once("..") {
        return live_through(number(from)..number(to), plant);
    }
    let seed = number(&named);
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    let day = day::live(seed, true, &empty, plant);
    assert!(!day.trace.is_empty());
    #[expect(clippy::print_stdout, reason = "the trace is what the developer asked for")]
    for line in &day.trace {
        println!("{line}");
    }
    assert_eq!(day.broken, None, "seed {seed}");
}
