//! A real redis-server, and two foreign readers of it: redis-py and ioredis.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::nats_py;
use super::tools::{Running, eventually, free_port, run_with_input, tool};

const READY: Duration = Duration::from_secs(20);

/// A server on a free port that keeps what it has; killed on drop.
#[derive(Debug)]
pub(crate) struct Redis {
    port: u16,
    password: Option<&'static str>,
    dir: TempDir,
    server: Option<Running>,
}

/// What a reader has heard so far: channel and message, in order.
#[derive(Debug)]
pub(crate) struct Heard {
    messages: Arc<Mutex<Vec<(String, Value)>>>,
    _running: Running,
}

impl Redis {
    /// A server without a password.
    pub(crate) fn start() -> Self {
        Self::launch(None)
    }

    /// A server that wants this password.
    pub(crate) fn with_password(password: &'static str) -> Self {
        Self::launch(Some(password))
    }

    fn launch(password: Option<&'static str>) -> Self {
        let dir = tempfile::tempdir().expect("a folder for redis-server");
        let mut redis = Self { port: free_port(), password, dir, server: None };
        redis.restart();
        redis
    }

    /// Where clients connect, with this password.
    pub(crate) fn url_with(&self, password: &str) -> String {
        format!("redis://:{password}@127.0.0.1:{}/0", self.port)
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills the server; what it has was written to its file.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Starts the server again, with what it had.
    pub(crate) fn restart(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new(tool("redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]);
        command.arg(self.dir.path()).stdout(Stdio::null());
        command.args(self.password.iter().flat_map(|it| ["--requirepass", it]));
        self.server = Some(Running::start(&mut command));
        eventually("redis-server listens", READY, || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// Runs Python that has `r`, a redis-py client, and returns what it prints. Panics if it fails.
    pub(crate) fn python(&self, body: &str) -> String {
        let script = format!("{}\n{body}", self.client());
        let mut command = Command::new(python());
        let output = run_with_input(command.arg("-c").arg(script), "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "redis-py: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// What redis-py hears on all channels from now on.
    pub(crate) fn heard_by_python(&self) -> Heard {
        let script = format!(
            "{}
p = r.pubsub()
p.psubscribe('*')
assert p.get_message(timeout=20)['type'] == 'psubscribe'
print('ready')
for m in p.listen():
    print(json.dumps({{'channel': m['channel'], 'message': json.loads(m['data'])}}))",
            self.client()
        );
        let mut command = Command::new(python());
        command.arg("-u").arg("-c").arg(script);
        Heard::start(&mut command)
    }

    /// What ioredis hears on all channels from now on.
    pub(crate) fn heard_by_ioredis(&self) -> Heard {
        Heard::start(
            Command::new(tool("node"))
                .args(["redis.mjs", "listen"])
                .arg(self.port.to_string())
                .current_dir(oracle()),
        )
    }

    /// The fields of the last entry of each of these streams, as ioredis reads them.
    pub(crate) fn last_entries(&self, streams: &[&str]) -> Vec<Vec<String>> {
        let mut command = Command::new(tool("node"));
        command.args(["redis.mjs", "last", &self.port.to_string()]).args(streams);
        let output = run_with_input(command.current_dir(oracle()), "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ioredis: {errors}");
        let entries: Vec<Option<Vec<String>>> =
            serde_json::from_slice(&output.stdout).expect("entries");
        entries.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn client(&self) -> String {
        let password = self.password.unwrap_or_default();
        format!(
            "import json, redis\nr = redis.Redis(port={}, password={password:?} or None, \
             decode_responses=True)",
            self.port
        )
    }
}

fn python() -> std::path::PathBuf {
    let python = nats_py::interpreter();
    let mut asked = Command::new(&python);
    let asked = asked.args(["-c", "import redis"]).stderr(Stdio::null()).status();
    let found = asked.expect("python runs").success();
    assert!(found, "redis-py is missing: scripts/test installs it");
    python
}

fn oracle() -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let found = folder.join("node_modules/ioredis").is_dir();
    assert!(found, "ioredis is missing: scripts/test installs it");
    folder
}

impl Heard {
    /// Starts a reader, and waits until it listens.
    fn start(command: &mut Command) -> Self {
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let mut lines = BufReader::new(running.0.stdout.take().expect("it is piped")).lines();
        let first = lines.next().expect("a first line").expect("UTF-8");
        assert_eq!(first, "ready");
        let messages = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&messages);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut heard: Value = serde_json::from_str(&line).expect("a line of JSON");
                let channel = heard["channel"].as_str().expect("a channel").to_owned();
                let message = heard["message"].take();
                into.lock().unwrap_or_else(PoisonError::into_inner).push((channel, message));
            }
        });
        Self { messages, _running: running }
    }

    /// The messages of this channel so far.
    pub(crate) fn on(&self, channel: &str) -> Vec<Value> {
        let all = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(on, _)| on == channel).map(|(_, message)| message.clone()).collect()
    }
}
