//! Kept outputs: when they are removed, and what is announced of them.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::agent::jobs::fakes::{
    Fakes, Quick, Trouble, node_with, receipt, soon, until, until_started, written,
};
use crate::agent::jobs::hand::Jobs;
use crate::ids::Cid;
use crate::job::Reason;
use crate::job::phase::{Fault, Retry, RunExit, Sealed};

const CID: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// A node that keeps the outputs of these jobs.
async fn keeping(ids: &[&str]) -> Arc<Jobs<Fakes, Quick>> {
    let node = node_with(Trouble::default(), 0);
    for id in ids {
        let now = node.desk.clock.now();
        let cid: Cid = CID.parse().unwrap();
        let (path, seen_as) = ("1/output".to_owned(), String::new());
        let sealed = Sealed { path, cid, bytes: 1, directory: true, seen_as, notes: Vec::new() };
        let exit = RunExit {
            code: Some(0),
            oom: false,
            hint: None,
            started_at: now,
            finished_at: now,
            usage: None,
        };
        let fault = Fault::new(Reason::UploadFailed, "planted");
        let events = [
            Event::Exited { exit, by_itself: Some(true) },
            Event::Collected { output: Ok(Some(sealed)), log: None },
            Event::Failed { fault, retry: Retry::Never },
            Event::Attested { receipt: receipt(id), usage: None },
            Event::Removed,
            Event::Acked,
        ];
        written(&node, id, false, until_started(false, now).into_iter().chain(events)).await;
    }
    node
}

/// Journals a late result of this job, which the service then has to announce.
async fn published(node: &Jobs<Fakes, Quick>, id: &str) {
    let (job_id, now): (JobId, _) = (id.parse().unwrap(), node.desk.clock.now());
    assert!(node.desk.journal.ask_for(&job_id, now).await.unwrap());
    let result = LateResult {
        agent_address: node.node,
        job_id: job_id.clone(),
        attempt: 1,
        output_cid: CID.parse().unwrap(),
        log_cid: None,
        timestamp: now,
        receipt: receipt(id),
    };
    node.desk.journal.late_result(&job_id, &result).await.unwrap();
}

/// Runs the service until the condition holds.
async fn look_after(node: &Jobs<Fakes, Quick>, is_so: impl FnMut() -> bool) {
    let desk = node.desk.clone();
    tokio::select! {
        biased;
        () = until(is_so) => {}
        ended = run(desk, Arc::clone(&node.effects), Arc::default()) => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_late_result_is_said_once_though_its_folder_cant_be_removed() {
    let node = keeping(&["late"]).await;
    published(&node, "late").await;
    node.effects.keeps_folders.store(true, Relaxed);
    let began = node.desk.clock.now();
    let minute = Duration::from_mins(10);
    look_after(&node, || node.desk.clock.now().since(began) > minute).await;
    assert_eq!(node.effects.count("say_late"), 1);
    assert_eq!(node.desk.journal.kept_ids().await.unwrap(), [], "a start sweeps it away");
}

#[tokio::test]
async fn a_kept_output_that_cant_be_removed_holds_up_no_other_one() {
    let node = keeping(&["a", "b", "late"]).await;
    let began = node.desk.clock.now();
    node.effects.keeps_folders.store(true, Relaxed);
    let hours = Duration::from_hours(5);
    look_after(&node, || node.desk.clock.now().since(began) > hours).await;
    assert!(node.effects.count("remove_folder a") > 0 && node.effects.count("remove_folder b") > 0);
    published(&node, "late").await;
    look_after(&node, || node.effects.count("say_late") > 0).await;
    node.effects.keeps_folders.store(false, Relaxed);
    let began = node.desk.clock.now();
    look_after(&node, || node.desk.clock.now().since(began) > hours).await;
    let a = "a".parse().unwrap();
    assert_eq!(soon(node.desk.journal.kept(&a)).await.unwrap(), None);
}

#[test]
fn one_reading_of_a_clock_that_is_ahead_removes_nothing() {
    let ids = || vec!["a".parse::<JobId>().unwrap(), "b".parse().unwrap()];
    let minutes = |minutes| Duration::from_mins(minutes);
    let mut overdue = Overdue::default();
    assert_eq!(overdue.for_long(ids(), minutes(0), LOOK), []);
    assert_eq!(overdue.for_long(ids(), minutes(59), LOOK), [], "whoever asks in between");
    assert_eq!(overdue.for_long(ids()[..1].to_vec(), minutes(60), LOOK), ids()[..1]);
    assert_eq!(
        overdue.for_long(ids(), minutes(120), LOOK),
        ids()[..1],
        "its clock was set right once"
    );
}
