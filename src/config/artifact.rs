//! IPFS settings: the pinning service and the gateways.

use std::time::Duration;

use super::auth::is_loopback;
use super::env::{Env, Variable};
use crate::artifact::Config;
use crate::http::is_http_url;
use crate::secret::Secret;

const PINATA_JWT: Variable = Variable::new("PINATA_JWT", "eyJhbGciOi…");
const PINATA_API_URL: Variable = Variable::new("PINATA_API_URL", "https://api.pinata.cloud");
const PINATA_RATE_PER_MIN: Variable = Variable::new("PINATA_RATE_PER_MIN", "60");
const IPFS_GATEWAYS: Variable = Variable::new("IPFS_GATEWAYS", "https://gateway.pinata.cloud");
const IPFS_GATEWAY_TOKEN: Variable = Variable::new("IPFS_GATEWAY_TOKEN", "abc123");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A gateway that has to find the content first is silent for a while.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

pub(super) fn required(env: &mut Env<'_>) -> Option<Config> {
    if !env.is_set(PINATA_JWT) {
        let what = "it is not set, so that no output could be published. Either take a key at \
                    https://app.pinata.cloud/developers/api-keys, or keep files on this machine: \
                    start `lamda-node store --dir ./store --listen 127.0.0.1:5080` and set \
                    PINATA_API_URL and IPFS_GATEWAYS to http://127.0.0.1:5080 and PINATA_JWT to \
                    any word";
        env.problem(PINATA_JWT, what);
    }
    let (config, has_key) = optional(env)?;
    has_key.then_some(config)
}

/// The settings, and whether they include a key for the pinning service.
pub(super) fn optional(env: &mut Env<'_>) -> Option<(Config, bool)> {
    let jwt = jwt(env);
    let pinata_url = url(env, PINATA_API_URL);
    let rate = env.number(PINATA_RATE_PER_MIN, (1, 100_000), 60);
    let gateways = gateways(env);
    let gateway_token = token(env, IPFS_GATEWAY_TOKEN);
    let has_key = jwt.is_some();
    if has_key && let Some(url) = &pinata_url {
        warn_of_plain_text(env, PINATA_API_URL, url, "PINATA_JWT");
    }
    if gateway_token.is_some()
        && let Some(first) = gateways.as_ref().and_then(|gateways| gateways.first())
    {
        warn_of_plain_text(env, IPFS_GATEWAYS, first, "IPFS_GATEWAY_TOKEN");
    }
    let config = Config {
        gateways: gateways?,
        gateway_token,
        pinata_url: pinata_url?,
        pinata_jwt: jwt.unwrap_or_else(|| Secret::new("")),
        pinata_rate_per_min: u32::try_from(rate?).unwrap_or(u32::MAX),
        connect_timeout: CONNECT_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
    };
    Some((config, has_key))
}

fn warn_of_plain_text(env: &mut Env<'_>, variable: Variable, url: &str, secret: &str) {
    // URL schemes are case-insensitive (RFC 3986).
    let is_plain = url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if is_plain && !is_loopback(url) {
        let name = variable.name;
        env.warn(format!(
            "{name} leads off this machine over http://, and {secret} goes there in plain text: \
             use https://"
        ));
    }
}

fn jwt(env: &mut Env<'_>) -> Option<Secret> {
    let jwt = token(env, PINATA_JWT)?;
    if jwt.expose().starts_with("Bearer") {
        env.problem(PINATA_JWT, "it begins with Bearer: leave that word out");
        return None;
    }
    Some(jwt)
}

/// A secret that is sent in an HTTP header.
fn token(env: &mut Env<'_>, variable: Variable) -> Option<Secret> {
    let token = env.secret(variable)?;
    let plain = token.expose().bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let what = || {
        "it holds characters that no key has (a line break, or a dash of a word \
                   processor?)"
            .to_owned()
    };
    env.keep(variable, plain.then_some(token).ok_or_else(what))
}

fn gateways(env: &mut Env<'_>) -> Option<Vec<String>> {
    let set = env.is_set(IPFS_GATEWAYS);
    let urls = env.list(IPFS_GATEWAYS);
    if !set {
        return Some(vec![IPFS_GATEWAYS.example.to_owned()]);
    }
    if urls.is_empty() {
        env.problem(IPFS_GATEWAYS, "its list is empty");
        return None;
    }
    if !urls.iter().all(|url| is_http_url(url)) {
        let what = "it is not a comma list of http:// or https:// URLs";
        env.problem(IPFS_GATEWAYS, what);
        return None;
    }
    // A URL that was pasted from a browser ends with the path `/ipfs`.
    let base = |url: &String| {
        let url = url.trim_end_matches('/');
        url.strip_suffix("/ipfs").unwrap_or(url).to_owned()
    };
    Some(urls.iter().map(base).collect())
}

fn url(env: &mut Env<'_>, variable: Variable) -> Option<String> {
    let set = env.is_set(variable);
    let text = env.text(variable);
    if !set {
        return Some(variable.example.to_owned());
    }
    let text = text?;
    let what = || "it is not an http:// or https:// URL".to_owned();
    env.keep(variable, is_http_url(&text).then_some(text).ok_or_else(what))
}
