//! The original side car's `config.yaml`, read as it is: one program, watched by the profile of its swarm.
//!
//! Must hold: a key that is set does here what docs/sidecar-seed.md says, or the owner is told that it does nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::sidecar_file::{self, SidecarFile};
use super::sidecar_yaml::{self, SeedConfig, SeedFile, System};
use crate::fleet::alerts::Policy;
use crate::fleet::rule::{Condition, Trouble};
use crate::gswarm;
use crate::notify::telegram;
use crate::secret::Secret;
use crate::sidecar::Watching;
use crate::watch::profile::{Bootnodes, Filled, FilledLog};

/// The profile of the nodes that the original watches.
const PROFILE: &str = "rl-swarm-hydra";

/// What the node is called if the file doesn't say.
const NAME: &str = "gswarm-node";

/// The shortest and the longest time between two sends of samples.
const SEND: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));

/// How long the original's service may take if the file doesn't say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a file. The error is a sentence.
pub(super) fn read(path: &Path, profiles: Option<&Path>, api: &str) -> Result<SidecarFile, String> {
    let SeedFile { config, mut notes } = sidecar_yaml::seed_file(path)?;
    let shelf = sidecar_file::shelf(profiles)?;
    let name = config.node_id.clone().unwrap_or_else(|| NAME.to_owned());
    let set = set(&config);
    let named = |what: String| format!("{}: {what}", path.display());
    let mut watching = sidecar_file::of_profile(&name, PROFILE, set, &shelf).map_err(named)?;
    watching.peer.clone_from(&config.blockchain.node_peer_id);
    watching.first_lines = config.log_monitoring.initial_tail_lines.unwrap_or(watching.first_lines);
    logs(&config, &mut watching, &mut notes);
    bootnodes(&config, &mut watching.profile);
    if let Some(delay) = config.telegram.down_alert_delay {
        // The original has one rule: no line for so long.
        let idle = watching.expect.idle.unwrap_or_default();
        watching.expect.grace = delay.saturating_sub(idle).max(watching.expect.grace);
    }
    let mut rules = sidecar_file::rules(Vec::new(), std::slice::from_ref(&watching))?;
    if config.telegram.alert_on_down == Some(false) {
        rules.retain(|rule| rule.when != Condition::Trouble(vec![Trouble::Down]));
    }
    let original = original(&config, &name).map_err(named)?;
    let telegram = telegram(&config, api).map_err(named)?;
    let port = config.system.health_port;
    let listen = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let (programs, policy) = (vec![watching], Policy::default());
    let (data, sample) = (config.data_path, config.system.poll_interval);
    Ok(SidecarFile { programs, rules, policy, listen, data, sample, original, telegram, notes })
}

/// The variables of the profile that the file sets.
fn set(config: &SeedConfig) -> BTreeMap<String, String> {
    let chain = &config.blockchain;
    let rpc = chain.rpc_url.as_ref().map(|url| url.expose().to_owned());
    let given = [
        ("contract", chain.contract_address.clone()),
        ("rpc", rpc),
        ("chain_id", chain.chain_id.map(|id| id.to_string())),
    ];
    given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// The logs that the file names, in place of the profile's.
fn logs(config: &SeedConfig, watching: &mut Watching, notes: &mut Vec<String>) {
    let profile = &mut watching.profile;
    let known = profile.logs.clone();
    let as_log = |name: &str, like: &str, path: &Path, is_optional: bool| {
        let like = known.iter().find(|log| log.name == like)?;
        let (name, path) = (name.to_owned(), path.to_string_lossy().into_owned());
        Some(FilledLog { name, path, is_optional, ..like.clone() })
    };
    let files = &config.log_monitoring.log_files;
    let swarm = config.logs.swarm.iter().chain(files);
    let mut paths: Vec<&Path> = Vec::new();
    // The same file by two names is one log.
    let file = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).ok();
    for path in swarm {
        if !paths.iter().any(|known| file(known) == file(path)) {
            paths.push(path);
        }
    }
    let mut logs: Vec<FilledLog> = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let name = if at == 0 { "swarm".to_owned() } else { format!("swarm-{}", at + 1) };
        let like = match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.contains("yarn") => "yarn",
            Some(name) if name.contains("wandb") => "wandb",
            _ => "swarm",
        };
        logs.extend(as_log(&name, like, path, at > 0));
    }
    for (name, path) in [("yarn", &config.logs.yarn), ("wandb", &config.logs.wandb)] {
        logs.extend(path.as_ref().and_then(|path| as_log(name, name, path, true)));
    }
    if logs.is_empty() {
        notes.push("it names no log: those of the profile are watched".to_owned());
        return;
    }
    watching.expect.logs =
        logs.iter().filter(|log| !log.is_optional).map(|log| log.name.clone()).collect();
    profile.logs = logs;
}

fn bootnodes(config: &SeedConfig, profile: &mut Filled) {
    if let Some(dht) = &mut profile.dht
        && !config.dht.bootstrap_peers.is_empty()
    {
        dht.bootnodes = Bootnodes::These(config.dht.bootstrap_peers.clone());
    }
}

/// Which samples of the machine the file wants to be sent.
fn sampled(system: &System) -> gswarm::Sampled {
    let usual = gswarm::Sampled::default();
    gswarm::Sampled {
        cpu: system.cpu.unwrap_or(true),
        ram: system.ram.unwrap_or(true),
        gpu: system.gpu.unwrap_or(true),
        every: system.metrics_interval.map_or(usual.every, |it| it.clamp(SEND.0, SEND.1)),
    }
}

/// The original's service, where the file has a token for it.
fn original(config: &SeedConfig, name: &str) -> Result<Option<gswarm::Config>, String> {
    let jwt = config.jwt_token.as_ref();
    let token = |own: &Option<Secret>| jwt.or(own.as_ref()).cloned();
    let endpoint = |base: &Option<Secret>, path: &str, token: Option<Secret>, key: &str| {
        let (Some(base), Some(token)) = (base, token) else { return Ok(None) };
        gswarm::Endpoint::new(base.expose(), path, token)
            .map(Some)
            .map_err(|err| format!("{key}: {err}"))
    };
    let logs = &config.log_monitoring;
    let key = "log_monitoring.api_endpoint";
    let ingest = endpoint(&logs.api_endpoint, "", token(&logs.auth_token), key)?;
    let api = &config.api;
    let path = api.metrics_endpoint.as_deref().unwrap_or("/api/v1/metrics");
    let metrics = endpoint(&api.base_url, path, token(&api.auth_token), "api.base_url")?;
    let path = api.blockchain_endpoint.as_deref().unwrap_or(path);
    let figures = endpoint(&api.base_url, path, token(&api.auth_token), "api.base_url")?;
    if ingest.is_none() && metrics.is_none() {
        return Ok(None);
    }
    Ok(Some(gswarm::Config {
        node_id: name.to_owned(),
        ingest,
        hardware: metrics,
        sampled: sampled(&config.system),
        blockchain: figures,
        timeout: api.timeout.unwrap_or(TIMEOUT),
    }))
}

fn telegram(config: &SeedConfig, api: &str) -> Result<Option<telegram::Config>, String> {
    let telegram = &config.telegram;
    let (Some(token), Some(chat)) = (&telegram.bot_token, &telegram.chat_id) else {
        return Ok(None);
    };
    if !telegram::Config::is_token(token.expose()) {
        return Err("telegram.bot_token is not the token of a bot".to_owned());
    }
    if !telegram::Config::is_chat(chat) {
        return Err("telegram.chat_id is neither a chat's number nor @name".to_owned());
    }
    let config = telegram::Config::new(api, token.clone(), chat);
    config.map(Some).map_err(|err| format!("telegram: {err}"))
}
