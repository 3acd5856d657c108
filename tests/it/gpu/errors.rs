//! Every error of every call that the adapter makes about a card.

use lamda_node::gpu::GpuProbe as _;
use lamda_node::gpu::nvml::Nvml;
use lamda_node::node::card::{Facts, Sample, Unknown};

use super::h100;
use crate::support::nvml::FakeNvml;

/// All codes that NVML 13 has, and one that it has not.
fn codes() -> impl Iterator<Item = u32> {
    (1..=31).chain([99, 999])
}

/// What one call gives, of a card that answered.
type Read = fn(&Facts, &Sample) -> Option<Unknown>;

/// Each call, with what it gives.
const CALLS: [(&str, Read); 19] = [
    ("nvmlDeviceGetPciInfo_v3", |facts, _| facts.pci.clone().err()),
    ("nvmlDeviceGetCudaComputeCapability", |facts, _| facts.compute_capability.clone().err()),
    ("nvmlDeviceGetEnforcedPowerLimit", |facts, _| facts.power_limit_mw.clone().err()),
    ("nvmlDeviceGetEccMode", |facts, _| facts.ecc.clone().err()),
    ("nvmlDeviceGetMigMode", |facts, _| facts.mig.clone().err()),
    ("nvmlDeviceGetPersistenceMode", |facts, _| facts.persistence.clone().err()),
    ("nvmlDeviceGetUtilizationRates", |_, sample| sample.busy_percent.clone().err()),
    ("nvmlDeviceGetPowerUsage", |_, sample| sample.power_mw.clone().err()),
    ("nvmlDeviceGetTotalEnergyConsumption", |_, sample| sample.energy_mj.clone().err()),
    ("nvmlDeviceGetClockInfo:1", |_, sample| sample.sm_mhz.clone().err()),
    ("nvmlDeviceGetClockInfo:2", |_, sample| sample.memory_mhz.clone().err()),
    ("nvmlDeviceGetTemperature:0", |_, sample| sample.celsius.clone().err()),
    ("nvmlDeviceGetCurrentClocksThrottleReasons", |_, sample| sample.slowed.clone().err()),
    ("nvmlDeviceGetTotalEccErrors", |_, sample| sample.uncorrected_errors.clone().err()),
    ("nvmlDeviceGetFieldValues", |_, sample| sample.rows.clone().err()),
    ("nvmlDeviceGetFieldValues:144", |_, sample| sample.rows.clone().err()),
    ("nvmlDeviceGetFieldValues:145", |_, sample| sample.rows.clone().err()),
    ("nvmlDeviceGetComputeRunningProcesses_v3", |_, sample| sample.processes.clone().err()),
    ("nvmlDeviceGetMinorNumber", |facts, _| facts.minor.clone().err()),
];

/// Asking for a list with 7 means that it is not empty.
fn is_no_error(call: &str, code: u32) -> bool {
    code == 7 && call == "nvmlDeviceGetComputeRunningProcesses_v3"
}

#[tokio::test]
async fn no_error_of_any_call_becomes_a_value() {
    let library = FakeNvml::build("");
    for (call, read) in CALLS {
        for code in codes().filter(|code| !is_no_error(call, *code)) {
            library.tell(&format!("{}say {call} * {code}\n", h100::state()));
            let (facts, sample) = h100::asked(&library).await;
            let why = read(&facts, &sample)
                .unwrap_or_else(|| panic!("{call} {code}: {facts:?} {sample:?}"));
            let meant = match code {
                3 => Some(Unknown::NotSupported),
                4 => Some(Unknown::Denied),
                13 => Some(Unknown::TooOld),
                15 => Some(Unknown::Lost),
                _ => None,
            };
            match meant {
                Some(meant) => assert_eq!(why, meant, "{call} {code}"),
                None => {
                    assert!(matches!(&why, Unknown::Failed(text) if !text.is_empty()), "{why:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_card_whose_memory_fails_is_left_out_or_told_without_it() {
    let library = FakeNvml::build("");
    for code in codes() {
        library.tell(&format!("{}say nvmlDeviceGetMemoryInfo_v2 * {code}\n", h100::state()));
        let probe = Nvml::new(Some(library.library()));
        let told = probe.inventory().await.unwrap();
        // Only a card that has no memory of its own may use the host's.
        assert_eq!(told.gpus.len(), usize::from(code == 3), "{code}: {told:?}");
        assert_eq!(told.left_out.len(), usize::from(code != 3), "{code}: {told:?}");
        let (_, told) = probe.sample().await.unwrap().pop_first().unwrap();
        if code == 15 {
            assert_eq!(told, Err(Unknown::Lost));
        } else {
            let told = told.unwrap();
            assert!(told.used_bytes.is_err() && told.free_bytes.is_err(), "{code}: {told:?}");
        }
    }
}

#[tokio::test]
async fn values_that_cannot_be_are_not_told() {
    let all_ones = u64::MAX;
    let library = FakeNvml::build("");
    for (call, value, read) in [
        ("nvmlDeviceGetUtilizationRates", "101 0", CALLS[6].1),
        ("nvmlDeviceGetUtilizationRates", "4294967295 0", CALLS[6].1),
        ("nvmlDeviceGetPowerUsage", "4294967295", CALLS[7].1),
        ("nvmlDeviceGetTotalEnergyConsumption", &all_ones.to_string(), CALLS[8].1),
        ("nvmlDeviceGetTemperature:0", "4294967000", CALLS[11].1),
        ("nvmlDeviceGetEccMode", "7 7", CALLS[3].1),
        ("nvmlDeviceGetMigMode", "9 0", CALLS[4].1),
        ("nvmlDeviceGetPciInfo_v3", "../../etc", CALLS[0].1),
        ("nvmlDeviceGetMinorNumber", "4294967295", CALLS[18].1),
        ("nvmlDeviceGetMinorNumber", "250", CALLS[18].1),
        ("nvmlDeviceGetFieldValues:144", "99 1", CALLS[14].1),
        ("nvmlDeviceGetFieldValues:144", "0 1", CALLS[14].1),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "4000000000", CALLS[17].1),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "4294967295", CALLS[17].1),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3", "4000000000", CALLS[17].1),
    ] {
        library.tell(&format!("{}say {call} * 0 {value}\n", h100::state()));
        let (facts, sample) = h100::asked(&library).await;
        assert!(read(&facts, &sample).is_some(), "{call} {value}: {facts:?} {sample:?}");
    }
}
