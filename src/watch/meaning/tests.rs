//! Lines as programs write them, typed anew from what is known of their forms, read with the shipped profiles.

use std::collections::BTreeMap;

use super::*;
use crate::clock::Timestamp;
use crate::watch::grammar::{Assembler, Local};
use crate::watch::line::{Line, Record};
use crate::watch::profile::{FilledLog, Shelf};

const PEER: &str = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";

fn log(profile: &str, name: &str, more: &[(&str, &str)]) -> FilledLog {
    let values = [("home", "/h"), ("name", "a")].iter().chain(more);
    let values: BTreeMap<String, String> =
        values.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let filled = Shelf::default().get(profile).unwrap().fill(&values).unwrap();
    filled.logs.into_iter().find(|log| log.name == name).unwrap()
}

/// The records of a text and what they mean.
fn read(log: &FilledLog, text: &str) -> Vec<(Record, Option<Meaning>)> {
    let mut assembler = Assembler::new(log.grammar.clone(), &Local::utc());
    let now = Timestamp::from_unix_ms(0);
    let mut records: Vec<Record> = Vec::new();
    for line in text.split('\n') {
        records.extend(assembler.take(&Line::read(line.as_bytes()), (), now).map(|(it, ())| it));
    }
    records.extend(assembler.end().map(|(it, ())| it));
    let with = |record: Record| {
        let meaning = log.classifier.meaning(&record);
        (record, meaning)
    };
    records.into_iter().map(with).collect()
}

/// What the only record of a text means, as `kind level cause field=value …`.
fn told(log: &FilledLog, text: &str) -> String {
    let found = read(log, text);
    assert_eq!(found.len(), 1, "{text}");
    let Some(meaning) = &found[0].1 else { return "nothing".to_owned() };
    let cause = meaning.cause.as_deref().unwrap_or("-");
    let mut out = format!("{} {} {cause}", meaning.kind.as_str(), meaning.level.as_str());
    for (name, value) in &meaning.fields {
        out.extend([" ", name, "=", value]);
    }
    out
}

/// Lines of a node of today, by level, with what they mean.
const LINES: &[(&str, &str, &str)] = &[
    ("INFO", "Starting round: 15579/1000000.", "round info - max=1000000 round=15579"),
    ("INFO", "🐝 Joining round: 15579", "join info - round=15579"),
    (
        "INFO",
        "Already finished round: 15579. Next check in 160.5s.",
        "idle info - round=15579 seconds=160",
    ),
    ("INFO", "✅ Connected to Gensyn Testnet", "connect info - to=Gensyn Testnet"),
    (
        "INFO",
        "Using Model: Gensyn/Qwen2.5-0.5B-Instruct",
        "model info - model=Gensyn/Qwen2.5-0.5B-Instruct",
    ),
    ("INFO", "bootnodes: ['/ip4/38.101.215.12/tcp/30011/p2p/Qm']", "bootnodes info -"),
    ("INFO", "pushing model to huggingface", "publish info - to=huggingface"),
    ("ERROR", "Failed to submit to chain.", "submit_failed error submission-refused"),
    (
        "DEBUG",
        "http://localhost:3000 \"POST /api/submit-reward HTTP/1.1\" 200 51",
        "submit info - status=200",
    ),
    (
        "DEBUG",
        "http://localhost:3000 \"POST /api/submit-winner HTTP/1.1\" 500 51",
        "submit_failed error - status=500",
    ),
    (
        "DEBUG",
        "400 Client Error: Bad Request for url: http://localhost:3000/api/submit-reward",
        "submit_failed error -",
    ),
    (
        "DEBUG",
        "Failed to call submitReward: InvalidRoundNumber",
        "submit_failed error invalid-round error=InvalidRoundNumber",
    ),
    ("DEBUG", "execution reverted: WinnerAlreadyVoted", "submit_failed error twin-node"),
    (
        "WARNING",
        "Could not fetch round and stage: 429 Client Error: Too Many Requests",
        "error error chain-unreachable",
    ),
    ("ERROR", "Training timed out!", "stop error training-timeout"),
    ("ERROR", "something else", "error error -"),
    ("CRITICAL", "something else", "error critical -"),
    ("WARNING", "something else", "nothing"),
    ("DEBUG", "Attempting to acquire lock 139923875226320", "nothing"),
    // A file that a model may do without is asked for at each start.
    (
        "DEBUG",
        "https://huggingface.co:443 \"HEAD /Gensyn/Qwen2.5/resolve/main/adapter_config.json HTTP/1.1\" 404 0",
        "nothing",
    ),
    (
        "ERROR",
        "401 Client Error: Unauthorized for url: https://huggingface.co/x/resolve/main/config.json",
        "error error model-refused",
    ),
    (
        "DEBUG",
        "http://localhost:3000 \"POST /api/submit-reward HTTP/1.1\" 401 12",
        "submit_failed error session-expired status=401",
    ),
    ("INFO", "submitted the work of round 401", "nothing"),
    ("INFO", "reward of BAA24C", "nothing"),
    ("DEBUG", "errno.ENOSPC is handled", "nothing"),
    ("ERROR", "ENOSPC: no space left on device, write", "error error disk-full"),
];

#[test]
fn a_node_of_today_is_understood() {
    let log = log("rl-swarm-hydra", "swarm", &[]);
    let line = |level: &str, text: &str| {
        format!("[2025-08-05 02:04:54,237][genrl.logging_utils.global_defs][{level}] - {text}")
    };
    for (level, text, wanted) in LINES {
        assert_eq!(told(&log, &line(level, text)), *wanted, "{text}");
    }
    let hello = line("INFO", &format!("🐝 Hello [quick red fox] [{PEER}]!"));
    assert_eq!(told(&log, &hello), format!("peer info - animal=quick red fox peer={PEER}"));
    let known = line("INFO", &format!("Peer ID [{PEER}] is already registered! Continuing."));
    assert_eq!(told(&log, &known), format!("registered info - peer={PEER}"));
}

#[test]
fn the_end_of_a_node_is_told_with_its_cause() {
    let log = log("rl-swarm-hydra", "swarm", &[]);
    let crash = |last: &str| {
        format!(
            "[2025-08-05 02:04:54,237][genrl.logging_utils.global_defs][ERROR] - Exception occurred during game run.\n\
             Traceback (most recent call last):\n\
             \x20 File \"/home/bob/rl-swarm/x.py\", line 3, in run_game\n\
             \x20   self.step()\n\
             {last}"
        )
    };
    for (last, wanted) in [
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
            "out_of_memory critical cuda-out-of-memory",
        ),
        (
            "hivemind.p2p.p2p_daemon_bindings.utils.P2PDaemonError: Daemon failed to start in 15.0 seconds",
            "crash critical p2pd-start",
        ),
        ("OSError: [Errno 28] No space left on device", "crash critical disk-full"),
        ("ValueError: x", "crash critical game-run"),
    ] {
        assert_eq!(told(&log, &crash(last)), wanted, "{last}");
    }
    let found = read(&log, &crash("ValueError: x"));
    assert!(
        found[0].0.text.contains("/home/[REDACTED]/rl-swarm") && found[0].0.text.ends_with('x')
    );
    assert_eq!(found[0].0.at.unwrap().to_string(), "2025-08-05T02:04:54.237Z");
}

#[test]
fn a_node_of_the_old_form_is_understood() {
    let log = log("rl-swarm-legacy", "swarm", &[]);
    let line =
        |text: &str| format!("2025-05-01 11:43:07,123 - INFO - hivemind_exp.trainer:142 - {text}");
    for (text, wanted) in [
        ("📈 Training round: 7 stage: 1", "work info - round=7 stage=1"),
        ("📉 Finished training round: 7", "work info - round=7"),
        ("🐝 Joining round: 7 starting at stage: 0", "join info - round=7 stage=0"),
        ("🏆 Submitting winners for round 7: ['Qm']", "submit info - round=7"),
        ("Joining swarm with initial_peers = ['/ip4/1.2.3.4/tcp/1']", "bootnodes info -"),
    ] {
        assert_eq!(told(&log, &line(text)), wanted, "{text}");
    }
    let hello = format!("🐱 Hello 🐈 [quick red fox] 🦮 [{PEER}]!");
    assert_eq!(told(&log, &line(&hello)), format!("peer info - animal=quick red fox peer={PEER}"));
}

#[test]
fn the_login_server_says_why_nothing_is_paid() {
    let log = log("rl-swarm-hydra", "yarn", &[]);
    for (text, wanted) in [
        (
            "Failed to call registerPeer: PeerIdAlreadyRegistered",
            "registered warning peer-of-another-account error=PeerIdAlreadyRegistered",
        ),
        (
            "Failed to call submitReward: InvalidRoundNumber",
            "submit_failed error invalid-round call=submitReward error=InvalidRoundNumber",
        ),
        (
            "Error: UserOperation reverted\n    at x (y.js:1:2) {\n  reason: 'AA24 signature error'\n}",
            "submit_failed error bundler-signature error=AA24 signature error",
        ),
        (
            "Error: listen EADDRINUSE: address already in use :::3000",
            "crash critical login-port-taken",
        ),
        (" ✓ Ready in 2.1s", "start info -"),
        ("POST /api/get-api-key 200 in 12ms", "nothing"),
    ] {
        assert_eq!(told(&log, text), wanted, "{text}");
    }
    let launcher = self::log("rl-swarm-hydra", "launcher", &[("launcher_log", "/x")]);
    for (text, wanted) in [
        (
            ">> An error was detected while running rl-swarm. See logs for full logs.",
            "crash critical -",
        ),
        (
            "./run_rl_swarm.sh: line 9:  4711 Killed    python -m code_gen_exp",
            "out_of_memory critical killed-for-memory",
        ),
    ] {
        assert_eq!(told(&launcher, text), wanted, "{text}");
    }
}

#[test]
fn a_coordinator_and_its_backends_are_understood() {
    let log = log("llama-cpp", "coordinator", &[("coordinator_log", "/x"), ("backends", "a:1")]);
    for (text, wanted) in [
        (
            "main: server is listening on http://127.0.0.1:8080 - starting the main loop",
            "start info -",
        ),
        (
            "0.00.035.060 I srv    load_model: loading model '/home/bob/m.gguf'",
            "model info - model=/home/[REDACTED]/m.gguf",
        ),
        (
            "1.12.135.160 E ggml_backend: Failed to connect to 10.0.0.7:50052",
            "disconnect error backend-unreachable to=[REDACTED]:50052",
        ),
        ("Accepted client connection, free_mem=1, total_mem=2", "connect info -"),
        ("Client connection closed", "disconnect warning -"),
        (
            "llama_model_load_from_file_impl: using device RPC0 (10.0.0.7:50052)",
            "connect info - to=RPC0",
        ),
        ("Remote RPC server crashed or returned malformed response", "crash critical backend-lost"),
        (
            "ggml_cuda: cudaMalloc failed: out of memory",
            "out_of_memory critical cuda-out-of-memory",
        ),
        (
            "srv  log_server_r: request: POST /completion 127.0.0.1 200",
            "work info - path=/completion status=200",
        ),
        ("srv  operator(): cleaning up before exit...", "stop info -"),
        ("llama_model_load: error loading model: invalid magic", "crash critical model-unreadable"),
        ("llm_load_print_meta: n_layer = 32", "nothing"),
    ] {
        assert_eq!(told(&log, text), wanted, "{text}");
    }
}

#[test]
fn any_program_is_understood_a_little() {
    let nginx = log("generic", "main", &[("log", "/x"), ("grammar", "nginx")]);
    let line = "2025/08/05 02:04:54 [emerg] 12#12: bind() to 0.0.0.0:80 failed (98: Address already in use)";
    assert_eq!(told(&nginx, line), "error critical port-in-use");
    let redis = log("generic", "main", &[("log", "/x"), ("grammar", "redis")]);
    let line = "12:M 05 Aug 2025 02:04:54.237 * Ready to accept connections tcp";
    assert_eq!(told(&redis, line), "start info -");
    assert_eq!(read(&redis, line)[0].0.at.unwrap().to_string(), "2025-08-05T02:04:54.237Z");
    let bye = "12:M 05 Aug 2025 02:04:54.237 # Redis is now ready to exit, bye bye...";
    assert_eq!(told(&redis, bye), "stop warning -");
    let wandb = log("rl-swarm-hydra", "wandb", &[]);
    let line = "2025-08-05 02:04:54,237 ERROR   MainThread:4711 [a.py:f():67] no network";
    assert_eq!(told(&wandb, line), "error error -");
    let iso = log("generic", "main", &[("log", "/x"), ("grammar", "iso")]);
    let line = "2025-08-05T02:04:54.237123Z ERROR a::b: it failed";
    assert_eq!(told(&iso, line), "error error -");
    let docker = log("generic", "main", &[("log", "/x"), ("grammar", "docker")]);
    let line = r#"{"log":"thread 'main' panicked at src/x.rs:1\n","stream":"stderr","time":"2025-08-05T02:04:54.2Z"}"#;
    assert_eq!(told(&docker, line), "crash critical -");
}

#[test]
fn what_a_visitor_asks_for_is_no_end_of_the_program() {
    let nginx = log("generic", "main", &[("log", "/x"), ("grammar", "nginx")]);
    let line = |level: &str, text: &str| format!("2025/08/05 02:04:54 [{level}] 12#12: {text}");
    for (level, text, wanted) in [
        ("info", "*1 client closed, request: \"GET /core dumped HTTP/1.1\"", "nothing"),
        ("info", "*1 open() \"/www/thread 'a' panicked at x\" failed", "nothing"),
        ("info", "*1 request: \"GET /?q=segmentation fault HTTP/1.1\"", "nothing"),
        ("info", "*1 request: \"GET /?q=out of memory HTTP/1.1\"", "error warning out-of-memory"),
        (
            "error",
            "*1 FastCGI sent in stderr: \"PHP message: PHP Fatal error:  x\" while reading",
            "error error -",
        ),
        ("info", "PHP Fatal error:  Uncaught Error: x", "nothing"),
        ("alert", "worker process 13 exited on signal 11 (core dumped)", "crash critical -"),
    ] {
        assert_eq!(told(&nginx, &line(level, text)), wanted, "{text}");
    }
    let plain = log("generic", "main", &[("log", "/x")]);
    for (text, wanted) in [
        ("thread 'main' (4711) panicked at src/x.rs:1:2:", "crash critical -"),
        ("fatal error: all goroutines are asleep - deadlock!", "crash critical -"),
        ("./x.sh: line 3: 4711 Aborted                 (core dumped) ./y", "crash critical -"),
        ("Out of memory", "out_of_memory critical out-of-memory"),
    ] {
        assert_eq!(told(&plain, text), wanted, "{text}");
    }
}

#[test]
fn what_a_record_says_of_itself_is_bounded() {
    let log = log("rl-swarm-hydra", "swarm", &[]);
    let line = format!("[2025-08-05 02:04:54,237][a][INFO] - Using Model: {}", "é".repeat(500));
    let found = read(&log, &line);
    let model = found[0].1.as_ref().unwrap().field("model").unwrap();
    assert!(model.len() <= FIELD_BYTES_MAX && model.len() > FIELD_BYTES_MAX - 4);
}

#[test]
fn each_kind_is_written_as_serde_writes_it() {
    for kind in Kind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    let meaning =
        Meaning { kind: Kind::Idle, level: Level::Info, fields: BTreeMap::new(), cause: None };
    assert_eq!(serde_json::to_string(&meaning).unwrap(), r#"{"kind":"idle","level":"info"}"#);
}
