//! A real nats-server with its own storage, and nats-py as an independent client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::nats_py;
use super::tools::{Running, eventually, free_port, tool};

const JETSTREAM: &str = "jetstream { store_dir: $STORE }";

const READY: Duration = Duration::from_secs(20);

/// A server on a free port, killed on drop; after [`Nats::kill`] it can be started again.
#[derive(Debug)]
pub(crate) struct Nats {
    port: u16,
    settings: String,
    /// `user:password@` for the Python client, or nothing.
    user: String,
    dir: TempDir,
    server: Option<Running>,
}

impl Nats {
    /// With JetStream.
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With JetStream and more lines of nats-server's configuration.
    pub(crate) fn with(settings: &str) -> Self {
        Self::launch(format!("{JETSTREAM}\n{settings}"))
    }

    /// With these lines only, which include the block `jetstream`.
    pub(crate) fn with_own_jetstream(settings: &str) -> Self {
        Self::launch(settings.to_owned())
    }

    /// Without JetStream.
    pub(crate) fn without_jetstream() -> Self {
        Self::launch(String::new())
    }

    /// Three servers that form one cluster.
    pub(crate) fn cluster() -> [Self; 3] {
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        ports.map(|port| {
            let listen = format!("listen: \"127.0.0.1:{port}\"");
            Self::with(&format!(
                "server_name: n{port}\ncluster {{ name: it, {listen}, routes: [{routes}] }}"
            ))
        })
    }

    fn launch(settings: String) -> Self {
        let dir = tempfile::tempdir().expect("a folder for nats-server");
        let user = String::new();
        let mut nats = Self { port: free_port(), settings, user, dir, server: None };
        // Another process may have taken the port meanwhile.
        for _ in 0..5 {
            if nats.try_restart() {
                return nats;
            }
            nats.port = free_port();
        }
        panic!("nats-server finds no free port");
    }

    /// Has the Python client connect as this user.
    pub(crate) fn known_as(self, user: &str, password: &str) -> Self {
        Self { user: format!("{user}:{password}@"), ..self }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server; its storage stays.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Kills the server if it runs, and starts it on the same port with its storage.
    pub(crate) fn restart(&mut self) {
        assert!(self.try_restart(), "nats-server ended at its start");
    }

    /// Kills the server, and starts it on the same port with `JetStream` and its storage.
    pub(crate) fn restart_with_jetstream(&mut self) {
        JETSTREAM.clone_into(&mut self.settings);
        self.restart();
    }

    /// Kills the server, and starts it on the same port with `JetStream` and these settings.
    pub(crate) fn restart_with(&mut self, settings: &str) {
        self.settings = format!("{JETSTREAM}\n{settings}");
        self.restart();
    }

    /// Kills the server, and starts it on the same port without `JetStream`.
    pub(crate) fn restart_without_jetstream(&mut self) {
        self.settings = String::new();
        self.restart();
    }

    /// Starts the server again; false if it ended at once.
    fn try_restart(&mut self) -> bool {
        self.kill();
        let store = self.store();
        let settings = self.settings.replace("$STORE", &format!("{:?}", store.display()));
        let file = self.dir.path().join("nats.conf");
        let listen = format!("listen: 127.0.0.1:{}\nserver_name: test\n", self.port);
        std::fs::write(&file, listen + &settings).expect("nats.conf is written");
        let mut command = Command::new(tool("nats-server"));
        command.arg("-c").arg(&file).arg("-l").arg(self.dir.path().join("nats.log"));
        let mut server = Running::start(&mut command);
        let greets = eventually("nats-server greets or ends", READY, || {
            let ended = server.0.try_wait().ok().flatten().map(|_| false);
            ended.or_else(|| self.greeting().map(|()| true))
        });
        self.server = Some(server);
        greets
    }

    /// Kills the server, removes its storage, and starts it on the same port.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.store()).expect("the storage is removed");
        self.restart();
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn greeting(&self) -> Option<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        // With `handshake_first` the server sends nothing before TLS.
        if self.settings.contains("handshake_first") {
            return Some(());
        }
        let mut start = [0; 4];
        stream.read_exact(&mut start).ok()?;
        (&start == b"INFO").then_some(())
    }

    /// Runs the body of a Python coroutine that has `nc` (a nats-py connection), `js` (its JetStream) and
    /// `args`, and returns what it prints. Panics if it fails.
    pub(crate) fn python(&self, body: &str, args: &[&str]) -> String {
        let url = self.python_url();
        let args: Vec<&str> = [&[url.as_str()], args].concat();
        nats_py::run(&coroutine(body, 60), &args).trim().to_owned()
    }

    /// Starts such a coroutine as a process beside the test, which exchanges lines with it.
    pub(crate) fn python_beside(&self, body: &str, args: &[&str]) -> Beside {
        let mut command = Command::new(nats_py::interpreter());
        let script = format!(
            "{}{}asyncio.run(main(*sys.argv[1:]))\n",
            nats_py::IMPORTS,
            coroutine(body, 600)
        );
        command.arg("-u").arg("-c").arg(script).arg(self.python_url()).args(args);
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let lines = BufReader::new(running.0.stdout.take().expect("its output is piped"));
        let told = running.0.stdin.take().expect("its input is piped");
        Beside { lines, told, _running: running }
    }

    /// Makes a consumer of the stream of jobs with this ack wait, and the stream if it is missing.
    pub(crate) fn add_consumer(&self, name: &str, subjects: &[&str], ack_wait_s: u32) {
        let script = "
await js.add_stream(name='JOBS', subjects=['jobs.dispatch.*', 'jobs.pool.*'], retention='workqueue',
                    discard='new', max_age=604800, max_bytes=1 << 30)
name, ack_wait, *subjects = args
await js.add_consumer('JOBS', ConsumerConfig(durable_name=name, ack_wait=int(ack_wait),
    ack_policy=AckPolicy.EXPLICIT, max_ack_pending=10000,
    filter_subjects=subjects if len(subjects) > 1 else None,
    filter_subject=subjects[0] if len(subjects) == 1 else None))";
        self.python(script, &[&[name, &ack_wait_s.to_string()], subjects].concat());
    }

    /// Writes the claim of a job where nodes keep theirs; `key` is `pool.job`.
    pub(crate) fn put_claim(&self, key: &str, claim: &Value) {
        let script = "
try:
    kv = await js.key_value('JOB_CLAIMS')
except nats.js.errors.BucketNotFoundError:
    kv = await js.create_key_value(bucket='JOB_CLAIMS')
await kv.put(args[0], args[1].encode())";
        self.python(script, &[key, &claim.to_string()]);
    }

    fn python_url(&self) -> String {
        format!("nats://{}127.0.0.1:{}", self.user, self.port)
    }
}

/// The definition of `main`, which connects to a URL and runs this body for at most so long.
fn coroutine(body: &str, limit_s: u32) -> String {
    let body = body.replace('\n', "\n        ");
    format!(
        "async def main(url, *args):\n    \
             async def body(nc, js):\n        \
                 pass\n        {body}\n    \
             nc = await nats.connect(url)\n    \
             await asyncio.wait_for(body(nc, nc.jetstream()), {limit_s})\n    \
             await nc.close()\n"
    )
}

/// A Python client that runs beside the test, until this value is dropped.
#[derive(Debug)]
pub(crate) struct Beside {
    lines: BufReader<ChildStdout>,
    told: ChildStdin,
    _running: Running,
}

impl Beside {
    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line of UTF-8");
        line.trim().to_owned()
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.told, "{line}").expect("it listens");
    }
}
