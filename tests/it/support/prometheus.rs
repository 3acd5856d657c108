//! A real Prometheus that scrapes one node, its `promtool`, and what a node's page says.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{Running, eventually, free_port, run_with_input, tool};

/// The limit for its start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends this method and path, and returns the status, the head in lower case and the body; `None` if nobody listens.
pub(crate) fn http(address: &str, method: &str, path: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    // With HTTP/1.0 a body ends with its connection.
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, head.to_ascii_lowercase(), body.to_owned()))
}

/// What a node's `/metrics` said.
#[derive(Debug)]
pub(crate) struct Page(pub(crate) String);

impl Page {
    /// What is at this address; `None` if nobody answers there.
    pub(crate) fn at(listen: &str) -> Option<Self> {
        let (status, head, body) = http(listen, "GET", "/metrics")?;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{head}");
        Some(Self(body))
    }

    /// The first page at this address of which `is_it` holds.
    pub(crate) fn when(listen: &str, what: &str, is_it: impl Fn(&Self) -> bool) -> Self {
        eventually(what, PATIENCE * 2, || Self::at(listen).filter(&is_it))
    }

    /// The value of a series, as it is written; `None` if it is absent.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        let rest = |line: &str| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned);
        let text = self.0.lines().find_map(rest)?;
        Some(text.parse().expect("a number"))
    }

    /// The names of the families that have values.
    pub(crate) fn families(&self) -> std::collections::BTreeSet<&str> {
        let values = self.0.lines().filter(|line| !line.starts_with('#'));
        values.filter_map(|line| line.split(['{', ' ']).next()).collect()
    }

    /// Asserts that `promtool check metrics` finds nothing.
    pub(crate) fn is_clean(&self) {
        let mut promtool = Command::new(tool("promtool"));
        let said = run_with_input(promtool.args(["check", "metrics"]), &self.0);
        let words = [&said.stdout, &said.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(said.status.success() && words == ["", ""], "{words:?}\n{}", self.0);
    }
}

/// A Prometheus that scrapes a node each second.
#[derive(Debug)]
pub(crate) struct Prometheus {
    port: u16,
    _running: Running,
    _dir: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes this address.
    pub(crate) fn of(listen: &str) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let path = |name: &str| dir.path().join(name);
        let config = format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: node, static_configs: [{{targets: ['{listen}']}}]}}]\n"
        );
        std::fs::write(path("prometheus.yml"), config).expect("its configuration");
        let running = Running::start(
            Command::new(tool("prometheus"))
                .arg(format!("--config.file={}", path("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", path("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(path("log")).expect("a log")),
        );
        eventually("prometheus listens", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { port, _running: running, _dir: dir }
    }

    /// The series that this expression gives now.
    pub(crate) fn ask(&self, expression: &str) -> Vec<Value> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}").expect("a text takes all");
        }
        let (_, _, body) =
            http(&format!("127.0.0.1:{}", self.port), "GET", &path).expect("it listens");
        // It refuses in plain text while it starts.
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        assert!(answer.is_null() || answer["status"] == "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}
