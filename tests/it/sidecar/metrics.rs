//! The sidecar's `/metrics`, as the real promtool judges it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::{PATIENCE, SWARM, Sidecar};
use crate::support::nvml::FakeNvml;
use crate::support::prometheus::Page;
use crate::support::tools::Running;

/// Families that this page has at least: of a log, a verdict, a program's use, a card, the machine.
const FAMILIES: [&str; 20] = [
    "lamda_sidecar_build_info",
    "lamda_sidecar_log_gaps",
    "lamda_sidecar_log_lines",
    "lamda_sidecar_log_lost_bytes",
    "lamda_sidecar_machine_cpu_ratio",
    "lamda_sidecar_machine_load1",
    "lamda_sidecar_machine_memory_bytes",
    "lamda_sidecar_machine_memory_used_bytes",
    "lamda_sidecar_program_cpu_seconds_total",
    "lamda_sidecar_program_disk_free_bytes",
    "lamda_sidecar_program_gpu_memory_bytes",
    "lamda_sidecar_program_gpu_power_watts",
    "lamda_sidecar_program_gpu_temperature_celsius",
    "lamda_sidecar_program_gpu_utilization_ratio",
    "lamda_sidecar_program_memory_bytes",
    "lamda_sidecar_program_open_fds",
    "lamda_sidecar_program_threads",
    "lamda_sidecar_round",
    "lamda_sidecar_sampler_cpu_seconds_total",
    "lamda_sidecar_trouble",
];

/// One card, with this process on it.
fn card(pid: u32) -> String {
    format!(
        "driver 1\ncuda 12040\ngpu GPU-1 {} 0 NVIDIA T\nsay nvmlDeviceGetUtilizationRates GPU-1 0 83 10\n\
         say nvmlDeviceGetPowerUsage GPU-1 0 250500\nsay nvmlDeviceGetTemperature:0 GPU-1 0 61\n\
         process GPU-1 c {pid} {}\n",
        24_u64 << 30,
        5_u64 << 30
    )
}

#[test]
fn promtool_finds_nothing_in_what_a_sidecar_says_of_a_log_a_trouble_and_a_card() {
    let mut command = Command::new("sleep");
    // A number that no other test sleeps for.
    let running = Running::start(command.arg("86398"));
    let nvml = FakeNvml::build(&card(running.0.id()));
    let library = nvml.library().display().to_string();
    let config = format!(
        "{SWARM}\n[[watch]]\nname = \"a \\\"quoted\\\" {{name}}\"\nprofile = \"generic\"\n\
         set = {{ command = '^sleep 86398$', log = \"ROOT/log\" }}\n"
    );
    let mut sidecar = Sidecar::with(&config, &[("SIDECAR_SAMPLE_S", "1"), ("NVML_LIB", &library)]);
    sidecar.begin();
    Page::at(&sidecar.at).expect("it answers").is_clean();
    sidecar.says("INFO", "🐝 Joining round: 7");
    sidecar.until("it trains", |it| it["training"] == "yes");
    // A gap: what is there is shorter than what was read.
    fs::write(sidecar.program.path("root/logs/swarm_launcher.log"), "").expect("a log");
    sidecar.says("ERROR", "Exception occurred during game run.");
    sidecar.until("it failed", |it| it["troubles"][0] == "stuck");
    // Of a long line the rest is lost, which is counted.
    sidecar.says("INFO", &"x".repeat(70_000));
    let missing = || {
        let page = Page::at(&sidecar.at).expect("it answers");
        let families = page.families();
        FAMILIES.into_iter().filter(|it| !families.contains(it)).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    while !missing().is_empty() && begun.elapsed() < PATIENCE {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(missing(), [""; 0], "families without a value");
    let page = Page::at(&sidecar.at).expect("it answers");
    page.is_clean();
    assert_eq!(page.value("lamda_sidecar_round{program=\"one\"}"), Some(7.0), "{}", page.0);
}
