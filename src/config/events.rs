//! Settings of events: where they go, and how many of them. Each has the name that SOLLOL's users know too;
//! ours wins where both are set.

use std::time::Duration;

use super::env::{Env, Variable, shown};
use crate::agent::events::Settings;
use crate::fleet::Sampling;
use crate::http::is_http_url;
use crate::push::redis::Config as Redis;
use crate::sidecar::RedisLink;

const URL: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_URL", "redis://:password@127.0.0.1:6379/0"),
    Variable::new("SOLLOL_REDIS_URL", "redis://localhost:6379"),
];
const MAX_EVENTS: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_MAX_EVENTS", "10000"),
    Variable::new("SOLLOL_OBSERVER_MAX_EVENTS", "10000"),
];
const SAMPLING: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_SAMPLING", "true"),
    Variable::new("SOLLOL_OBSERVER_SAMPLING", "true"),
];
const SAMPLE_RATE: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_SAMPLE_RATE", "0.1"),
    Variable::new("SOLLOL_OBSERVER_SAMPLE_RATE", "0.1"),
];
const BATCH_SIZE: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_BATCH_SIZE", "100"),
    Variable::new("SOLLOL_OBSERVER_BATCH_SIZE", "100"),
];
const BATCH_TIMEOUT: [Variable; 2] = [
    Variable::new("EVENTS_REDIS_BATCH_TIMEOUT", "1.0"),
    Variable::new("SOLLOL_OBSERVER_BATCH_TIMEOUT", "1.0"),
];
const HEARTBEAT: [Variable; 2] = [
    Variable::new("EVENTS_HEARTBEAT", "true"),
    Variable::new("SOLLOL_RPC_BACKEND_HEARTBEAT", "true"),
];
/// SOLLOL has two names for it, for two kinds of routers.
const HEARTBEAT_INTERVAL: [Variable; 3] = [
    Variable::new("EVENTS_HEARTBEAT_INTERVAL", "600"),
    Variable::new("SOLLOL_RPC_BACKEND_HEARTBEAT_INTERVAL", "600"),
    Variable::new("SOLLOL_RPC_HEARTBEAT_INTERVAL", "600"),
];
const DASHBOARD_URL: Variable = Variable::new("EVENTS_DASHBOARD_URL", "http://127.0.0.1:8080");

/// How often llama.cpp's coordinators and backends are told to be there, in seconds.
const LLAMA_HEARTBEAT_S: u64 = 30;

/// A ring of this many events takes some 100 MB in the worst case, all of them at their limit.
const MAX_EVENTS_BOUNDS: (u64, u64) = (100, 20_000);
const BATCH_BOUNDS: (u64, u64) = (1, 1_000);

/// The longest that an event waits for others, in seconds.
const TIMEOUT_MAX_S: f64 = 60.0;

pub(super) fn read(env: &mut Env<'_>) -> Option<Settings> {
    let redis = redis(env);
    let ring = number(env, MAX_EVENTS, MAX_EVENTS_BOUNDS, 10_000);
    let batch = number(env, BATCH_SIZE, BATCH_BOUNDS, 100);
    let is_sampled = choice(env, SAMPLING);
    let rate = real(env, SAMPLE_RATE, (f64::MIN, f64::MAX), 0.1);
    let flush = real(env, BATCH_TIMEOUT, (0.0, TIMEOUT_MAX_S), 1.0);
    let beats = choice(env, HEARTBEAT);
    let interval = {
        let variable = set(env, HEARTBEAT_INTERVAL);
        env.seconds(variable, (1, 86_400), 600)
    };
    let dashboard = dashboard(env);
    Some(Settings {
        ring: usize::try_from(ring?).ok()?,
        redis: redis?,
        sampling: if is_sampled? { Sampling::of(rate?) } else { Sampling::ALL },
        batch: usize::try_from(batch?).ok()?,
        flush: Duration::from_secs_f64(flush?),
        heartbeat: Some(interval?).filter(|_| beats == Some(true)),
        dashboard: dashboard?,
    })
}

/// Where a sidecar publishes what happens to llama.cpp's programs. Here SOLLOL's two intervals are two, and each is as
/// long as SOLLOL's documentation says if it is not set.
#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
pub(super) fn llama(env: &mut Env<'_>) -> Option<Option<RedisLink>> {
    let (redis, ring) = (redis(env), number(env, MAX_EVENTS, MAX_EVENTS_BOUNDS, 10_000));
    let batch = number(env, BATCH_SIZE, BATCH_BOUNDS, 100);
    let flush = real(env, BATCH_TIMEOUT, (0.0, TIMEOUT_MAX_S), 1.0);
    let beats = choice(env, HEARTBEAT);
    let [ours, backends, coordinator] = HEARTBEAT_INTERVAL;
    let mut every = |names| {
        let variable = set(env, names);
        env.seconds(variable, (1, 86_400), LLAMA_HEARTBEAT_S)
    };
    let (registry, coordinator) = (every([ours, backends]), every([ours, coordinator]));
    let (registry, coordinator_every) = (registry?, coordinator?);
    let link = RedisLink {
        redis: match redis? {
            Some(redis) => redis,
            None => return Some(None),
        },
        ring: usize::try_from(ring?).ok()?,
        batch: usize::try_from(batch?).ok()?,
        flush: Duration::from_secs_f64(flush?),
        coordinator_every,
        registry_every: Some(registry).filter(|_| beats == Some(true)),
    };
    beats.map(|_| Some(link))
}

/// The first of the names that is set; the first one if none is.
fn set<const N: usize>(env: &mut Env<'_>, names: [Variable; N]) -> Variable {
    // All are asked for, so that each counts as a setting.
    let are_set = names.map(|name| (env.is_set(name), name));
    let found = are_set.iter().find(|(is_set, _)| *is_set).or_else(|| are_set.first());
    found.map_or(DASHBOARD_URL, |(_, name)| *name)
}

fn number<const N: usize>(
    env: &mut Env<'_>,
    names: [Variable; N],
    bounds: (u64, u64),
    default: u64,
) -> Option<u64> {
    let variable = set(env, names);
    env.number(variable, bounds, default)
}

fn choice<const N: usize>(env: &mut Env<'_>, names: [Variable; N]) -> Option<bool> {
    let words =
        [("true", true), ("false", false), ("1", true), ("0", false), ("yes", true), ("no", false)];
    let variable = set(env, names);
    env.choice(variable, &words)
}

/// A number with a fraction.
fn real<const N: usize>(
    env: &mut Env<'_>,
    names: [Variable; N],
    (min, max): (f64, f64),
    default: f64,
) -> Option<f64> {
    let variable = set(env, names);
    if !env.is_set(variable) {
        return Some(default);
    }
    let text = env.text(variable)?;
    let number = text.parse().ok().filter(|it: &f64| it.is_finite() && (min..=max).contains(it));
    let is_bounded = max < f64::MAX;
    let range = if is_bounded { format!(" from {min} to {max}") } else { String::new() };
    env.keep(variable, number.ok_or_else(|| format!("{} is not a number{range}", shown(&text))))
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn redis(env: &mut Env<'_>) -> Option<Option<Redis>> {
    let variable = set(env, URL);
    if !env.is_set(variable) {
        return Some(None);
    }
    let url = env.secret(variable)?;
    env.keep(variable, Redis::new(url).map_err(|err| err.to_string())).map(Some)
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn dashboard(env: &mut Env<'_>) -> Option<Option<String>> {
    if !env.is_set(DASHBOARD_URL) {
        return Some(None);
    }
    let text = env.text(DASHBOARD_URL)?;
    let what = || "it is not an http:// or https:// URL".to_owned();
    env.keep(DASHBOARD_URL, is_http_url(&text).then_some(text).ok_or_else(what)).map(Some)
}
