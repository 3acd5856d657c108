//! The agent in a simulated world: whole bad days, each from one seed, lived through in milliseconds.
//!
//! The intake and its loop, the plan, the board, the leases, the publisher, the recovery, the
//! shutdown and the journal (the same SQLite, on a disk in memory) are the agent's own; [`effects`]
//! and [`bus`] stand in for everything outside. Processes are killed at every write and every
//! effect, hosts lose their power, messages come twice, late and in any order, calls fail before or
//! after they took effect, containers are taken away. What a day has beside, seldom more than one
//! or two of it, is in [`dice`]: a journal that is slow or not sure what it has written, calls that take
//! effect after their process died, a host that is cut off from the bus, that stands still, that is away
//! for days, whose clock is wrong; messages that age out; operators who purge, restore and edit; cards
//! that fail, an engine that is away for an hour, a `JetStream` without a leader, a store that refuses.
//! [`check`] and [`held`] hold the promises of docs/job-lifecycle.md against all of it, and [`plant`] holds
//! them to what they are for: each defect that is planted must be found.
//!
//! A day that fails prints its seed and its last events. To see all of it:
//! `LAMDA_SIM_SEED=<seed> cargo test --test sim -- --nocapture one_day`.

mod agent;
mod befall;
mod bus;
mod check;
mod day;
mod dice;
mod effects;
mod held;
mod plant;
mod time;
mod work;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;

use lamda_node::journal::SCHEMA;
use lamda_node::sql::Disk;

use plant::Plant;

/// Events that are shown of a day that failed.
const SHOWN: usize = 400;

/// So many days are looked for one in which a defect shows.
const DAYS_MAX: u64 = 4_000;

/// Lives through these days; ends the test with the first that breaks a promise.
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

/// Plants these, one at a time, and looks for a day that breaks a promise by each.
#[expect(clippy::print_stdout, reason = "how many were found is what the run is for")]
fn find_each(plants: &[Plant]) {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    let mut missed = Vec::new();
    for plant in plants {
        let found = (0..DAYS_MAX).find_map(|seed| {
            let broken = day::live(seed, false, &empty, *plant).broken?;
            // By the defect, and not by the day.
            let sound = day::live(seed, false, &empty, Plant::Watched).broken.is_none();
            sound.then_some((seed, broken))
        });
        match found {
            Some((seed, broken)) => println!("{plant:?}: day {seed}: {broken:.200}"),
            None => missed.push(plant),
        }
    }
    println!("planted {}, found {}", plants.len(), plants.len() - missed.len());
    assert!(missed.is_empty(), "nobody noticed: {missed:?}");
}

// Two of them, so that both of a small machine's cores have something to do.
#[test]
fn bad_days_break_no_promise() {
    live_through(0..500, Plant::Nothing);
}

#[test]
fn more_bad_days_break_no_promise() {
    live_through(500..1_000, Plant::Nothing);
}

/// Every so many of them: what the suite has time for. All of them are planted under `long`.
fn some(plants: &[Plant], every: usize) -> Vec<Plant> {
    plants.iter().copied().step_by(every).collect()
}

/// The test of the test: a defect in the agent must be found.
#[test]
fn a_write_that_is_left_out_is_found() {
    find_each(&some(&plant::WRITES.map(Plant::Forgets), 2));
}

#[test]
fn a_defect_that_somebody_could_write_is_found() {
    find_each(&some(&plant::DEFECTS, 2));
}

#[test]
fn every_write_of_the_agent_is_planted() {
    let empty = Disk::new(&SCHEMA).expect("a disk in memory");
    let mut made: BTreeSet<&str> =
        (0..250).flat_map(|seed| day::live(seed, false, &empty, Plant::Nothing).writes).collect();
    // Without it a journal grows, and no promise is broken.
    assert!(made.remove("packed"));
    // These steps can be repeated, and what comes after them says the same: no day has shown one yet.
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
    for seed in 0..50 {
        let [one, other] =
            [false, true].map(|traced| day::live(seed, traced, &empty, Plant::Nothing));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
    }
}

/// One day, for whoever looks into it; or, with `LAMDA_SIM_SEED=1000..2000`, these days. With
/// `LAMDA_SIM_PLANT=SaysOnce` its agents have this defect.
#[test]
#[expect(clippy::disallowed_methods, reason = "who looks into a day names it so")]
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
    #[expect(clippy::print_stdout, reason = "what a person asked to see")]
    for line in &day.trace {
        println!("{line}");
    }
    assert_eq!(day.broken, None, "seed {seed}");
}
