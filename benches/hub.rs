//! How many beats a hub takes in a second, each on the disk before it is answered.
//!
//! `cargo bench --bench hub [-- --connections N | --nodes N | --seconds N | --at ADDRESS]` prints JSON. It starts the
//! hub of this build on a folder in the working directory and posts beats over connections that are kept, as a proxy
//! before it does, from one thread beside it. `--at` posts to a server that runs already, with the secret
//! `bench-secret`. docs/performance.md has the figures.

#![expect(clippy::print_stdout, reason = "the figures go to stdout")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const SECRET: &str = "bench-secret";

/// How long the hub may take to start.
const START: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Load {
    at: Option<SocketAddr>,
    connections: usize,
    nodes: usize,
    seconds: u64,
}

/// The hub, which ends with this.
struct Hub(Child);

impl Drop for Hub {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn main() {
    let load = load();
    let dir = tempfile::tempdir_in(".").expect("a folder on a disk");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let own = port.expect("a free port");
    let hub = load.at.is_none().then(|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamda-node"));
        command.arg("hub").current_dir(dir.path()).env("DATA_DIR", dir.path());
        command.env("SHARED_SECRET", SECRET).env("HUB_LISTEN", own.to_string());
        Hub(command.stderr(Stdio::null()).spawn().expect("the hub starts"))
    });
    let at = load.at.unwrap_or(own);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (mut took, span) = runtime.expect("a runtime").block_on(post(at, load));
    drop(hub);
    took.sort_unstable();
    let at = |share: usize| took.get((took.len() * share / 1_000).min(took.len() - 1));
    let [p50, p99, max] = [500, 990, 1_000].map(|share| at(share).map_or(0, |it| it.as_micros()));
    println!(
        "{{\"connections\":{},\"nodes\":{},\"beats\":{},\"beats_per_s\":{:.0},\"p50_us\":{p50},\
         \"p99_us\":{p99},\"max_us\":{max}}}",
        load.connections,
        load.nodes,
        took.len(),
        took.len() as f64 / span.as_secs_f64(),
    );
}

fn load() -> Load {
    let mut load = Load { at: None, connections: 256, nodes: 10_000, seconds: 10 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|it| it.parse().ok()).expect("a number");
        match word.as_str() {
            "--connections" => load.connections = number(),
            "--nodes" => load.nodes = number(),
            "--seconds" => load.seconds = number() as u64,
            "--at" => load.at = words.next().and_then(|it| it.parse().ok()),
            // cargo's own.
            _ => {}
        }
    }
    load
}

/// Posts beats, and returns how long each took and how long all of it did.
async fn post(at: SocketAddr, load: Load) -> (Vec<Duration>, Duration) {
    let begun = Instant::now();
    while TcpStream::connect(at).await.is_err() {
        assert!(begun.elapsed() < START, "the hub answers");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (begun, end) = (Instant::now(), Instant::now() + Duration::from_secs(load.seconds));
    let all = (0..load.connections).map(|number| connection(at, load, number, end));
    let took = futures_util::future::join_all(all).await;
    (took.into_iter().flatten().collect(), begun.elapsed())
}

async fn connection(at: SocketAddr, load: Load, number: usize, end: Instant) -> Vec<Duration> {
    let (mut took, mut stream, mut node) = (Vec::new(), None, number);
    let mut buffer = [0; 1024];
    while Instant::now() < end {
        let mut open = match stream.take() {
            Some(open) => open,
            None => {
                let open = TcpStream::connect(at).await.expect("it listens");
                open.set_nodelay(true).ok();
                open
            }
        };
        let body = format!(
            r#"{{"node_id":"node-{node:05}","ip":"203.0.113.7","meta":"hetzner-fsn1","status":"UP"}}"#
        );
        let request = format!(
            "POST /api/heartbeat HTTP/1.1\r\nhost: hub\r\nauthorization: Bearer {SECRET}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = Instant::now();
        open.write_all(request.as_bytes()).await.expect("it takes the request");
        let mut length = 0;
        // Some servers send head and body apart.
        while !buffer[..length].ends_with(b"}") {
            let read = open.read(&mut buffer[length..]).await.expect("an answer");
            assert!(read > 0, "the connection ended within an answer");
            length += read;
        }
        took.push(sent.elapsed());
        let answer = String::from_utf8_lossy(&buffer[..length]);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream = (!answer.contains("connection: close")).then_some(open);
        node = (node + load.connections) % load.nodes;
    }
    took
}
