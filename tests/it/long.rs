//! What takes minutes: run by `cargo xtask ci --long`, as every test whose path begins like this.

use std::time::Duration;

use super::ledger::{faults, seasons};
use super::soak::soak;
use super::weather::nats;

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

#[tokio::test]
async fn two_thousand_jobs_with_faults_between_them_leave_nothing_behind() {
    soak(2000).await;
}

#[tokio::test]
async fn an_outage_of_jetstream_stops_no_job_of_a_pool() {
    crate::pools::an_outage_of_jetstream_stops_no_job_of_a_pool().await;
}
