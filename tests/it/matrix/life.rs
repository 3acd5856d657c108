//! The whole life of a job with an input, an output and a log, sent to the node or to its pool.

use super::walk::{IN_POOL, WORK, Walk};
use super::{job_of, sides};

/// The writes of its life, in order; the second `starting` records its container.
pub(super) const LIFE: [&str; 10] = [
    "pulled",
    "ready",
    "starting",
    "starting:2",
    "running",
    "exited",
    "collected",
    "published",
    "ended",
    "cleaned",
];

/// The steps of its life, in order.
pub(super) const STEPS: [&str; 15] = [
    "pull",
    "fetch",
    "reserve",
    "create",
    "start",
    "follow",
    "keep_log",
    "collect",
    "publish",
    "upload_output",
    "upload_log",
    "attest",
    "remove",
    "remove_folders",
    "ack",
];

/// The writes of its statuses, by number, and its last write.
pub(super) const STATUSES: [&str; 7] =
    ["say", "sent", "say:4", "sent:4", "say:6", "sent:6", "settled"];

/// Places that only a pool's job passes, or that it passes differently: its claim is written before the
/// start and before the end.
pub(super) const POOLED: [&str; 7] =
    ["claiming", "claim", "put_claim", "starting:2", "concluding", "conclude", "put_claim:2"];

async fn die_everywhere(settings: &[(&'static str, &'static str)], places: &[&str]) {
    let mut walk = Walk::start(settings).await;
    for place in sides(places) {
        let id = job_of(&place);
        walk.expect(&id, "completed", 1);
        let agent = walk.arm(&place);
        walk.publish(&id, WORK);
        walk.wait_for_death(agent, &place, &id);
        let agent = walk.go_on();
        walk.wait_until_done(&agent, &id);
    }
    walk.check().await;
}

#[tokio::test]
async fn a_node_that_dies_at_any_write_of_a_jobs_life_takes_it_to_its_end() {
    die_everywhere(&[], &LIFE).await;
}

#[tokio::test]
async fn a_node_that_dies_at_any_step_of_a_jobs_life_takes_it_to_its_end() {
    die_everywhere(&[], &STEPS).await;
}

#[tokio::test]
async fn a_node_that_dies_at_any_status_of_a_job_says_each_of_them_once() {
    die_everywhere(&[], &STATUSES).await;
}

#[tokio::test]
async fn a_node_that_dies_with_a_pools_job_goes_on_by_its_claim() {
    die_everywhere(&[IN_POOL], &POOLED).await;
}

/// Everything before its start, in order: after its admission, and after its claim. A finished step is
/// repeated, but its outside effects are not.
const PREPARED: [&str; 5] = ["pull", "pulled", "fetch", "ready", "reserve"];
const CLAIMED: [&str; 3] = ["claiming", "put_claim", "claim"];
/// From its start to the receipt.
const RUN: [&str; 15] = [
    "starting",
    "create",
    "starting",
    "start",
    "running",
    "follow",
    "keep_log",
    "exited",
    "collect",
    "collected",
    "publish",
    "upload_output",
    "upload_log",
    "published",
    "attest",
];
/// A pool's job before its end, then every job after it.
const CONCLUDED: [&str; 3] = ["concluding", "put_claim", "conclude"];
const ENDED: [&str; 6] = ["ended", "remove", "remove_folders", "cleaned", "ack", "settled"];

/// One job, whose node dies at each of these places in turn.
async fn die_in_turn(settings: &[(&'static str, &'static str)], places: &[&[&str]]) {
    let mut walk = Walk::start(settings).await;
    walk.expect("unlucky", "completed", 1);
    let agent = walk.arm("admit.after");
    walk.publish("unlucky", WORK);
    walk.wait_for_death(agent, "admit.after", "unlucky");
    for place in places.iter().flat_map(|places| sides(places)) {
        let agent = walk.arm(&place);
        walk.wait_for_death(agent, &place, "unlucky");
    }
    let agent = walk.go_on();
    walk.wait_until_done(&agent, "unlucky");
    drop(agent);
    walk.check().await;
}

#[tokio::test]
async fn a_job_whose_node_dies_at_every_place_in_turn_runs_once_and_ends_once() {
    die_in_turn(&[], &[&PREPARED, &RUN, &ENDED]).await;
}

#[tokio::test]
async fn a_pools_job_whose_node_dies_at_every_place_in_turn_runs_once_and_ends_once() {
    die_in_turn(&[IN_POOL], &[&PREPARED, &CLAIMED, &RUN, &CONCLUDED, &ENDED]).await;
}
