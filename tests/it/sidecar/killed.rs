//! Kills while a log is written and rotated: each line is taken in once.

use std::collections::BTreeMap;

use super::process::{PATIENCE, Sidecar};
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
    eventually("the last round is taken in", PATIENCE, || {
        rounds().contains_key(&ROUNDS).then_some(())
    });
    let rounds = rounds();
    let lost: Vec<u64> = (1..=ROUNDS).filter(|round| !rounds.contains_key(round)).collect();
    let doubled: Vec<_> = rounds.iter().filter(|(_, count)| **count > 1).collect();
    assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
    let lines = sidecar.one()["sources"]["log swarm"]["lines"].clone();
    assert_eq!(lines, ROUNDS);
}
