//! The checks. Each asks one service or part of the host as the node would, and reports the answer.

use std::path::Path;

use super::{Check, DOCKER, Finding, gpu, hasty, node_of, unset};
use crate::agent::Settings;
use crate::agent::account::heartbeat::{Registration, WARN_DAYS};
use crate::artifact::{Gateways, Pinata, Tried};
use crate::chain::{EndpointState, Reader};
use crate::config::{Env, Gpu, KeySource, Parts};
use crate::container::docker::{Docker, Engine};
use crate::container::{Error, Sandbox};
use crate::host;
use crate::node::LOCAL_CHAINS;
use crate::report::causes;
use crate::reputation::Call;
use crate::reputation::fees::days_left;

/// Reports all problems and warnings of the settings.
pub(super) fn settings(env: &mut Env<'_>) -> Check {
    let problems = env.take_problems();
    let warnings = env.take_warnings();
    let finding = if !problems.is_empty() {
        let count = problems.len();
        let detail = format!("{count} wrong or missing");
        let remedy = "set them in the environment or in .env";
        Finding { problems, ..Finding::fail(detail, remedy) }
    } else if let [only] = warnings.as_slice() {
        let (detail, remedy) = only.split_once(": ").unwrap_or((only, ""));
        Finding::warn(detail, remedy)
    } else if !warnings.is_empty() {
        Finding::warn(warnings.join("; "), "mend them in the environment or in .env")
    } else {
        Finding::ok("complete")
    };
    Check { name: "settings", finding }
}

pub(super) async fn key(parts: &Parts) -> Finding {
    let Some(source) = parts.key.clone() else { return unset() };
    let from = match &source {
        KeySource::Raw(_) => "from AGENT_PRIVATE_KEY".to_owned(),
        KeySource::Keystore { path, .. } => format!("from {}", path.display()),
    };
    let owner = parts.owner.map(|owner| format!(", owner {owner}")).unwrap_or_default();
    let (asks, opened) = (source.asks(), if source.asks() { ", not opened" } else { "" });
    // Deriving a keystore's key takes about a second of CPU time.
    let address = move || if asks { source.address() } else { source.load().map(|k| k.address()) };
    match tokio::task::spawn_blocking(address).await {
        Ok(Ok(address)) => Finding::ok(format!("{address} {from}{opened}{owner}")),
        Ok(Err(err)) => Finding::failed(err, "check AGENT_KEYSTORE and its passphrase"),
        Err(err) => Finding::failed(err, "report this as a defect"),
    }
}

/// What systemd's keeping of control groups costs.
const UNCOUNTED: &str = " by systemd (what a job used in all is not known)";

pub(super) async fn docker(parts: &Parts) -> Finding {
    let Some(config) = &parts.docker else { return unset() };
    let engine = match Docker::connect(config) {
        Ok(docker) => docker.engine().await,
        Err(err) => Err(err),
    };
    match engine {
        Ok(engine) => {
            let text = format!(
                "{} (API {}) on {}, cgroup v{}{}, runtimes {}, {}",
                engine.version,
                engine.api,
                engine.os,
                engine.cgroup_version,
                if engine.are_cgroups_by_systemd { UNCOUNTED } else { "" },
                engine.runtimes.join(" "),
                root_in_containers(&engine),
            );
            match engine.lacks(config.runtime.as_deref()) {
                None => Finding::ok(text),
                Some(Error::Unlimited { missing }) => Finding::fail(
                    format!("{text}; it holds no container to a limit of {missing}"),
                    "boot the host with the control groups that are missing (for memory: \
                     cgroup_enable=memory on the kernel's command line); `docker info` shows what is",
                ),
                Some(Error::NoRuntime { runtime, .. }) => Finding::fail(
                    format!("{text}; it has no runtime {runtime}, so it runs no job"),
                    "name one that it has in JOB_RUNTIME, or add this one under `runtimes` in \
                     /etc/docker/daemon.json",
                ),
                Some(_) => Finding::fail(
                    format!(
                        "{text}; without seccomp jobs could make any system call: it runs none"
                    ),
                    "run the engine with its default seccomp profile: take seccomp-profile out of \
                     /etc/docker/daemon.json",
                ),
            }
        }
        Err(err) => Finding::failed(err, DOCKER),
    }
}

/// Which user id root in a container has on the host. Most engines run without user namespaces and the node
/// works with both, so this is reported but not graded.
fn root_in_containers(engine: &Engine) -> &'static str {
    if engine.maps_root() {
        "root in a container is an ordinary user here"
    } else {
        "root in a container has root's number here (no user namespace)"
    }
}

/// Tries from inside a container under a job's policy what a job shall not be able to do.
pub(super) async fn sandbox(parts: &Parts) -> Finding {
    let Some(config) = &parts.docker else { return unset() };
    let owners = parts.settings.as_ref().map(|settings| settings.sandbox).unwrap_or_default();
    let (profile, sandbox) = if owners.is_strict {
        ("strict", Sandbox::Strict(owners.user))
    } else {
        ("standard", Sandbox::Standard)
    };
    let tried = match Docker::connect(&hasty(config)) {
        Ok(docker) => docker.try_sandbox(node_of(parts), "doctor-sandbox", sandbox).await,
        Err(err) => Err(err),
    };
    let tried = match tried {
        Ok(tried) => tried,
        Err(err) => return Finding::failed(err, "mend the engine first: see the line docker"),
    };
    let open: Vec<&str> = tried.iter().filter(|one| !one.passed).map(|one| one.name).collect();
    if open.is_empty() {
        return Finding::ok(format!(
            "{} ways out of a job's container are closed ({profile})",
            tried.len()
        ));
    }
    Finding::fail(
        format!("a job could get through ({profile}): {}", open.join(", ")),
        "`lamda-node sandbox-test` says what was tried; look at the engine's settings for seccomp, capabilities \
         and control groups (`docker info`)",
    )
}

/// Checks that the engine sees the same files under the data folder's path as the node.
pub(super) async fn files_in_containers(parts: &Parts) -> Finding {
    let (Some(config), Some(settings)) = (&parts.docker, &parts.settings) else { return unset() };
    let existing = existing(&settings.data_dir);
    let nonce = format!("{:032x}", fastrand::u128(..));
    let folder = tempfile::Builder::new().prefix("doctor-").tempdir_in(existing);
    let file = folder.as_ref().ok().map(|folder| folder.path().join("nonce"));
    let Some(file) = file.filter(|file| std::fs::write(file, &nonce).is_ok()) else {
        return Finding::fail("not checked", "mend the data folder first");
    };
    let read = match Docker::connect(&hasty(config)) {
        Ok(docker) => docker.read_back(node_of(parts), "doctor-files", &file).await,
        Err(err) => Err(err),
    };
    match read {
        Ok(Some(read)) if read == nonce.as_bytes() => {
            Finding::ok("the engine finds this node's files under their paths")
        }
        Ok(_) => Finding::fail(
            format!("the engine sees another file system than this node at {}", existing.display()),
            "run both on one host; where the node runs in a container, show it DATA_DIR under the \
             path that it has on the host",
        ),
        Err(err) => Finding::failed(err, "mend the engine first: see the line docker"),
    }
}

/// The data folder or its nearest existing ancestor: before the first start, it only has to be creatable.
fn existing(data_dir: &Path) -> &Path {
    data_dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"))
}

pub(super) async fn chain(parts: &Parts) -> Finding {
    let (Some(config), Some(key)) = (&parts.chain, &parts.key) else { return unset() };
    let node = match key.address() {
        Ok(node) => node,
        Err(err) => return Finding::failed(err, "mend the key first"),
    };
    let heard = async {
        let reader = Reader::new(config.clone())?;
        let facts = reader.facts(node).await?;
        let provider = reader.provider(node).await?;
        let price = reader.beat_price(node).await?;
        // The call that the node would send now: every endpoint must be able to serve it.
        let call = if provider.is_some() {
            Call::Heartbeat
        } else {
            let gpus = gpu::cards(parts).await.map(|cards| cards.gpus).unwrap_or_default();
            Registration::of(&gpus).call()
        };
        let endpoints = reader.endpoints(node, &call).await;
        Ok::<_, crate::chain::Error>((facts, provider, price, endpoints))
    };
    let (facts, provider, price, endpoints) = match heard.await {
        Ok(heard) => heard,
        Err(err) => {
            let remedy = "check OPBNB_RPC_URL, REPUTATION_CONTRACT_ADDRESS and CHAIN_ID";
            return Finding::failed(err, remedy);
        }
    };
    let (id, contract) = (facts.chain_id, config.contract);
    let registered = match provider {
        Some(provider) => format!("registered as {}", out_of(&provider.gpu_model)),
        None => "not registered yet (`run` does it)".to_owned(),
    };
    let wei = facts.balance_wei.parse().unwrap_or(u128::MAX);
    let interval = parts.settings.as_ref().map(|settings| settings.heartbeat_interval);
    let days = price.zip(interval).and_then(|(price, interval)| days_left(wei, price, interval));
    let lasts = days.map(|days| format!(" (heartbeats for {days} days)")).unwrap_or_default();
    let text = format!("chain {id}, contract {contract}, {wei} wei{lasts}, {registered}");
    let without_gpu = parts.gpu.as_ref().is_some_and(Gpu::is_none);
    if without_gpu && !LOCAL_CHAINS.contains(&id) {
        return Finding::fail(text, "GPU_MODE=none is for a local chain only (1337 or 31337)");
    }
    let remedy = format!("send some of the chain's gas token to {node}");
    if wei == 0 || days == Some(0) {
        return Finding::fail(text, remedy);
    }
    if days.is_some_and(|days| days < WARN_DAYS) {
        return Finding::warn(text, remedy);
    }
    let (count, mut unfit) = (endpoints.len(), Vec::new());
    for (number, endpoint) in (1..).zip(endpoints) {
        let EndpointState { url, trouble } = endpoint;
        unfit.extend(trouble.map(|trouble| format!("endpoint {number}, {url}: {trouble}")));
    }
    if !unfit.is_empty() {
        let text =
            format!("{text}; {} of {count} endpoints unfit: {}", unfit.len(), unfit.join("; "));
        return Finding::warn(text, "mend or replace it in OPBNB_RPC_URL; the others do its work");
    }
    Finding::ok(text)
}

/// Limits the length of a stranger's text in a message.
fn out_of(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(super) async fn pinata(parts: &Parts) -> Finding {
    let Some(config) = &parts.artifact else { return unset() };
    let checked = async {
        let pinata = Pinata::new(config)?.tried_as(&node_of(parts).to_string());
        pinata.check().await?;
        pinata.try_upload().await
    };
    let unpin = "let the key of PINATA_JWT unpin: the node tries the service by a few bytes at each \
                 start, which stay pinned otherwise; or remove what is called lamda-node-try yourself";
    let service = crate::secret::redact_url(&config.pinata_url);
    match checked.await {
        Ok(Tried::TakenBack) => Finding::ok(format!("{service} takes the key and an upload")),
        Ok(Tried::Stays { cid, why }) => {
            let why = causes(&why);
            let took = format!("{service} takes the key and an upload");
            Finding::warn(format!("{took}; what was tried stays pinned ({cid}): {why}"), unpin)
        }
        Err(err) => {
            use crate::artifact::Error as E;
            let remedy = match &err {
                E::Declined { .. } | E::Oversized { .. } => {
                    "the account's plan is used up: pay, or remove pins of it"
                }
                E::Refused { .. } => {
                    "check PINATA_JWT: the key needs the right to pin files (pinFileToIPFS)"
                }
                _ => {
                    "check PINATA_JWT and PINATA_API_URL; for a local store start `lamda-node store`"
                }
            };
            Finding::failed(err, remedy)
        }
    }
}

pub(super) async fn gateways(parts: &Parts) -> Finding {
    let Some(config) = &parts.artifact else { return unset() };
    let checked = match Gateways::new(config) {
        Ok(gateways) => gateways.check().await,
        Err(err) => Err(err),
    };
    let remedy = "check IPFS_GATEWAYS and IPFS_GATEWAY_TOKEN; a gateway that serves nothing but its \
                  owner's pins can't be tried like this, and needs its token";
    match checked {
        Ok(unfit) if unfit.is_empty() => {
            let shown: Vec<String> =
                config.gateways.iter().map(|url| crate::secret::redact_url(url)).collect();
            Finding::ok(format!("{}: the bytes of a CID came and are right", shown.join(", ")))
        }
        Ok(unfit) => {
            let count = config.gateways.len();
            let each = unfit.iter().map(|(gateway, why)| format!("{gateway}: {why}"));
            let each = each.collect::<Vec<_>>().join("; ");
            let text = format!("{} of {count} don't serve: {each}", unfit.len());
            Finding::warn(text, "mend or replace it in IPFS_GATEWAYS; the others do its work")
        }
        Err(err) => Finding::failed(err, remedy),
    }
}

/// What a user without root's file capabilities lacks, and the remedy; `None` if it has them.
pub(in crate::cli) const fn rights(overrides: bool) -> Option<(&'static str, &'static str)> {
    if overrides {
        return None;
    }
    Some((
        "this user may not read or remove what jobs leave under other users: the engine copies it and \
         opens it to the node, which takes room on the disk",
        "to save that, run the node as root, or with AmbientCapabilities=CAP_DAC_OVERRIDE CAP_FOWNER as \
         deploy/lamda-node.service does",
    ))
}

pub(super) fn data_dir(parts: &Parts) -> Finding {
    let Some(settings) = &parts.settings else { return unset() };
    let Settings { data_dir, disk_free_min_mib, .. } = settings;
    let existing = existing(data_dir);
    if let Err(err) = tempfile::NamedTempFile::new_in(existing) {
        return Finding::fail(
            format!("{} can't be written to: {err}", existing.display()),
            "set DATA_DIR to a folder of this user",
        );
    }
    match host::disk_free_mib(existing) {
        Ok(free) if free <= *disk_free_min_mib => Finding::fail(
            format!(
                "{}: {free} MiB are free, and {disk_free_min_mib} MiB must stay free",
                data_dir.display()
            ),
            "free some disk, or lower DISK_FREE_MIN_MIB",
        ),
        Ok(free) => {
            let text = format!("{}, {free} MiB free", data_dir.display());
            match rights(host::overrides_owners()) {
                None => Finding::ok(text),
                Some((lacking, remedy)) => Finding::warn(format!("{text}; {lacking}"), remedy),
            }
        }
        Err(err) => Finding::failed(err, "set DATA_DIR to a folder of this user"),
    }
}
