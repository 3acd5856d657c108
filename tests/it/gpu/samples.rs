//! Samples of several cards: their processes, cards that are lost, and drivers that hang.

use std::time::Duration;

use lamda_node::gpu::nvml::Nvml;
use lamda_node::gpu::{Error, GpuProbe as _};
use lamda_node::node::GpuUuid;
use lamda_node::node::card::{CardProcess, Rows, Slowed, Unknown};

use super::{A100, DRIVER, H100};
use crate::support::nvml::FakeNvml;

fn uuid(text: &str) -> GpuUuid {
    GpuUuid::new(text).expect("a UUID")
}

#[tokio::test]
async fn processes_are_told_once_with_their_host_pids_and_their_memory() {
    let no_value = u64::MAX;
    let library = FakeNvml::build(&format!(
        "{DRIVER}{A100}{H100}\
         process GPU-a1 c 2914 77512835072\nprocess GPU-a1 c 17 1024\n\
         process GPU-a1 g 17 2048\nprocess GPU-a1 g 4 {no_value}\n"
    ));
    let round = Nvml::new(Some(library.library())).sample().await.unwrap();
    let of = |card: &str| round[&uuid(card)].clone().unwrap().processes.unwrap();
    assert_eq!(
        of("GPU-a1"),
        [
            CardProcess { pid: 4, bytes: Err(Unknown::NotSupported) },
            CardProcess { pid: 17, bytes: Ok(2048) },
            CardProcess { pid: 2914, bytes: Ok(77_512_835_072) },
        ]
    );
    assert_eq!(of("GPU-b2"), []);
}

#[tokio::test]
async fn a_card_that_is_slowed_and_lacks_spare_rows_says_so() {
    let say = "say nvmlDeviceGetCurrentClocksThrottleReasons GPU-a1 0";
    let rows =
        "say nvmlDeviceGetFieldValues:144 * 0 3 1\nsay nvmlDeviceGetFieldValues:145 * 0 1 0\n";
    let library = FakeNvml::build("");
    // Hot by hardware, hot by software, the brake, the power cap alone, bits that nobody knows yet.
    for (bits, thermal, power_brake) in [
        (0x40_u64, true, false),
        (0x21, true, false),
        (0x80, false, true),
        (0x04, false, false),
        (0xffff_0000_0000_0000, false, false),
    ] {
        library.tell(&format!("{DRIVER}{H100}{say} {bits}\n{rows}"));
        let round = Nvml::new(Some(library.library())).sample().await.unwrap();
        let sample = round[&uuid("GPU-a1")].clone().unwrap();
        assert_eq!(sample.slowed, Ok(Slowed { thermal, power_brake }), "{bits:#x}");
        assert_eq!(sample.rows, Ok(Rows { pending: true, failed: false }));
    }
}

#[tokio::test]
async fn a_card_that_is_lost_or_not_counted_any_more_is_told_as_lost() {
    let library = FakeNvml::build(&format!("{DRIVER}{A100}{H100}"));
    let probe = Nvml::new(Some(library.library()));
    let round = probe.sample().await.unwrap();
    assert!(round.len() == 2 && round.values().all(Result::is_ok), "{round:?}");
    for state in [format!("{}{H100}", A100.replace(" 0 ", " 15 ")), String::new()] {
        library.tell(&format!("{DRIVER}{state}"));
        let round = probe.sample().await.unwrap();
        assert_eq!(round[&uuid("GPU-b2")], Err(Unknown::Lost), "{state}");
        assert_eq!(round[&uuid("GPU-a1")].is_ok(), !state.is_empty());
    }
    library.tell(&format!("{DRIVER}{A100}{H100}"));
    assert!(probe.sample().await.unwrap().values().all(Result::is_ok));
}

#[tokio::test]
async fn slow_readings_are_kept_for_a_while_and_the_others_are_fresh() {
    let state = |n: u32| {
        format!(
            "{DRIVER}{H100}say nvmlDeviceGetTotalEnergyConsumption * 0 {n}\n\
             say nvmlDeviceGetPowerUsage * 0 {n}\n"
        )
    };
    let library = FakeNvml::build(&state(1));
    let probe = Nvml::new(Some(library.library()));
    for (n, energy) in [(1, 1), (2, 1)] {
        library.tell(&state(n));
        let sample = probe.sample().await.unwrap()[&uuid("GPU-a1")].clone().unwrap();
        assert_eq!((sample.power_mw, sample.energy_mj), (Ok(n), Ok(energy)));
    }
}

#[tokio::test]
async fn a_hanging_driver_ends_a_round_at_its_deadline() {
    let library = FakeNvml::build(&format!("hang nvmlDeviceGetMemoryInfo_v2\n{DRIVER}{H100}"));
    let probe = Nvml::new(Some(library.library()));
    let hasty = probe.clone().with_deadline(Duration::from_millis(50));
    for _ in 0..3 {
        let told = hasty.sample().await;
        assert!(matches!(told, Err(Error::Hung { .. })), "{told:?}");
        // The others wait for the same driver, each up to its own deadline.
        let told = hasty.inventory().await;
        assert!(matches!(told, Err(Error::Hung { .. })), "{told:?}");
    }
    library.tell(&format!("{DRIVER}{H100}"));
    assert!(probe.sample().await.unwrap()[&uuid("GPU-a1")].is_ok());
}

#[tokio::test]
async fn at_most_one_round_is_in_the_driver() {
    let library = FakeNvml::build(&format!("hang\n{DRIVER}{H100}"));
    let probe = Nvml::new(Some(library.library())).with_deadline(Duration::from_millis(100));
    let asked = (0..20).map(|_| probe.sample());
    let told = futures_util::future::join_all(asked).await;
    assert!(told.iter().all(|told| matches!(told, Err(Error::Hung { .. }))), "{told:?}");
    // Each test has a process of its own (nextest), so these are all of this one.
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.trim() == "nvml").count(), 1);
    library.tell(&format!("{DRIVER}{H100}"));
}
