//! What a real H100 answered (tests/vectors/h100), told again by the stand-in and read by the adapter.

use std::fmt::Write as _;
use std::path::Path;

use lamda_node::gpu::GpuProbe as _;
use lamda_node::gpu::nvml::Nvml;
use lamda_node::node::card::{Facts, Rows, Sample, Slowed, Unknown};
use serde_json::Value;

use crate::support::nvml::FakeNvml;

/// Its UUID in the files.
pub(super) const UUID: &str = "GPU-a3254cea-0000-4000-8000-000000000001";
/// What the files say as plain numbers, in the order of NVML's arguments or fields.
const PLAIN: [&str; 12] = [
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetEccMode",
    "nvmlDeviceGetPersistenceMode",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
    "nvmlDeviceGetSupportedEventTypes",
    "nvmlDeviceGetClockInfo:1",
    "nvmlDeviceGetClockInfo:2",
    "nvmlDeviceGetTemperature:0",
];
const MIB: u64 = 1024 * 1024;

fn vector(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/h100");
    std::fs::read_to_string(folder.join(name)).expect("the file of an H100")
}

/// The stand-in's lines for the card as it was.
pub(super) fn state() -> String {
    let told: Value = serde_json::from_str(&vector("nvml.json")).expect("JSON");
    let card = &told["device"];
    let text = |call: &str| card[call]["value"].as_str().expect("text").to_owned();
    let total = &card["nvmlDeviceGetMemoryInfo"]["value"]["total"];
    let (driver, cuda) =
        (&told["nvmlSystemGetDriverVersion"]["value"], &told["nvmlSystemGetCudaDriverVersion_v2"]);
    let mut state = format!(
        "driver {}\ncuda {}\ngpu {} {total} 0 {}\n",
        driver.as_str().expect("text"),
        cuda["value"],
        text("nvmlDeviceGetUUID"),
        text("nvmlDeviceGetName")
    );
    let mut say = |call: &str, answer: &Value| {
        let values = match answer {
            Value::Array(values) => values.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        };
        writeln!(state, "say {call} * 0 {}", values.join(" ")).expect("a line");
    };
    for call in PLAIN {
        match call.split_once(':') {
            Some((of, at)) => say(call, &card[format!("{of}()")][format!("({at},)")]["value"]),
            None => say(call, &card[call]["value"]),
        }
    }
    let busy = &card["nvmlDeviceGetUtilizationRates"]["value"];
    say("nvmlDeviceGetUtilizationRates", &serde_json::json!([busy["gpu"], busy["memory"]]));
    let errors = &card["nvmlDeviceGetTotalEccErrors()"]["(1, 0)"]["value"];
    say("nvmlDeviceGetTotalEccErrors", errors);
    let fields = &card["fields"]["value"];
    // A field says its type too: 1 is an unsigned number.
    let field = |name: &str| serde_json::json!([1, fields[name]]);
    say("nvmlDeviceGetFieldValues:144", &field("144 NVML_FI_DEV_REMAPPED_PENDING"));
    say("nvmlDeviceGetFieldValues:145", &field("145 NVML_FI_DEV_REMAPPED_FAILURE"));
    // Not in the file; nvidia-smi told it of the same card.
    say("nvmlDeviceGetMinorNumber", &serde_json::json!(0));
    let pci = card["nvmlDeviceGetPciInfo_v3"]["value"]["busId"].as_str().expect("text");
    // Version 2 of the memory's figures is not in the file: version 1 less the reserve that nvidia-smi
    // told of the same card.
    let memory = &card["nvmlDeviceGetMemoryInfo"]["value"];
    let reserved = 480 * MIB;
    let used = memory["used"].as_u64().expect("a number") - reserved;
    let free = &memory["free"];
    writeln!(state, "say nvmlDeviceGetPciInfo_v3 * 0 {pci}").expect("a line");
    writeln!(state, "say nvmlDeviceGetMemoryInfo_v2 * 0 {reserved} {free} {used}").expect("a line");
    state
}

/// The facts and a sample of the only card.
pub(super) async fn asked(library: &FakeNvml) -> (Facts, Sample) {
    let probe = Nvml::new(Some(library.library()));
    let mut inventory = probe.inventory().await.expect("cards");
    let mut round = probe.sample().await.expect("a round");
    let (_, facts) = inventory.facts.pop_first().expect("one card");
    let (_, sample) = round.pop_first().expect("one card");
    (facts, sample.expect("a sample"))
}

#[tokio::test]
async fn an_h100_is_read_as_it_is_meant() {
    let library = FakeNvml::build(&state());
    let inventory = Nvml::new(Some(library.library())).inventory().await.unwrap();
    assert_eq!((inventory.driver.as_str(), inventory.cuda.as_str()), ("580.159.04", "13.0"));
    let [card] = inventory.gpus.as_slice() else { panic!("{inventory:?}") };
    assert_eq!((card.uuid.as_str(), card.vram_mib), (UUID, 81_559));
    assert_eq!(card.model, "NVIDIA H100 80GB HBM3");

    let (facts, sample) = asked(&library).await;
    assert_eq!(
        facts,
        Facts {
            pci: Ok("00000000:00:06.0".to_owned()),
            compute_capability: Ok("9.0".to_owned()),
            power_limit_mw: Ok(700_000),
            ecc: Ok(true),
            mig: Ok(false),
            persistence: Ok(true),
            minor: Ok(0),
            parent: None,
        }
    );
    assert_eq!(
        sample,
        Sample {
            busy_percent: Ok(0),
            // Version 1 says 503,316,480 of the idle card: the driver's reserve.
            used_bytes: Ok(0),
            free_bytes: Ok(85_017_493_504),
            power_mw: Ok(70_288),
            energy_mj: Ok(2_502_610),
            sm_mhz: Ok(345),
            memory_mhz: Ok(2_619),
            celsius: Ok(37),
            // It is idle (1), which is no reason for worry.
            slowed: Ok(Slowed::default()),
            uncorrected_errors: Ok(0),
            rows: Ok(Rows::default()),
            processes: Ok(Vec::new()),
        }
    );
}

/// The value of a line of `nvidia-smi -q`, the first below this heading.
fn tool(heading: &str, name: &str) -> String {
    let text = vector("nvidia-smi-q.txt");
    let below = text.lines().skip_while(|line| line.trim() != heading && !heading.is_empty());
    let mut named = below.filter_map(|line| line.split_once(" : "));
    let found = named.find(|(told, _)| told.trim() == name);
    found.unwrap_or_else(|| panic!("no {name} below {heading}")).1.trim().to_owned()
}

#[tokio::test]
async fn the_adapter_and_nvidia_smi_tell_the_same_of_an_h100() {
    let library = FakeNvml::build(&state());
    let (facts, sample) = asked(&library).await;
    let on = |is_on| if is_on { "Enabled" } else { "Disabled" }.to_owned();
    assert_eq!(facts.pci.unwrap(), tool("PCI", "Bus Id"));
    assert_eq!(on(facts.persistence.unwrap()), tool("", "Persistence Mode"));
    assert_eq!(on(facts.mig.unwrap()), tool("MIG Mode", "Current"));
    assert_eq!(on(facts.ecc.unwrap()), tool("ECC Mode", "Current"));
    let limit = facts.power_limit_mw.unwrap();
    assert_eq!(format!("{}.00 W", limit / 1000), tool("GPU Power Readings", "Current Power Limit"));
    let mib = |bytes: u64| format!("{} MiB", bytes / MIB);
    assert_eq!(mib(sample.used_bytes.unwrap()), tool("FB Memory Usage", "Used"));
    // NVML answered 0.2 MiB less than a MiB boundary, the tool's figure is rounded to it.
    assert_eq!(mib(sample.free_bytes.unwrap() + MIB / 2), tool("FB Memory Usage", "Free"));
    assert_eq!(format!("{} MHz", sample.sm_mhz.unwrap()), tool("Clocks", "SM"));
    assert_eq!(format!("{} MHz", sample.memory_mhz.unwrap()), tool("Clocks", "Memory"));
    assert_eq!(format!("{} %", sample.busy_percent.unwrap()), tool("Utilization", "GPU"));
}

#[tokio::test]
async fn what_a_card_does_not_support_is_absent_and_never_0() {
    let library = FakeNvml::build("driver 1.0\ncuda 12040\ngpu GPU-a 1048576 0 Old Card\n");
    let (facts, sample) = asked(&library).await;
    let absent = Unknown::NotSupported;
    assert_eq!(
        facts,
        Facts {
            pci: Err(absent.clone()),
            compute_capability: Err(absent.clone()),
            power_limit_mw: Err(absent.clone()),
            ecc: Err(absent.clone()),
            mig: Err(absent.clone()),
            persistence: Err(absent.clone()),
            minor: Err(absent.clone()),
            parent: None,
        }
    );
    let known = Sample {
        used_bytes: Ok(0),
        free_bytes: Ok(MIB),
        processes: Ok(Vec::new()),
        ..Sample::unknown(&absent)
    };
    assert_eq!(sample, known);
}
