//! The live views, each a `WebSocket`, as a foreign client sees them.

use std::time::Duration;

use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::fleet::{Event, Kind, kinds};
use lamda_node::ids::Address;
use serde_json::Value;

use super::process::{ADMIN, Hub, PATIENCE, bearer};
use crate::support::nats::Nats;
use crate::support::tools::eventually;
use crate::support::websocket::{self, Watcher};

const NODE: Address = Address::new([0x5a; 20]);
const OTHER: Address = Address::new([0x17; 20]);

fn event(kind: Kind, node: Address) -> Event {
    Event::new(kind, node, SystemClock.now(), "it was said")
}

fn of_job(kind: Kind, node: Address) -> Event {
    event(kind, node).about(&"job-1".parse().expect("an id")).with("run_ms", 1500)
}

/// Sends events into the stream.
fn tell(nats: &Nats, events: &[Event]) {
    let pairs: Vec<String> = events
        .iter()
        .flat_map(|it| {
            let subject = format!("events.{}.{}.{}", it.node, it.component, it.event_type);
            [subject, it.to_json()]
        })
        .collect();
    let pairs: Vec<&str> = pairs.iter().map(String::as_str).collect();
    let script =
        "for at in range(0, len(args), 2):\n    await js.publish(args[at], args[at + 1].encode())";
    nats.python(script, &pairs);
}

/// A hub that listens to this NATS.
fn hub_on(nats: &Nats, settings: &[(&str, &str)]) -> Hub {
    let url = nats.url();
    let hub = Hub::start(&[&[("NATS_URL", url.as_str())], settings].concat());
    eventually("it listens", PATIENCE, || hub.log().contains("listening to NATS").then_some(()));
    // The stream is there once the hub reads it.
    let has_stream = "try:\n    print((await js.stream_info('EVENTS')).config.name)\nexcept Exception:\n    pass";
    eventually("it reads events", PATIENCE, || {
        (nats.python(has_stream, &[]) == "EVENTS").then_some(())
    });
    hub
}

#[test]
fn each_view_shows_what_happens_in_the_dashboards_form() {
    let nats = Nats::start();
    let hub = hub_on(&nats, &[("HUB_PUBLIC", "full")]);
    let open = |path| Watcher::open(&hub.at, path, &[]);
    let (logs, traces, routing) =
        (open("/ws/logs"), open("/ws/traces"), open("/ws/routing_events"));
    let (nodes, backends) = (open("/ws/network/nodes"), open("/ws/network/backends"));
    let (rpc, ollama) = (open("/ws/network/rpc_activity"), open("/ws/network/ollama_activity"));
    let only = Watcher::open(&hub.at, &format!("/ws/logs?node={OTHER}"), &[]);
    assert_eq!(nodes.message("type", "heartbeat")["nodes_count"], 0);
    for watcher in [&traces, &routing, &rpc, &ollama] {
        assert!(watcher.message("type", "connected")["message"].is_string());
    }
    tell(
        &nats,
        &[
            of_job(kinds::JOB_ACCEPTED, NODE),
            of_job(kinds::JOB_COMPLETED, NODE),
            event(kinds::PULL_DONE, NODE),
            event(kinds::LINK_CONNECTED, OTHER),
        ],
    );
    let log = logs.message("event_type", "request");
    assert_eq!((&log["component"], &log["level"]), (&"coordinator".into(), &"info".into()));
    assert_eq!(traces.message("type", "trace_start")["trace"]["job_id"], "job-1");
    assert_eq!(traces.message("type", "trace_complete")["trace"]["status"], "completed");
    let routed = routing.message("event_type", "TASK_COMPLETE");
    assert_eq!(
        (&routed["type"], &routed["full_event"]["duration"]),
        (&"routing_event".into(), &1.5.into())
    );
    assert_eq!(rpc.message("type", "rpc_backend_connect")["backend"], OTHER.to_string());
    assert_eq!(ollama.message("type", "ollama_model_load")["event"]["severity"], "info");
    let found = nodes.message("type", "node_discovered");
    assert!([NODE, OTHER].iter().any(|it| found["node"] == it.lower_hex()), "{found}");
    backends.message("backend", &OTHER.lower_hex());
    // One application's part of it.
    only.message("event_type", "connect");
    assert_eq!(only.lines().len(), 2, "it is about one node: {:?}", only.lines());
    // Who comes later has a picture of the nodes at once.
    let late = Watcher::open(&hub.at, "/ws/network/nodes", &[]);
    assert_eq!(late.message("type", "heartbeat")["nodes_count"], 2);
}

#[test]
fn who_may_not_see_everything_and_another_sites_page_watch_nothing() {
    let hub = Hub::start(&[("HUB_PUBLIC", "status")]);
    let refused = |heads: &[&str]| {
        let watcher = Watcher::start(&hub.at, "/ws/logs", heads);
        watcher.wait_for("an answer", |_| true)
    };
    assert_eq!(refused(&[]), "refused 401");
    assert_eq!(refused(&["Authorization: Bearer wrong-token"]), "refused 401");
    let admin = bearer(ADMIN);
    assert_eq!(refused(&[&admin]), "open");
    assert_eq!(refused(&[&admin, "Origin: http://evil.example"]), "refused 403");
    let own = format!("Origin: http://{}", hub.at);
    assert_eq!(refused(&[&admin, &own]), "open");
    let plain = hub.ask("GET /ws/logs", &[&admin], "");
    assert!((400..=426).contains(&plain.status), "no WebSocket: {plain:?}");
}

#[test]
fn there_is_a_limit_to_sockets_and_the_places_of_those_that_end_are_free() {
    let hub = Hub::start(&[("HUB_PUBLIC", "full")]);
    assert_eq!(websocket::many(&hub.at, "/ws/logs"), "256 503");
    eventually("there is room again", PATIENCE, || {
        let watcher = Watcher::start(&hub.at, "/ws/logs", &[]);
        Some(watcher.wait_for("an answer", |_| true)).filter(|line| line == "open")
    });
}

#[test]
fn a_hub_that_ends_says_so_to_who_watches() {
    let mut hub = Hub::start(&[("HUB_PUBLIC", "full")]);
    let watcher = Watcher::open(&hub.at, "/ws/network/nodes", &[]);
    let pid = rustix::process::Pid::from_child(hub.child());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    let line = watcher.wait_for("it ends", |line| line.starts_with("closed"));
    assert_eq!(line, "closed 1001 the hub ends");
    let status = hub.child().wait().expect("it ends");
    assert!(status.success(), "{status}");
}

/// Opens a socket and reads nothing more until a file is there; then reads to the end.
const LAZY: &str = "
import os, socket, sys, time
host, port, until = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.create_connection((host, port))
s.sendall((f'GET /ws/logs HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nUpgrade: websocket\\r\\n'
           'Connection: Upgrade\\r\\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\n'
           'Sec-WebSocket-Version: 13\\r\\n\\r\\n').encode())
print(s.recv(12).decode(), flush=True)
while not os.path.exists(until):
    time.sleep(0.05)
s.settimeout(60)
total = 0
try:
    while data := s.recv(1 << 16):
        total += len(data)
    print('cut', total, flush=True)
except ConnectionError:
    print('cut', total, flush=True)
except TimeoutError:
    print('still open', total, flush=True)
";

#[test]
fn who_does_not_read_is_cut_off_and_others_miss_nothing() {
    const EVENTS: usize = 6_000;
    let nats = Nats::start();
    let hub = hub_on(&nats, &[("HUB_PUBLIC", "full")]);
    let dir = tempfile::tempdir().expect("a folder");
    let until = dir.path().join("read");
    let (host, port) = hub.at.split_once(':').expect("a port");
    let mut lazy = std::process::Command::new(crate::support::nats_py::interpreter());
    lazy.args(["-u", "-c", LAZY, host, port]).arg(&until).stdout(std::process::Stdio::piped());
    let mut lazy = crate::support::tools::Running::start(&mut lazy);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(
        lazy.0.stdout.take().expect("it is piped"),
    ));
    let mut line = || lines.next().expect("a line").expect("UTF-8");
    assert_eq!(line(), "HTTP/1.1 101");
    let quick = Watcher::open(&hub.at, "/ws/logs", &[]);
    let long = "x".repeat(3_500);
    let event = event(kinds::CHAIN_HEARTBEAT, NODE).with("text", long.as_str());
    let subject = format!("events.{NODE}.chain.heartbeat");
    let script = "
for number in range(int(args[2])):
    body = args[1].replace('it was said', f'number {number} of all')
    await js.publish(args[0], body.encode())
";
    nats.python(script, &[&subject, &event.to_json(), &EVENTS.to_string()]);
    let is_there = |line: &String| line.contains(" of all");
    eventually("the quick one has all", Duration::from_mins(2), || {
        (quick.lines().iter().filter(|line| is_there(line)).count() == EVENTS).then_some(())
    });
    // More than a system keeps for a reader that doesn't read, and longer than the hub waits for it.
    eventually("the lazy one has no place any more", Duration::from_mins(1), || {
        let page = hub.ask("GET /metrics", &[], "").body;
        let count = |line: &str| line.strip_prefix("lamda_hub_sockets ")?.parse::<f64>().ok();
        page.lines().any(|line| count(line) == Some(1.0)).then_some(())
    });
    std::fs::write(&until, "").expect("a file");
    let said = line();
    let got: usize = said.strip_prefix("cut ").expect(&said).parse().expect("a number");
    assert!(got < EVENTS * 3_500, "it got {got} bytes, and was cut off before the end");
}

#[test]
fn a_made_up_event_breaks_no_view() {
    let nats = Nats::start();
    let hub = hub_on(&nats, &[("HUB_PUBLIC", "full")]);
    let logs = Watcher::open(&hub.at, "/ws/logs", &[]);
    let hostile = "</script>\u{202e}\\u0000\" ]}";
    let mut made_up = event(kinds::JOB_FAILED, NODE).to_json();
    made_up = made_up.replace("it was said", &hostile.replace('\\', "\\\\").replace('"', "\\\""));
    let script = "await js.publish(args[0], args[1].encode())\nawait js.publish(args[0], b'{')";
    nats.python(script, &[&format!("events.{NODE}.job.failed"), &made_up]);
    tell(&nats, &[event(kinds::NODE_READY, NODE)]);
    logs.message("event_type", "status");
    for line in logs.lines().iter().filter(|line| *line != "open") {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}
