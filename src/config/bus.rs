//! NATS: where it is, who we are there.

use super::env::{Env, Variable};
use crate::bus::{Config, Credentials, DeliveryMode};

const NATS_URL: Variable = Variable::new("NATS_URL", "nats://localhost:4222");
const NATS_STREAMS: Variable = Variable::new("NATS_STREAMS", "create");
const NATS_MODE: Variable = Variable::new("NATS_MODE", "jetstream");
const NATS_CREDS: Variable = Variable::new("NATS_CREDS", "/etc/lamda-node/node.creds");
const NATS_NKEY_FILE: Variable = Variable::new("NATS_NKEY_FILE", "/etc/lamda-node/node.nkey");
const NATS_TOKEN_FILE: Variable = Variable::new("NATS_TOKEN_FILE", "/etc/lamda-node/nats.token");
const NATS_USER: Variable = Variable::new("NATS_USER", "node");
const NATS_PASSWORD_FILE: Variable =
    Variable::new("NATS_PASSWORD_FILE", "/etc/lamda-node/nats.password");
const NATS_TLS_CA: Variable = Variable::new("NATS_TLS_CA", "/etc/lamda-node/nats-ca.pem");

pub(super) fn read(env: &mut Env<'_>) -> Option<Config> {
    let url = url(env);
    let manage_streams = env.choice(NATS_STREAMS, &[("create", true), ("check", false)]);
    let modes = [("jetstream", DeliveryMode::JetStream), ("core", DeliveryMode::Core)];
    let mode = env.choice(NATS_MODE, &modes);
    let credentials = credentials(env);
    let tls_ca = env.path(NATS_TLS_CA);
    if let Some(path) = tls_ca.as_ref().filter(|path| !path.is_file()) {
        env.problem(NATS_TLS_CA, format!("there is no file {}", path.display()));
    }
    let name = concat!("lamda-node/", env!("CARGO_PKG_VERSION")).to_owned();
    Some(Config {
        url: url?,
        credentials: credentials?,
        tls_ca,
        name,
        manage_streams: manage_streams?,
        mode: mode?,
    })
}

fn url(env: &mut Env<'_>) -> Option<String> {
    let set = env.is_set(NATS_URL);
    let text = env.text(NATS_URL);
    if !set {
        return Some(NATS_URL.example.to_owned());
    }
    let url = text?;
    // The URL may carry a password, so it is not repeated.
    let what = || "it is not nats://host:port or tls://host:port, or a comma list".to_owned();
    env.keep(NATS_URL, crate::bus::is_url(&url).then_some(url).ok_or_else(what))
}

/// One way of telling who we are, or none.
fn credentials(env: &mut Env<'_>) -> Option<Credentials> {
    let mut ways = Vec::new();
    if let Some(path) = env.path(NATS_CREDS) {
        if !path.is_file() {
            env.problem(NATS_CREDS, format!("there is no file {}", path.display()));
        }
        ways.push((NATS_CREDS, Credentials::File(path)));
    }
    if let Some(seed) = env.secret_file(NATS_NKEY_FILE) {
        ways.push((NATS_NKEY_FILE, Credentials::Nkey(seed)));
    }
    if let Some(token) = env.secret_file(NATS_TOKEN_FILE) {
        ways.push((NATS_TOKEN_FILE, Credentials::Token(token)));
    }
    let password_set = env.is_set(NATS_PASSWORD_FILE);
    match (env.text(NATS_USER), env.secret_file(NATS_PASSWORD_FILE)) {
        (Some(user), Some(password)) => {
            ways.push((NATS_USER, Credentials::UserPassword(user, password)));
        }
        (Some(_), None) if !password_set => {
            env.problem(NATS_PASSWORD_FILE, "it is not set, but NATS_USER is");
        }
        (None, Some(_)) => env.problem(NATS_USER, "it is not set, but NATS_PASSWORD_FILE is"),
        _ => {}
    }
    if ways.len() > 1 {
        let names: Vec<&str> = ways.iter().map(|(variable, _)| variable.name).collect();
        let what = format!("one way to authenticate is enough, but set are: {}", names.join(", "));
        let variable = ways[0].0;
        env.problem(variable, what);
        return None;
    }
    Some(ways.pop().map_or(Credentials::None, |(_, credentials)| credentials))
}
