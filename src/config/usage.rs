//! How jobs are watched, and where what they use is published.

use std::time::Duration;

use super::env::{Env, Variable};
use crate::bus::MetricsTopic;
use crate::container::docker::GROUP_PARENT;
use crate::usage::Profile;

const MONITORING_PROFILE: Variable = Variable::new("MONITORING_PROFILE", "standard");
const PROPLET_ENABLE_MONITORING: Variable = Variable::new("PROPLET_ENABLE_MONITORING", "true");
const PROPLET_METRICS_INTERVAL: Variable = Variable::new("PROPLET_METRICS_INTERVAL", "10");
const METRICS_DOMAIN: Variable = Variable::new("METRICS_DOMAIN", "lamda");
const METRICS_CHANNEL: Variable = Variable::new("METRICS_CHANNEL", "nodes");
const JOB_CGROUP_PARENT: Variable = Variable::new("JOB_CGROUP_PARENT", GROUP_PARENT);

/// Seconds between two of the node's own figures if nothing is set.
const BEAT_S: u64 = 10;
/// The most seconds between them: a day.
const BEAT_S_MAX: u64 = 24 * 60 * 60;

/// How jobs and the node are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitoring {
    /// Whether anything is watched (`PROPLET_ENABLE_MONITORING`).
    pub is_on: bool,
    /// How jobs are watched that ask for nothing (`MONITORING_PROFILE`).
    pub profile: Profile,
    /// Where live figures are published (`METRICS_DOMAIN`, `METRICS_CHANNEL`).
    pub topic: MetricsTopic,
    /// Time between two of the node's own figures (`PROPLET_METRICS_INTERVAL`).
    pub beat: Duration,
}

pub(super) fn read(env: &mut Env<'_>) -> Option<Monitoring> {
    let is_on = env.choice(PROPLET_ENABLE_MONITORING, &[("true", true), ("false", false)]);
    let profile = match env.text(MONITORING_PROFILE) {
        None => Some(Profile::for_daemon(false)),
        Some(text) => {
            let profile = text.parse::<Profile>().map_err(|err| err.to_string());
            env.keep(MONITORING_PROFILE, profile)
        }
    };
    let beat = env.seconds(PROPLET_METRICS_INTERVAL, (1, BEAT_S_MAX), BEAT_S);
    Some(Monitoring { is_on: is_on?, profile: profile?, topic: topic(env)?, beat: beat? })
}

fn topic(env: &mut Env<'_>) -> Option<MetricsTopic> {
    let mut name = |variable: Variable| {
        let text = env.text(variable).unwrap_or_else(|| variable.example.to_owned());
        // Each alone, so that the problem names the variable.
        let valid = MetricsTopic::new(&text, &text).map(|_| text);
        env.keep(variable, valid.map_err(|err| err.to_string()))
    };
    let (domain, channel) = (name(METRICS_DOMAIN), name(METRICS_CHANNEL));
    MetricsTopic::new(&domain?, &channel?).ok()
}

/// The control group below which jobs have their own; `Some(None)` if the engine decides.
#[expect(clippy::option_option, reason = "the outer one is a setting with a problem")]
pub(super) fn group_parent(env: &mut Env<'_>) -> Option<Option<String>> {
    let Some(text) = env.text(JOB_CGROUP_PARENT) else {
        return Some(Some(GROUP_PARENT.to_owned()));
    };
    if text == "off" {
        return Some(None);
    }
    let is_path = text.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|part| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(plain)
        })
    });
    let valid = if is_path {
        Ok(Some(text.clone()))
    } else {
        Err(format!(
            "{} is neither `off` nor a path such as {GROUP_PARENT}",
            super::env::shown(&text)
        ))
    };
    env.keep(JOB_CGROUP_PARENT, valid)
}
