//! Keeps the node alive on the chain: registers it if needed, then sends a heartbeat in each
//! interval.
//!
//! Invariants: the node pays for nothing that the chain already says; a chain that does not answer
//! is waited for and stops nothing else; a node that can't work sends no heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::ledger::{self, Ledger, Pace, Spending};
use super::logged::is_of_transaction;
use super::next_beat::next_beat;
use crate::agent::health::readiness::{NotReady, Readiness};
use crate::agent::health::trials;
use crate::agent::key::sole::Sole;
use crate::agent::settings::Limits;
use crate::chain::{self, Chain, EndpointState};
use crate::clock::Clock;
use crate::container::ContainerRuntime;
use crate::fleet::{Kind, kinds};
use crate::gpu::GpuProbe;
use crate::ids::Domain;
use crate::journal::Journal;
use crate::node::{Gpu, LOCAL_CHAINS};
use crate::report::{causes, one_line};
use crate::reputation::Call;
use crate::reputation::fees::days_left;
use crate::reputation::schedule::{JITTER, phase, until_next};
use crate::reputation::tx::Outcome;
use crate::supervise::Failure;

pub use super::logged::{Logged, WARN_DAYS};

/// How often a node that can't work is checked, and how soon a reconnect is noticed: a heartbeat
/// that is a second late does no harm.
const LOOK: Duration = Duration::from_secs(1);

/// A heartbeat is fresh for the interval divided by this.
const FRESH_PART: u32 = 5;

/// The most characters that are told of a failure.
const TOLD_MAX: usize = 300;

/// What the node claims about itself on the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The GPU's model, or `CPU` without a GPU.
    pub gpu_model: String,
    /// The GPU's memory in MiB, or 0 without a GPU.
    pub vram_mib: u64,
}

impl Registration {
    /// The claim of a node with these GPUs; the one with the most memory represents it.
    pub fn of(gpus: &[Gpu]) -> Self {
        let best = gpus.iter().max_by_key(|gpu| (gpu.vram_mib, std::cmp::Reverse(&gpu.uuid)));
        match best {
            Some(gpu) => Self { gpu_model: gpu.model.clone(), vram_mib: gpu.vram_mib },
            None => Self { gpu_model: "CPU".to_owned(), vram_mib: 0 },
        }
    }

    /// The contract call that registers the claim.
    pub fn call(&self) -> Call {
        Call::Register { gpu_model: self.gpu_model.clone(), vram_mib: self.vram_mib }
    }
}

/// A node without GPUs on a public chain: a wrong setting that shows only once the chain has
/// answered.
#[derive(Debug, thiserror::Error)]
#[error(
    "GPU_MODE=none is for a local chain (id 1337 or 31337); this one is {chain_id}: a node without \
     a GPU would be registered for everybody to see"
)]
pub struct NoGpuOnPublicChain {
    chain_id: u64,
}

/// The parts that registration and heartbeats need.
#[derive(Debug)]
pub struct Heart<R, G, Ch, C> {
    /// What the node claims about itself.
    pub registration: Registration,
    /// The chain with the reputation contract.
    pub chain: Arc<Ch>,
    /// The journal, with transactions and receipts.
    pub journal: Journal,
    /// Whether the key may be used.
    pub sole: Sole,
    /// Whether the node can work.
    pub readiness: Arc<Readiness<R, G>>,
    /// Set once the chain's id is known.
    pub domain: Arc<watch::Sender<Option<Domain>>>,
    /// The account's balance in wei, as it was last seen.
    pub balance: Arc<watch::Sender<Option<u128>>>,
    /// The time between two heartbeats.
    pub interval: Duration,
    /// The owner's spending limits, as far as they are set.
    pub limits: Limits,
    /// The clock; tests use their own.
    pub clock: C,
    /// What was logged already and is not repeated by the next run.
    pub said: Logged,
}

/// One run of the service, once its chain is known.
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
        self.readiness.board.events().chain_answers(false);
        self.failure(err.into())
    }

    /// A permanent error ends the program at its start, when a setting is wrong. Once the chain has
    /// been reached, the same error is an endpoint's mistake, and jobs go on.
    fn failure(&self, err: ledger::Error) -> Failure {
        let is_met = self.said.met.load(Ordering::Relaxed);
        match err {
            ledger::Error::Chain(err) if !err.is_transient() && !is_met => {
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

    fn tell(&self, kind: Kind, message: &str) {
        self.readiness.board.events().tell(kind, message, |event| event);
    }

    /// Most of what stands in the way of a transaction lasts, and is met again at each try: it is told once.
    fn tell_failure(&self, err: &ledger::Error) {
        let text = one_line(&err.to_string(), TOLD_MAX);
        if is_of_transaction(err) {
            self.tell(kinds::CHAIN_FAILED, &format!("a transaction failed: {text}"));
        } else if self.said.is_new_wait(Some(&text)) {
            self.tell(kinds::CHAIN_WAITS, &format!("no transaction is sent: {text}"));
        }
    }

    /// Asks each of the chain's endpoints for what a heartbeat needs, at the start and each hour,
    /// so that the spare ones are known to serve before the first one fails; a service that never
    /// ends. A lone endpoint is not asked: whoever uses it reports its failures.
    pub async fn survey(self: Arc<Self>) -> Result<(), Failure> {
        loop {
            let states = self.chain.survey(&self.registration.call()).await;
            let count = states.len();
            self.readiness.board.events().surveyed(&states);
            let unfit = (1..).zip(states).filter_map(|(number, EndpointState { url, trouble })| {
                Some((format!("the chain's endpoint {number} of {count}, {url},"), trouble?))
            });
            let unfit: BTreeMap<String, String> = unfit.collect();
            let is_any_left = unfit.len() < count;
            self.said.endpoints.tell(unfit, is_any_left);
            self.clock.sleep(trials::EVERY).await;
        }
    }

    /// Registers the node and sends its heartbeats; a service that ends only when it fails.
    pub async fn beat(self: Arc<Self>) -> Result<(), Failure> {
        let facts = self.chain.check().await.map_err(|err| self.unanswered(err))?;
        self.said.met.store(true, Ordering::Relaxed);
        self.readiness.board.events().chain_answers(true);
        self.balance.send_replace(facts.balance_wei.parse().ok());
        let chain_id = facts.chain_id;
        if self.registration.vram_mib == 0 && !LOCAL_CHAINS.contains(&chain_id) {
            return Err(Failure::Fatal(NoGpuOnPublicChain { chain_id }.into()));
        }
        let domain = Domain { chain_id, contract: self.chain.contract() };
        self.domain.send_replace(Some(domain));
        let spending = Spending::of(chain_id, self.limits);
        let ledger = Ledger::new(ledger::Parts {
            chain: Arc::clone(&self.chain),
            chain_id,
            journal: self.journal.clone(),
            clock: self.clock.clone(),
            sole: self.sole.clone(),
            spending,
            pace: Pace::of(chain_id, spending),
        });
        let extension = self.chain.has_extension().await.map_err(|err| self.unanswered(err))?;
        let beating = Beating { heart: &self, ledger, domain, extension };
        // Another instance that has this key could use the same nonces: wait until none answers.
        self.sole.known_sole().await;
        // Every transaction is a sign of life, even a registration or one that was begun before.
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
        let Registration { gpu_model, vram_mib } = &self.heart.registration;
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
                self.heart.tell(kinds::CHAIN_REGISTERED, &format!("registered as {gpu_model}"));
            }
            return Ok(());
        }
        let call = self.heart.registration.call();
        match self.ledger.carry_out(call, Vec::new()).await {
            Ok(Outcome { hash: tx, block, .. }) => {
                let text = format!("registered {node} as {gpu_model} with {vram_mib} MiB");
                tracing::info!(%tx, block, "{text}");
                self.heart.tell(kinds::CHAIN_REGISTERED, &text);
                Ok(())
            }
            Err(
                ledger::Error::Chain(err @ chain::Error::Reverted { .. })
                | ledger::Error::FailedInBlock(err),
            ) if known.is_some() => {
                if !self.heart.said.registered.swap(true, Ordering::Relaxed) {
                    // The contract refuses the change: go on under the old registration.
                    tracing::warn!("the chain keeps the old registration: {}", causes(&err));
                }
                Ok(())
            }
            Err(err) => Err(self.failed(err).await),
        }
    }

    /// A call that failed in its block was paid for. This waits an interval before the next try, or
    /// an endpoint that lies about a call's outcome could make the node pay again and again.
    async fn failed(&self, err: ledger::Error) -> Failure {
        self.heart.tell_failure(&err);
        if matches!(err, ledger::Error::FailedInBlock(_)) {
            let wait_s = self.heart.interval.as_secs();
            tracing::warn!(wait_s, "{}; the next try is in {wait_s} s", causes(&err));
            self.heart.clock.sleep(self.heart.interval).await;
        }
        self.heart.failure(err)
    }

    /// Waits until the node can work; logs once why it can't.
    async fn wait_until_ready(&self) {
        let mut said = None;
        while let Err(why) = self.heart.readiness.check().await {
            // Compare only the kind: an engine's words may differ from one look to the next.
            let kind = std::mem::discriminant(&why);
            // The trials at each start are no news, and don't replace the cause that was logged.
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

    /// Waits while the last heartbeat, of this run or an earlier one, is fresh and the contract
    /// calls the node active. So a node that restarts or loses NATS again and again does not pay
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

    /// Whether the contract calls this node active, which is what counts in the end.
    async fn is_active(&self) -> Result<bool, Failure> {
        let node = self.heart.chain.address();
        let provider = self.heart.chain.provider(node).await;
        let provider = provider.map_err(|err| self.heart.unanswered(err))?;
        Ok(provider.is_some_and(|provider| provider.active))
    }

    /// Sleeps for `span`, or until NATS is back after an interruption; returns whether all of
    /// `span` is over.
    async fn pause(&self, span: Duration) -> bool {
        let link = &self.heart.readiness.link;
        let connection = link.connection();
        let reconnect = async {
            // A reconnect between two looks shows in the connection's number.
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
                // A plain heartbeat still keeps the node alive.
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
        self.heart.said.is_new_wait(None);
        self.heart.readiness.board.events().beat_sent((tx, block), (gas, fee_wei), receipts);
        self.forecast(fee_wei).await;
        Ok(())
    }

    /// Warns the owner if the balance will be used up soon.
    async fn forecast(&self, fee_wei: u128) {
        let Ok(account) = self.heart.chain.account().await else { return };
        self.heart.balance.send_replace(Some(account.balance_wei));
        let days = days_left(account.balance_wei, fee_wei, self.heart.interval);
        let Some(days) = days else { return };
        if self.heart.said.is_warned(days) {
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
        let claim = Registration::of(&[gpu("GPU-a", "small", 1), gpu("GPU-b", "large", 2)]);
        assert_eq!((claim.gpu_model.as_str(), claim.vram_mib), ("large", 2));
        let claim = Registration::of(&[]);
        assert_eq!((claim.gpu_model.as_str(), claim.vram_mib), ("CPU", 0));
    }
}
