//! The owner's settings, as far as the agent acts on them. `config` fills them from the
//! environment.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::jobs::terms::OwnersSandbox;
use super::stock::DiskLimits;
use crate::container::ImagePolicy;
use crate::ids::Address;
use crate::job::phase::Rules;
use crate::node::admission::Reach;

/// The owner's settings.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting by itself")]
pub struct Settings {
    /// `DATA_DIR`: journal and job folders. Created with mode 0700.
    pub data_dir: PathBuf,
    /// `GPU_MODE=none`: run without GPUs, on a local chain only.
    pub without_gpu: bool,
    /// `GPU_YIELD`: a card that a program of the host uses is given to no job.
    pub yields_gpus: bool,
    /// `GPU_ALLOW_UNSAFE_TOOLKIT`: strangers' jobs get GPUs also while programs are known to get out of
    /// their containers.
    pub allows_unsafe_toolkit: bool,
    /// `JOB_SLOTS`: jobs at a time. `None`: one per GPU, or one per core without GPUs.
    pub slots: Option<usize>,
    /// `AGENT_POOLS`: the shared queues that are served besides the node's own; `auto` stands for
    /// those of its hardware.
    pub pools: Vec<String>,
    /// `POOL_PREFETCH`: jobs taken from pools beyond the free slots, per slot.
    pub pool_prefetch: usize,
    /// `JOB_AUTH` and `JOB_ALLOWED_REQUESTERS`: whose jobs the node takes.
    pub auth: JobAuth,
    /// `JOB_REGISTRIES` and `JOB_LOCAL_IMAGES`: which images jobs may name.
    pub images: ImagePolicy,
    /// `JOB_SANDBOX` and `JOB_USER`: how far jobs are closed in at least.
    pub sandbox: OwnersSandbox,
    /// `JOB_NETWORK`: the widest network that a job may ask for.
    pub network: Reach,
    /// `JOB_WARM_NETWORKS`: network namespaces kept ready, for each network that jobs may ask for. `None`: as
    /// many as slots, at most four.
    pub warm_networks: Option<usize>,
    /// `JOB_TIMEOUT_MAX`, `FETCH_GIVE_UP_S`, `UPLOAD_GIVE_UP_S`, `RESULT_KEEP_DAYS`.
    pub rules: Rules,
    /// `DISK_FREE_MIN_MIB`: no job is taken while less is free under the data folder.
    pub disk_free_min_mib: u64,
    /// `DISK_BUDGET_MIB`: what all that the node keeps may take; `None` for the whole disk.
    pub disk_budget_mib: Option<u64>,
    /// `HEARTBEAT_INTERVAL`: the time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// `TX_FEE_MAX` and `DAY_FEE_MAX`; the defaults depend on the chain.
    pub spending: Limits,
    /// `SHUTDOWN_GRACE_S`: how long a shutdown waits for running jobs.
    pub shutdown_grace: Duration,
    /// `SHUTDOWN_JOBS=keep`: a shutdown leaves containers running.
    pub keep_jobs: bool,
    /// What is told of all this, and to whom.
    pub events: super::events::Settings,
    /// `JOB_STOP_GRACE_S`: the time between a container's stop signal and its kill.
    pub stop_grace: Duration,
}

impl Settings {
    /// The owner's limits of the disk.
    pub const fn disk_limits(&self) -> DiskLimits {
        DiskLimits { free_min_mib: self.disk_free_min_mib, budget_mib: self.disk_budget_mib }
    }
}

/// The owner's limits of what transactions may cost, in wei, as far as they are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The most that one transaction may cost.
    pub transaction_max_wei: Option<u128>,
    /// The most that all transactions of 24 hours may cost.
    pub day_max_wei: Option<u128>,
}

/// Whose jobs the node takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobAuth {
    /// Jobs of anybody who can publish to the NATS server. A signature that is there is still
    /// checked.
    Open,
    /// Only jobs signed by one of these.
    Requesters(BTreeSet<Address>),
}
