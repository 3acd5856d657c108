//! A hub of the real program, and requests to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::program::Program;
use crate::support::tools::{Running, eventually, free_port};

pub(crate) const SECRET: &str = "shared-hunter2";
pub(super) const ADMIN: &str = "admin-hunter3";

/// The limit for whatever has to happen, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A hub in a folder of its own.
pub(crate) struct Hub {
    pub(super) program: Program,
    pub(crate) at: String,
    running: Option<Running>,
}

/// The head that proves who asks.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// An answer: status, head in lower case, body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Reads an answer until its connection is closed.
pub(super) fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has told it all the same.
    stream.read_to_end(&mut bytes).ok();
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// Asks this address; `None` if nobody answers.
pub(crate) fn ask(at: &str, line: &str, heads: &[&str], body: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(at).ok()?;
    let length = format!("content-length: {}", body.len());
    let host = format!("host: {at}\r\nconnection: close");
    let mut lines = vec![host.as_str(), &length];
    lines.extend(heads);
    let request = format!("{line} HTTP/1.1\r\n{}\r\n\r\n{body}", lines.join("\r\n"));
    stream.write_all(request.as_bytes()).ok()?;
    read_answer(&mut stream)
}

impl Hub {
    /// A hub that is not started yet, with these settings more.
    pub(super) fn with(settings: &[(&str, &str)]) -> Self {
        let at = format!("127.0.0.1:{}", free_port());
        let mut program = Program::with(&[
            ("SHARED_SECRET", SECRET),
            ("ADMIN_TOKEN", ADMIN),
            ("HUB_LISTEN", &at),
        ]);
        for (name, value) in settings {
            program.set(name, value);
        }
        Self { program, at, running: None }
    }

    /// A hub that answers, with these settings more.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let mut hub = Self::with(settings);
        hub.begin();
        hub
    }

    /// Lets it log into this file instead of its own, from the next start on.
    pub(super) fn log_into(&self, path: &str) {
        std::os::unix::fs::symlink(path, self.program.path("log")).expect("no log yet");
    }

    /// Starts it, and waits until it answers.
    pub(super) fn begin(&mut self) {
        let log = File::options().create(true).append(true).open(self.program.path("log"));
        let mut command = self.program.command(&["hub"]);
        self.running = Some(Running::start(command.stderr(log.expect("a log"))));
        eventually("the hub is ready", PATIENCE, || {
            ask(&self.at, "GET /readyz", &[], "").filter(|answer| answer.status == 200)
        });
    }

    /// Its process.
    pub(super) fn child(&mut self) -> &mut std::process::Child {
        &mut self.running.as_mut().expect("it was started").0
    }

    /// Kills it with SIGKILL.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// What it has logged.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.program.path("log")).unwrap_or_default()
    }

    pub(crate) fn ask(&self, line: &str, heads: &[&str], body: &str) -> Answer {
        ask(&self.at, line, heads, body).unwrap_or_else(|| panic!("no answer: {}", self.log()))
    }

    /// Posts a body as a beat, with this token.
    pub(super) fn post(&self, token: &str, body: &str) -> Answer {
        self.ask("POST /api/heartbeat", &[&bearer(token)], body)
    }

    /// Posts a beat of this node, which must be taken.
    #[track_caller]
    pub(crate) fn beat(&self, node: &str, status: &str) {
        let body = json!({"node_id": node, "ip": "203.0.113.7", "meta": "m", "status": status});
        let answer = self.post(SECRET, &body.to_string());
        assert_eq!((answer.status, answer.json()), (200, json!({"ok": true})));
    }

    /// Posts a beat that the hub may not live to answer.
    pub(super) fn try_beat(&self, node: &str, status: &str) {
        let body = json!({"node_id": node, "ip": "203.0.113.7", "meta": "m", "status": status});
        ask(&self.at, "POST /api/heartbeat", &[&bearer(SECRET)], &body.to_string());
    }

    /// The owner's call, with its status.
    pub(super) fn admin(&self, call: &str, body: &Value) -> (u16, Value) {
        let line = format!("POST /api/admin/{call}");
        let answer = self.ask(&line, &[&bearer(ADMIN)], &body.to_string());
        (answer.status, answer.json())
    }

    /// What `GET /api/nodes` says.
    pub(super) fn nodes(&self) -> Vec<Value> {
        let answer = self.ask("GET /api/nodes", &[], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().expect("an array").clone()
    }

    /// What `GET /api/nodes` says to who sends this head.
    pub(super) fn nodes_as(&self, head: &str) -> Vec<Value> {
        let answer = self.ask("GET /api/nodes", &[head], "");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_array().expect("an array").clone()
    }

    /// The names that `GET /api/nodes` lists.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |node: &Value| node["node_id"].as_str().expect("a name").to_owned();
        self.nodes().iter().map(name).collect()
    }
}
