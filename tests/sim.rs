//! The agent in a simulated world: whole bad days, each from one seed, lived through in milliseconds.
//!
//! The intake, the plan, the board, the leases, the publisher, the recovery and the journal (the same
//! SQLite, on a disk in memory) are the agent's own; [`effects`] stand in for everything outside.
//! Processes are killed at every write and every effect, hosts lose their power, messages come
//! twice, late and in any order, calls fail before or after they took effect, containers are taken
//! away, clocks are set. [`check`] holds the promises of docs/job-lifecycle.md against all of it.
//!
//! A day that fails prints its seed and its last events. To see all of it:
//! `LAMDA_SIM_SEED=<seed> cargo test --test sim -- --nocapture one_day`.

#[path = "sim/agent.rs"]
mod agent;
#[path = "sim/check.rs"]
mod check;
#[path = "sim/day.rs"]
mod day;
#[path = "sim/dice.rs"]
mod dice;
#[path = "sim/effects.rs"]
mod effects;
#[path = "sim/time.rs"]
mod time;
#[path = "sim/work.rs"]
mod work;
#[path = "sim/world.rs"]
mod world;

use std::ops::Range;

use lamda_node::journal::Disk;

/// Events that are shown of a day that failed.
const SHOWN: usize = 400;

/// Lives through these days; ends the test with the first that breaks a promise.
fn live_through(seeds: Range<u64>) {
    let empty = Disk::new().expect("a disk in memory");
    for seed in seeds {
        if day::live(seed, false, &empty, None).broken.is_some() {
            let again = day::live(seed, true, &empty, None);
            let trace = &again.trace[again.trace.len().saturating_sub(SHOWN)..];
            let broken = again.broken.unwrap_or_else(|| "not broken when traced".to_owned());
            panic!("seed {seed}: {broken}\n{}\nseed {seed}: {broken}", trace.join("\n"));
        }
    }
}

// Two of them, so that both of a small machine's cores have something to do.
#[test]
fn five_thousand_bad_days_break_no_promise() {
    live_through(0..5_000);
}

#[test]
fn five_thousand_more_bad_days_break_no_promise() {
    live_through(5_000..10_000);
}

mod long {
    #[test]
    fn a_hundred_thousand_bad_days_break_no_promise() {
        super::live_through(10_000..110_000);
    }

    #[test]
    fn a_hundred_thousand_more_bad_days_break_no_promise() {
        super::live_through(110_000..200_000);
    }
}

#[test]
fn a_day_is_the_same_each_time() {
    let empty = Disk::new().expect("a disk in memory");
    for seed in 0..50 {
        let [one, other] = [false, true].map(|traced| day::live(seed, traced, &empty, None));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
    }
}

/// The test of the test: a defect in the agent must be found.
#[test]
fn a_write_that_is_left_out_is_found() {
    let empty = Disk::new().expect("a disk in memory");
    for forgotten in ["admit", "starting", "running", "ended"] {
        let found = (0..2_000)
            .find(|seed| day::live(*seed, false, &empty, Some(forgotten)).broken.is_some());
        assert!(found.is_some(), "nobody noticed that `{forgotten}` was never written");
    }
}

/// One day, for whoever looks into it; or, with `LAMDA_SIM_SEED=1000..2000`, these days.
#[test]
#[expect(clippy::disallowed_methods, reason = "who looks into a day names it so")]
fn one_day_can_be_looked_at() {
    let named = std::env::var("LAMDA_SIM_SEED").unwrap_or_else(|_| "1".to_owned());
    let number = |text: &str| text.parse().expect("LAMDA_SIM_SEED is a number, or two: 1..100");
    if let Some((from, to)) = named.split_once("..") {
        return live_through(number(from)..number(to));
    }
    let seed = number(&named);
    let empty = Disk::new().expect("a disk in memory");
    let day = day::live(seed, true, &empty, None);
    assert!(!day.trace.is_empty());
    #[expect(clippy::print_stdout, reason = "what a person asked to see")]
    for line in &day.trace {
        println!("{line}");
    }
    assert_eq!(day.broken, None, "seed {seed}");
}
