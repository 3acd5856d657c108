//! Events: which are told, of which card, and what happens when the driver fails or hangs.

use std::time::Duration;

use lamda_node::gpu::nvml::Nvml;
use lamda_node::gpu::{Error, GpuProbe as _};
use lamda_node::node::GpuUuid;
use lamda_node::node::card::{CardEvent, Happened};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{A100, DRIVER, H100};
use crate::support::nvml::FakeNvml;
use crate::support::tools::eventually;

/// All that an H100 supports, as it was seen.
const ALL: u64 = 65_439;
/// Longer than the driver is left alone after its first failure.
const SOON: Duration = Duration::from_secs(20);

fn supports(card: &str, types: u64) -> String {
    format!("say nvmlDeviceGetSupportedEventTypes {card} 0 {types}\n")
}

fn happened(card: &str, event: CardEvent) -> Happened {
    Happened { card: GpuUuid::new(card), event }
}

async fn next(events: &mut mpsc::Receiver<Happened>) -> Happened {
    timeout(SOON, events.recv()).await.expect("an event in time").expect("the channel is open")
}

/// Threads of this process that wait for events.
fn watching() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    let names =
        threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "nvml-events").count()
}

#[tokio::test]
async fn xids_uncorrected_errors_and_unreachable_cards_are_told_and_clocks_are_not() {
    let cards = format!("{DRIVER}{A100}{H100}{}", supports("*", ALL));
    let library = FakeNvml::build(&cards);
    let mut events = Nvml::new(Some(library.library())).events();
    library.tell(&format!(
        "{cards}event 1 GPU-a1 16 0\nevent 2 GPU-a1 8 31\nevent 3 GPU-b2 2 0\n\
         event 4 GPU-b2 16384 0\nevent 5 GPU-a1 8 999\nevent 6 GPU-b2 8 79\n"
    ));
    for expected in [
        happened("GPU-a1", CardEvent::Xid(31)),
        happened("GPU-b2", CardEvent::UncorrectedError),
        happened("GPU-b2", CardEvent::Unavailable),
        happened("GPU-a1", CardEvent::Xid(999)),
        happened("GPU-b2", CardEvent::Xid(79)),
    ] {
        assert_eq!(next(&mut events).await, expected);
    }
}

#[tokio::test]
async fn a_card_that_tells_no_events_or_refuses_to_does_not_silence_the_others() {
    let quiet = "gpu GPU-c3 1048576 0 Quiet\n";
    let refuses = "gpu GPU-d4 1048576 0 Refuses\nsay nvmlDeviceRegisterEvents GPU-d4 999\n";
    let older = supports("GPU-a1", 0x0f);
    let cards = format!("{DRIVER}{quiet}{refuses}{H100}{older}{}", supports("GPU-d4", ALL));
    let library = FakeNvml::build(&format!("{cards}event 1 GPU-a1 8 48\n"));
    let mut events = Nvml::new(Some(library.library())).events();
    assert_eq!(next(&mut events).await, happened("GPU-a1", CardEvent::Xid(48)));
}

#[tokio::test]
async fn a_driver_that_fails_is_opened_again_and_one_that_comes_later_is_found() {
    let cards = format!("{DRIVER}{H100}{}", supports("*", ALL));
    let library = FakeNvml::build("init 9\n");
    let mut events = Nvml::new(Some(library.library())).events();
    library.tell(&format!("{cards}event 1 GPU-a1 8 13\n"));
    assert_eq!(next(&mut events).await, happened("GPU-a1", CardEvent::Xid(13)));
    // A card fell off the bus, and the driver does not say which.
    library.tell(&format!("{cards}say nvmlEventSetWait_v2 * 15\n"));
    let unnamed = Happened { card: None, event: CardEvent::Unavailable };
    assert_eq!(next(&mut events).await, unnamed);
    library.tell(&format!("{cards}event 2 GPU-a1 8 43\n"));
    let told = loop {
        let told = next(&mut events).await;
        if told != unnamed {
            break told;
        }
    };
    assert_eq!(told, happened("GPU-a1", CardEvent::Xid(43)));
}

#[tokio::test]
async fn a_wait_that_hangs_holds_up_nothing_else() {
    let cards = format!("{DRIVER}{H100}{}", supports("*", ALL));
    let library = FakeNvml::build(&format!("hang nvmlEventSetWait_v2\n{cards}"));
    let probe = Nvml::new(Some(library.library())).with_deadline(SOON);
    let mut events = probe.events();
    for _ in 0..3 {
        assert_eq!(probe.inventory().await.unwrap().gpus.len(), 1);
        assert_eq!(probe.sample().await.unwrap().len(), 1);
    }
    library.tell(&format!("{cards}event 1 GPU-a1 8 31\n"));
    assert_eq!(next(&mut events).await, happened("GPU-a1", CardEvent::Xid(31)));
    // And a driver that hangs as a whole does not hold up who asks for the events.
    library.tell(&format!("hang\n{cards}"));
    let hasty = probe.with_deadline(Duration::from_millis(50));
    assert!(matches!(hasty.sample().await, Err(Error::Hung { .. })));
    drop(hasty.events());
    library.tell(&cards);
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver_and_there_is_one_at_a_time() {
    let cards = format!("{DRIVER}{H100}{}", supports("*", ALL));
    let library = FakeNvml::build(&cards);
    let probe = Nvml::new(Some(library.library()));
    let mut first = probe.events();
    library.tell(&format!("{cards}event 1 GPU-a1 8 31\n"));
    assert_eq!(next(&mut first).await, happened("GPU-a1", CardEvent::Xid(31)));
    let mut second = probe.events();
    eventually("both are there", SOON, || (watching() == 2).then_some(()));
    drop(first);
    library.tell(&format!("{cards}event 2 GPU-a1 8 43\n"));
    assert_eq!(next(&mut second).await, happened("GPU-a1", CardEvent::Xid(43)));
    drop(second);
    eventually("none is left", SOON, || (watching() == 0).then_some(()));
}

#[tokio::test]
async fn a_host_without_the_library_gets_no_events_and_an_open_channel() {
    let probe = Nvml::new(Some("/nonexistent/libnvidia-ml.so.1".into()));
    let mut events = probe.events();
    eventually("it is tried", SOON, || (watching() == 1).then_some(()));
    assert!(matches!(events.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
    drop(events);
    eventually("none is left", SOON, || (watching() == 0).then_some(()));
}
