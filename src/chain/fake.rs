//! A chain in memory that follows the contract's rules, and reverts with the same messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AccountState, Chain, ChainFacts, EndpointState, Error, Provider, Quote, Signed};
use crate::clock::{Clock, Timestamp};
use crate::ids::{Address, Hash};
use crate::reputation::tx::{Answer, Outcome};
use crate::reputation::{Call, Fees};

/// The address of the contract.
const CONTRACT: Address = Address::new([0xc0; 20]);

/// The balance of an account that can pay: one coin, in wei.
const RICH_WEI: u128 = 1_000_000_000_000_000_000;

/// One gwei in wei.
const GWEI: u128 = 1_000_000_000;

/// The block producer's tip on top of the base fee, in wei a unit of gas.
const TIP: u128 = GWEI;

/// How long the contract counts a node as active after its last heartbeat.
const ACTIVE_WINDOW_S: u64 = 15 * 60;

/// The longest GPU model that the contract accepts.
const MODEL_BYTES_MAX: usize = 128;

/// One account on a chain in memory; clones and [`FakeChain::seen_by`] share the chain.
#[derive(Debug, Clone)]
pub struct FakeChain {
    state: Arc<Mutex<State>>,
    account: Address,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each simulates one independent condition")]
struct State {
    now_ms: u64,
    block: u64,
    reachable: bool,
    /// Whether a node that is registered can't register again.
    frozen: bool,
    /// Whether the contract accepts receipt roots.
    extended: bool,
    /// Whether transactions are acknowledged and then dropped.
    deaf: bool,
    secretive: bool,
    /// In wei a unit of gas.
    base_fee: u128,
    /// The transactions in blocks: account, nonce and outcome.
    mined: Vec<(Address, u64, Outcome)>,
    /// The accounts without a balance; all others can pay.
    broke: Vec<Address>,
    providers: BTreeMap<Address, Provider>,
}

impl FakeChain {
    /// A chain with nothing but the contract, as seen by `account`.
    pub fn new(account: Address) -> Self {
        let state = State {
            now_ms: 1_700_000_000_000,
            block: 1,
            reachable: true,
            frozen: false,
            extended: true,
            deaf: false,
            secretive: false,
            base_fee: GWEI,
            mined: Vec::new(),
            broke: Vec::new(),
            providers: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), account }
    }

    /// The same chain, as seen by another account.
    #[must_use]
    pub fn seen_by(&self, account: Address) -> Self {
        Self { state: Arc::clone(&self.state), account }
    }

    /// Lets time pass, with one block a second.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        let mut state = self.state();
        state.now_ms = state.now_ms.saturating_add(by_ms);
        state.block += by.as_secs();
    }

    /// Sets whether the endpoint can be reached.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().reachable = reachable;
    }

    /// Makes the contract refuse changes of registrations, as the deployed one may do.
    pub fn freeze_registrations(&self) {
        self.state().frozen = true;
    }

    /// Replaces the contract with one that lacks the extension.
    pub fn forget_extension(&self) {
        self.state().extended = false;
    }

    /// Sets whether transactions are acknowledged and then dropped.
    pub fn set_deaf(&self, deaf: bool) {
        self.state().deaf = deaf;
    }

    /// Sets whether receipts are withheld, as a lying endpoint would do.
    pub fn set_secretive(&self, secretive: bool) {
        self.state().secretive = secretive;
    }

    /// Sets the base fee in wei a unit of gas; the tip comes on top.
    pub fn set_base_fee(&self, base_fee: u128) {
        self.state().base_fee = base_fee;
    }

    /// Mines a transaction of the account that another program with its key sent.
    pub fn interfere(&self) {
        let mut state = self.state();
        state.block += 1;
        let (nonce, block) = (state.next_nonce(self.account), state.block);
        let hash = Hash(alloy::primitives::keccak256(block.to_be_bytes()).0);
        let outcome = Outcome { hash, block, success: true, gas_used: 21_000, fee_wei: 21_000 };
        state.mined.push((self.account, nonce, outcome));
    }

    /// Simulates a reorganisation that removes the last `count` transactions of the chain.
    pub fn take_back(&self, count: usize) {
        let mut state = self.state();
        let rest = state.mined.len().saturating_sub(count);
        state.mined.truncate(rest);
        state.block += 1;
    }

    /// Empties this account's balance.
    pub fn impoverish(&self) {
        let account = self.account;
        self.state().broke.push(account);
    }

    /// Confirms one job of `provider`, as the contract's owner does.
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

    /// Whether the contract accepts this call of the account; [`Error::Reverted`] if not.
    fn judge(&self, state: &State, call: &Call) -> Result<(), Error> {
        let known = state.providers.contains_key(&self.account);
        let reason = match call {
            Call::Register { gpu_model, .. }
                if !(1..=MODEL_BYTES_MAX).contains(&gpu_model.len()) =>
            {
                "NodeReputation: the GPU model must be 1 to 128 bytes"
            }
            Call::Register { .. } if state.frozen && known => "already registered",
            Call::HeartbeatWithReceipts { .. } if !state.extended => "it gives no reason",
            Call::Heartbeat | Call::HeartbeatWithReceipts { .. } if !known => {
                "NodeReputation: the node is not registered"
            }
            _ => return Ok(()),
        };
        Err(Error::Reverted { reason: reason.into() })
    }

    /// Puts a transaction into a block of its own.
    fn mine(&self, state: &mut State, sent: &Sent) {
        let success = self.judge(state, &sent.call).is_ok();
        let now_s = state.now_ms / 1000;
        state.block += 1;
        if success {
            let old = state.providers.remove(&self.account);
            let record = match (&sent.call, old) {
                (Call::Register { gpu_model, vram_mib }, old) => Provider {
                    gpu_model: gpu_model.clone(),
                    vram_mib: *vram_mib,
                    last_seen_s: now_s,
                    jobs: old.map_or(0, |record| record.jobs),
                    active: true,
                },
                (_, old) => Provider {
                    last_seen_s: now_s,
                    // `judge` accepted the call, so the account is registered.
                    ..old.unwrap_or_default()
                },
            };
            state.providers.insert(self.account, record);
        }
        let (gas_used, block) = (50_000, state.block);
        let fee_wei = sent.quote.fees.per_gas() * u128::from(gas_used);
        let outcome = Outcome { hash: sent.hash(), block, success, gas_used, fee_wei };
        state.mined.push((self.account, sent.nonce, outcome));
    }

    /// The account's mined transactions as `(nonce, outcome)`, oldest first.
    pub fn mined(&self) -> Vec<(u64, Outcome)> {
        let state = self.state();
        let own = state.mined.iter().filter(|(account, ..)| *account == self.account);
        own.map(|(_, nonce, outcome)| (*nonce, outcome.clone())).collect()
    }
}

/// The chain's time, as a clock that advances only by [`FakeChain::advance`] and [`Clock::sleep`].
impl Clock for FakeChain {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.state().now_ms)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.state().now_ms)
    }

    async fn sleep(&self, span: Duration) {
        self.advance(span);
    }
}

/// A transaction in this chain's own encoding.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sent {
    account: Address,
    nonce: u64,
    call: Call,
    quote: Quote,
}

impl Sent {
    fn raw(&self) -> Vec<u8> {
        // Serializing plain data can't fail; if it did, the empty bytes would not parse in `send`.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn hash(&self) -> Hash {
        Hash(alloy::primitives::keccak256(self.raw()).0)
    }
}

impl Chain for FakeChain {
    fn address(&self) -> Address {
        self.account
    }

    fn contract(&self) -> Address {
        CONTRACT
    }

    async fn check(&self) -> Result<ChainFacts, Error> {
        let balance_wei = self.account().await?.balance_wei.to_string();
        let block = self.reach()?.block;
        Ok(ChainFacts { chain_id: 31337, balance_wei, block })
    }

    async fn provider(&self, provider: Address) -> Result<Option<Provider>, Error> {
        let state = self.reach()?;
        let now_s = state.now_ms / 1000;
        Ok(state.providers.get(&provider).cloned().map(|mut record| {
            record.active = now_s - record.last_seen_s <= ACTIVE_WINDOW_S;
            record
        }))
    }

    async fn has_extension(&self) -> Result<bool, Error> {
        Ok(self.reach()?.extended)
    }

    async fn survey(&self, _: &Call) -> Vec<EndpointState> {
        Vec::new()
    }

    async fn account(&self) -> Result<AccountState, Error> {
        let state = self.reach()?;
        let balance_wei = if state.broke.contains(&self.account) { 0 } else { RICH_WEI };
        let nonce = state.next_nonce(self.account);
        Ok(AccountState { nonce, balance_wei, head: state.block })
    }

    async fn quote(&self, call: &Call) -> Result<Quote, Error> {
        self.judge(&*self.reach()?, call)?;
        Ok(Quote { gas_limit: 60_000, fees: self.fees().await? })
    }

    async fn fees(&self) -> Result<Fees, Error> {
        let base_fee = self.reach()?.base_fee;
        Ok(Fees::offer(Some(base_fee), base_fee + TIP))
    }

    async fn sign(&self, call: &Call, nonce: u64, quote: Quote) -> Result<Signed, Error> {
        let sent = Sent { account: self.account, nonce, call: call.clone(), quote };
        Ok(Signed { hash: sent.hash(), raw: sent.raw() })
    }

    async fn send(&self, raw: &[u8]) -> Result<Answer, Error> {
        let mut state = self.reach()?;
        let sent: Sent = serde_json::from_slice(raw)
            .map_err(|_| Error::Unexpected { reason: "no transaction".into() })?;
        if state.broke.contains(&self.account) {
            return Err(Error::Unpaid { account: self.account });
        }
        if sent.quote.fees.per_gas() < state.base_fee {
            return Ok(Answer::TooCheap { tip_min: None });
        }
        if !state.deaf && sent.nonce == state.next_nonce(self.account) {
            self.mine(&mut state, &sent);
        }
        Ok(Answer::Taken)
    }

    async fn send_everywhere(&self, raw: &[u8]) -> Result<Answer, Error> {
        self.send(raw).await
    }

    async fn included(&self, hash: Hash) -> Result<Option<Outcome>, Error> {
        let state = self.reach()?;
        if state.secretive {
            return Ok(None);
        }
        let mut outcomes = state.mined.iter().map(|(.., outcome)| outcome);
        Ok(outcomes.find(|outcome| outcome.hash == hash).cloned())
    }
}

impl State {
    fn next_nonce(&self, account: Address) -> u64 {
        self.mined.iter().filter(|(of, ..)| *of == account).count() as u64
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

    fn register(model: &str) -> Call {
        Call::Register { gpu_model: model.to_owned(), vram_mib: 24_576 }
    }

    async fn carry_out(chain: &FakeChain, call: Call) -> Result<(), Error> {
        let (quote, account) = (chain.quote(&call).await?, chain.account().await?);
        let signed = chain.sign(&call, account.nonce, quote).await?;
        chain.send(&signed.raw).await?;
        assert!(chain.included(signed.hash).await?.unwrap().success);
        Ok(())
    }

    #[tokio::test]
    async fn a_silent_node_turns_inactive_and_a_beat_brings_it_back() {
        let node = chain();
        carry_out(&node, register("A10")).await.unwrap();
        node.advance(Duration::from_mins(15));
        let record = node.provider(node.account).await.unwrap().unwrap();
        assert!(record.active);
        node.advance(Duration::from_secs(1));
        let watcher = node.seen_by(Address::new([2; 20]));
        assert!(!watcher.provider(node.account).await.unwrap().unwrap().active);
        carry_out(&node, Call::Heartbeat).await.unwrap();
        assert!(watcher.provider(node.account).await.unwrap().unwrap().active);
    }

    #[tokio::test]
    async fn confirmed_jobs_outlive_a_change_of_hardware() {
        let node = chain();
        assert!(node.confirm_job(node.account).is_err(), "a stranger has no jobs");
        carry_out(&node, register("A10")).await.unwrap();
        node.confirm_job(node.account).unwrap();
        carry_out(&node, register("H100")).await.unwrap();
        assert_eq!(node.provider(node.account).await.unwrap().unwrap().jobs, 1);
    }

    #[tokio::test]
    async fn weather_can_be_made() {
        let node = chain();
        carry_out(&node, register("A10")).await.unwrap();
        node.freeze_registrations();
        assert!(matches!(node.quote(&register("H100")).await, Err(Error::Reverted { .. })));
        node.interfere();
        assert_eq!(node.account().await.unwrap().nonce, 2);
        node.impoverish();
        let unpaid = carry_out(&node, Call::Heartbeat).await;
        assert!(matches!(unpaid, Err(Error::Unpaid { .. })));
        node.set_reachable(false);
        assert!(matches!(node.check().await, Err(Error::Unreachable { .. })));
    }
}
