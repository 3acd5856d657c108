//! What the next heartbeat carries: the root of the receipts that none carried yet.
//!
//! What must hold: leaves come in the order of PROTOCOL 3, and a root's leaves are those that the
//! journal gathers under its transaction.

use crate::ids::{Domain, Hash};
use crate::journal::{Error, Journal, Leaf};
use crate::reputation::{Call, merkle};

/// Receipts under one root; more go with the next beat. A proof is then twelve hashes long.
const LEAVES_MAX: u32 = 4096;

/// The next beat, and the receipts that it commits to. A contract without the extension gets plain
/// beats; so does everybody where no job has ended since the last.
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
