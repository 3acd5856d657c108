//! The GPU probe against a library with NVML's symbols.

mod errors;
mod events;
mod h100;
mod mig;
mod samples;
mod tool;
pub(crate) mod toolkit;

use std::time::Duration;

use lamda_node::gpu::nvml::Nvml;
use lamda_node::gpu::{Error, GpuProbe as _, fake};
use lamda_node::node::{Gpu, GpuInventory, GpuUuid};

use crate::support::nvml::FakeNvml;

const A100: &str = "gpu GPU-b2 42949672960 0 NVIDIA A100-SXM4-40GB\n";
const H100: &str = "gpu GPU-a1 85520809983 0 NVIDIA H100 80GB HBM3\n";
const DRIVER: &str = "driver 550.54.15\ncuda 12040\n";

fn gpu(uuid: &str, model: &str, vram_mib: u64) -> Gpu {
    Gpu { uuid: GpuUuid::new(uuid).expect("a UUID"), model: model.to_owned(), vram_mib }
}

#[tokio::test]
async fn cards_are_told_in_the_order_of_their_uuids() {
    let library = FakeNvml::build(&format!("{DRIVER}{A100}{H100}"));
    let mut told = Nvml::new(Some(library.library())).inventory().await.unwrap();
    let facts = std::mem::take(&mut told.facts);
    assert!(facts.keys().eq(told.gpus.iter().map(|gpu| &gpu.uuid)), "{facts:?}");
    assert_eq!(
        told,
        GpuInventory {
            driver: "550.54.15".to_owned(),
            cuda: "12.4".to_owned(),
            gpus: vec![
                // 81,558.99… MiB: rounded down, never up to memory that does not exist.
                gpu("GPU-a1", "NVIDIA H100 80GB HBM3", 81_558),
                gpu("GPU-b2", "NVIDIA A100-SXM4-40GB", 40_960),
            ],
            ..GpuInventory::default()
        }
    );
}

#[tokio::test]
async fn a_lost_card_is_left_out_and_the_others_are_told() {
    let library = FakeNvml::build(&format!("{DRIVER}{A100}{H100}"));
    let probe = Nvml::new(Some(library.library()));
    assert_eq!(probe.inventory().await.unwrap().gpus.len(), 2);
    library.tell(&format!("{DRIVER}{}{H100}", A100.replace(" 0 ", " 15 ")));
    let told = probe.inventory().await.unwrap();
    assert_eq!(told.gpus, [gpu("GPU-a1", "NVIDIA H100 80GB HBM3", 81_558)]);
    assert!(told.left_out[0].starts_with("GPU 0 is left out: "), "{:?}", told.left_out);
}

#[tokio::test]
async fn a_card_whose_uuid_is_rubbish_or_anothers_is_left_out_and_the_others_are_told() {
    let library = FakeNvml::build("");
    for (rubbish, why) in [
        ("all", "its UUID is \"all\""),
        ("0", "its UUID is \"0\""),
        ("GPU-a;reboot", "its UUID is"),
        ("GPU-a1", "its UUID GPU-a1 is another one's too"),
    ] {
        let card = format!("gpu {rubbish} 1048576 0 NVIDIA T4\n");
        library.tell(&format!("{DRIVER}{H100}{card}{A100}"));
        let told = Nvml::new(Some(library.library())).inventory().await.unwrap();
        let uuids: Vec<&str> = told.gpus.iter().map(|gpu| gpu.uuid.as_str()).collect();
        assert_eq!(uuids, ["GPU-a1", "GPU-b2"], "{rubbish}");
        assert!(told.left_out[0].starts_with("GPU 1 is left out: "), "{:?}", told.left_out);
        assert!(told.left_out[0].contains(why), "{:?}", told.left_out);
    }
}

#[tokio::test]
async fn a_library_that_tells_nonsense_of_itself_ends_nothing() {
    let library = FakeNvml::build("");
    let long = "x".repeat(70);
    for (state, cards) in [
        (format!("driver {long}\ncuda 2147483647\n{H100}"), 1),
        (format!("driver \u{1b}[31m\ncuda -1\n{H100}"), 1),
        ("driver 1\ncuda 0\ngpu GPU-c3 18446744073709551615 0 \u{1b}]0;x\u{7}\n".to_owned(), 1),
        ("driver 1\ncuda 0\ngpu GPU-c3 85520809983 999 NVIDIA T4\n".to_owned(), 0),
    ] {
        library.tell(&state);
        let told = Nvml::new(Some(library.library())).inventory().await.unwrap();
        assert_eq!(told.gpus.len(), cards, "{state:?}");
        let texts = told.gpus.iter().map(|gpu| &gpu.model).chain([&told.driver, &told.cuda]);
        for text in texts.chain(&told.left_out) {
            assert!(text.len() < 200 && !text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        }
    }
}

#[tokio::test]
async fn a_card_whose_memory_the_driver_cant_tell_is_left_out() {
    let library = FakeNvml::build_without_memory_v2(&format!("{DRIVER}{H100}"));
    let told = Nvml::new(Some(library.library())).inventory().await.unwrap();
    assert_eq!(told.gpus, []);
    assert_eq!(told.left_out.len(), 1);
}

#[tokio::test]
async fn a_card_without_memory_of_its_own_has_the_hosts() {
    let library = FakeNvml::build(&format!("{DRIVER}unified\ngpu GPU-c3 0 0 NVIDIA GB10\n"));
    let told = Nvml::new(Some(library.library())).inventory().await.unwrap();
    let [card] = told.gpus.as_slice() else { panic!("{told:?}") };
    assert_eq!(
        (card.model.as_str(), &told.share_memory),
        ("NVIDIA GB10", &vec![card.uuid.clone()])
    );
    let host = lamda_node::host::memory_mib();
    assert!(card.vram_mib > 0 && card.vram_mib.abs_diff(host) <= 1, "{} {host}", card.vram_mib);
}

#[tokio::test]
async fn a_host_without_the_library_says_so_and_may_get_it_later() {
    let probe = Nvml::new(Some("/nonexistent/libnvidia-ml.so.1".into()));
    let told = probe.inventory().await;
    assert!(
        matches!(&told, Err(Error::NoLibrary { library, .. }) if library.contains("nonexistent")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_driver_that_is_not_loaded_is_asked_again_once_it_is() {
    let library = FakeNvml::build("init 9\n");
    let probe = Nvml::new(Some(library.library()));
    let told = probe.inventory().await;
    assert!(
        matches!(&told, Err(Error::Driver { reason }) if reason.contains("not loaded")),
        "{told:?}"
    );
    library.tell(&format!("{DRIVER}{H100}"));
    assert_eq!(probe.inventory().await.unwrap().gpus.len(), 1);
}

#[tokio::test]
async fn a_driver_that_hangs_is_told_and_blocks_nobody() {
    let library = FakeNvml::build(&format!("hang\n{DRIVER}{H100}"));
    let probe = Nvml::new(Some(library.library())).with_deadline(Duration::from_millis(50));
    for _ in 0..3 {
        let told = probe.inventory().await;
        assert!(matches!(told, Err(Error::Hung { .. })), "{told:?}");
    }
    library.tell(&format!("{DRIVER}{H100}"));
    let probe = probe.with_deadline(Duration::from_secs(10));
    assert_eq!(probe.inventory().await.unwrap().gpus.len(), 1);
}

#[tokio::test]
async fn the_fake_keeps_the_order_too() {
    let fake = fake::Fake::new(GpuInventory {
        driver: "550.54.15".to_owned(),
        cuda: "12.4".to_owned(),
        gpus: vec![gpu("GPU-b", "B", 2), gpu("GPU-a", "A", 1)],
        ..GpuInventory::default()
    });
    assert_eq!(fake.inventory().await.unwrap().gpus[0].model, "A");
    fake.change(|inventory| inventory.gpus.clear());
    assert_eq!(fake.inventory().await.unwrap().gpus, []);
}
