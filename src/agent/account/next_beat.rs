//! Chooses what the next heartbeat carries: the Merkle root of the receipts that none has carried
//! yet.
//!
//! Invariants: the leaves are in the order that docs/protocol.md prescribes for receipts; a root's
//! leaves are those that the journal stores under its transaction.

use crate::ids::{Domain, Hash};
use crate::journal::{Error, Journal, Leaf};
use crate::reputation::{Call, merkle};

/// The most receipts under one root; others wait for the next heartbeat. A proof has at most 12
/// hashes.
const LEAVES_MAX: u32 = 4096;

/// The next heartbeat and the receipts that it commits to. It is plain if the contract lacks the
/// extension or no receipt is waiting.
pub(super) async fn next_beat(
    journal: &Journal,
    domain: Domain,
    extension: bool,
) -> Result<(Call, Vec<Leaf>), Error> {
    let leaves =
        if extension { journal.waiting_receipts(domain, LEAVES_MAX).await? } else { Vec::new() };
    let digests: Vec<Hash> = leaves.iter().map(|leaf| leaf.digest).collect();
    let Some(root) = merkle::root(&digests) else { return Ok((Call::Heartbeat, Vec::new())) };
    let count = |completed| leaves.iter().filter(|leaf| leaf.completed == completed).count();
    let count = |completed| u32::try_from(count(completed)).unwrap_or(u32::MAX);
    let (completed, failed) = (count(true), count(false));
    Ok((Call::HeartbeatWithReceipts { root, completed, failed }, leaves))
}
