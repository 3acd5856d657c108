//! What a node tells Prometheus, held against what its jobs did, and read by the real `promtool` and Prometheus.

mod dashboard;

use std::fs::File;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::program::Program;
use crate::support::prometheus::{Page, http};
use crate::support::tools::{Running, eventually, free_port};
use crate::support::world::{Agent, PATIENCE, World, last, shell_with};

/// The job's name, which must not be in the text.
const JOB: &str = "a-job-that-nobody-names";

/// What the first card tells, with this energy; the second one tells its name, its memory and its processes alone.
fn driver(energy_mj: u32) -> String {
    let [one, two] = GPUS;
    format!(
        "driver 550.54.15\ncuda 12040\ngpu {one} 25769803776 0 NVIDIA RTX 3090\n\
         gpu {two} 85520809984 0 NVIDIA H100 80GB HBM3\n\
         say nvmlDeviceGetMemoryInfo_v2 {one} 0 0 21474836480 4294967296\n\
         say nvmlDeviceGetUtilizationRates {one} 0 40 10\n\
         say nvmlDeviceGetPowerUsage {one} 0 250500\n\
         say nvmlDeviceGetTotalEnergyConsumption {one} 0 {energy_mj}\n\
         say nvmlDeviceGetClockInfo:1 {one} 0 1980\n\
         say nvmlDeviceGetClockInfo:2 {one} 0 2619\n\
         say nvmlDeviceGetTemperature:0 {one} 0 61\n\
         say nvmlDeviceGetMemoryInfo_v2 {two} 0 0 85520809984 0\n"
    )
}

/// A node with two cards at work, where Prometheus finds it.
struct Told {
    world: World,
    _agent: Agent,
    nvml: FakeNvml,
    listen: String,
}

impl Told {
    async fn start() -> Self {
        let (world, nvml) = (World::start().await, FakeNvml::build(&driver(1_000_000)));
        let listen = format!("127.0.0.1:{}", free_port());
        let library = nvml.library().display().to_string();
        let settings =
            [("GPU_MODE", "auto"), ("NVML_LIB", &*library), ("METRICS_LISTEN", &*listen)];
        let agent = world.agent(&settings);
        agent.wait_for("heartbeat sent");
        Self { world, _agent: agent, nvml, listen }
    }

    fn page(&self) -> Page {
        Page::at(&self.listen).expect("it listens")
    }

    /// Has a job run on a card, whose energy rises by 42 J meanwhile; returns its last status.
    fn run_a_job(&self) -> Value {
        let sampler = |page: &Page| page.value("lamda_sampler_cpu_seconds_total");
        let before = self.page();
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 4; \
                      head -c 100000 /dev/zero > /output/output";
        // Busy time is known where samples cover nine tenths of the run.
        let more = json!({"monitoring_profile": {"interval_ms": 100}, "gpus": 1});
        self.world.publish(JOB, &shell_with(script, &more));
        // The monitor works once before it asks for the card's energy and once with the answer.
        let begun = |page: &Page| page.value("lamda_jobs{phase=\"running\"}") == Some(1.0);
        let first = Page::when(&self.listen, "the job runs", begun);
        let grows = |page: &Page| sampler(page) > sampler(&first);
        assert!(sampler(&first) >= sampler(&before));
        Page::when(&self.listen, "the sampler looks at the job", grows);
        self.nvml.tell(&driver(1_042_000));
        last(&self.world.outcome(JOB)).clone()
    }
}

/// A figure of the signed record in a status.
fn figure(status: &Value, name: &str) -> f64 {
    let figure = &status["usage"]["message"][name];
    let text = figure.as_str().map_or_else(|| figure.to_string(), str::to_owned);
    text.parse().unwrap_or_else(|_| panic!("{name}: {status}"))
}

fn assert_near(page: &Page, series: &str, expected: f64) {
    let value = page.value(series).unwrap_or_else(|| panic!("no {series}\n{}", page.0));
    assert!((value - expected).abs() < 1e-6, "{series}: {value}, not {expected}");
}

#[tokio::test]
async fn metrics_fit_what_a_job_did_and_name_no_job() {
    let told = Told::start().await;
    let before = told.page();
    before.is_clean();
    for (series, value) in [
        ("lamda_node_ready", 1.0),
        ("lamda_node_unready{reason=\"disk\"}", 0.0),
        ("lamda_slots", 2.0),
        ("lamda_slots_used", 0.0),
        ("lamda_jobs{phase=\"running\"}", 0.0),
        ("lamda_jobs_ended_total{outcome=\"completed\"}", 0.0),
        ("lamda_nats_connected", 1.0),
        ("lamda_nats_reconnects_total", 0.0),
        ("lamda_runs_total", 0.0),
    ] {
        assert_near(&before, series, value);
    }
    told.world.publish_raw(&json!({"job_id": "rejected-one", "image_name": "/"}).to_string());
    let end = told.run_a_job();
    assert_eq!(end["status"], "completed", "{end}");
    let is_done = |page: &Page| {
        page.value("lamda_jobs_ended_total{outcome=\"completed\"}") == Some(1.0)
            && page.value("lamda_outbox_statuses") == Some(0.0)
            && page.value("lamda_jobs{phase=\"cleaning\"}") == Some(0.0)
    };
    let page = Page::when(&told.listen, "the job is done", is_done);
    page.is_clean();
    assert_near(&page, "lamda_jobs_ended_total{outcome=\"rejected\"}", 1.0);
    assert_near(&page, "lamda_jobs_ended_total{outcome=\"failed\"}", 0.0);
    assert_near(&page, "lamda_slots_used", 0.0);
    assert_near(&page, "lamda_runs_total", 1.0);
    assert_near(&page, "lamda_runs_cpu_seconds_total", figure(&end, "cpuUs") / 1e6);
    assert_near(&page, "lamda_runs_gpu_seconds_total", figure(&end, "gpuMs") / 1e3);
    assert_near(&page, "lamda_runs_gpu_energy_joules_total", 42.0);
    assert_near(&page, "lamda_runs_unknown_total{figure=\"energy\"}", 0.0);
    assert!(figure(&end, "cpuUs") > 0.0 && figure(&end, "gpuMs") > 0.0, "{end}");
    assert!(page.value("lamda_upload_bytes_total").expect("it uploaded") >= 100_000.0);
    assert!(page.value("lamda_chain_balance_coins").expect("it has some") > 9_000.0);
    let beat = page.value("lamda_chain_last_heartbeat_time_seconds").expect("one was sent");
    let started = page.value("lamda_node_start_time_seconds").expect("it began");
    assert!(beat > started - 60.0, "{beat} {started}");
    for own in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(page.value(own).expect(own) > 0.0, "{own}");
    }
    let used = page.value("lamda_sampler_cpu_seconds_total").expect("it watched");
    assert!(used > 0.0 && used < page.value("process_cpu_seconds_total").expect("it worked"));
    for name in [JOB, "rejected-one", "job_id", "busybox"] {
        assert!(!page.0.contains(name), "{name}\n{}", page.0);
    }
}

#[tokio::test]
async fn metrics_of_a_card_are_in_base_units_and_what_it_does_not_tell_is_absent() {
    let told = Told::start().await;
    let [one, two] = GPUS;
    let page = told.page();
    page.is_clean();
    for (family, value) in [
        ("lamda_gpu_utilization_ratio", 0.4),
        ("lamda_gpu_memory_used_bytes", 4_294_967_296.0),
        ("lamda_gpu_memory_free_bytes", 21_474_836_480.0),
        ("lamda_gpu_power_watts", 250.5),
        ("lamda_gpu_energy_joules_total", 1000.0),
        ("lamda_gpu_temperature_celsius", 61.0),
        ("lamda_gpu_processes", 0.0),
    ] {
        assert_near(&page, &format!("{family}{{uuid=\"{one}\"}}"), value);
        let other = page.value(&format!("{family}{{uuid=\"{two}\"}}"));
        let expected = match family {
            "lamda_gpu_processes" | "lamda_gpu_memory_used_bytes" => Some(0.0),
            "lamda_gpu_memory_free_bytes" => Some(85_520_809_984.0),
            _ => None,
        };
        assert_eq!(other, expected, "{family}");
    }
    let clock = |clock: &str| format!("lamda_gpu_clock_hertz{{uuid=\"{one}\",clock=\"{clock}\"}}");
    assert_near(&page, &clock("sm"), 1.98e9);
    assert_near(&page, &clock("memory"), 2.619e9);
    for (uuid, model) in [(one, "NVIDIA RTX 3090"), (two, "NVIDIA H100 80GB HBM3")] {
        assert_near(&page, &format!("lamda_gpu_info{{uuid=\"{uuid}\",model=\"{model}\"}}"), 1.0);
        let state = |state: &str| format!("lamda_gpu_health{{uuid=\"{uuid}\",state=\"{state}\"}}");
        assert_near(&page, &state("healthy"), 1.0);
        assert_near(&page, &state("retired"), 0.0);
    }
}

/// A node around which nothing is there.
fn alone(settings: &[(&str, &str)]) -> Program {
    let away = "http://127.0.0.1:9";
    let key = crate::support::anvil::Anvil::key_hex(1);
    let mut program = Program::with(&[
        ("OPBNB_RPC_URL", away),
        ("REPUTATION_CONTRACT_ADDRESS", "0x108f2c400C9828d8044a5F6985f0C9589B90758D"),
        ("CHAIN_ID", "31337"),
        ("AGENT_PRIVATE_KEY", key),
        ("NATS_URL", "nats://127.0.0.1:9"),
        ("DOCKER_HOST", "unix:///nonexistent.sock"),
        ("PINATA_API_URL", away),
        ("PINATA_JWT", "any"),
        ("IPFS_GATEWAYS", away),
        ("GPU_MODE", "none"),
    ]);
    for (name, value) in settings {
        program.set(name, value);
    }
    program
}

/// It at work, with its folder.
struct Alone {
    program: Program,
    running: Running,
}

impl Alone {
    /// Starts it.
    fn start(settings: &[(&str, &str)]) -> Self {
        let program = alone(settings);
        let file = File::create(program.path("log")).expect("a log");
        let running = Running::start(program.command(&["run"]).stderr(file));
        let alone = Self { program, running };
        alone.says("nats: ");
        alone
    }

    /// The first line of its log with this text.
    fn says(&self, what: &str) -> String {
        eventually(&format!("it says {what:?}"), PATIENCE, || {
            let text = std::fs::read_to_string(self.program.path("log")).ok()?;
            text.lines().find(|line| line.contains(what)).map(str::to_owned)
        })
    }
}

/// The number of TCP sockets on which it listens.
fn listens(alone: &Alone) -> usize {
    let proc = format!("/proc/{}", alone.running.0.id());
    let open = std::fs::read_dir(format!("{proc}/fd")).expect("its files").flatten();
    let open = open.filter_map(|file| std::fs::read_link(file.path()).ok());
    let open: Vec<String> = open.map(|link| link.display().to_string()).collect();
    let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("{proc}/net/{name}")));
    let tables: String = tables.into_iter().filter_map(Result::ok).collect();
    let listening = |line: &&str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_own = |inode: &&str| open.contains(&format!("socket:[{inode}]"));
        // 0A: LISTEN of the kernel's tcp_states.h.
        columns.get(3) == Some(&"0A") && columns.get(9).is_some_and(is_own)
    };
    tables.lines().filter(listening).count()
}

#[test]
fn metrics_are_told_nowhere_unless_the_owner_says_where() {
    let off = Alone::start(&[]);
    assert_eq!(listens(&off), 0);
    let listen = format!("127.0.0.1:{}", free_port());
    let on = Alone::start(&[("METRICS_LISTEN", &listen)]);
    eventually("it listens", PATIENCE, || (listens(&on) == 1).then_some(()));
}

#[test]
fn metrics_of_a_node_that_reaches_nobody_say_so_and_nothing_else_is_there() {
    let listen = format!("127.0.0.1:{}", free_port());
    let _running = Alone::start(&[("METRICS_LISTEN", &listen)]);
    let page = Page::when(&listen, "it listens", |_| true);
    page.is_clean();
    for (series, value) in [
        ("lamda_node_ready", 0.0),
        ("lamda_node_unready{reason=\"nats\"}", 1.0),
        ("lamda_nats_connected", 0.0),
        ("lamda_outbox_statuses", 0.0),
        ("lamda_kept_results", 0.0),
    ] {
        assert_near(&page, series, value);
    }
    for absent in ["lamda_chain_balance_coins", "lamda_chain_last_heartbeat_time_seconds"] {
        assert_eq!(page.value(absent), None, "{absent}");
    }
    assert!(!page.0.contains("lamda_gpu_"), "{}", page.0);
    for path in ["/", "/metrics/", "/metrics/x", "/debug", "/..%2fmetrics"] {
        let (status, ..) = http(&listen, "GET", path).expect("an answer");
        assert_eq!(status, 404, "{path}");
    }
    assert_eq!(http(&listen, "POST", "/metrics").expect("an answer").0, 404);
}

#[test]
fn metrics_on_a_port_in_use_are_tried_again_and_others_addresses_are_warned_of() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("its address").to_string();
    let alone = Alone::start(&[("METRICS_LISTEN", &listen)]);
    let told = alone.says("can't be listened on");
    assert!(told.contains(&listen) && told.contains("METRICS_LISTEN"), "{told}");
    drop(taken);
    eventually("it listens", PATIENCE, || (listens(&alone) == 1).then_some(()));
    let everywhere = format!("0.0.0.0:{}", free_port());
    let alone = Alone::start(&[("METRICS_LISTEN", &everywhere)]);
    alone.says(&format!("METRICS_LISTEN={everywhere} is not on this machine alone"));
}
