//! The original's file as its owners have it, and files that mean harm.

use super::*;

/// Typed anew with the keys of the original's own file.
const WHOLE: &str = r#"
node_id: "my-node-123"
jwt_token: "eyJhbGciOiJIUzI1NiJ9.eyJ3YWxsZXRfYWRkcmVzcyI6IjB4MCJ9.c2lnbmF0dXJl"

logs:
  swarm_log_path: "./logs/swarm.log"
  yarn_log_path: ./logs/yarn.log
  wandb_log_path: ./logs/wandb/debug.log

dht:
  bootstrap_peers: []
  port: 38331

system:
  poll_interval: 10
  enable_gpu: true
  enable_cpu: false
  enable_ram: yes
  batch_size: 10

log_monitoring:
  api_endpoint: "https://ingest.example/prod/v1/ingest"
  auth_token: "your-auth-token"
  batch_size: 10
  batch_flush_interval: 10
  initial_tail_lines: 100
  log_files:
    - "./logs/swarm_launcher.log"

api:
  base_url: "https://swarm.example"
  metrics_endpoint: "/api/v1/metrics"
  health_endpoint: "/api/v1/health"
  blockchain_latest_endpoint: "/api/v1/latest-blockchain"
  auth_token: "<token>"
  timeout: 10
  retry_count: 3

blockchain:
  contract_address: 0xFaD7C5e93f28257429569B854151A1B8DCD404c2
  rpc_url: "https://rpc.example/v2/hunter2key"
  chain_id: 1234
  contract_abi_path: ""
  poll_interval: 300
  send_interval: 300
  node_eoa: "0x00000000000000000000000000000000000000aa"
  node_peer_id: QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ

storage:
  data_path: /var/lib/sidecar

telegram:
  bot_token: ""
  chat_id: -1001234567890
  alert_on_down: true
  down_alert_delay: 900
"#;

fn told(text: &str) -> String {
    parse(text).map_or_else(|problem| problem, |file| panic!("it was read: {file:?}"))
}

#[test]
fn the_originals_file_is_read_as_it_is() {
    let SeedFile { config, notes } = parse(WHOLE).unwrap();
    assert_eq!(config.node_id.as_deref(), Some("my-node-123"));
    assert!(config.jwt_token.unwrap().expose().starts_with("eyJ"));
    assert_eq!(config.logs.yarn.as_deref(), Some(Path::new("./logs/yarn.log")));
    assert_eq!((config.dht.bootstrap_peers.len(), config.dht.port), (0, Some(38331)));
    let system = config.system;
    assert_eq!((system.gpu, system.cpu, system.ram), (Some(true), Some(false), Some(true)));
    assert_eq!(
        (system.poll_interval, system.metrics_interval),
        (Some(Duration::from_secs(10)), None)
    );
    assert_eq!(system.health_port, 8080, "the file does not say");
    assert_eq!(config.log_monitoring.log_files, [PathBuf::from("./logs/swarm_launcher.log")]);
    assert!(config.log_monitoring.auth_token.is_none() && config.api.auth_token.is_none());
    let chain = config.blockchain;
    let contract = "0xFaD7C5e93f28257429569B854151A1B8DCD404c2";
    assert_eq!(chain.contract_address.as_deref(), Some(contract), "without quotes too");
    assert_eq!(chain.chain_id, None, "the placeholder is no chain");
    assert_eq!(config.telegram.chat_id.as_deref(), Some("-1001234567890"));
    assert_eq!(config.telegram.down_alert_delay, Some(Duration::from_mins(15)));
    assert!(config.telegram.bot_token.is_none());
    assert!(parse("jwt_token: \"eyJhbGciOiJIUzI1NiJ9...\"").unwrap().config.jwt_token.is_none());
    let all = notes.join("\n");
    for note in [
        "blockchain.chain_id is 1234, the original's placeholder",
        "api.auth_token is a placeholder",
        "log_monitoring.auth_token is a placeholder",
        "api.retry_count has no effect: ",
    ] {
        assert!(all.contains(note), "{note}: {all}");
    }
}

#[test]
fn a_key_that_nobody_knows_is_told_and_stops_nothing() {
    let text = "node_id: a\nnodeid: b\nsystem:\n  health_port: 9000\n  healthport: 1\nextra:\n  deep: [1]\n";
    let SeedFile { config, notes } = parse(text).unwrap();
    assert_eq!((config.node_id.as_deref(), config.system.health_port), (Some("a"), 9000));
    let wanted =
        ["extra", "nodeid", "system.healthport"].map(|key| format!("{key}: there is no such key"));
    let mut notes = notes;
    notes.sort();
    assert_eq!(notes, wanted);
    let many: Vec<String> = (0..500).map(|number| format!("k{number}: 1")).collect();
    let notes = parse(&many.join("\n")).unwrap().notes;
    assert_eq!(notes.len(), NOTES_MAX);
    assert_eq!(notes.last().unwrap(), &format!("and {} more", 500 - NOTES_MAX + 1));
}

#[test]
fn each_value_of_a_wrong_kind_is_told_by_its_key_and_not_shown() {
    for (text, told_as) in [
        ("node_id: [hunter2]", "node_id: one text was expected"),
        ("jwt_token: {a: hunter2}", "jwt_token: one text was expected"),
        ("system:\n  poll_interval: hunter2", "system.poll_interval: a whole number up to 604800"),
        ("system:\n  health_port: 70000", "system.health_port: a whole number up to 65535"),
        ("system:\n  health_port: -1", "system.health_port: a whole number"),
        ("system:\n  enable_gpu: hunter2", "system.enable_gpu: true or false"),
        ("system: hunter2", "system: a section with keys"),
        ("log_monitoring:\n  log_files: [[hunter2]]", "log_monitoring.log_files: a list of texts"),
        ("blockchain:\n  chain_id: 1.5", "blockchain.chain_id: a whole number was expected"),
        ("node_id: \"a\\nb hunter2\"", "node_id: it is too long, or has a control character"),
        ("- hunter2", "it has no keys"),
    ] {
        let told = told(text);
        assert!(told.starts_with(told_as), "{text}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
        assert!(!told.contains("; "), "one sentence: {told}");
    }
    let two = told("system:\n  poll_interval: x\napi:\n  timeout: y\n");
    assert!(two.contains("system.poll_interval: ") && two.contains("; api.timeout: "), "{two}");
}

#[test]
fn a_key_that_is_there_twice_is_refused_with_its_name() {
    let told = told("node_id: a\njwt_token: hunter2\nnode_id: b\n");
    assert!(told.contains("node_id") && told.contains("line 3"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn a_file_that_grows_when_it_is_expanded_or_nests_without_end_is_refused_at_once() {
    let bomb = (1..12).map(|level| {
        let ten = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("a{level}: &a{level} [{ten}]\n")
    });
    let bomb = format!("a0: &a0 [x, x]\n{}", bomb.collect::<Vec<_>>().concat());
    let deep = format!("node_id: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("dht:\n  bootstrap_peers: [{}]\n", "a, ".repeat(60_000));
    let documents = "---\nnode_id: a\n".repeat(1_000);
    let keys = format!("{}: 1\n", "? ".repeat(5_000));
    let begun = std::time::Instant::now();
    for text in [bomb, deep, wide, documents, keys] {
        let told = told(&text);
        assert!(told.chars().count() <= 301, "{told}");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(told("node_id: &a [*a]").len() < 300, "it holds itself");
}

#[test]
fn an_empty_file_says_nothing_and_a_broken_one_says_where() {
    for text in ["", "# nothing\n", "---\n", "system:\n", "~"] {
        assert_eq!(parse(text).unwrap().config.system.health_port, 8080, "{text:?}");
    }
    let told = told("node_id: a\nsystem:\n  poll_interval: [10\n");
    assert!(told.contains("line "), "{told}");
}

#[test]
fn a_file_that_is_none_is_refused_without_waiting_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let refused = |path: &Path| seed_file(path).unwrap_err();
    assert!(refused(&path("none.yaml")).contains("can't be read"));
    assert!(refused(dir.path()).contains("is no regular file"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(refused(&path("fifo")).contains("is no regular file"));
    std::os::unix::fs::symlink("loop", path("loop")).unwrap();
    assert!(refused(&path("loop")).contains("can't be read"));
    std::fs::write(path("large"), "#".repeat(257 * 1024)).unwrap();
    assert!(refused(&path("large")).contains("more than 262144 bytes"));
    std::fs::write(path("latin"), b"node_id: caf\xe9").unwrap();
    assert!(refused(&path("latin")).contains("UTF-8"));
    std::fs::write(path("good"), "\u{feff}node_id: a\r\n").unwrap();
    assert_eq!(seed_file(&path("good")).unwrap().config.node_id.as_deref(), Some("a"));
}

#[test]
fn the_documentation_lists_every_key_once_and_says_which_do_nothing() {
    let text = include_str!("../../../docs/sidecar-seed.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let key = |row: &str| row.split('`').nth(1).unwrap_or_default().to_owned();
    let listed: Vec<String> = rows.iter().map(|row| key(row)).collect();
    let known: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    assert_eq!(listed, known);
    for (row, key) in rows.iter().zip(KEYS) {
        let does_nothing = row.contains("| no effect");
        assert_eq!(does_nothing, matches!(key.is_for, Use::Nothing(_)), "{row}");
    }
}
