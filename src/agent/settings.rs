//! What the node's owner decided, as far as the agent acts on it. `config` fills it from the
//! environment.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::container::ImagePolicy;
use crate::ids::Address;
use crate::job::phase::Rules;

/// The owner's decisions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATA_DIR`: journal and job folders. Created with mode 0700.
    pub data_dir: PathBuf,
    /// `GPU_MODE=none`: run without GPUs, on a local chain only.
    pub without_gpu: bool,
    /// `JOB_SLOTS`: jobs at a time; `None`: one a GPU, or one a core without GPUs.
    pub slots: Option<usize>,
    /// `AGENT_POOLS`: the shared queues that are served beside the node's own; `auto` stands for
    /// those of its hardware.
    pub pools: Vec<String>,
    /// `POOL_PREFETCH`: jobs taken from pools beyond the free slots, a slot.
    pub pool_prefetch: usize,
    /// `JOB_AUTH` and `JOB_ALLOWED_REQUESTERS`: whose jobs are taken.
    pub auth: JobAuth,
    /// `JOB_REGISTRIES` and `JOB_LOCAL_IMAGES`: which images jobs may name.
    pub images: ImagePolicy,
    /// `JOB_NETWORK=bridge`: whether a job may ask for the engine's bridge.
    pub allow_bridge: bool,
    /// `JOB_TIMEOUT_MAX`, `FETCH_GIVE_UP_S`, `UPLOAD_GIVE_UP_S`, `RESULT_KEEP_DAYS`.
    pub rules: Rules,
    /// `DISK_FREE_MIN_MIB`: no job is taken while less is free under the data folder.
    pub disk_free_min_mib: u64,
    /// `HEARTBEAT_INTERVAL`.
    pub heartbeat_interval: Duration,
    /// `TX_FEE_MAX` and `DAY_FEE_MAX`; what is not set follows the chain.
    pub spending: Limits,
    /// `SHUTDOWN_GRACE_S`: how long running jobs are waited for at the end.
    pub shutdown_grace: Duration,
    /// `SHUTDOWN_JOBS=keep`: leave containers running at the end.
    pub keep_jobs: bool,
    /// `JOB_STOP_GRACE_S`: between asking a container to end and killing it.
    pub stop_grace: Duration,
}

/// What the owner set of what transactions may cost, in wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// One transaction, at the most.
    pub transaction_max_wei: Option<u128>,
    /// All of 24 hours.
    pub day_max_wei: Option<u128>,
}

/// Whose jobs are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobAuth {
    /// Anybody's who can publish to the NATS server. A signature that is there is still checked.
    Open,
    /// Only jobs signed by one of these.
    Requesters(BTreeSet<Address>),
}
