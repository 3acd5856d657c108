//! The node's life on the chain: registered where it is not, then a beat at each interval.
//!
//! What must hold: nothing is paid for that the chain says already; a chain that does not answer
//! is waited for and stops nothing else; a node that can't work does not claim to live.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::ledger::{self, Ledger, Pace, Spending};
use super::next_beat::next_beat;
use crate::agent::health::readiness::{NotReady, Readiness};
use crate::agent::health::trials::{self, Told};
use crate::agent::key::sole::Sole;
use crate::agent::settings::Limits;
use crate::chain::{self, Chain, EndpointState};
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::gpu::GpuProbe;
use crate::ids::Domain;
use crate::journal::Journal;
use crate::node::{Gpu, LOCAL_CHAINS};
use crate::report::causes;
use crate::reputation::Call;
use crate::reputation::fees::days_left;
use crate::reputation::schedule::{JITTER, phase, until_next};
use crate::reputation::tx::Outcome;
use crate::supervise::Failure;

/// How often a node that can't work is looked at, and how soon a reconnect is noticed: a beat that
/// is a second late harms nobody.
const LOOK: Duration = Duration::from_secs(1);

/// A beat is fresh for this part of the interval.
const FRESH_PART: u32 = 5;

/// An account that is empty sooner is spoken of.
pub const WARN_DAYS: u128 = 7;

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

    /// What says it to the chain.
    pub fn call(&self) -> Call {
        Call::Register { gpu_model: self.gpu_model.clone(), vram_mib: self.vram_mib }
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

/// What the node's life on the chain needs.
#[derive(Debug)]
pub struct Heart<R, G, Ch, C> {
    /// What it says of itself.
    pub claim: Claim,
    /// The chain.
    pub chain: Arc<Ch>,
    /// Transactions, receipts.
    pub journal: Journal,
    /// Whether the key may be used.
    pub sole: Sole,
    /// Whether the node can work.
    pub readiness: Arc<Readiness<R, G>>,
    /// Told once the chain's id is known.
    pub domain: Arc<watch::Sender<Option<Domain>>>,
    /// Between two beats.
    pub interval: Duration,
    /// What the owner lets the node spend, where that was set.
    pub limits: Limits,
    /// The time.
    pub clock: C,
    /// What need not be said again at the next run.
    pub said: Said,
}

/// What was said of the chain already: a service that is away runs many times.
#[derive(Debug, Default)]
pub struct Said {
    /// Whether this process has met its chain and contract.
    met: AtomicBool,
    /// Whether the registration was spoken of.
    registered: AtomicBool,
    /// The days that the account pays for, as last told; `u64::MAX` before that.
    days: AtomicU64,
    /// What the log says of the endpoints.
    endpoints: Told,
}

/// One chain's worth of it.
struct Beating<'a, R, G, Ch, C> {
    heart: &'a Heart<R, G, Ch, C>,
    ledger: Ledger<Ch, C>,
    domain: Domain,
    extension: bool,
}

impl<R, G, Ch, C> Heart<R, G, Ch, C>
where
    R: ContainerRuntime,
    G: GpuProbe,
    Ch: Chain,
    C: Clock + Clone,
{
    fn unanswered(&self, err: chain::Error) -> Failure {
        self.failure(err.into())
    }

    /// A wrong setting ends the program at its start. Once the chain has been met, the same words
    /// are an endpoint's mistake: jobs go on.
    fn failure(&self, err: ledger::Error) -> Failure {
        match err {
            ledger::Error::Chain(err) if !err.is_transient() && !self.is_met() => {
                Failure::Fatal(err.into())
            }
            ledger::Error::Chain(_) | ledger::Error::FailedInBlock(_) => {
                Failure::again(err, "OPBNB_RPC_URL and the node's gas; jobs go on meanwhile")
            }
            ledger::Error::TooDear(_) | ledger::Error::DaySpent => {
                Failure::again(err, "jobs go on meanwhile")
            }
            ledger::Error::Journal(_) | ledger::Error::Displaced => Failure::Again(err.into()),
        }
    }

    fn is_met(&self) -> bool {
        self.said.met.load(Ordering::Relaxed)
    }

    /// Asks each of the chain's endpoints for what a beat asks, at the start and each hour, so that the
    /// second one is known to serve before the first one fails; a service that never ends. What the only
    /// one does is told by whoever needs it.
    pub async fn survey(&self) -> Result<(), Failure> {
        loop {
            let states = self.chain.survey(&self.claim.call()).await;
            let count = states.len();
            let unfit = (1..).zip(states).filter_map(|(number, EndpointState { url, trouble })| {
                Some((format!("the chain's endpoint {number} of {count}, {url},"), trouble?))
            });
            self.said.endpoints.tell(unfit.collect());
            self.clock.sleep(trials::EVERY).await;
        }
    }

    /// Keeps the node alive on the chain; a service that ends only when it fails.
    pub async fn beat(&self) -> Result<(), Failure> {
        let facts = self.chain.check().await.map_err(|err| self.unanswered(err))?;
        self.said.met.store(true, Ordering::Relaxed);
        let chain_id = facts.chain_id;
        if self.claim.vram_mib == 0 && !LOCAL_CHAINS.contains(&chain_id) {
            return Err(Failure::Fatal(NoGpuOnPublicChain { chain_id }.into()));
        }
        let domain = Domain { chain_id, contract: self.chain.contract() };
        self.domain.send_replace(Some(domain));
        let spending = Spending::of(chain_id, self.limits);
        let ledger = Ledger::new(
            Arc::clone(&self.chain),
            (self.journal.clone(), self.clock.clone()),
            self.sole.clone(),
            chain_id,
            (spending, Pace::of(chain_id, spending)),
        );
        let extension = self.chain.has_extension().await.map_err(|err| self.unanswered(err))?;
        let beating = Beating { heart: self, ledger, domain, extension };
        // Whoever has this key already must not be met by a transaction of the same nonce.
        self.sole.settled().await;
        // Whatever is sent is a sign of life, a registration and what was begun before among it.
        beating.wait_until_ready().await;
        beating.ledger.catch_up().await.map_err(|err| self.failure(err))?;
        beating.register().await?;
        loop {
            beating.wait_until_ready().await;
            beating.wait_until_due().await?;
            beating.beat().await?;
            let node = self.chain.address();
            let wait = until_next(self.clock.now(), self.interval, phase(node));
            beating.pause(wait + self.interval.mul_f64(JITTER * fastrand::f64())).await;
        }
    }
}

impl<R, G, Ch, C> Beating<'_, R, G, Ch, C>
where
    R: ContainerRuntime,
    G: GpuProbe,
    Ch: Chain,
    C: Clock + Clone,
{
    async fn register(&self) -> Result<(), Failure> {
        let Claim { gpu_model, vram_mib } = &self.heart.claim;
        let node = self.heart.chain.address();
        let known = self.heart.chain.provider(node).await;
        let known = known.map_err(|err| self.heart.unanswered(err))?;
        if let Some(known) = &known
            && known.gpu_model == *gpu_model
            && known.vram_mib == *vram_mib
        {
            let jobs = known.jobs;
            if !self.heart.said.registered.swap(true, Ordering::Relaxed) {
                tracing::info!(jobs, "the chain knows this node as {gpu_model} already");
            }
            return Ok(());
        }
        let call = self.heart.claim.call();
        match self.ledger.carry_out(call, Vec::new()).await {
            Ok(Outcome { hash: tx, block, .. }) => {
                tracing::info!(%tx, block, "registered {node} as {gpu_model} with {vram_mib} MiB");
                Ok(())
            }
            Err(
                ledger::Error::Chain(err @ chain::Error::Reverted { .. })
                | ledger::Error::FailedInBlock(err),
            ) if known.is_some() => {
                if !self.heart.said.registered.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the chain keeps the old registration: {}", causes(&err));
                }
                Ok(())
            }
            Err(err) => Err(self.failed(err).await),
        }
    }

    /// What failed in its block was paid for. Tried again at once it would be paid for again and
    /// again, as often as an endpoint lies about what would become of it.
    async fn failed(&self, err: ledger::Error) -> Failure {
        if matches!(err, ledger::Error::FailedInBlock(_)) {
            let wait_s = self.heart.interval.as_secs();
            tracing::warn!(wait_s, "{}; the next try is in {wait_s} s", causes(&err));
            self.heart.clock.sleep(self.heart.interval).await;
        }
        self.heart.failure(err)
    }

    /// A node that can't work says so once, not to the chain.
    async fn wait_until_ready(&self) {
        let mut said = None;
        while let Err(why) = self.heart.readiness.check().await {
            // An engine's words may change from one look to the next; what is missing does not.
            let kind = std::mem::discriminant(&why);
            // What is tried at each start is no news, nor what it was before that.
            let is_news = !matches!(why, NotReady::Untried(_));
            if is_news && said.replace(kind) != Some(kind) {
                tracing::warn!("no heartbeat: {why}");
            }
            self.heart.clock.sleep(LOOK).await;
        }
        if said.is_some() {
            tracing::info!("the node can work again");
        }
    }

    /// A beat of ours that the contract took a moment ago, of this run or the one before, has shown
    /// it that the node lives: one that is restarted, or loses NATS, again and again does not pay
    /// each time.
    async fn wait_until_due(&self) -> Result<(), Failure> {
        let (journal, account) = (&self.heart.journal, self.ledger.account());
        let now = self.heart.clock.now();
        let last = journal.last_beat(account, self.domain.contract, now).await;
        let last = last.map_err(|err| Failure::Again(err.into()))?;
        let Some(last) = last else { return Ok(()) };
        let due = last.plus(self.heart.interval / FRESH_PART);
        loop {
            let wait = due.since(self.heart.clock.now()).min(self.heart.interval);
            if wait.is_zero() || !self.is_active().await? {
                return Ok(());
            }
            let next_s = wait.as_secs();
            tracing::info!(
                next_s,
                "the chain has just seen this node: the next beat is in {next_s} s"
            );
            let is_over = self.pause(wait).await;
            self.wait_until_ready().await;
            if is_over {
                return Ok(());
            }
        }
    }

    /// What counts in the end is what the contract says.
    async fn is_active(&self) -> Result<bool, Failure> {
        let node = self.heart.chain.address();
        let provider = self.heart.chain.provider(node).await;
        let provider = provider.map_err(|err| self.heart.unanswered(err))?;
        Ok(provider.is_some_and(|provider| provider.active))
    }

    /// Sleeps, but not on once NATS is back; whether all of it is over.
    async fn pause(&self, span: Duration) -> bool {
        let link = &self.heart.readiness.link;
        let connection = link.connection();
        let reconnect = async {
            // One that took less than a look shows in the connection's number.
            while link.is_up() && link.connection() == connection {
                self.heart.clock.sleep(LOOK).await;
            }
            self.wait_until_ready().await;
        };
        tokio::select! {
            () = self.heart.clock.sleep(span) => true,
            () = reconnect => false,
        }
    }

    async fn beat(&self) -> Result<(), Failure> {
        let (call, leaves) = next_beat(&self.heart.journal, self.domain, self.extension)
            .await
            .map_err(|err| Failure::Again(err.into()))?;
        let receipts = leaves.len();
        let outcome = match self.ledger.carry_out(call, leaves).await {
            Err(
                ledger::Error::Chain(err @ chain::Error::Reverted { .. })
                | ledger::Error::FailedInBlock(err),
            ) if receipts > 0 => {
                tracing::warn!("{receipts} receipts are not taken: {}", causes(&err));
                self.ledger.carry_out(Call::Heartbeat, Vec::new()).await
            }
            outcome => outcome,
        };
        let Outcome { hash: tx, block, gas_used: gas, fee_wei, .. } = match outcome {
            Ok(outcome) => outcome,
            Err(err) => return Err(self.failed(err).await),
        };
        tracing::info!(%tx, block, gas, receipts, "heartbeat sent");
        self.forecast(fee_wei).await;
        Ok(())
    }

    /// Says where the money ends soon.
    async fn forecast(&self, fee_wei: u128) {
        let Ok(account) = self.heart.chain.account().await else { return };
        let Some(days) = days_left(account.balance_wei, fee_wei, self.heart.interval) else {
            return;
        };
        let told =
            self.heart.said.days.swap(u64::try_from(days).unwrap_or(u64::MAX), Ordering::Relaxed);
        // Each day once, not each beat.
        if days < WARN_DAYS && u128::from(told) != days {
            tracing::warn!(
                days,
                "the account pays for {days} more days of heartbeats: send {} some of the chain's \
                 gas token",
                self.heart.chain.address()
            );
        }
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
