use super::*;
use crate::watch::profile::Shelf;

const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn profile() -> Filled {
    let values = [
        ("name", "one"),
        ("home", "/home/rig"),
        ("backends", "10.0.0.5:50052,rig.lan:50052"),
        ("coordinator", "127.0.0.1:8080"),
    ];
    let values: BTreeMap<String, String> =
        values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    Shelf::default().get("llama-cpp").unwrap().fill(&values).unwrap()
}

fn system() -> System {
    System::of("one", &profile(), &Watched::default())
}

fn port(name: &str, is_open: bool, second: u64) -> Observation {
    let seen = Seen::Port { name: name.to_owned(), is_open };
    Observation { at: T0.plus(Duration::from_secs(second)), seen }
}

fn taken(system: &mut System, observation: &Observation) -> Option<Happened> {
    system.take(observation).into_iter().next()
}

/// What the profile makes of a line of a log, as it is after scrubbing.
fn line(log: &str, text: &str, second: u64) -> Observation {
    use crate::watch::line::{Line, Record};
    let text = Line::read(text.as_bytes()).as_str().to_owned();
    let written =
        Record { at: None, level: None, logger: String::new(), text: text.clone(), left_out: 0 };
    let shelf = Shelf::default();
    let values =
        [("name", "one"), ("home", "/h"), ("coordinator_log", "/a"), ("backend_log", "/b")];
    let values: BTreeMap<String, String> =
        values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let filled = shelf.get("llama-cpp").unwrap().fill(&values).unwrap();
    let of = filled.logs.iter().find(|it| it.name == log).unwrap();
    let meaning = of.classifier.meaning(&written).expect(&text).clone();
    let seen = Seen::Told { log: log.to_owned(), meaning, text, said: None };
    Observation { at: T0.plus(Duration::from_secs(second)), seen }
}

fn told(system: &mut System, observation: &Observation) -> Option<(&'static str, &'static str)> {
    taken(system, observation).map(|it| (it.component, it.event_type))
}

#[test]
fn a_start_is_told_once_whether_its_port_or_its_log_tells_it_first() {
    let listening = "main: server is listening on http://127.0.0.1:8080 - starting the main loop";
    for port_first in [true, false] {
        let mut system = system();
        let (one, other) = (port("coordinator", true, 1), line("coordinator", listening, 2));
        let (first, second) = if port_first { (one, other) } else { (other, one) };
        assert_eq!(told(&mut system, &first), Some(("coordinator", "start")));
        assert_eq!(told(&mut system, &second), None, "{port_first}");
        assert_eq!(
            told(&mut system, &port("coordinator", false, 60)),
            Some(("coordinator", "stop"))
        );
        assert_eq!(system.heartbeat(T0), None);
        let again = taken(&mut system, &line("coordinator", listening, 90)).unwrap();
        assert_eq!((again.event_type, &again.details["port"]), ("start", &json!(8080)));
        assert_eq!(again.details["rpc_backends"], json!(["10.0.0.5:50052", "rig.lan:50052"]));
        assert_eq!(told(&mut system, &port("coordinator", true, 92)), None);
        let beat = system.heartbeat(T0.plus(Duration::from_mins(2))).unwrap();
        assert_eq!(beat.backend, "127.0.0.1:8080");
        assert_eq!(beat.details["restart_count"], 1);
        assert_eq!(beat.details["uptime_seconds"], 30);
    }
}

#[test]
fn backends_come_and_go_by_their_ports_and_the_registry_counts_them() {
    let mut system = system();
    assert_eq!(told(&mut system, &port("rpc 1", true, 1)), Some(("rpc_backend", "connect")));
    assert_eq!(told(&mut system, &port("rpc 1", true, 2)), None);
    let gone = taken(&mut system, &port("rpc 2", false, 3)).unwrap();
    assert_eq!((gone.event_type, gone.backend.as_str()), ("disconnect", "rig.lan:50052"));
    assert_eq!(gone.details["total_active"], 1);
    assert_eq!(told(&mut system, &port("of nobody", true, 4)), None);
    let of = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let all = of(system.configured().collect());
    let beat = registry(&all, &of(system.active()), &of(system.silent()), T0);
    assert_eq!((beat.backend.as_str(), beat.level), ("rpc_registry", Level::Warning));
    let details = json!({
        "type": "heartbeat", "model": "rpc_backends", "status": "degraded", "rpc_backends": 1,
        "rpc_addresses": ["10.0.0.5:50052"], "silent_addresses": ["rig.lan:50052"],
        "unknown_addresses": [], "total_configured": 2, "total_active": 1,
    });
    assert_eq!(Value::Object(beat.details), details);
}

#[test]
fn what_the_logs_say_is_told_in_the_seeds_words() {
    let mut system = system();
    let loads = "srv    load_model: loading model '/models/llama-70b.gguf'";
    let model = taken(&mut system, &line("coordinator", loads, 1)).unwrap();
    assert_eq!((model.component, model.event_type), ("model", "model_load"));
    assert_eq!(model.observed, Some("coordinator_model_load"));
    assert_eq!(model.details["model"], "/models/llama-70b.gguf");
    for (log, text, component, event_type) in [
        ("backend", "Starting RPC server v2.0.0", "rpc_backend", "start"),
        (
            "coordinator",
            "Remote RPC server crashed or returned malformed response",
            "coordinator",
            "error",
        ),
        (
            "backend",
            "ggml_backend_cuda_buffer_type_alloc_buffer: cudaMalloc failed: out of memory",
            "rpc_backend",
            "error",
        ),
    ] {
        let happened = taken(&mut system, &line(log, text, 2)).expect(text);
        assert_eq!((happened.component, happened.event_type), (component, event_type), "{text}");
        assert_eq!(happened.message, text);
    }
    let mut old = line("coordinator", loads, 4_000);
    if let Seen::Told { said, .. } = &mut old.seen {
        *said = Some(T0);
    }
    assert_eq!(system.take(&old), [], "it was written an hour before");
}

#[test]
fn after_a_restart_of_the_sidecar_what_goes_on_is_no_news() {
    let mut known = Watched::default();
    for observation in [port("coordinator", true, 1), port("rpc 1", true, 1)] {
        known.apply(&observation);
    }
    let mut system = System::of("one", &profile(), &known);
    assert_eq!(told(&mut system, &port("coordinator", true, 2)), None);
    assert_eq!(system.active(), ["10.0.0.5:50052"]);
    assert!(system.heartbeat(T0).is_some());
}

#[test]
fn a_backend_that_a_log_names_is_one_of_the_profiles_or_none() {
    let (mut same_port, mut own_ports) = (system(), system());
    own_ports.backends.insert("rpc 2".to_owned(), "rig.lan:50053".to_owned());
    let to = |address: &str| format!("Failed to connect to {address}");
    for (is_same_port, log, text, backend) in [
        (false, "coordinator", to("10.0.0.5:50052"), "10.0.0.5:50052"),
        (false, "coordinator", to("203.0.113.9:50053"), "rig.lan:50053"),
        (false, "coordinator", to("10.0.0.5:9"), ""),
        (false, "backend", "Accepted client connection".to_owned(), ""),
        (false, "coordinator", "using device RPC0 (a card)".to_owned(), ""),
        (true, "coordinator", to("203.0.113.9:50052"), ""),
    ] {
        let system = if is_same_port { &mut same_port } else { &mut own_ports };
        let told = taken(system, &line(log, &text, 2)).expect(&text);
        assert_eq!((told.component, told.backend.as_str()), ("rpc_backend", backend), "{text}");
        assert_eq!(told.observed.is_some(), !backend.is_empty(), "{text}");
        assert_eq!(told.details.get("backend").is_some(), !backend.is_empty(), "{text}");
    }
}

#[test]
fn a_coordinator_whose_port_is_closed_has_no_heartbeat_whatever_its_log_says() {
    let listening = "main: server is listening on http://127.0.0.1:8080";
    let crash = "ggml_abort: Remote RPC server crashed";
    let mut system = system();
    system.take(&port("coordinator", false, 1));
    assert_eq!(
        told(&mut system, &line("coordinator", listening, 2)),
        Some(("coordinator", "start"))
    );
    assert_eq!(system.heartbeat(T0), None, "the port is closed");
    let ends: Vec<_> =
        system.take(&line("coordinator", crash, 3)).iter().map(|it| it.event_type).collect();
    assert_eq!(ends, ["error", "stop"]);
    assert_eq!(system.heartbeat(T0), None);
    assert_eq!(
        told(&mut system, &line("coordinator", listening, 4)),
        Some(("coordinator", "start"))
    );
    assert_eq!(told(&mut system, &port("coordinator", true, 6)), None, "the log told it");
    assert_eq!(system.heartbeat(T0).unwrap().details["restart_count"], 1);
    let ends: Vec<_> =
        system.take(&line("coordinator", crash, 7)).iter().map(|it| it.event_type).collect();
    assert_eq!(ends, ["error"], "its port is open");
    assert_eq!(told(&mut system, &port("coordinator", false, 8)), Some(("coordinator", "stop")));
}

#[test]
fn a_model_that_loads_for_minutes_is_no_restart() {
    let listening = "main: server is listening on http://127.0.0.1:8080";
    let mut system = system();
    system.take(&port("coordinator", true, 1));
    assert_eq!(told(&mut system, &line("coordinator", listening, 301)), None);
    assert_eq!(
        system.heartbeat(T0.plus(Duration::from_secs(302))).unwrap().details["restart_count"],
        0
    );
    system.take(&line("coordinator", "ggml_abort: Remote RPC server crashed", 400));
    let again = told(&mut system, &line("coordinator", listening, 401));
    assert_eq!(again, Some(("coordinator", "start")), "after a crash it is another one");
}

#[test]
fn backends_that_nobody_asked_yet_are_not_told_as_silent() {
    let mut system = system();
    let of = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let beat = |system: &System| {
        let all = of(system.configured().collect());
        registry(&all, &of(system.active()), &of(system.silent()), T0).details
    };
    let first = beat(&system);
    assert_eq!((&first["status"], &first["silent_addresses"]), (&json!("unknown"), &json!([])));
    assert_eq!(first["unknown_addresses"], json!(["10.0.0.5:50052", "rig.lan:50052"]));
    system.take(&port("rpc 1", false, 1));
    let then = beat(&system);
    assert_eq!(
        (&then["silent_addresses"], &then["unknown_addresses"]),
        (&json!(["10.0.0.5:50052"]), &json!(["rig.lan:50052"]))
    );
}
