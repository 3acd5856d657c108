//! The crash matrix: the real program on the real parts is killed with SIGKILL before and after every
//! write of its journal and every effect of a job, and started again. Each place has its own job; the end
//! of a walk judges all of them by the streams, the engine's events and what is left on the host.
//!
//! A place is the name of a failpoint, perhaps with the pass at which the node dies.

mod ends;
mod life;
mod messages;
mod walk;
mod witness;

use std::collections::BTreeSet;
use std::path::Path;

/// The failpoints before and after each of these places.
fn sides(places: &[&str]) -> Vec<String> {
    let sides = places.iter().flat_map(|place| {
        let (name, pass) = place.split_once(':').unwrap_or((place, "1"));
        ["before", "after"].map(|side| format!("{name}.{side}:{pass}"))
    });
    sides.collect()
}

/// The id of the job whose node dies at this place.
fn job_of(place: &str) -> String {
    place.replace(['.', ':'], "-")
}

/// Every place that some walk goes through.
fn walked() -> BTreeSet<&'static str> {
    let walks: [&[&str]; 18] = [
        &life::LIFE,
        &life::STEPS,
        &life::STATUSES,
        &life::POOLED,
        &ends::CANCELLED,
        &ends::GIVEN_BACK,
        &ends::GIVEN_BACK_TO_POOL,
        &ends::RESUMED,
        &ends::OUTBID,
        &ends::ENDED_ELSEWHERE,
        &ends::RETURNED,
        &ends::UNABLE,
        &ends::BURIED,
        &messages::REPEATED,
        &messages::IN_HAND,
        &messages::REFUSED,
        &messages::MISFITS,
        &messages::TAKEN,
    ];
    let places = walks.into_iter().flatten();
    places.map(|place| place.split(':').next().unwrap_or_default()).collect()
}

/// The texts between `before` and the next `"` in a source file, or in all files below a folder.
fn named(source: &str, before: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder of sources");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let below = names.map(|name| format!("{source}/{}", name.to_string_lossy()));
        return below.flat_map(|file| named(&file, before)).collect();
    }
    let text = std::fs::read_to_string(path).expect("a source file");
    let pieces = text.split(before).skip(1);
    pieces.map(|piece| piece.split('"').next().unwrap_or_default().to_owned()).collect()
}

/// Fails, with its name, for a new phase, step or write that no walk goes through.
#[test]
fn the_walks_go_through_every_place_that_there_is() {
    let sources = [
        // Each phase names the write that leads to it.
        named("job/phase/mod.rs", "=> \""),
        named("job/plan.rs", "=> \""),
        named("journal/attempts.rs", ".change(\""),
        named("journal/outbox.rs", ".change(\""),
        named("agent", "failpoint::hit(\""),
    ];
    let mut there: BTreeSet<String> = sources.into_iter().flatten().collect();
    // Their names reach `hit` in variables.
    there.extend(["upload_output", "upload_log"].map(str::to_owned));
    // The pipeline of transactions has its own matrix in `ledger::crash`.
    assert!(there.remove("send"));
    let walked: BTreeSet<String> = walked().into_iter().map(str::to_owned).collect();
    assert_eq!(walked, there);
}
