//! Tests that take minutes: only `cargo xtask ci --long` runs the tests of this module.

use std::time::Duration;

use lamda_node::host::tree;

use super::ledger::{faults, seasons};
use super::soak::soak;
use super::tail::storm::Storm;
use super::weather::{disk, limits, nats};

#[tokio::test]
async fn a_thousand_beats_with_faults_between_them_leave_no_gap_and_nothing_twice() {
    faults::beat_through(1000).await;
}

#[tokio::test]
async fn every_weather_is_lived_through_on_a_chain_that_makes_a_block_a_second() {
    seasons::live_through(seasons::all(), Some("1")).await;
}

#[tokio::test]
async fn a_node_that_is_cut_off_for_a_minute_goes_on_and_tells_it_later() {
    nats::cut_off_for(Duration::from_mins(1)).await;
}

#[test]
fn a_million_entries_in_one_folder_are_measured_in_part_and_go_a_step_at_a_time() {
    let dir = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let folder = dir.path().join("job");
    std::fs::create_dir(&folder).expect("a folder");
    for n in 0..1_000_000 {
        std::fs::File::create(folder.join(n.to_string())).expect("a file");
    }
    let usage = tree::usage(&folder, 200_000, Duration::from_mins(1)).expect("it can be read");
    assert!(!usage.is_whole && usage.entries == 200_000, "{usage:?}");
    let mut clearing = tree::Clearing::of(dir.path()).expect("it can be opened");
    let mut longest = Duration::ZERO;
    loop {
        let begun = std::time::Instant::now();
        let cleared = clearing.step(1000).expect("it can be read");
        longest = longest.max(begun.elapsed());
        match cleared {
            tree::Cleared::All => break,
            tree::Cleared::More => {}
            tree::Cleared::Stuck(err) => panic!("{err}"),
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    assert!(longest < Duration::from_secs(10), "the longest step took {longest:?}");
}

#[tokio::test]
async fn twenty_thousand_folders_in_one_another_end_their_job_and_not_the_node() {
    disk::end_with_folders_in_one_another(20).await;
}

#[tokio::test]
async fn a_million_empty_files_end_their_job_and_not_the_node() {
    limits::end_with_empty_files(1000).await;
}

#[tokio::test]
async fn two_thousand_jobs_with_faults_between_them_leave_nothing_behind() {
    soak(2000).await;
}

#[tokio::test]
async fn an_outage_of_jetstream_stops_no_job_of_a_pool() {
    crate::pools::handover::an_outage_of_jetstream_stops_no_job_of_a_pool().await;
}

#[cfg(feature = "p2p")]
#[tokio::test]
async fn ten_real_nodes_of_a_dht_tell_who_published() {
    super::dht::real::ten_nodes_are_asked().await;
}

#[test]
fn a_real_node_is_read_from_the_files_of_hydra_and_wandb() {
    super::sidecar::hydra::a_node_is_read_from_the_files_of_hydra_and_wandb();
}

#[test]
#[expect(clippy::print_stderr, reason = "shows the result of a long run")]
fn a_thousand_renames_at_50_000_lines_a_second_with_100_kills_lose_and_double_nothing() {
    let storm = Storm { kills: 100, renames: 10, lines: 1_000, a_second: 50_000 };
    let (lines, took) = storm.loses_and_doubles_nothing();
    eprintln!("{lines} lines in {took:?}");
    assert_eq!(lines, 1_000_000);
}

#[test]
fn a_sidecar_that_is_killed_100_times_in_a_storm_of_a_thousand_renames_takes_in_each_line_once() {
    super::sidecar::killed::a_storm_loses_and_doubles_nothing(1_000, 100);
}
