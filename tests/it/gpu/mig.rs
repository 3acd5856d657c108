//! Cards that are split into MIG instances.

use lamda_node::gpu::GpuProbe as _;
use lamda_node::gpu::nvml::Nvml;
use lamda_node::node::GpuUuid;
use lamda_node::node::card::{CardEvent, CardProcess, Happened, Unknown};

use super::{A100, DRIVER, H100, gpu};
use crate::support::nvml::FakeNvml;

const SPLIT: &str = "say nvmlDeviceGetMigMode GPU-a1 0 1 1\n\
    say nvmlDeviceGetEnforcedPowerLimit GPU-a1 0 700000\n\
    say nvmlDeviceGetTemperature:0 GPU-a1 0 37\n\
    say nvmlDeviceGetPowerUsage GPU-a1 0 70288\n\
    say nvmlDeviceGetTotalEnergyConsumption GPU-a1 0 5\n";
const SLICES: &str = "mig GPU-a1 MIG-2 41943040000 NVIDIA H100 80GB HBM3 MIG 3g.40gb\n\
    mig GPU-a1 MIG-1 10737418240 NVIDIA H100 80GB HBM3 MIG 1g.10gb\n";

fn uuid(text: &str) -> GpuUuid {
    GpuUuid::new(text).expect("a UUID")
}

#[tokio::test]
async fn instances_are_devices_and_their_card_is_not() {
    let library = FakeNvml::build(&format!("{DRIVER}{A100}{H100}{SPLIT}{SLICES}"));
    let probe = Nvml::new(Some(library.library()));
    let told = probe.inventory().await.unwrap();
    assert_eq!(
        told.gpus,
        [
            gpu("GPU-b2", "NVIDIA A100-SXM4-40GB", 40_960),
            gpu("MIG-1", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 10_240),
            gpu("MIG-2", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40_000),
        ]
    );
    assert_eq!(told.left_out, Vec::<String>::new());
    let facts = &told.facts[&uuid("MIG-1")];
    assert_eq!((&facts.parent, &facts.mig), (&Some(uuid("GPU-a1")), &Ok(true)));
    assert_eq!(facts.power_limit_mw, Ok(700_000));
    assert_eq!(told.facts[&uuid("GPU-b2")].parent, None);
}

#[tokio::test]
async fn an_instance_has_memory_and_processes_of_its_own_and_its_cards_health() {
    let library = FakeNvml::build(&format!(
        "{DRIVER}{H100}{SPLIT}{SLICES}process MIG-2 c 77 4096\n\
         say nvmlDeviceGetMemoryInfo_v2 MIG-2 0 0 41943035904 4096\n"
    ));
    let round = Nvml::new(Some(library.library())).sample().await.unwrap();
    assert_eq!(round.keys().map(GpuUuid::as_str).collect::<Vec<_>>(), ["MIG-1", "MIG-2"]);
    let [small, large] = ["MIG-1", "MIG-2"].map(|card| round[&uuid(card)].clone().unwrap());
    assert_eq!((small.used_bytes, large.used_bytes), (Ok(0), Ok(4096)));
    assert_eq!(small.processes, Ok(vec![]));
    assert_eq!(large.processes, Ok(vec![CardProcess { pid: 77, bytes: Ok(4096) }]));
    assert_eq!((small.celsius, large.celsius), (Ok(37), Ok(37)));
    // Not the whole card's, which would be counted twice.
    let absent = Unknown::NotSupported;
    assert_eq!((small.power_mw, small.energy_mj), (Err(absent.clone()), Err(absent.clone())));
    assert_eq!(large.busy_percent, Err(absent));
}

#[tokio::test]
async fn a_split_card_without_instances_is_left_out_with_what_to_do() {
    let library = FakeNvml::build(&format!("{DRIVER}{A100}{H100}{SPLIT}"));
    let told = Nvml::new(Some(library.library())).inventory().await.unwrap();
    assert_eq!(told.gpus.len(), 1);
    assert!(told.left_out[0].contains("create some, or switch MIG off"), "{:?}", told.left_out);
}

#[tokio::test]
async fn what_happens_to_a_split_card_happens_to_its_instances() {
    let library = FakeNvml::build(&format!(
        "{DRIVER}{H100}{SPLIT}{SLICES}say nvmlDeviceGetSupportedEventTypes * 0 65439\n\
         event 1 GPU-a1 8 94\n"
    ));
    let mut events = Nvml::new(Some(library.library())).events();
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(events.recv().await);
    }
    told.sort_by(|a, b| a.card.cmp(&b.card));
    let event = CardEvent::Xid(94);
    assert_eq!(told, ["MIG-1", "MIG-2"].map(|card| Happened { card: Some(uuid(card)), event }));
}

#[tokio::test]
async fn instances_of_a_card_that_is_lost_are_lost_and_those_that_were_removed_are_forgotten() {
    let library = FakeNvml::build(&format!("{DRIVER}{H100}{SPLIT}{SLICES}"));
    let probe = Nvml::new(Some(library.library()));
    assert_eq!(probe.sample().await.unwrap().len(), 2);
    library.tell(&format!("{DRIVER}{}{SPLIT}{SLICES}", H100.replace(" 0 ", " 15 ")));
    let round = probe.sample().await.unwrap();
    assert_eq!(round.into_values().collect::<Vec<_>>(), [Err(Unknown::Lost), Err(Unknown::Lost)]);
    let one = SLICES.lines().next().unwrap();
    library.tell(&format!("{DRIVER}{H100}{SPLIT}{one}\n"));
    let round = probe.sample().await.unwrap();
    assert_eq!(round.keys().map(GpuUuid::as_str).collect::<Vec<_>>(), ["MIG-2"]);
}
