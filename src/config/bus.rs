//! NATS settings: servers, credentials, TLS and streams.

use super::auth::is_loopback;
use super::env::{Env, Variable, is_private, read_secret};
use crate::bus::{Config, Credentials, DeliveryMode, Kept};

const NATS_URL: Variable = Variable::new("NATS_URL", "nats://localhost:4222");
const NATS_STREAMS: Variable = Variable::new("NATS_STREAMS", "create");
const NATS_MODE: Variable = Variable::new("NATS_MODE", "jetstream");
const NATS_CREDS: Variable = Variable::new("NATS_CREDS", "/etc/lamda-node/node.creds");
const NATS_NKEY_FILE: Variable = Variable::new("NATS_NKEY_FILE", "/etc/lamda-node/node.nkey");
const NATS_TOKEN_FILE: Variable = Variable::new("NATS_TOKEN_FILE", "/etc/lamda-node/nats.token");
const NATS_USER: Variable = Variable::new("NATS_USER", "node");
const NATS_PASSWORD_FILE: Variable =
    Variable::new("NATS_PASSWORD_FILE", "/etc/lamda-node/nats.password");
const NATS_INBOX_PREFIX: Variable = Variable::new("NATS_INBOX_PREFIX", "_INBOX_node");
const NATS_TLS_CA: Variable = Variable::new("NATS_TLS_CA", "/etc/lamda-node/nats-ca.pem");
const NATS_TLS_HANDSHAKE: Variable = Variable::new("NATS_TLS_HANDSHAKE", "after");

pub(super) fn read(env: &mut Env<'_>) -> Option<Config> {
    let url = url(env);
    let manage_streams = env.choice(NATS_STREAMS, &[("create", true), ("check", false)]);
    let modes = [("jetstream", DeliveryMode::JetStream), ("core", DeliveryMode::Core)];
    let mode = env.choice(NATS_MODE, &modes);
    let inbox_prefix = inbox_prefix(env);
    let tls_first = env.choice(NATS_TLS_HANDSHAKE, &[("after", false), ("first", true)]);
    let tls_is_required = env.is_set(NATS_TLS_CA) || tls_first == Some(true);
    let credentials = credentials(env);
    if let (Some(url), Some(credentials)) = (&url, &credentials) {
        warn_of_plain_text(env, url, credentials, tls_is_required);
    }
    let tls_ca = env.path(NATS_TLS_CA);
    if let Some(path) = tls_ca.as_ref().filter(|path| !path.is_file()) {
        env.problem(NATS_TLS_CA, format!("there is no file {}", path.display()));
    }
    let name = concat!("lamda-node/", env!("CARGO_PKG_VERSION")).to_owned();
    Some(Config {
        url: url?,
        credentials: credentials?,
        tls_ca,
        tls_first: tls_first?,
        name,
        inbox_prefix: inbox_prefix?,
        manage_streams: manage_streams?,
        mode: mode?,
    })
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn inbox_prefix(env: &mut Env<'_>) -> Option<Option<String>> {
    let Some(text) = env.text(NATS_INBOX_PREFIX) else { return Some(None) };
    let token = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    // Nodes reply only to subjects that begin with `_INBOX`.
    let fits = text.len() <= 64 && text.split('.').all(token) && crate::bus::is_inbox(&text);
    let what = || {
        "it is not one or more tokens of A-Za-z0-9_- with dots between them, the first of which \
         begins with _INBOX"
            .to_owned()
    };
    env.keep(NATS_INBOX_PREFIX, fits.then_some(Some(text)).ok_or_else(what))
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

/// Warns if a password or token is sent in plain text; nkeys and `.creds` files only sign the server's nonce.
fn warn_of_plain_text(env: &mut Env<'_>, url: &str, credentials: &Credentials, tls: bool) {
    let told = match credentials {
        Credentials::Token(_) | Credentials::UserPassword(..) => true,
        Credentials::None => url.contains('@'),
        Credentials::File(_) | Credentials::Nkey(_) => false,
    };
    let plain = |url: &str| !url.trim().starts_with("tls://") && !is_loopback(url);
    if told && !tls && url.split(',').any(plain) {
        env.warn(
            "NATS_URL leads off this machine without TLS, and a password or token goes there in \
             plain text: use tls://, or NATS_CREDS or NATS_NKEY_FILE, which never send a secret",
        );
    }
}

/// A secret that stays in its file, where it may be replaced; it is read at each connection.
fn kept(env: &mut Env<'_>, variable: Variable) -> Option<Kept> {
    let path = env.path(variable)?;
    let read = read_secret(&path).map(|_| Kept::InFile(path));
    env.keep(variable, read)
}

/// The one way to authenticate, or none; more than one is a problem.
fn credentials(env: &mut Env<'_>) -> Option<Credentials> {
    let mut ways = Vec::new();
    if let Some(path) = env.path(NATS_CREDS) {
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                env.keep(NATS_CREDS, is_private(&path, &metadata));
            }
            _ => env.problem(NATS_CREDS, format!("there is no file {}", path.display())),
        }
        ways.push((NATS_CREDS, Credentials::File(path)));
    }
    if let Some(seed) = kept(env, NATS_NKEY_FILE) {
        ways.push((NATS_NKEY_FILE, Credentials::Nkey(seed)));
    }
    if let Some(token) = kept(env, NATS_TOKEN_FILE) {
        ways.push((NATS_TOKEN_FILE, Credentials::Token(token)));
    }
    let password_set = env.is_set(NATS_PASSWORD_FILE);
    match (env.text(NATS_USER), kept(env, NATS_PASSWORD_FILE)) {
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
