//! The agent's settings: how many jobs, whose, how long, and where their files lie.

use std::path::PathBuf;
use std::time::Duration;

use super::env::{Env, Variable, shown};
use super::gpu::{self, Gpu};
use crate::agent::stock::DiskLimits;
use crate::agent::{JobAuth, Limits, OwnersSandbox, Settings};
use crate::bus::PoolName;
use crate::container::{ImagePolicy, InvalidUser, User};
use crate::job::phase::Rules;
use crate::node::admission::Reach;

pub(super) const DATA_DIR: Variable = Variable::new("DATA_DIR", "/var/lib/lamda-node");
const HOME: Variable = Variable::new("HOME", "/home/node");
const JOB_SLOTS: Variable = Variable::new("JOB_SLOTS", "1");
const AGENT_POOLS: Variable = Variable::new("AGENT_POOLS", "auto");
const POOL_PREFETCH: Variable = Variable::new("POOL_PREFETCH", "0");
const JOB_SANDBOX: Variable = Variable::new("JOB_SANDBOX", "standard");
const JOB_USER: Variable = Variable::new("JOB_USER", "65534:65534");
const JOB_NETWORK: Variable = Variable::new("JOB_NETWORK", "none");
const JOB_WARM_NETWORKS: Variable = Variable::new("JOB_WARM_NETWORKS", "auto");
const JOB_TIMEOUT_MAX: Variable = Variable::new("JOB_TIMEOUT_MAX", "24h");
const FETCH_GIVE_UP_S: Variable = Variable::new("FETCH_GIVE_UP_S", "300");
const UPLOAD_GIVE_UP_S: Variable = Variable::new("UPLOAD_GIVE_UP_S", "86400");
const RESULT_KEEP_DAYS: Variable = Variable::new("RESULT_KEEP_DAYS", "14");
const DISK_FREE_MIN_MIB: Variable = Variable::new("DISK_FREE_MIN_MIB", "2048");
const DISK_BUDGET_MIB: Variable = Variable::new("DISK_BUDGET_MIB", "200000");
const HEARTBEAT_INTERVAL: Variable = Variable::new("HEARTBEAT_INTERVAL", "5m");
const HEARTBEAT_INTERVAL_SECONDS: Variable = Variable::new("HEARTBEAT_INTERVAL_SECONDS", "300");
const TX_FEE_MAX: Variable = Variable::new("TX_FEE_MAX", "0.001");
const DAY_FEE_MAX: Variable = Variable::new("DAY_FEE_MAX", "0.01");
const SHUTDOWN_GRACE_S: Variable = Variable::new("SHUTDOWN_GRACE_S", "30");
const SHUTDOWN_JOBS: Variable = Variable::new("SHUTDOWN_JOBS", "stop");
const JOB_STOP_GRACE_S: Variable = Variable::new("JOB_STOP_GRACE_S", "10");

/// One slot of the reputation contract: a node whose heartbeats are further apart misses slots.
const BEAT_MAX: Duration = Duration::from_mins(5);

/// Smallest budget: the reserve, the journal's log and one small job.
const BUDGET_MIB_MIN: u64 = 256;

const DAY_S: u64 = 24 * 60 * 60;
const YEAR_S: u64 = 365 * DAY_S;

pub(super) fn read(
    env: &mut Env<'_>,
    auth: Option<JobAuth>,
    images: Option<ImagePolicy>,
    mode: Option<&Gpu>,
) -> Option<Settings> {
    let data_dir = data_dir(env);
    let slots = env.number(JOB_SLOTS, (1, 1024), 0).map(|slots| usize::try_from(slots).ok());
    let pools = pools(env);
    let pool_prefetch = env.number(POOL_PREFETCH, (0, 64), 0);
    let sandbox = sandbox(env);
    let (yields, allows_unsafe_toolkit) = (gpu::yields(env), gpu::allows_unsafe_toolkit(env));
    let network = env.choice(JOB_NETWORK, &Reach::ALL.map(|network| (network.name(), network)));
    let warm_networks = warm_networks(env);
    let rules = rules(env);
    let disk = disk_limits(env);
    let heartbeat_interval = heartbeat_interval(env);
    let spending = spending(env);
    let shutdown_grace = env.seconds(SHUTDOWN_GRACE_S, (0, DAY_S), 30);
    let keep_jobs = env.choice(SHUTDOWN_JOBS, &[("stop", false), ("keep", true)]);
    let stop_grace = env.seconds(JOB_STOP_GRACE_S, (0, 3600), 10);
    let events = super::events::read(env);
    Some(Settings {
        data_dir: data_dir?,
        without_gpu: mode?.is_none(),
        yields_gpus: yields?,
        allows_unsafe_toolkit: allows_unsafe_toolkit?,
        slots: slots?.filter(|slots| *slots > 0),
        pools: pools?,
        pool_prefetch: usize::try_from(pool_prefetch?).ok()?,
        auth: auth?,
        images: images?,
        sandbox: sandbox?,
        network: network?,
        warm_networks: warm_networks?,
        rules: rules?,
        disk_free_min_mib: disk?.free_min_mib,
        disk_budget_mib: disk?.budget_mib,
        heartbeat_interval: heartbeat_interval?,
        spending: spending?,
        shutdown_grace: shutdown_grace?,
        keep_jobs: keep_jobs?,
        events: events?,
        stop_grace: stop_grace?,
    })
}

/// The limits of the disk.
pub(super) fn disk_limits(env: &mut Env<'_>) -> Option<DiskLimits> {
    let free_min_mib = env.number(DISK_FREE_MIN_MIB, (0, 1 << 40), 2048);
    let budget_mib = env.number(DISK_BUDGET_MIB, (BUDGET_MIB_MIN, 1 << 40), 0);
    // Not set: the whole disk.
    let budget_mib = budget_mib.map(|mib| (mib > 0).then_some(mib));
    Some(DiskLimits { free_min_mib: free_min_mib?, budget_mib: budget_mib? })
}

fn sandbox(env: &mut Env<'_>) -> Option<OwnersSandbox> {
    let is_strict = env.choice(JOB_SANDBOX, &[("standard", false), ("strict", true)]);
    let user = match env.text(JOB_USER) {
        None => Some(User::NOBODY),
        Some(text) => {
            let user =
                text.parse().map_err(|err: InvalidUser| format!("{} is {err}", shown(&text)));
            env.keep(JOB_USER, user)
        }
    };
    Some(OwnersSandbox { is_strict: is_strict?, user: user? })
}

fn rules(env: &mut Env<'_>) -> Option<Rules> {
    let bounds = (Duration::from_secs(1), Duration::from_secs(YEAR_S));
    let timeout_max = env.span(JOB_TIMEOUT_MAX, bounds, Duration::from_secs(DAY_S));
    let fetch_give_up = env.seconds(FETCH_GIVE_UP_S, (0, YEAR_S), 300);
    let upload_give_up = env.seconds(UPLOAD_GIVE_UP_S, (0, YEAR_S), DAY_S);
    let result_keep_days = env.number(RESULT_KEEP_DAYS, (0, 365), 14);
    Some(Rules {
        timeout_max: timeout_max?,
        fetch_give_up: fetch_give_up?,
        upload_give_up: upload_give_up?,
        result_keep: Duration::from_secs(result_keep_days? * DAY_S),
    })
}

fn spending(env: &mut Env<'_>) -> Option<Limits> {
    let transaction_max_wei = fee(env, TX_FEE_MAX);
    let day_max_wei = fee(env, DAY_FEE_MAX);
    Some(Limits { transaction_max_wei: transaction_max_wei?, day_max_wei: day_max_wei? })
}

#[expect(clippy::option_option, reason = "unset and invalid are different outcomes")]
fn fee(env: &mut Env<'_>, variable: Variable) -> Option<Option<u128>> {
    let Some(text) = env.text(variable) else { return Some(None) };
    let what = || format!("{} is no amount of the chain's gas token, such as 0.001", shown(&text));
    env.keep(variable, wei(&text).map(Some).ok_or_else(what))
}

/// Converts a decimal number of coins to wei: more than zero, at most a million coins, with at most 18 digits
/// after the point.
fn wei(text: &str) -> Option<u128> {
    let (coins, parts) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(coins) || !digits(parts) || coins.len() > 7 || parts.len() > 18 {
        return None;
    }
    let coins: u128 = coins.parse().ok()?;
    let parts: u128 = format!("{parts:0<18}").parse().ok()?;
    let wei = coins.checked_mul(10_u128.pow(18))?.checked_add(parts)?;
    (wei > 0 && coins <= 1_000_000).then_some(wei)
}

/// `HEARTBEAT_INTERVAL`, else its older spelling `HEARTBEAT_INTERVAL_SECONDS`.
fn heartbeat_interval(env: &mut Env<'_>) -> Option<Duration> {
    let (min, max) = (1, DAY_S);
    let older = env.seconds(HEARTBEAT_INTERVAL_SECONDS, (min, max), 300);
    let bounds = (Duration::from_secs(min), Duration::from_secs(max));
    let span = env.span(HEARTBEAT_INTERVAL, bounds, older.unwrap_or(bounds.1));
    if span.is_some_and(|span| span > BEAT_MAX) {
        env.warn(
            "HEARTBEAT_INTERVAL is above 5 minutes: the node misses slots of its uptime, and above \
             15 minutes the chain does not call it active",
        );
    }
    older.and(span)
}

/// `Some(None)`: as many as fit the slots.
#[expect(clippy::option_option, reason = "left to the node and invalid are different outcomes")]
fn warm_networks(env: &mut Env<'_>) -> Option<Option<usize>> {
    if env.text(JOB_WARM_NETWORKS).is_none_or(|text| text.eq_ignore_ascii_case("auto")) {
        return Some(None);
    }
    let count = env.number(JOB_WARM_NETWORKS, (0, 256), 0)?;
    Some(usize::try_from(count).ok())
}

fn pools(env: &mut Env<'_>) -> Option<Vec<String>> {
    let pools = env.list(AGENT_POOLS);
    let wrong = pools.iter().find_map(|pool| {
        let err = pool.parse::<PoolName>().err()?;
        Some(format!("{} of its list: {err}", shown(pool)))
    });
    env.keep(AGENT_POOLS, wrong.map_or(Ok(pools), Err))
}

/// The data folder. Absolute, since the engine mounts folders below it.
pub(super) fn data_dir(env: &mut Env<'_>) -> Option<PathBuf> {
    let set = env.is_set(DATA_DIR);
    let dir = match env.path(DATA_DIR) {
        Some(dir) => dir,
        None if set => return None,
        None if rustix::process::geteuid().is_root() => DATA_DIR.example.into(),
        None => {
            let Some(home) = env.path(HOME) else {
                env.problem(DATA_DIR, "neither it nor HOME is set");
                return None;
            };
            home.join(".lamda-node")
        }
    };
    let absolute = std::path::absolute(&dir);
    let absolute = absolute.map_err(|err| format!("{} is no path: {err}", dir.display()));
    let mountable = absolute.and_then(|dir| match dir.to_str() {
        Some(text) if !text.contains([':', '\n', '\0']) => Ok(dir),
        _ => Err("the engine can't mount a folder with a colon or a line break in it".to_owned()),
    });
    env.keep(DATA_DIR, mountable)
}

#[cfg(test)]
mod tests {
    use super::wei;

    #[test]
    fn amounts_of_the_gas_token_are_read_to_the_last_wei() {
        assert_eq!(wei("0.001"), Some(1_000_000_000_000_000));
        assert_eq!(wei("2"), Some(2_000_000_000_000_000_000));
        assert_eq!(wei("0.000000000000000001"), Some(1));
        for text in
            ["", "0", "0.0", "-1", "1e3", ".5", "1.", "1,5", "1000001", "0.0000000000000000001"]
        {
            assert_eq!(wei(text), None, "{text}");
        }
    }
}
