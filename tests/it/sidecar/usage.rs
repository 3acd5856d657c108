//! What real programs use, as a sidecar of the real program says it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::{PATIENCE, Sidecar};
use crate::hub::process::ask;
use crate::support::engine::Engine;
use crate::support::nvml::FakeNvml;
use crate::support::program::Program;
use crate::support::receiver::{CHAT, Receiver, TOKEN};
use crate::support::tools::{Running, eventually, free_port, tool};

/// Holds 96 MiB, and on a sign uses half a second of CPU itself and a quarter in each of four children that come and go.
const WORK: &str = "
import os, sys, time
go, done = sys.argv[1:3]
held = bytearray(96 << 20)
for at in range(0, len(held), 4096):
    held[at] = 1
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
open(done + '.ready', 'w').close()
while not os.path.exists(go):
    time.sleep(0.05)
burn(0.5)
for _ in range(4):
    child = os.fork()
    if child == 0:
        burn(0.25)
        os._exit(0)
    os.waitpid(child, 0)
with open(done + '.data', 'wb') as file:
    file.write(os.urandom(8 << 20))
    file.flush()
    os.fsync(file.fileno())
open(done, 'w').close()
time.sleep(600)
";

/// A program of the test's own that does [`WORK`].
struct Worker {
    running: Running,
    go: PathBuf,
    done: PathBuf,
}

impl Worker {
    fn start(folder: &Path) -> Self {
        let (go, done) = (folder.join("go"), folder.join("done"));
        let mut command = Command::new(tool("python3"));
        command.args(["-c", WORK]).arg(&go).arg(&done).stdin(Stdio::null());
        let running = Running::start(&mut command);
        let ready = done.with_extension("ready");
        eventually("the program holds its memory", PATIENCE, || ready.exists().then_some(()));
        Self { running, go, done }
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }

    fn works(&self) {
        std::fs::write(&self.go, "").expect("a file");
        eventually("the program has worked", PATIENCE, || self.done.exists().then_some(()));
    }

    /// Bytes that the kernel says it had written.
    fn written(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid())).expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        line.expect("a line").trim().parse().expect("a number")
    }
}

fn usage(sidecar: &Sidecar) -> Value {
    sidecar.ask("/api/programs/one/usage").json()
}

/// Waits until the newest sample is such.
fn newest(sidecar: &Sidecar, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(what, PATIENCE, || {
        let newest = usage(sidecar)["newest"].clone();
        Some(newest).filter(|it| it.is_object() && is(it))
    })
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value:#}"))
}

/// One card, with this process on it.
fn card(pid: u32) -> String {
    format!(
        "driver 1\ncuda 12040\ngpu GPU-1 {} 0 NVIDIA T\nsay nvmlDeviceGetUtilizationRates GPU-1 0 83 10\n\
         process GPU-1 c {pid} {}\n",
        24_u64 << 30,
        5_u64 << 30
    )
}

#[test]
fn what_a_program_and_its_children_use_is_known_within_bounds_and_what_is_not_known_has_its_reason()
{
    let folder = tempfile::tempdir().expect("a folder");
    let worker = Worker::start(folder.path());
    let nvml = FakeNvml::build(&card(worker.pid()));
    let telegram = Receiver::telegram([]);
    let config = format!(
        "[[watch]]\nname = \"one\"\nprofile = \"generic\"\nset = {{ command = \"{}\", log = \"{}/log\" }}\n\
         [[rule]]\nname = \"fat\"\nwhen = {{ figure = \"memory_mib\", above = 90 }}\n\
         [[rule]]\nname = \"lean\"\nwhen = {{ figure = \"memory_mib\", below = 90 }}\n",
        worker.go.display(),
        folder.path().display(),
    );
    let library = nvml.library().display().to_string();
    let settings = [
        ("SIDECAR_SAMPLE_S", "1"),
        ("NVML_LIB", &library),
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_CHAT_ID", CHAT),
        ("TELEGRAM_API_URL", &telegram.url()),
    ];
    let mut sidecar = Sidecar::with(&config, &settings);
    sidecar.begin();
    let first = newest(&sidecar, "it is sampled", |it| it["cpu_us"].is_u64());
    let (before, written) = (number(&first, "cpu_us"), worker.written());
    worker.works();
    let held = newest(&sidecar, "its work is seen", |it| {
        it["cpu_us"].as_u64().is_some_and(|us| us >= before + 1_450_000)
            && it["disk_write_bytes"].as_u64() >= Some(worker.written() - written)
    });
    let spent = number(&held, "cpu_us") - before;
    assert!((1_450_000..2_300_000).contains(&spent), "half a second and four quarters: {spent}");
    checks_figures(&held);
    checks_answers(&sidecar);
    let told = eventually("the owner is told of its memory", PATIENCE, || {
        let texts =
            telegram.taken().into_iter().filter_map(|it| it["text"].as_str().map(str::to_owned));
        texts.into_iter().find(|text| text.contains("memory_mib"))
    });
    assert!(told.contains("above 90") && !told.contains("below"), "{told}");
    // The program ends: it uses nothing that is known, and not 0.
    drop(worker);
    let gone = newest(&sidecar, "its end is seen", |it| it["memory_bytes"].is_null());
    assert_eq!(gone["unknown"]["memory_bytes"], "it does not run", "{gone:#}");
    assert_eq!(gone["unknown"]["cpu_percent"], "it does not run", "{gone:#}");
    // What was sampled is no observation.
    let kinds: Vec<Value> = sidecar.observations().into_iter().collect();
    assert!(!kinds.iter().any(|it| it.to_string().contains("memory")), "{kinds:?}");
}

/// What is told of the program besides its CPU time.
fn checks_figures(held: &Value) {
    let memory = number(held, "memory_bytes");
    assert!((96 << 20..140 << 20).contains(&memory), "{memory}");
    assert_eq!(held["by"], json!({"cpu": "processes", "memory": "processes", "disk": "processes"}));
    assert!(number(held, "processes") >= 1 && number(held, "file_descriptors") >= 3, "{held:#}");
    assert!(number(held, "disk_free_bytes") > 0);
    let unknown = &held["unknown"];
    assert_eq!(unknown["network_rx_bytes"], "it has no network of its own");
    assert!(held["network_rx_bytes"].is_null(), "{held:#}");
    let cards = held["cards"].as_array().expect("its card");
    assert_eq!((cards.len(), &cards[0]["uuid"]), (1, &json!("GPU-1")));
    assert_eq!(number(&cards[0], "gpu_busy_percent"), 83);
    assert_eq!(number(&cards[0], "gpu_memory_bytes"), 5 << 30);
    assert!(cards[0]["unknown"]["gpu_power_mw"].is_string(), "{cards:?}");
}

/// The other places where it is told.
fn checks_answers(sidecar: &Sidecar) {
    let short = sidecar.one()["usage"].clone();
    assert_eq!(short["gpu_memory_bytes"], json!(5_u64 << 30));
    let page = sidecar.ask("/metrics").body;
    for line in [
        "lamda_sidecar_program_gpu_utilization_ratio{program=\"one\",uuid=\"GPU-1\"} 0.83",
        "lamda_sidecar_program_processes{program=\"one\"} 1",
        "lamda_sidecar_machine_memory_bytes ",
        "lamda_sidecar_sampler_cpu_seconds_total ",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(!page.contains("network_received_bytes_total{"), "what is unknown is no value: {page}");
    let machine = sidecar.ask("/api/machine/usage").json();
    let machine = &machine["newest"];
    assert!(machine["cpu_percent"].is_number() && number(machine, "cores") >= 1, "{machine:#}");
    assert_eq!(machine["cards"][0]["gpu_memory_total_bytes"], json!(24_u64 << 30));
    for query in ["span=3h", "limit=many"] {
        let refused = sidecar.ask(&format!("/api/programs/one/usage?{query}"));
        assert!(refused.status == 400 && refused.json()["error"].is_string(), "{refused:?}");
    }
    assert_eq!(sidecar.ask("/api/programs/two/usage").status, 404);
}

#[tokio::test]
async fn a_container_is_measured_in_its_own_group_with_its_own_network() {
    let engine = Engine::start();
    engine.import_busybox().await;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    // Children that come and go, and a file that stays in memory.
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; \
                  while [ ! -e /shared/go ]; do sleep 0.1; done; \
                  for n in 1 2 3 4; do (i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done); done; \
                  times > /shared/times; mv /shared/times /shared/done; sleep 600";
    let volume = format!("{}:/shared", folder.path().display());
    let run = Command::new(tool("docker"))
        .env("DOCKER_HOST", engine.host())
        .args(["run", "--detach", "--volume", &volume, "busybox:test", "sh", "-c", script])
        .output()
        .expect("the client runs");
    let id = String::from_utf8_lossy(&run.stdout).trim().to_owned();
    assert_eq!(id.len(), 64, "{}", String::from_utf8_lossy(&run.stderr));
    let config = format!(
        "[[watch]]\nname = \"one\"\nprofile = \"generic\"\nset = {{ container = \"{id}\" }}\n"
    );
    let mut sidecar = Sidecar::with(&config, &[("SIDECAR_SAMPLE_S", "1")]);
    sidecar.begin();
    let first = newest(&sidecar, "it is sampled", |it| it["cpu_us"].is_u64());
    assert_eq!(first["by"]["cpu"], "group", "{first:#}");
    assert_eq!(first["by"]["memory"], "group", "{first:#}");
    assert_eq!(first["container"], id[..12], "{first:#}");
    let before = number(&first, "cpu_us");
    std::fs::write(at("go"), "").expect("a file");
    let times = eventually("the container has worked", PATIENCE * 2, || {
        std::fs::read_to_string(at("done")).ok()
    });
    let spent_ms = shells_times(&times);
    let after = newest(&sidecar, "its work is seen", |it| {
        it["cpu_us"].as_u64().is_some_and(|us| us + 50_000 >= before + spent_ms * 1_000)
    });
    let counted = number(&after, "cpu_us") - before;
    assert!(counted < spent_ms * 1_000 + 1_000_000, "{counted} us for {spent_ms} ms");
    let memory = number(&after, "memory_bytes");
    assert!((24 << 20..64 << 20).contains(&memory), "{memory}");
    assert!(after["network_rx_bytes"].is_u64(), "its network is its own: {after:#}");
    assert!(after["unknown"]["cards"].is_string(), "there is no library here: {after:#}");
    let log = sidecar.log();
    assert_eq!(log.matches("no GPU is sampled").count(), 1, "said once: {log}");
}

/// Milliseconds of user and system time, as the shell's `times` tells them: `0m0.42s` four times.
fn shells_times(text: &str) -> u64 {
    let words = text.split_whitespace().map(|word| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').expect("a time");
        let seconds: f64 = seconds.parse().expect("seconds");
        minutes.parse::<f64>().expect("minutes").mul_add(60.0, seconds) * 1000.0
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    let ms = words.sum::<f64>() as u64;
    ms
}

#[test]
fn the_originals_service_gets_samples_of_the_machine_in_its_form_also_those_that_it_refused_first()
{
    let refuses = [crate::support::receiver::Says::Answer(503, "", json!({}))];
    let service = Receiver::start(refuses);
    let nvml = FakeNvml::build(&card(std::process::id()));
    let port = free_port();
    let program = Program::with(&[("NVML_LIB", &nvml.library().display().to_string())]);
    std::fs::create_dir_all(program.path("logs")).expect("a folder");
    let log = program.path("logs/swarm_launcher.log");
    std::fs::write(&log, "").expect("a log");
    let url = service.url();
    let config = program.write(
        "config.yaml",
        &format!(
            "node_id: \"my-node-123\"\njwt_token: \"header.payload.hunter2\"\n\
             system:\n  health_port: {port}\n  poll_interval: 1\n  metrics_interval: 1\n\
             log_monitoring:\n  log_files: [\"{log}\"]\n\
             api:\n  base_url: \"{url}\"\n  metrics_endpoint: \"/api/v1/metrics\"\n\
             blockchain:\n  contract_address: \"\"\n"
        ),
    );
    let errors = std::fs::File::create(program.path("log")).expect("a log");
    let mut command = program.command(&["sidecar", "--config", &config]);
    let _running = Running::start(command.stderr(errors));
    let at = format!("127.0.0.1:{port}");
    eventually("health answers", PATIENCE, || ask(&at, "GET /health", &[], ""));
    let taken = eventually("two samples arrive", PATIENCE, || {
        Some(service.taken()).filter(|taken| taken.len() >= 2)
    });
    let requests = service.requests();
    assert_eq!(requests[0].body, taken[0], "what was refused first comes first");
    let head = &requests[0].head;
    assert!(head.starts_with("post /api/v1/metrics "), "{head}");
    assert!(head.contains("authorization: bearer header.payload.hunter2"), "{head}");
    let sample = &taken[1];
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(sample), ["data", "metrics_type", "node_id", "timestamp"].map(str::to_owned));
    assert_eq!(
        (&sample["node_id"], &sample["metrics_type"]),
        (&json!("my-node-123"), &json!("hardware"))
    );
    let data = &sample["data"];
    let percent = data["cpu"]["usage_percent"].as_f64().expect("a share");
    assert!((0.0..=100.0).contains(&percent), "{data}");
    assert!(data["cpu"]["core_count"].as_u64() >= Some(1), "{data}");
    let ram = &data["ram"];
    let [total, used, available] =
        ["total", "used", "available"].map(|key| ram[key].as_u64().expect("bytes"));
    assert_eq!(used + available, total, "{ram}");
    assert!(ram["usage_percent"].as_f64().is_some_and(|it| it > 0.0 && it < 100.0), "{ram}");
    let gpu = json!([{"index": 0, "util_percent": 83, "vram_used_mb": 0, "vram_total_mb": 24_576}]);
    assert_eq!(data["gpu"], gpu, "what the card does not tell is left out");
    assert!(!sample.to_string().contains("GPU-1"), "{sample}");
}
