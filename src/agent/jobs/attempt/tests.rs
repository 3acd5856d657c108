//! A job's task when the journal is stuck, and when the task itself has a defect.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::*;
use crate::agent::jobs::fakes::{
    Trouble, body, container, delivery, dispatched, intake, node, node_with, recovered, soon,
    start, until, until_started, written,
};
use crate::agent::jobs::{leases, orphans, pool_claim, recover};
use crate::bus::{AckHandle, Delivery, Target};
use crate::container::{Found, FoundState};
use crate::ids::Address;
use crate::job::claim;
use crate::job::phase::{RunExit, StopCause};

#[tokio::test]
async fn a_container_is_stopped_though_the_journal_never_answers() {
    let id: JobId = "job".parse().unwrap();
    for stuck_at in ["running", "stopping"] {
        let node = node(stuck_at, 0);
        start(&node, "job").await;
        // `Follow` of these fakes ignores the job's time limit.
        if stuck_at == "running" {
            soon(node.effects.is_stopped.notified()).await;
            continue;
        }
        soon(node.effects.is_followed.notified()).await;
        tokio::select! {
            biased;
            answer = node.desk.board.stop(&id, StopCause::Cancelled) => {
                panic!("{answer:?}, though it is not written down")
            }
            () = soon(node.effects.is_stopped.notified()) => {}
        }
    }
}

#[tokio::test]
async fn a_task_that_panics_leaves_its_slot_to_its_container_until_the_job_is_taken_up_again() {
    let node = node("", 1);
    start(&node, "job").await;
    while !node.crew.is_empty() {
        tokio::task::yield_now().await;
    }
    let (board, id) = (&node.desk.board, "job".parse().unwrap());
    assert!(board.has(&id) && !board.is_looked_after(&id));
    assert_eq!(board.room(0), 0, "its container still runs");
    tokio::select! {
        biased;
        () = soon(node.effects.is_followed.notified()) => {}
        ended = recover::keep(Arc::clone(&node), recovered(true)) => panic!("{ended:?}"),
    }
    assert!(board.is_looked_after(&id));
    assert_eq!(node.crew.len(), 1);
}

#[tokio::test]
async fn a_request_to_stop_ends_with_the_loss_that_it_came_from() {
    for (cause, stops_it) in [(StopCause::LeaseLost, false), (StopCause::Cancelled, true)] {
        let node = node("", 0);
        let job = written(&node, "job", true, until_started(true, node.desk.clock.now())).await;
        let (asking, mut stops) = mpsc::channel(1);
        // The asker is gone.
        let (answer, _) = tokio::sync::oneshot::channel();
        asking.send(StopRequest { cause, answer }).await.unwrap();
        let asked = tokio::select! {
            biased;
            turn = turn(&job, node.effects.as_ref(), &node.desk, &mut stops) => {
                matches!(turn, Turn::Asked(_))
            }
            () = soon(node.effects.is_followed.notified()) => false,
        };
        assert_eq!(asked, stops_it, "{cause:?}");
    }
}

/// A request that was on its way when the last process went.
#[tokio::test]
async fn a_job_whose_processes_are_gone_is_not_stopped_for_its_disk_any_more() {
    for (cause, has_exited, stops_it) in [
        (StopCause::DiskExceeded, false, true),
        (StopCause::DiskExceeded, true, false),
        (StopCause::DiskFull, true, false),
        (StopCause::Cancelled, true, true),
    ] {
        let node = node("", 0);
        let job = written(&node, "job", true, until_started(true, node.desk.clock.now())).await;
        let mut stops = node.desk.board.enter(&job, None).unwrap();
        if has_exited {
            node.desk.board.exited(job.id());
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let request = StopRequest { cause, answer };
        let stopped = stop(job, request, node.effects.as_ref(), &node.desk, &mut stops);
        let phase = Box::pin(stopped).await.unwrap().job.phase;
        assert_eq!(matches!(phase, Phase::Stopping { .. }), stops_it, "{cause:?}, {has_exited}");
        assert_eq!(soon(answered).await, Ok(stops_it), "{cause:?}, {has_exited}");
    }
}

#[tokio::test]
async fn a_job_that_was_written_down_though_the_answer_was_an_error_is_taken_up() {
    let node = node("", 0);
    let taken = dispatched(&node, "job");
    // The writer believes that the write failed, and starts nothing.
    node.desk.journal.admit(&taken, Vec::new(), None).await.unwrap();
    tokio::select! {
        biased;
        () = soon(node.effects.is_followed.notified()) => {}
        ended = recover::keep(Arc::clone(&node), recovered(true)) => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn containers_that_no_open_job_owns_are_swept_while_the_node_runs() {
    let node = node("", 0);
    start(&node, "job").await;
    soon(node.effects.is_followed.notified()).await;
    let probe = Found { job_id: None, ..container("probe", FoundState::Created) };
    let orphans = [container("orphan", FoundState::Created), probe];
    node.effects.containers.lock().unwrap().extend(orphans);
    let left = || node.effects.containers.lock().unwrap().len();
    tokio::select! {
        biased;
        () = until(|| left() == 1) => {}
        ended = orphans::run(Arc::clone(&node)) => panic!("{ended:?}"),
    }
    // A young container may be one that is just being started.
    let created_at = node.desk.clock.now().plus(orphans::EVERY * 2);
    let young = Found { created_at, ..container("young", FoundState::Created) };
    node.effects.containers.lock().unwrap().push(young);
    tokio::select! {
        biased;
        () = until(|| node.desk.clock.now() >= created_at) => {}
        ended = orphans::run(Arc::clone(&node)) => panic!("{ended:?}"),
    }
    assert_eq!(left(), 2, "the job's own, and the young one");
}

#[tokio::test]
async fn what_has_run_is_taken_up_though_the_engine_is_away() {
    let node = node("", 0);
    node.effects.engine_is_away.store(true, Relaxed);
    // It was cancelled; the writer believes that this write failed.
    written(&node, "job", false, [Event::StopAsked { cause: StopCause::Cancelled }]).await;
    let id = "job".parse().unwrap();
    tokio::select! {
        biased;
        () = until(|| node.desk.board.is_looked_after(&id)) => {}
        ended = recover::keep(Arc::clone(&node), recovered(false)) => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_cancel_of_what_has_run_is_too_late_however_often_its_lease_was_lost() {
    let node = node_with(Trouble::default(), 0);
    let (clock, id) = (&node.desk.clock, "job".parse().unwrap());
    let now = clock.now();
    let exit = RunExit {
        code: Some(0),
        oom: false,
        hint: None,
        started_at: now,
        finished_at: now,
        usage: None,
    };
    let collected = [
        Event::Exited { exit, by_itself: Some(true) },
        Event::Collected { output: Ok(None), log: None },
    ];
    let events = until_started(true, now).into_iter().chain(collected);
    let job = written(&node, "job", true, events).await;
    let bid = pool_claim::bid(Address::new([2; 20]), &delivery(9), 1, job.spec_hash, clock);
    let claim::Take::Write(theirs) = claim::take(None, &bid) else { panic!("it is free") };
    *node.effects.claim.lock().unwrap() = Some(theirs);
    node.start(job, Some(delivery(1)));
    let began = clock.now();
    let hour_over = || clock.now().since(began) > Duration::from_hours(1);
    tokio::select! {
        biased;
        () = until(hour_over) => {}
        ended = leases::run(node.desk.clone(), Arc::clone(&node.effects)) => panic!("{ended:?}"),
    }
    assert_eq!(node.effects.count("publish"), 1, "it is being published still");
    let answer = soon(node.desk.board.stop(&id, StopCause::Cancelled)).await;
    assert_eq!(answer, Some(false));
}

#[tokio::test]
async fn a_job_that_is_on_its_way_back_is_counted_under_the_delivery_that_it_failed_with() {
    let node = node_with(Trouble::default(), 0);
    let fault = Fault::new(Reason::ImagePullFailed, "planted");
    let events = [Event::Failed { fault, retry: Retry::Never }];
    written(&node, "job", true, events).await;
    let source = Target::Pool("it".parse().unwrap());
    let again = Delivery {
        subject: source.subject(),
        body: body("job").into(),
        ack: Some(delivery(2)),
        delivered: 2,
    };
    Box::pin(intake(&node).take(&source, 0, again)).await.unwrap();
    assert_eq!(node.effects.count("Nak(10s) 2"), 1, "another node is given it");
    let known = node.desk.journal.lookup(&"job".parse().unwrap()).await.unwrap().unwrap();
    let kept: AckHandle = serde_json::from_str(&known.delivery.unwrap()).unwrap();
    assert_eq!(kept.delivered, 1);
}
