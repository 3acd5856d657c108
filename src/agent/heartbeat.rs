//! The node's life on the chain: registered where it is not, then a beat at each interval.
//!
//! What must hold: nothing is paid for that the chain says already; a chain that does not answer
//! is waited for and stops nothing else; a node that no job can reach does not claim to live.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::link::Link;
use super::sole::Sole;
use crate::chain::{Chain, Error};
use crate::clock::Clock;
use crate::job::Domain;
use crate::node::{Address, Gpu, LOCAL_CHAINS};
use crate::supervise::{Failure, chain as causes};

/// What the node says of itself on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The card's model, or `CPU`.
    pub gpu_model: String,
    /// Its memory in MiB, or 0.
    pub vram_mib: u64,
}

impl Claim {
    /// The card with the most memory stands for the node.
    pub fn of(gpus: &[Gpu]) -> Self {
        let best = gpus.iter().max_by_key(|gpu| (gpu.vram_mib, std::cmp::Reverse(&gpu.uuid)));
        match best {
            Some(gpu) => Self { gpu_model: gpu.model.clone(), vram_mib: gpu.vram_mib },
            None => Self { gpu_model: "CPU".to_owned(), vram_mib: 0 },
        }
    }
}

/// A setting that only shows to be wrong on the chain.
#[derive(Debug, thiserror::Error)]
#[error(
    "GPU_MODE=none is for a local chain (id 1337 or 31337); this one is {chain_id}: a node without \
     a GPU would be registered for everybody to see"
)]
pub struct NoGpuOnPublicChain {
    chain_id: u64,
}

/// Keeps the node alive on the chain; a service that ends only when it fails.
pub async fn run<Ch: Chain, C: Clock>(
    (node, claim): (Address, Claim),
    (chain, contract): (Arc<Ch>, Address),
    domain: Arc<watch::Sender<Option<Domain>>>,
    (link, sole, clock): (Link, Sole, C),
    interval: Duration,
) -> Result<(), Failure> {
    let facts = chain.check().await.map_err(failure)?;
    let chain_id = facts.chain_id;
    if claim.vram_mib == 0 && !LOCAL_CHAINS.contains(&chain_id) {
        return Err(Failure::Fatal(NoGpuOnPublicChain { chain_id }.into()));
    }
    domain.send_replace(Some(Domain { chain_id, contract }));
    sole.settled().await;
    sole.clear(&clock).await;
    register(chain.as_ref(), node, &claim).await?;
    link.bus().await;
    loop {
        if !link.is_up() {
            tracing::warn!("no heartbeat: NATS can't be reached, so no job could reach this node");
            wait_until_up(&link, &clock).await;
        }
        sole.clear(&clock).await;
        beat(chain.as_ref()).await?;
        // A tenth either way: nodes that were started together don't beat together.
        clock.sleep(interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

/// Looks once a second: a beat that is a second late harms nobody.
async fn wait_until_up<C: Clock>(link: &Link, clock: &C) {
    while !link.is_up() {
        clock.sleep(Duration::from_secs(1)).await;
    }
}

async fn register<Ch: Chain>(chain: &Ch, node: Address, claim: &Claim) -> Result<(), Failure> {
    let known = chain.provider(node).await.map_err(failure)?;
    if let Some(known) = &known
        && known.gpu_model == claim.gpu_model
        && known.vram_mib == claim.vram_mib
    {
        let jobs = known.jobs;
        tracing::info!(jobs, "the chain knows this node as {} already", claim.gpu_model);
        return Ok(());
    }
    match chain.register(&claim.gpu_model, claim.vram_mib).await {
        Ok(mined) => {
            let (tx, block) = (&mined.tx_hash, mined.block);
            let Claim { gpu_model, vram_mib } = claim;
            tracing::info!(tx, block, "registered {node} as {gpu_model} with {vram_mib} MiB");
            Ok(())
        }
        Err(err @ Error::Reverted { .. }) if known.is_some() => {
            tracing::warn!("the chain keeps the old registration: {}", causes(&err));
            Ok(())
        }
        Err(err) => Err(failure(err)),
    }
}

async fn beat<Ch: Chain>(chain: &Ch) -> Result<(), Failure> {
    let mined = chain.heartbeat().await.map_err(failure)?;
    tracing::info!(tx = mined.tx_hash, block = mined.block, gas = mined.gas_used, "heartbeat sent");
    Ok(())
}

fn failure(err: Error) -> Failure {
    if matches!(err, Error::WrongChain { .. } | Error::NoContract(_)) {
        Failure::Fatal(err.into())
    } else {
        Failure::again(err, "OPBNB_RPC_URL and the node's gas; jobs go on meanwhile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::GpuUuid;

    #[test]
    fn the_largest_card_stands_for_the_node_and_none_is_a_cpu() {
        let gpu = |uuid: &str, model: &str, vram_mib| Gpu {
            uuid: GpuUuid::new(uuid).unwrap(),
            model: model.to_owned(),
            vram_mib,
        };
        let claim = Claim::of(&[gpu("GPU-a", "small", 1), gpu("GPU-b", "large", 2)]);
        assert_eq!((claim.gpu_model.as_str(), claim.vram_mib), ("large", 2));
        let claim = Claim::of(&[]);
        assert_eq!((claim.gpu_model.as_str(), claim.vram_mib), ("CPU", 0));
    }
}
