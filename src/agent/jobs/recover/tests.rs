//! What the recovery at a start takes back, and what is resumed later.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::agent::jobs::fakes::{
    Fakes, Quick, Trouble, container, node, node_with, phase, recovered, soon, until,
    until_started, written,
};
use crate::agent::jobs::reconcile;
use crate::job::phase::StopCause;

const INTERRUPTED: [Event; 3] =
    [Event::StopAsked { cause: StopCause::Shutdown }, Event::Removed, Event::HandedBack];

#[tokio::test]
async fn nobody_is_given_a_slot_before_all_that_hold_one_have_it_back() {
    let node = node_with(Trouble { is_slow: true, ..Trouble::default() }, 0);
    let events = |pool| until_started(pool, node.desk.clock.now());
    written(&node, "ready", false, events(false).into_iter().take(2)).await;
    written(&node, "claims", true, events(true).into_iter().take(3)).await;
    assert_eq!(phase(&node, "claims").await, "claiming");
    run(Arc::clone(&node)).await.unwrap();
    soon(node.effects.is_followed.notified()).await;
    assert_eq!(node.effects.count("follow claims"), 1);
    assert_eq!(phase(&node, "ready").await, "ready", "the one slot is the other's");
}

#[tokio::test]
async fn a_job_whose_container_cant_be_removed_keeps_no_other_one_waiting() {
    let node = node("", 0);
    let events = |pool| until_started(pool, node.desk.clock.now());
    written(&node, "stuck", true, events(true).into_iter().take(4)).await;
    written(&node, "job", false, events(false)).await;
    let left = container("stuck", FoundState::Created);
    node.effects.stuck.lock().unwrap().push(left.id.clone());
    node.effects.containers.lock().unwrap().push(left);
    run(Arc::clone(&node)).await.expect("the node goes on");
    soon(node.effects.is_followed.notified()).await;
    let (board, id) = (&node.desk.board, "stuck".parse().unwrap());
    assert!(board.has(&id) && !board.is_looked_after(&id), "what it holds is its own");
    node.effects.stuck.lock().unwrap().clear();
    tokio::select! {
        biased;
        () = until(|| board.is_looked_after(&id)) => {}
        ended = keep(Arc::clone(&node), recovered(true)) => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_start_that_is_carried_out_after_its_node_died_is_the_one_start() {
    for late in [false, true] {
        let node = node("", 0);
        let events = until_started(true, node.desk.clock.now());
        let created = Event::Created { container: "c".to_owned() };
        written(&node, "job", true, events.into_iter().take(4).chain([created])).await;
        node.effects.containers.lock().unwrap().push(container("job", FoundState::Created));
        node.effects.starts_late.store(late, std::sync::atomic::Ordering::Relaxed);
        run(Arc::clone(&node)).await.unwrap();
        soon(node.effects.is_followed.notified()).await;
        assert_eq!(node.effects.count("create"), usize::from(!late), "late: {late}");
        assert_eq!(node.effects.count("start"), 1, "late: {late}");
    }
}

#[tokio::test]
async fn a_job_that_waits_goes_on_though_the_journal_failed_it_once() {
    let refuses = ("accepted", AtomicUsize::new(1));
    let node = node_with(Trouble { refuses, ..Trouble::default() }, 0);
    written(&node, "waits", false, INTERRUPTED).await;
    assert!(run(Arc::clone(&node)).await.is_err(), "it is tried again");
    run(Arc::clone(&node)).await.unwrap();
    soon(node.effects.is_followed.notified()).await;
    assert_eq!(node.effects.count("follow waits"), 1);
}

/// Ends once a container is followed, or after an hour without one.
async fn followed_or_an_hour(node: &Jobs<Fakes, Quick>) {
    let began = node.desk.clock.now();
    let hour_over = || node.desk.clock.now().since(began) > Duration::from_hours(1);
    until(|| hour_over() || node.effects.count("follow") > 0).await;
}

#[tokio::test]
async fn what_nobody_has_in_hand_is_taken_up_while_the_node_is_drained_but_not_while_it_ends() {
    for ends in [false, true] {
        let node = node("", 0);
        written(&node, "job", false, until_started(false, node.desk.clock.now())).await;
        if ends {
            node.desk.board.close();
        } else {
            node.desk.board.drain();
        }
        tokio::select! {
            biased;
            () = followed_or_an_hour(&node) => {}
            ended = keep(Arc::clone(&node), recovered(true)) => panic!("{ended:?}"),
        }
        assert_eq!(node.effects.count("follow"), usize::from(!ends), "ends: {ends}");
    }
}

#[tokio::test]
async fn a_drained_node_begins_no_job_whose_message_is_gone() {
    for (drained, stands) in [(false, "running"), (true, "waiting")] {
        let node = node("", 0);
        written(&node, "waits", true, INTERRUPTED).await;
        node.effects.is_purged.store(true, std::sync::atomic::Ordering::Relaxed);
        if drained {
            node.desk.board.drain();
        }
        tokio::select! {
            biased;
            () = followed_or_an_hour(&node) => {}
            ended = reconcile::run(Arc::clone(&node)) => panic!("{ended:?}"),
        }
        assert_eq!(phase(&node, "waits").await, stands);
    }
}
