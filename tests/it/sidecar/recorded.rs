//! Recordings and their replay.

use std::fs;

use super::process::Sidecar;

#[test]
fn a_recording_holds_no_personal_data_and_its_replay_gives_the_same_verdicts() {
    let sidecar = Sidecar::swarm(&[]);
    sidecar.says("INFO", "🐝 Joining round: 3 for alice@example.com at 203.0.113.9");
    sidecar.until("it trains", |it| it["training"] == "yes");
    sidecar.says("ERROR", "torch.OutOfMemoryError: CUDA out of memory");
    sidecar.until("it failed", |it| it["troubles"][0] == "stuck");
    let folder = sidecar.program.path("bundle");
    sidecar.program.run(&["sidecar", "record", "one", &folder]).succeeds();
    for file in ["observations.jsonl", "verdicts.jsonl", "expected.json", "base.json"] {
        let text = fs::read_to_string(format!("{folder}/{file}")).expect("a file of the recording");
        assert!(!text.contains("alice") && !text.contains("203.0.113"), "{file}: {text}");
    }
    let replayed = sidecar.program.run(&["sidecar", "replay", &folder]);
    assert_eq!(replayed.code(), 0, "{}", replayed.stderr());
    let recorded = fs::read_to_string(format!("{folder}/verdicts.jsonl")).expect("the verdicts");
    assert_eq!(replayed.stdout(), recorded);
    assert!(recorded.lines().count() >= 3, "{recorded}");

    let changed = recorded.replace("\"stuck\"", "\"blind\"");
    fs::write(format!("{folder}/verdicts.jsonl"), changed).expect("a file of the test's own");
    assert_eq!(sidecar.program.run(&["sidecar", "replay", &folder]).code(), 1);
}
