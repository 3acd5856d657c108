//! Settings of the sidecar: variables, and a file that says what is watched. The file is ours (TOML) or the original's
//! (`config.yaml`).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::env::{Env, Problems, Variable, shown};
use super::sidecar_file::{self, SidecarFile};
use super::{bus, channels, events, gpu, jobs, sidecar_original};
use crate::chain::Key;
use crate::fleet::rule::{Condition, Rule};
use crate::gswarm;
use crate::secret::Secret;
use crate::sidecar::{HubLink, Links, Sampling, Settings};

const SIDECAR_CONFIG: Variable = Variable::new("SIDECAR_CONFIG", "/etc/lamda-node/sidecar.toml");
const CONFIG_PATH: Variable = Variable::new("CONFIG_PATH", "configs/config.yaml");
const SIDECAR_LISTEN: Variable = Variable::new("SIDECAR_LISTEN", "127.0.0.1:8080");
const SIDECAR_DB: Variable = Variable::new("SIDECAR_DB", "/var/lib/lamda-node/sidecar.db");
const SIDECAR_KEY_FILE: Variable = Variable::new("SIDECAR_KEY_FILE", "/etc/lamda-node/sidecar.key");
const NATS_URL: Variable = Variable::new("NATS_URL", "nats://localhost:4222");
const SIDECAR_PROFILES: Variable = Variable::new("SIDECAR_PROFILES", "/etc/lamda-node/profiles");
const SIDECAR_HUB_URL: Variable = Variable::new("SIDECAR_HUB_URL", "https://hub.example");
const SIDECAR_HUB_SECRET: Variable =
    Variable::new("SIDECAR_HUB_SECRET", "super-long-random-secret");
const SIDECAR_PING_URL: Variable =
    Variable::new("SIDECAR_PING_URL", "https://hc-ping.com/a-secret-number");

const SIDECAR_SAMPLE_S: Variable = Variable::new("SIDECAR_SAMPLE_S", "15");

/// How often is sampled if nobody says it, and how seldom at most, in seconds.
const SAMPLE_S: u64 = 15;
const SAMPLE_MAX_S: u64 = 3_600;

/// The database's name in the data folder.
const FILE: &str = "sidecar.db";

/// The files that are looked for where none is named.
const USUAL: [&str; 3] = ["sidecar.toml", "/etc/lamda-node/sidecar.toml", "configs/config.yaml"];

/// Reads everything that the sidecar needs; `named` is the file that an argument names.
pub fn sidecar(env: &mut Env<'_>, named: Option<&Path>) -> Result<(Settings, Links), Problems> {
    let settings = read(env, named);
    env.finish(settings)
}

/// Reads what is watched, and where the database is.
pub fn sidecar_past(
    env: &mut Env<'_>,
    named: Option<&Path>,
) -> Result<(PathBuf, SidecarFile), Problems> {
    let file = file(env, named);
    let db = db(env, file.as_ref());
    env.finish(db.zip(file))
}

/// What a file holds, a sentence each; or what is wrong with it. A file is what its name and its tables say.
pub fn check_sidecar_file(path: &Path, profiles: Option<&Path>) -> Result<Vec<String>, String> {
    let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
    let is_profile = !is_yaml && sidecar_file::is_profile(path)?;
    if is_profile {
        return sidecar_file::check_profile(path);
    }
    let file = if is_yaml {
        sidecar_original::read(path, profiles, crate::notify::telegram::API)?
    } else {
        sidecar_file::read(path, profiles)?
    };
    let each = file.programs.iter().map(|it| {
        let logs: Vec<&str> = it.profile.logs.iter().map(|log| log.path.as_str()).collect();
        format!("{}: profile {}, logs: {}", it.name, it.profile.profile, logs.join(", "))
    });
    let rules = format!("{} rules", file.rules.len());
    Ok(each.chain([rules]).chain(file.notes.iter().cloned()).collect())
}

/// Reads only where an owner's profiles are.
pub fn sidecar_profiles(env: &mut Env<'_>) -> Result<Option<PathBuf>, Problems> {
    let folder = profiles(env);
    env.finish(folder)
}

fn read(env: &mut Env<'_>, named: Option<&Path>) -> Option<(Settings, Links)> {
    let file = file(env, named);
    let listen = listen(env, file.as_ref());
    let db = db(env, file.as_ref());
    let has_own_channels = file.as_ref().is_some_and(|file| file.telegram.is_some());
    let place = listen.map(|listen| format!("http://{listen}/")).unwrap_or_default();
    let channels = channels::read(env, &place);
    let (hub, ping) = (hub(env), ping(env));
    let nats = if env.is_set(NATS_URL) { bus::read(env).map(Some) } else { Some(None) };
    let (key, redis) = (key(env), events::llama(env));
    let without = without(env);
    let sampling = sampling(env, file.as_ref());
    let SidecarFile { programs, rules, policy, original, telegram, notes, .. } = file?;
    let mut channels = channels?;
    if has_own_channels && channels.telegram.is_none() {
        channels.telegram = telegram;
    }
    let mut without: Vec<String> =
        without.into_iter().map(ToOwned::to_owned).chain(notes).collect();
    let sampling = sampling?;
    if sampling.every.is_none() {
        without.extend(unsampled(&rules, original.as_ref()));
    }
    let (listen, db, key) = (listen?, db?, key?);
    let settings = Settings { listen, db, key, programs, rules, policy, without, sampling };
    Some((
        settings,
        Links { channels, hub: hub?, original, ping: ping?, nats: nats?, redis: redis? },
    ))
}

/// The file that says what is watched.
fn file(env: &mut Env<'_>, named: Option<&Path>) -> Option<SidecarFile> {
    let profiles = profiles(env)?;
    let is_set = (env.is_set(SIDECAR_CONFIG), env.is_set(CONFIG_PATH));
    let (variable, path) = match (named, is_set) {
        (Some(path), _) => (SIDECAR_CONFIG, path.to_owned()),
        (None, (true, _)) => (SIDECAR_CONFIG, env.path(SIDECAR_CONFIG)?),
        (None, (false, true)) => (CONFIG_PATH, env.path(CONFIG_PATH)?),
        (None, (false, false)) => {
            let Some(path) = USUAL.iter().map(PathBuf::from).find(|path| path.exists()) else {
                env.problem(
                    SIDECAR_CONFIG,
                    "it is not set, and there is no sidecar.toml: `lamda-node sidecar discover` prints one for what \
                     runs on this machine",
                );
                return None;
            };
            (SIDECAR_CONFIG, path)
        }
    };
    let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
    let api = channels::telegram_api(env)?;
    let read = if is_yaml {
        sidecar_original::read(&path, profiles.as_deref(), &api)
    } else {
        sidecar_file::read(&path, profiles.as_deref())
    };
    env.keep(variable, read)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn profiles(env: &mut Env<'_>) -> Option<Option<PathBuf>> {
    if !env.is_set(SIDECAR_PROFILES) {
        return Some(None);
    }
    env.path(SIDECAR_PROFILES).map(Some)
}

/// `SIDECAR_LISTEN`, or where the original's file says, or this machine's port 8080.
fn listen(env: &mut Env<'_>, file: Option<&SidecarFile>) -> Option<SocketAddr> {
    let set = env.is_set(SIDECAR_LISTEN);
    let text = match env.text(SIDECAR_LISTEN) {
        None if set => return None,
        None => {
            return Some(file.and_then(|it| it.listen).unwrap_or(sidecar_file::LISTEN));
        }
        Some(text) => text,
    };
    let parsed = text.parse().map_err(|_| format!("{} is no IP address with a port", shown(&text)));
    env.keep(SIDECAR_LISTEN, parsed)
}

/// `SIDECAR_SAMPLE_S`, or what the original's file says, or each 15 seconds; 0 is never.
fn sampling(env: &mut Env<'_>, file: Option<&SidecarFile>) -> Option<Sampling> {
    let library = gpu::library(env);
    let told = file.and_then(|file| file.sample);
    let usual = told.map_or(SAMPLE_S, |it| it.as_secs().clamp(1, SAMPLE_MAX_S));
    let seconds = env.number(SIDECAR_SAMPLE_S, (0, SAMPLE_MAX_S), usual)?;
    let every = (seconds > 0).then(|| std::time::Duration::from_secs(seconds));
    Some(Sampling { every, library: library? })
}

/// What is not known where nothing is sampled.
fn unsampled(rules: &[Rule], original: Option<&gswarm::Config>) -> Vec<String> {
    let figures = rules.iter().filter(|rule| matches!(rule.when, Condition::Figure { .. }));
    let mut without: Vec<String> = figures
        .map(|rule| {
            format!("rule {}: SIDECAR_SAMPLE_S is 0, so its figure is never known", rule.name)
        })
        .collect();
    if original.is_some_and(|it| it.hardware.is_some()) {
        without.push(
            "SIDECAR_SAMPLE_S is 0: the original's service gets no samples of the machine"
                .to_owned(),
        );
    }
    without
}

/// `SIDECAR_DB`, or the sidecar's file in the data folder: that of the environment, of the original's file, or the
/// usual one.
fn db(env: &mut Env<'_>, file: Option<&SidecarFile>) -> Option<PathBuf> {
    let set = env.is_set(SIDECAR_DB);
    if !set
        && !env.is_set(jobs::DATA_DIR)
        && let Some(data) = file.and_then(|file| file.data.clone())
    {
        return Some(data.join(FILE));
    }
    let dir = jobs::data_dir(env);
    match env.path(SIDECAR_DB) {
        None if set => None,
        None => Some(dir?.join(FILE)),
        path => path,
    }
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn hub(env: &mut Env<'_>) -> Option<Option<HubLink>> {
    let is_set = (env.is_set(SIDECAR_HUB_URL), env.is_set(SIDECAR_HUB_SECRET));
    match is_set {
        (false, false) => return Some(None),
        (true, true) => {}
        (true, false) => {
            env.problem(SIDECAR_HUB_SECRET, "it is missing, and SIDECAR_HUB_URL needs it");
            return None;
        }
        (false, true) => {
            env.problem(SIDECAR_HUB_URL, "it is missing, and SIDECAR_HUB_SECRET needs it");
            return None;
        }
    }
    let (url, secret) = (env.text(SIDECAR_HUB_URL), env.secret(SIDECAR_HUB_SECRET));
    let url = url.and_then(|url| {
        let with_end = format!("{}/", url.trim_end_matches('/'));
        let parsed = crate::http::url(&with_end);
        env.keep(
            SIDECAR_HUB_URL,
            parsed.map_err(|_| "it is not an http:// or https:// URL".to_owned()),
        )
    });
    let secret: Secret = secret?;
    Some(Some(HubLink { url: url?, secret }))
}

/// The key in `SIDECAR_KEY_FILE`.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn key(env: &mut Env<'_>) -> Option<Option<Key>> {
    if !env.is_set(SIDECAR_KEY_FILE) {
        return Some(None);
    }
    let text = env.secret_file(SIDECAR_KEY_FILE)?;
    let key = Key::from_hex(&text).map_err(|err| format!("its first line is {err}"));
    env.keep(SIDECAR_KEY_FILE, key).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn ping(env: &mut Env<'_>) -> Option<Option<crate::http::Url>> {
    if !env.is_set(SIDECAR_PING_URL) {
        return Some(None);
    }
    let url = env.secret(SIDECAR_PING_URL)?;
    let what = |_| "it is not an http:// or https:// URL".to_owned();
    env.keep(SIDECAR_PING_URL, crate::http::url(url.expose()).map_err(what)).map(Some)
}

fn without(env: &mut Env<'_>) -> Vec<&'static str> {
    let mut without = Vec::new();
    if !env.is_set(SIDECAR_HUB_URL) {
        without.push("no SIDECAR_HUB_URL: no hub is told");
    }
    without
}
