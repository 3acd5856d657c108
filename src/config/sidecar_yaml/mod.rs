//! The configuration file of the original side car (`config.yaml`), read as it is.
//!
//! Must hold: a key that nobody knows is told and changes nothing; a value of a wrong kind, a key that is there twice
//! and a file that grows when it is expanded are refused, each with one sentence that names the place; no value of
//! the file is part of a message. [`keys`] lists every key that there is, for this and for docs/sidecar-seed.md.

mod keys;
mod tree;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::secret::Secret;
use keys::{KEYS, Use};
use tree::Tree;

/// Largest file, in bytes: the original's own has two thousand.
const BYTES_MAX: u64 = 256 * 1024;

/// Where the original serves its health if the file does not say.
const HEALTH_PORT: u16 = 8080;

/// The chain that the original's file names, which does not exist.
const CHAIN_PLACEHOLDER: u64 = 1234;

/// The longest span that a file can ask for, in seconds: a week.
const SPAN_MAX_S: u64 = 7 * 86_400;

/// Most entries of a list.
const LIST_MAX: usize = 64;

/// Most notes about one file; the last says how many there were.
const NOTES_MAX: usize = 32;

/// What a file says. What it does not say, or has a placeholder for, is `None` or empty.
#[derive(Debug, Clone, Default)]
pub struct SeedConfig {
    /// The node's name, as the original's service knows it.
    pub node_id: Option<String>,
    /// Who the owner is for the original's service.
    pub jwt_token: Option<Secret>,
    /// Where the program's logs are.
    pub logs: Logs,
    /// The swarm's DHT.
    pub dht: Dht,
    /// Samples of this machine.
    pub system: System,
    /// What becomes of log lines.
    pub log_monitoring: LogMonitoring,
    /// The original's service.
    pub api: Api,
    /// The swarm's contract.
    pub blockchain: Blockchain,
    /// Where the sidecar keeps its state (`storage.data_path`).
    pub data_path: Option<PathBuf>,
    /// Who is told that the node is down.
    pub telegram: Telegram,
}

/// The section `logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs {
    /// `swarm_log_path`: the program's log.
    pub swarm: Option<PathBuf>,
    /// `yarn_log_path`: the login server's log.
    pub yarn: Option<PathBuf>,
    /// `wandb_log_path`: the folder, or one log, of wandb.
    pub wandb: Option<PathBuf>,
}

/// The section `dht`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dht {
    /// Multiaddresses of bootnodes, unchecked.
    pub bootstrap_peers: Vec<String>,
    /// The port of the program's own DHT.
    pub port: Option<u16>,
}

/// The section `system`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Between two samples.
    pub poll_interval: Option<Duration>,
    /// Whether GPUs are sampled; the original also takes `false` for `true`.
    pub gpu: Option<bool>,
    /// Whether the CPU is sampled.
    pub cpu: Option<bool>,
    /// Whether memory is sampled.
    pub ram: Option<bool>,
    /// Samples that are sent together.
    pub batch_size: Option<usize>,
    /// Between two sends of samples.
    pub metrics_interval: Option<Duration>,
    /// Where `GET /health` is served: 8080 if the file does not say.
    pub health_port: u16,
}

impl Default for System {
    fn default() -> Self {
        Self {
            poll_interval: None,
            gpu: None,
            cpu: None,
            ram: None,
            batch_size: None,
            metrics_interval: None,
            health_port: HEALTH_PORT,
        }
    }
}

/// The section `log_monitoring`.
#[derive(Debug, Clone, Default)]
pub struct LogMonitoring {
    /// Where events are posted; the URL may hold a key.
    pub api_endpoint: Option<Secret>,
    /// The bearer for it; `jwt_token` if there is none.
    pub auth_token: Option<Secret>,
    /// Events that are posted together.
    pub batch_size: Option<usize>,
    /// The longest that an event waits for others.
    pub batch_flush_interval: Option<Duration>,
    /// Lines of a log that were there before the first start and are read all the same.
    pub initial_tail_lines: Option<usize>,
    /// The logs.
    pub log_files: Vec<PathBuf>,
}

/// The section `api`.
#[derive(Debug, Clone, Default)]
pub struct Api {
    /// The service; the URL may hold a key.
    pub base_url: Option<Secret>,
    /// The path for samples, appended to `base_url`.
    pub metrics_endpoint: Option<String>,
    /// The path for the chain's figures; `metrics_endpoint` if there is none.
    pub blockchain_endpoint: Option<String>,
    /// The bearer for it; `jwt_token` if there is none.
    pub auth_token: Option<Secret>,
    /// The longest that one call takes.
    pub timeout: Option<Duration>,
}

/// The section `blockchain`.
#[derive(Debug, Clone, Default)]
pub struct Blockchain {
    /// The coordinator's address, unchecked.
    pub contract_address: Option<String>,
    /// A JSON-RPC endpoint; the URL may hold a key.
    pub rpc_url: Option<Secret>,
    /// The chain's number; `None` for the original's placeholder.
    pub chain_id: Option<u64>,
    /// Between two looks at the chain.
    pub poll_interval: Option<Duration>,
    /// Between two sends of what it says.
    pub send_interval: Option<Duration>,
    /// The owner's account at the coordinator, unchecked.
    pub node_eoa: Option<String>,
    /// The node's peer id, unchecked.
    pub node_peer_id: Option<String>,
}

/// The section `telegram`.
#[derive(Debug, Clone, Default)]
pub struct Telegram {
    /// The bot's token.
    pub bot_token: Option<Secret>,
    /// The chat that it writes to.
    pub chat_id: Option<String>,
    /// Whether it tells that the node is down.
    pub alert_on_down: Option<bool>,
    /// For how long a log may be silent.
    pub down_alert_delay: Option<Duration>,
}

/// A file, and what its owner should know about it.
#[derive(Debug, Clone)]
pub struct SeedFile {
    /// What it says.
    pub config: SeedConfig,
    /// One sentence for each key that is unknown, has no effect, or has a placeholder as its value.
    pub notes: Vec<String>,
}

/// Reads a file. The error is one sentence for each thing that is wrong, with the file's path.
pub fn seed_file(path: &Path) -> Result<SeedFile, String> {
    let shown = path.display();
    let unreadable = |err: std::io::Error| format!("{shown} can't be read: {err}");
    // Opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("{shown} has more than {BYTES_MAX} bytes"));
    }
    let text = crate::text::utf8(&bytes).map_err(|what| format!("{shown}: {what}"))?;
    parse(text).map_err(|what| format!("{shown}: {what}"))
}

fn parse(text: &str) -> Result<SeedFile, String> {
    let mut tree = Tree::parse(text)?;
    let config = SeedConfig {
        node_id: tree.text("node_id"),
        jwt_token: tree.secret("jwt_token"),
        logs: Logs {
            swarm: tree.path("logs.swarm_log_path"),
            yarn: tree.path("logs.yarn_log_path"),
            wandb: tree.path("logs.wandb_log_path"),
        },
        dht: Dht {
            bootstrap_peers: tree.texts("dht.bootstrap_peers", LIST_MAX),
            port: tree.port("dht.port"),
        },
        system: system(&mut tree),
        log_monitoring: log_monitoring(&mut tree),
        api: Api {
            base_url: tree.secret("api.base_url"),
            metrics_endpoint: tree.text("api.metrics_endpoint"),
            blockchain_endpoint: tree.text("api.blockchain_latest_endpoint"),
            auth_token: tree.secret("api.auth_token"),
            timeout: tree.seconds("api.timeout", SPAN_MAX_S),
        },
        blockchain: blockchain(&mut tree),
        data_path: tree.path("storage.data_path"),
        telegram: Telegram {
            bot_token: tree.secret("telegram.bot_token"),
            chat_id: tree.text("telegram.chat_id"),
            alert_on_down: tree.flag("telegram.alert_on_down"),
            down_alert_delay: tree.seconds("telegram.down_alert_delay", SPAN_MAX_S),
        },
    };
    let notes = notes(&tree);
    tree.problems().map(|()| SeedFile { config, notes })
}

fn system(tree: &mut Tree) -> System {
    System {
        poll_interval: tree.seconds("system.poll_interval", SPAN_MAX_S),
        gpu: tree.flag("system.enable_gpu"),
        cpu: tree.flag("system.enable_cpu"),
        ram: tree.flag("system.enable_ram"),
        batch_size: tree.count("system.batch_size", 1_000),
        metrics_interval: tree.seconds("system.metrics_interval", SPAN_MAX_S),
        health_port: tree.port("system.health_port").unwrap_or(HEALTH_PORT),
    }
}

fn log_monitoring(tree: &mut Tree) -> LogMonitoring {
    LogMonitoring {
        api_endpoint: tree.secret("log_monitoring.api_endpoint"),
        auth_token: tree.secret("log_monitoring.auth_token"),
        batch_size: tree.count("log_monitoring.batch_size", 1_000),
        batch_flush_interval: tree.seconds("log_monitoring.batch_flush_interval", SPAN_MAX_S),
        initial_tail_lines: tree.count("log_monitoring.initial_tail_lines", 1_000_000),
        log_files: tree.paths("log_monitoring.log_files", LIST_MAX),
    }
}

fn blockchain(tree: &mut Tree) -> Blockchain {
    let chain_id = tree.number("blockchain.chain_id", u64::MAX);
    Blockchain {
        contract_address: tree.text("blockchain.contract_address"),
        rpc_url: tree.secret("blockchain.rpc_url"),
        chain_id: chain_id.filter(|id| *id != CHAIN_PLACEHOLDER),
        poll_interval: tree.seconds("blockchain.poll_interval", SPAN_MAX_S),
        send_interval: tree.seconds("blockchain.send_interval", SPAN_MAX_S),
        node_eoa: tree.text("blockchain.node_eoa"),
        node_peer_id: tree.text("blockchain.node_peer_id"),
    }
}

/// What the owner should know: unknown keys, keys without an effect, placeholders.
fn notes(tree: &Tree) -> Vec<String> {
    let mut notes: Vec<String> =
        tree.unknown().into_iter().map(|path| format!("{path}: there is no such key")).collect();
    for key in KEYS {
        if let Use::Nothing(why) = key.is_for
            && tree.is_set(key.path)
        {
            notes.push(format!("{} has no effect: {why}", key.path));
        }
    }
    let placeholders = tree.placeholders().iter();
    notes.extend(placeholders.map(|path| format!("{path} is a placeholder: taken as not set")));
    if tree.whole_number("blockchain.chain_id") == Some(CHAIN_PLACEHOLDER) {
        notes.push(format!(
            "blockchain.chain_id is {CHAIN_PLACEHOLDER}, the original's placeholder: the endpoint is asked instead"
        ));
    }
    let more = notes.len().saturating_sub(NOTES_MAX);
    if more > 0 {
        notes.truncate(NOTES_MAX - 1);
        notes.push(format!("and {} more", more + 1));
    }
    notes
}

#[cfg(test)]
mod tests;
