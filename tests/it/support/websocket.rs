//! A foreign client of `WebSocket`: the Python package `websockets`.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::nats_py;
use super::tools::{Running, eventually};

/// Prints what a socket says, a line each: `open`, `refused STATUS`, the messages, `closed CODE REASON`.
const CLIENT: &str = "
import asyncio, sys, websockets
async def main(url, *heads):
    try:
        more = [tuple(head.split(': ', 1)) for head in heads]
        ws = await websockets.connect(url, additional_headers=more, max_size=None, ping_interval=None)
    except websockets.exceptions.InvalidStatus as err:
        print('refused', err.response.status_code, flush=True)
        return
    print('open', flush=True)
    try:
        async for message in ws:
            print(message, flush=True)
    except websockets.exceptions.ConnectionClosedError:
        pass
    print('closed', ws.close_code, ws.close_reason, flush=True)
asyncio.run(main(*sys.argv[1:]))
";

/// Opens sockets until one is refused or 300 are open, and prints how many are and the status of the refusal.
const MANY: &str = "
import asyncio, sys, websockets
async def main(url):
    open = []
    status = 0
    try:
        for _ in range(300):
            open.append(await websockets.connect(url))
    except websockets.exceptions.InvalidStatus as err:
        status = err.response.status_code
    print(len(open), status, flush=True)
    for ws in open:
        await ws.close()
asyncio.run(main(*sys.argv[1:]))
";

/// A socket that somebody watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    lines: Arc<Mutex<Vec<String>>>,
    _running: Running,
}

impl Watcher {
    /// Opens `path` of this host with these further heads.
    pub(crate) fn start(at: &str, path: &str, heads: &[&str]) -> Self {
        let mut command = Command::new(nats_py::interpreter());
        command.args(["-u", "-c", CLIENT]).arg(format!("ws://{at}{path}")).args(heads);
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let told = BufReader::new(running.0.stdout.take().expect("it is piped"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in told.lines().map_while(Result::ok) {
                into.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Self { lines, _running: running }
    }

    /// As [`Watcher::start`]; it is open when this returns.
    pub(crate) fn open(at: &str, path: &str, heads: &[&str]) -> Self {
        let watcher = Self::start(at, path, heads);
        watcher.wait_for(&format!("{path} is open"), |line| line == "open");
        watcher
    }

    /// All that was said.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first line that is so.
    pub(crate) fn wait_for(&self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        eventually(what, Duration::from_mins(1), || {
            self.lines().into_iter().find(|line| is_it(line))
        })
    }

    /// The first message with this value under this key.
    pub(crate) fn message(&self, key: &str, value: &str) -> Value {
        let read = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let line = self
            .wait_for(&format!("a message with {key} {value}"), |line| read(line)[key] == value);
        read(&line)
    }
}

/// How many sockets can be open at a time, and how one more is refused.
pub(crate) fn many(at: &str, path: &str) -> String {
    let mut command = Command::new(nats_py::interpreter());
    let output = command.args(["-u", "-c", MANY]).arg(format!("ws://{at}{path}")).output();
    String::from_utf8(output.expect("python runs").stdout).expect("UTF-8").trim().to_owned()
}
