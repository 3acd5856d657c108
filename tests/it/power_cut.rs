//! What a power cut would leave of the journal's file: the syncs that `strace` saw, compared with the
//! journal's answers.
//!
//! The journal runs in its own process: this test program, with one test and one environment variable.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lamda_node::clock::Timestamp;
use lamda_node::ids::Address;
use lamda_node::job::Job;
use lamda_node::job::phase::{Asked, Event, PinnedImage, Rules, Transition};
use lamda_node::job::spec::parse;
use lamda_node::journal::Journal;

use crate::support::tools::tool;

/// The variable with the journal's folder for that process.
const FOLDER: &str = "LAMDA_POWER_CUT";

/// The answers in order: name, whether it must be durable, and whether it wrote.
const ANSWERS: [(&str, bool, bool); 6] = [
    ("admitted", true, true),
    ("pulled", false, true),
    ("told what to say", true, false),
    ("fetched", false, true),
    ("starting", true, true),
    ("told what to say, again", true, false),
];

fn moved(job: &Job, event: &Event) -> Transition {
    let hour = Duration::from_hours(1);
    let rules =
        Rules { timeout_max: hour, fetch_give_up: hour, upload_give_up: hour, result_keep: hour };
    job.apply(event.clone(), Timestamp::from_unix_ms(6), &rules).expect("it belongs")
}

/// Marks an answer with a system call, which the trace shows.
fn mark(which: usize) {
    use std::io::Write as _;
    let text = format!("answer {which}\n");
    std::io::stderr().write_all(text.as_bytes()).expect("written");
}

/// The traced process; without the variable it does nothing.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test below passes the folder this way")]
async fn the_journal_that_is_traced() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let journal = Journal::open(Path::new(&folder)).expect("a journal");
    let at = Timestamp::from_unix_ms(5);
    let parsed = parse(br#"{"job_id":"job","image":"img"}"#).expect("a job");
    let (spec, spec_hash) = (parsed.spec, parsed.spec_hash);
    let node = Address::new([1; 20]);
    let asked = Asked { spec, spec_hash, target: format!("dispatch.{node}") };
    let taken = Job::accept(asked, node, 0, at);
    mark(99);
    journal.admit(&taken, b"body".to_vec(), None).await.expect("taken");
    mark(0);
    let mut job = taken.job;
    let image = PinnedImage { id: "i".to_owned(), digest: "d".to_owned(), unconfirmed: false };
    for (event, which) in [
        (Event::Pulled { image }, 1),
        (Event::Fetched, 3),
        (Event::Reserved { gpus: Vec::new() }, 4),
    ] {
        let next = moved(&job, &event);
        journal.record(&event, &next, at).await.expect("recorded");
        mark(which);
        job = next.job;
        if which != 3 {
            assert_eq!(journal.unsent(10).await.expect("rows").len(), 2);
            mark(which + 1);
        }
    }
}

/// What happened to the write-ahead log between two answers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Between {
    writes: usize,
    /// Syncs since the last write.
    syncs: usize,
    all_syncs: usize,
}

/// What the trace shows of the write-ahead log before each answer.
fn before_each_answer(trace: &str) -> Vec<Between> {
    let (mut seen, mut answers, mut begun) = (Between::default(), Vec::new(), false);
    // A call that the trace splits in two has its path only in the first part.
    let mut unfinished: Vec<String> = Vec::new();
    for line in trace.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default().to_owned();
        let is_log = line.contains("journal.db-wal>");
        if line.contains("answer 99") {
            (seen, begun) = (Between::default(), true);
        } else if line.contains("\"answer ") && begun {
            answers.push(std::mem::take(&mut seen));
        } else if is_log && line.contains("write64(") {
            seen = Between { writes: seen.writes + 1, syncs: 0, all_syncs: seen.all_syncs };
        } else if is_log && line.contains("sync(") && line.contains("<unfinished") {
            unfinished.push(thread);
        } else if is_log && line.contains("sync(") && line.ends_with("= 0")
            || line.contains("sync resumed>")
                && line.ends_with("= 0")
                && unfinished.contains(&thread)
        {
            unfinished.retain(|one| *one != thread);
            (seen.syncs, seen.all_syncs) = (seen.syncs + 1, seen.all_syncs + 1);
        }
    }
    answers
}

#[test]
fn a_durable_answer_comes_after_a_sync_of_what_it_rests_on_and_no_other_waits_for_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, trace) = (dir.path().join("data"), dir.path().join("trace"));
    std::fs::create_dir(&data).expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let traced = Command::new(tool("strace"))
        .args(["-f", "-y", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o"])
        .arg(&trace)
        .arg(program)
        .args(["--exact", "power_cut::the_journal_that_is_traced", "--nocapture"])
        .env(FOLDER, &data)
        .output()
        .expect("strace runs");
    let said = String::from_utf8_lossy(&traced.stderr);
    assert!(traced.status.success() && said.contains("answer 5"), "{said}");
    let trace = std::fs::read_to_string(&trace).expect("a trace");
    let answers = before_each_answer(&trace);
    assert_eq!(answers.len(), ANSWERS.len(), "{trace}");
    for ((name, durable, wrote), between) in ANSWERS.into_iter().zip(answers) {
        assert_eq!(between.writes > 0, wrote, "{name}: {between:?}\n{trace}");
        if !durable {
            assert_eq!(between.all_syncs, 0, "{name} waits for the disk: {between:?}\n{trace}");
        } else if wrote {
            assert_eq!(between.syncs, 1, "{name}: {between:?}\n{trace}");
        }
    }
    // An answer that only read depends on the write before it, which was synced already or is synced now.
    let expected = [false, true];
    for (at, behind) in [5, 2].into_iter().zip(expected) {
        let between = before_each_answer(&trace)[at];
        assert_eq!(between.syncs == 1, behind, "{}: {between:?}\n{trace}", ANSWERS[at].0);
    }
}
