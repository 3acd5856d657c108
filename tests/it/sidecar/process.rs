//! A sidecar of the real program, what it watches, and questions to it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lamda_node::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::hub::process::{Answer, ask};
use crate::support::program::Program;
use crate::support::tools::{Running, eventually, free_port};

/// The limit for whatever has to happen, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A line as Hydra writes it, now, on a host whose zone is UTC.
pub(super) fn hydra(level: &str, message: &str) -> String {
    let now = SystemClock.now().to_string().replace('T', " ").replace('.', ",");
    let now = now.trim_end_matches('Z');
    format!("[{now}][genrl.logging_utils.global_defs][{level}] - {message}\n")
}

/// A sidecar in a folder of its own, which watches one program that is only a folder with logs.
pub(super) struct Sidecar {
    pub(super) program: Program,
    pub(super) at: String,
    running: Option<Running>,
}

impl Sidecar {
    /// A sidecar that is not started yet, with this configuration and these settings more. `ROOT` in the configuration
    /// is the program's folder.
    pub(super) fn with(config: &str, settings: &[(&str, &str)]) -> Self {
        let at = format!("127.0.0.1:{}", free_port());
        let mut program = Program::with(&[("SIDECAR_LISTEN", &at), ("TZ", "UTC")]);
        std::fs::create_dir_all(program.path("root/logs")).expect("a folder");
        let config = config.replace("ROOT", &program.path("root"));
        let config = program.write("sidecar.toml", &config);
        program.set("SIDECAR_CONFIG", &config);
        // The owner's own profile in place of the one of the same name: no process is looked for.
        let profile = include_str!("../../../profiles/rl-swarm-hydra.toml");
        let profile: Vec<&str> =
            profile.lines().filter(|it| !it.starts_with("command = ")).collect();
        std::fs::create_dir(program.path("profiles")).expect("a folder");
        program.write("profiles/rl-swarm-hydra.toml", &profile.join("\n"));
        program.set("SIDECAR_PROFILES", &program.path("profiles"));
        for (name, value) in settings {
            program.set(name, value);
        }
        Self { program, at, running: None }
    }

    /// A sidecar that answers, which watches a swarm's node by its logs alone.
    pub(super) fn swarm(settings: &[(&str, &str)]) -> Self {
        let mut sidecar = Self::with(SWARM, settings);
        sidecar.begin();
        sidecar
    }

    /// Starts it, and waits until it has judged.
    pub(super) fn begin(&mut self) {
        self.spawn();
        self.judges();
    }

    /// The same, with what it opens written into a file.
    pub(super) fn begin_traced(&mut self, trace: &Path) {
        let command = self.program.traced(&["sidecar"], trace);
        self.start(command);
        self.judges();
    }

    fn judges(&self) {
        eventually("the sidecar is ready", PATIENCE, || {
            ask(&self.at, "GET /ready", &[], "").filter(|answer| answer.status == 200)
        });
    }

    /// Starts it, and waits for nothing.
    pub(super) fn spawn(&mut self) {
        let command = self.program.command(&["sidecar"]);
        self.start(command);
    }

    fn start(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.program.path("log"));
        self.running = Some(Running::start(command.stderr(log.expect("a log"))));
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.program.path("log")).unwrap_or_default()
    }

    pub(super) fn ask(&self, path: &str) -> Answer {
        let line = format!("GET {path}");
        ask(&self.at, &line, &[], "").unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// What it says of the program `one`.
    pub(super) fn one(&self) -> Value {
        self.ask("/api/programs/one").json()
    }

    /// Waits until the program's verdict is such.
    pub(super) fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || Some(self.one()).filter(|it| is(it)))
    }

    /// All its observations of the program, the oldest first.
    pub(super) fn observations(&self) -> Vec<Value> {
        let (mut all, mut before) = (Vec::new(), i64::MAX);
        loop {
            let path = format!("/api/programs/one/observations?limit=1000&before={before}");
            let part = self.ask(&path).json();
            let part = part.as_array().expect("a list").clone();
            let Some(last) = part.last().and_then(|it| it["id"].as_i64()) else { break };
            before = last;
            all.extend(part);
        }
        all.reverse();
        all
    }

    /// Appends to a file below the program's folder.
    pub(super) fn append(&self, file: &str, text: &str) {
        let path = self.program.path(&format!("root/{file}"));
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.expect("a log").write_all(text.as_bytes()).expect("room for a log");
    }

    /// Appends to the log of the swarm's node.
    pub(super) fn says(&self, level: &str, message: &str) {
        self.append("logs/swarm_launcher.log", &hydra(level, message));
    }
}

/// A swarm's node that is watched by its logs alone: no process, no contract.
pub(super) const SWARM: &str = r#"
[[watch]]
name = "one"
profile = "rl-swarm-hydra"
set = { root = "ROOT", contract = "", screen = "" }
"#;
