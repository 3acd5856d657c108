//! Kills while a log is written and rotated: each line is taken in once.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::process::{PATIENCE, Sidecar, hydra};
use crate::support::tools::eventually;

/// How many rounds a node joins, how often its log is rotated, and how often the sidecar is killed.
const ROUNDS: u64 = 400;
const ROTATE_EVERY: u64 = 40;
const KILL_EVERY: u64 = 57;

#[test]
fn over_rotations_and_kills_each_line_is_taken_in_exactly_once() {
    let mut sidecar = Sidecar::swarm(&[]);
    let log = sidecar.program.path("root/logs/swarm_launcher.log");
    for round in 1..=ROUNDS {
        sidecar.says("INFO", &format!("🐝 Joining round: {round}"));
        if round == 1 {
            // What was never seen can't be found again under another name.
            sidecar.until("the log is known", |it| it["round"] == 1);
        }
        if round.is_multiple_of(ROTATE_EVERY) {
            let number = round / ROTATE_EVERY;
            std::fs::rename(&log, format!("{log}.{number}")).expect("it is rotated");
        }
        if round.is_multiple_of(KILL_EVERY) {
            sidecar.kill();
            sidecar.spawn();
        }
    }
    sidecar.kill();
    sidecar.begin();
    has_each_once(&sidecar, ROUNDS, ROUNDS);
}

/// Asserts that each round was taken in once, and so many lines without a gap.
fn has_each_once(sidecar: &Sidecar, last: u64, lines: u64) {
    // The last record is complete when nothing has continued it for a while.
    let rounds = || -> BTreeMap<u64, usize> {
        let mut rounds = BTreeMap::new();
        for observation in sidecar.observations() {
            let meaning = &observation["meaning"];
            if meaning["kind"] == "join" {
                let round = meaning["fields"]["round"].as_str().expect("a round");
                *rounds.entry(round.parse().expect("a number")).or_default() += 1;
            }
        }
        rounds
    };
    sidecar.until("the last round is read", |it| it["round"] == last);
    eventually("the last round is taken in", PATIENCE, || {
        rounds().contains_key(&last).then_some(())
    });
    let rounds = rounds();
    let missing: Vec<u64> = (1..=last).filter(|round| !rounds.contains_key(round)).collect();
    let doubled: Vec<_> = rounds.iter().filter(|(_, count)| **count > 1).collect();
    assert!(missing.is_empty() && doubled.is_empty(), "lost {missing:?}, doubled {doubled:?}");
    let source = sidecar.one()["sources"]["log swarm"].clone();
    assert_eq!((&source["lines"], &source["gaps"]), (&json!(lines), &json!(0)), "{source:#}");
}

/// Lines of a file of the storm's log, the last of which says that a round is joined.
const STORM_LINES: u64 = 1_000;

/// How many of them are written in a millisecond at most.
const STORM_MS: u64 = 50;

/// Writes files of a log at 50,000 lines a second, and renames each; returns how long that took.
fn storm(log: &Path, files: u64) -> Duration {
    let begun = Instant::now();
    for file in 0..files {
        let mut log_file = OpenOptions::new().create(true).append(true).open(log).expect("a log");
        for batch in 0..STORM_LINES / STORM_MS {
            let due = Duration::from_millis(file * STORM_LINES / STORM_MS + batch);
            std::thread::park_timeout(due.saturating_sub(begun.elapsed()));
            let filler = hydra("DEBUG", "Starting new HTTP connection (1): 127.0.0.1:3000");
            let is_last = batch + 1 == STORM_LINES / STORM_MS;
            let count = usize::try_from(STORM_MS).expect("a small number") - usize::from(is_last);
            let mut text = filler.repeat(count);
            if is_last {
                text += &hydra("INFO", &format!("🐝 Joining round: {}", file + 2));
            }
            log_file.write_all(text.as_bytes()).expect("room for a log");
        }
        std::fs::rename(log, format!("{}.{file}", log.display())).expect("it is rotated");
    }
    begun.elapsed()
}

/// The log is renamed so often while 50,000 lines a second are written to it, and the sidecar is killed so often.
/// Prints what it took.
#[expect(clippy::print_stderr, reason = "shows the result of a long run")]
pub(crate) fn a_storm_loses_and_doubles_nothing(renames: u64, kills: u32) {
    let mut sidecar = Sidecar::swarm(&[]);
    sidecar.says("INFO", "🐝 Joining round: 1");
    sidecar.until("the log is known", |it| it["round"] == 1);
    let (begun, log) = (Instant::now(), sidecar.program.path("root/logs/swarm_launcher.log"));
    let writer = std::thread::spawn(move || storm(Path::new(&log), renames));
    for _ in 0..kills {
        sidecar.kill();
        sidecar.begin();
        // It is killed at any time from its start on.
        std::thread::park_timeout(Duration::from_millis(fastrand::u64(0..100)));
    }
    let killed = begun.elapsed();
    let wrote = writer.join().expect("it wrote");
    eventually("all is read", PATIENCE * 10, || {
        (sidecar.one()["round"] == renames + 1).then_some(())
    });
    let read = begun.elapsed();
    has_each_once(&sidecar, renames + 1, renames * STORM_LINES + 1);
    eprintln!(
        "{renames} renames and {} lines in {wrote:?}, {kills} kills in {killed:?}, read after {read:?}",
        renames * STORM_LINES
    );
}
