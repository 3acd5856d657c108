//! A chain in memory, with the contract's rules: what the real one refuses, this one refuses in
//! the same words.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Chain, ChainFacts, Error, Mined, Provider};
use crate::node::Address;

/// How long the contract calls a node active after its last beat.
const ACTIVE_WINDOW_S: u64 = 15 * 60;

/// The longest model that the contract takes.
const MODEL_BYTES_MAX: usize = 128;

/// One account on a chain in memory; clones and [`FakeChain::account`] share the chain.
#[derive(Debug, Clone)]
pub struct FakeChain {
    state: Arc<Mutex<State>>,
    account: Address,
}

#[derive(Debug)]
struct State {
    now_s: u64,
    block: u64,
    reachable: bool,
    /// Whether a registration stays as it is for ever.
    frozen: bool,
    /// Accounts that can't pay; all others can.
    broke: Vec<Address>,
    providers: BTreeMap<Address, Provider>,
}

impl FakeChain {
    /// A chain that is empty but for the contract, seen by `account`.
    pub fn new(account: Address) -> Self {
        let state = State {
            now_s: 1_700_000_000,
            block: 1,
            reachable: true,
            frozen: false,
            broke: Vec::new(),
            providers: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), account }
    }

    /// The same chain, seen by another account.
    #[must_use]
    pub fn account(&self, account: Address) -> Self {
        Self { state: Arc::clone(&self.state), account }
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.state().now_s += by.as_secs();
    }

    /// Cuts the endpoint off, or puts it back.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().reachable = reachable;
    }

    /// Refuses to change a registration from now on, as the deployed contract may do.
    pub fn freeze_registrations(&self) {
        self.state().frozen = true;
    }

    /// Takes this account's money away.
    pub fn impoverish(&self) {
        let account = self.account;
        self.state().broke.push(account);
    }

    /// What the contract's owner does: confirms one job of `provider`.
    pub fn confirm_job(&self, provider: Address) -> Result<(), Error> {
        let mut state = self.state();
        let record = state.providers.get_mut(&provider).ok_or_else(not_registered)?;
        record.jobs += 1;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.state();
        if state.reachable {
            return Ok(state);
        }
        Err(Error::Unreachable { url: "fake".into(), source: "cut off".into() })
    }

    /// Puts a transaction that passed its simulation into a block.
    fn mine(&self, state: &mut State) -> Result<Mined, Error> {
        if state.broke.contains(&self.account) {
            return Err(Error::Unpaid { account: self.account });
        }
        state.block += 1;
        let mut seed = self.account.as_bytes().to_vec();
        seed.extend(state.block.to_be_bytes());
        let hash = alloy::primitives::keccak256(seed);
        Ok(Mined { tx_hash: hash.to_string(), block: state.block, gas_used: 50_000 })
    }
}

impl Chain for FakeChain {
    async fn check(&self) -> Result<ChainFacts, Error> {
        let state = self.reach()?;
        let broke = state.broke.contains(&self.account);
        let balance = if broke { "0" } else { "1000000000000000000" };
        Ok(ChainFacts { chain_id: 31337, balance_wei: balance.into(), block: state.block })
    }

    async fn provider(&self, provider: Address) -> Result<Option<Provider>, Error> {
        let state = self.reach()?;
        let now_s = state.now_s;
        Ok(state.providers.get(&provider).cloned().map(|mut record| {
            record.active = now_s - record.last_seen_s <= ACTIVE_WINDOW_S;
            record
        }))
    }

    async fn register(&self, gpu_model: &str, vram_mib: u64) -> Result<Mined, Error> {
        let mut state = self.reach()?;
        if !(1..=MODEL_BYTES_MAX).contains(&gpu_model.len()) {
            let reason = "NodeReputation: the GPU model must be 1 to 128 bytes".into();
            return Err(Error::Reverted { reason });
        }
        if state.frozen && state.providers.contains_key(&self.account) {
            return Err(Error::Reverted { reason: "already registered".into() });
        }
        let mined = self.mine(&mut state)?;
        let jobs = state.providers.get(&self.account).map_or(0, |record| record.jobs);
        let (gpu_model, last_seen_s) = (gpu_model.to_owned(), state.now_s);
        let record = Provider { gpu_model, vram_mib, last_seen_s, jobs, active: true };
        state.providers.insert(self.account, record);
        Ok(mined)
    }

    async fn heartbeat(&self) -> Result<Mined, Error> {
        let mut state = self.reach()?;
        if !state.providers.contains_key(&self.account) {
            return Err(not_registered());
        }
        let mined = self.mine(&mut state)?;
        let now_s = state.now_s;
        if let Some(record) = state.providers.get_mut(&self.account) {
            record.last_seen_s = now_s;
        }
        Ok(mined)
    }
}

fn not_registered() -> Error {
    Error::Reverted { reason: "NodeReputation: the node is not registered".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> FakeChain {
        FakeChain::new(Address::new([1; 20]))
    }

    #[tokio::test]
    async fn a_silent_node_turns_inactive_and_a_beat_brings_it_back() {
        let node = chain();
        node.register("A10", 24_576).await.unwrap();
        node.advance(Duration::from_mins(15));
        let record = node.provider(node.account).await.unwrap().unwrap();
        assert!(record.active);
        node.advance(Duration::from_secs(1));
        let watcher = node.account(Address::new([2; 20]));
        assert!(!watcher.provider(node.account).await.unwrap().unwrap().active);
        node.heartbeat().await.unwrap();
        assert!(watcher.provider(node.account).await.unwrap().unwrap().active);
    }

    #[tokio::test]
    async fn confirmed_jobs_outlive_a_change_of_hardware() {
        let node = chain();
        assert!(node.confirm_job(node.account).is_err(), "a stranger has no jobs");
        node.register("A10", 24_576).await.unwrap();
        node.confirm_job(node.account).unwrap();
        node.register("H100", 81_559).await.unwrap();
        assert_eq!(node.provider(node.account).await.unwrap().unwrap().jobs, 1);
    }

    #[tokio::test]
    async fn weather_can_be_made() {
        let node = chain();
        node.register("A10", 24_576).await.unwrap();
        node.freeze_registrations();
        assert!(matches!(node.register("H100", 1).await, Err(Error::Reverted { .. })));
        node.impoverish();
        assert!(matches!(node.heartbeat().await, Err(Error::Unpaid { .. })));
        node.set_reachable(false);
        assert!(matches!(node.check().await, Err(Error::Unreachable { .. })));
    }
}
