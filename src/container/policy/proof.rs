//! The container in which the owner's image proves that a GPU computes.
//!
//! Invariant: it gets the GPU, and nothing else that a job would not get.

use bollard::models::HostConfig;

use super::{Handed, OOM_SCORE_ADJ, log_config};

/// Memory, in bytes, and processes of a proof that a GPU computes. A CUDA context alone takes some 500 MiB.
const PROOF_MEMORY: i64 = 8 << 30;
const PROOF_PIDS: i64 = 512;

/// Settings of the container in which the owner's image proves that this GPU computes: the GPU and nothing
/// else, within [`PROOF_MEMORY`].
pub(in crate::container) fn proof(card: Handed) -> HostConfig {
    card.to(HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        network_mode: Some("none".to_owned()),
        memory: Some(PROOF_MEMORY),
        memory_swap: Some(PROOF_MEMORY),
        pids_limit: Some(PROOF_PIDS),
        oom_score_adj: Some(OOM_SCORE_ADJ),
        log_config: Some(log_config()),
        init: Some(true),
        ..HostConfig::default()
    })
}
