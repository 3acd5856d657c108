//! The only pipeline for the key's transactions: reserve in the journal, sign, record, send, wait.
//! [`crate::reputation::tx`] decides each step, and this module carries it out.
//!
//! ```text
//!  carry_out ─► what was begun, to its end ─► quote, price, budget ─► reserve ─► sign ─► drive
//!                                                              drive ─► send ◄─► look ─► settle
//! ```
//!
//! Invariants: there is one transaction at a time, and none before those with lower nonces are
//! done, so that no nonce is left out; whenever the process is killed, each intended call is mined
//! at most once; while somebody else uses the key, nothing is sent.

mod begun;
mod spending;

pub use spending::Spending;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::agent::key::sole::Sole;
use crate::agent::settings::Limits;
use crate::chain::{self, AccountState, Chain, Quote};
use crate::clock::Clock;
use crate::failpoint;
use crate::journal::{self, Journal, Leaf};
use crate::node::LOCAL_CHAINS;
use crate::reputation::Call;
use crate::reputation::tx::{
    Account, Answer, Form, Outcome, Rules, Step, TooDear, Transaction, View, next,
};

/// The period of the day's budget, `DAY_FEE_MAX`.
const DAY: Duration = Duration::from_hours(24);

/// The timing of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// When a transaction is final, replaced or sent again.
    pub rules: Rules,
    /// The time between two looks at the chain.
    pub poll: Duration,
    /// After this long in no block a transaction is reported as late; the next call goes on with
    /// it.
    pub deadline: Duration,
}

impl Pace {
    /// The pace for this chain. A local chain makes a block for each transaction and takes none
    /// back by itself; public ones make a block every second or two.
    pub fn of(chain_id: u64, spending: Spending) -> Self {
        let local = LOCAL_CHAINS.contains(&chain_id);
        Self {
            rules: Rules {
                confirmations: if local { 1 } else { 3 },
                replace_after: Duration::from_secs(30),
                replace_blocks: 3,
                resend_after: Duration::from_secs(10),
                displace_after: Duration::from_secs(if local { 10 } else { 120 }),
                fee_max_wei: spending.transaction_max_wei,
            },
            poll: Duration::from_millis(if local { 100 } else { 1000 }),
            deadline: Duration::from_secs(90),
        }
    }
}

/// Why a call was not carried out, or not yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chain did not answer, or refused.
    #[error(transparent)]
    Chain(#[from] chain::Error),
    /// The transaction is in a block and was paid for, but it reverted.
    #[error("a transaction failed in its block")]
    FailedInBlock(#[source] chain::Error),
    /// The journal can't be read or written.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The chain's price is above what the owner allows.
    #[error("the chain's price is above TX_FEE_MAX")]
    TooDear(#[from] TooDear),
    /// The budget of the last 24 hours is spent.
    #[error("the last 24 hours cost what DAY_FEE_MAX allows: no transaction until some are older")]
    DaySpent,
    /// Another program with this key used the nonce first.
    #[error("another program with this node's key sent a transaction in between")]
    Displaced,
}

/// How a transaction ended.
enum Ending {
    Settled(Outcome),
    Displaced,
}

/// What a [`Ledger`] is made of.
#[derive(Debug)]
pub struct Parts<Ch, C> {
    /// The chain, whose account pays.
    pub chain: Arc<Ch>,
    /// The chain's id.
    pub chain_id: u64,
    /// Where transactions are written down before they are sent.
    pub journal: Journal,
    /// The host's clock.
    pub clock: C,
    /// Whether another program has this key.
    pub sole: Sole,
    /// What the owner lets it spend.
    pub spending: Spending,
    /// How fast it waits and repeats.
    pub pace: Pace,
}

/// The pipeline of one account.
#[derive(Debug)]
pub struct Ledger<Ch, C> {
    chain: Arc<Ch>,
    journal: Journal,
    clock: C,
    sole: Sole,
    account: Account,
    spending: Spending,
    pace: Pace,
    /// Held from the query of the nonce to the end, so that no two transactions share a nonce.
    turn: Mutex<()>,
}

impl<Ch: Chain, C: Clock> Ledger<Ch, C> {
    /// The pipeline of the chain's account.
    pub fn new(parts: Parts<Ch, C>) -> Self {
        let Parts { chain, chain_id, journal, clock, sole, spending, pace } = parts;
        let account = Account { chain_id, address: chain.address() };
        Self { chain, journal, clock, sole, account, spending, pace, turn: Mutex::default() }
    }

    /// The account that the transactions belong to.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Finishes what this process or an earlier one has begun.
    pub async fn catch_up(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.settle_all().await.map(drop)
    }

    /// Has `call` mined, with `leaves` under the root that it carries, and returns once its block
    /// is deep enough. The next call finishes what an error has left behind.
    pub async fn carry_out(&self, call: Call, leaves: Vec<Leaf>) -> Result<Outcome, Error> {
        let _turn = self.turn.lock().await;
        let account = self.settle_all().await?;
        let quote = self.chain.quote(&call).await?;
        let fees = self.pace.rules.price(None, quote.fees, quote.gas_limit)?;
        let quote = Quote { fees, ..quote };
        // Before the nonce is reserved: a call that can't be paid must not keep one.
        self.afford(account, quote).await?;
        let contract = self.chain.contract();
        let place = (contract, account.nonce);
        let now = self.clock.now();
        let mut transaction =
            self.journal.reserve(self.account, place, (call.clone(), leaves), now).await?;
        self.sign(&mut transaction, quote).await?;
        match self.drive(transaction).await? {
            Ending::Settled(outcome) if outcome.success => Ok(outcome),
            Ending::Settled(outcome) => {
                Err(Error::FailedInBlock(self.why_reverted(&call, &outcome).await))
            }
            Ending::Displaced => Err(Error::Displaced),
        }
    }

    /// Signs a form of the transaction and records it in the journal.
    async fn sign(&self, tx: &mut Transaction, quote: Quote) -> Result<(), Error> {
        let signed = self.chain.sign(&tx.call, tx.nonce, quote).await?;
        let form = Form {
            hash: signed.hash,
            fees: quote.fees,
            gas_limit: quote.gas_limit,
            signed: self.clock.now(),
            raw: signed.raw,
        };
        self.journal.signed(tx.id, &form).await?;
        tx.forms.push(form);
        Ok(())
    }

    /// Sends, observes and replaces the transaction until it has ended.
    async fn drive(&self, mut tx: Transaction) -> Result<Ending, Error> {
        let mut began = self.clock.now();
        let mut view = View::default();
        loop {
            self.sole.clear(&self.clock).await;
            self.look(&tx, &mut view).await?;
            // A clock that was set back must not stretch the wait.
            began = began.min(self.clock.now());
            match next(&tx, &view, &self.pace.rules, self.clock.now()) {
                Step::Sign => self.replace(&mut tx, &mut view).await?,
                Step::Send => self.send(&tx, &mut view).await?,
                Step::Wait => self.clock.sleep(self.pace.poll).await,
                Step::Settle(outcome) => {
                    let (account, now) = (self.account, self.clock.now());
                    self.journal.record_mined(account, &tx, outcome.clone(), now).await?;
                    return Ok(Ending::Settled(outcome));
                }
                Step::Displace => {
                    self.journal.displace(tx.id, self.clock.now()).await?;
                    self.accept(tx.nonce, view.nonce).await?;
                    return Ok(Ending::Displaced);
                }
            }
            // Once the nonce is used, the end is near. An error would only restart that wait.
            let late = self.clock.now().since(began) >= self.pace.deadline;
            if late && view.taken_since.is_none() {
                return Err(self.late(&tx).into());
            }
        }
    }

    /// Updates `view` with what the chain shows of the transaction.
    async fn look(&self, tx: &Transaction, view: &mut View) -> Result<(), Error> {
        let account = self.chain.account().await?;
        (view.nonce, view.head) = (account.nonce, account.head);
        view.included = match self.included(tx).await {
            // An endpoint that can't find receipts yet ("transaction indexing is in progress") must
            // not hold up a transaction that is in no block according to the account's count.
            Err(Error::Chain(chain::Error::Unexpected { .. })) if view.nonce <= tx.nonce => None,
            included => included?,
        };
        let used = view.included.is_none() && view.nonce > tx.nonce;
        let now = self.clock.now();
        view.taken_since = used.then(|| view.taken_since.map_or(now, |since| since.min(now)));
        Ok(())
    }

    /// The outcome of the form that is in a block. It need not be the latest, which the block's
    /// maker may never have seen.
    async fn included(&self, tx: &Transaction) -> Result<Option<Outcome>, Error> {
        for form in tx.forms.iter().rev() {
            if let Some(outcome) = self.chain.included(form.hash).await? {
                let fee_wei = paid(form, outcome.fee_wei);
                return Ok(Some(Outcome { fee_wei, ..outcome }));
            }
        }
        Ok(None)
    }

    /// Signs a dearer form, or resends the last one if no dearer one is allowed.
    async fn replace(&self, tx: &mut Transaction, view: &mut View) -> Result<(), Error> {
        let Some(last) = tx.forms.last() else { return Ok(()) };
        let (gas_limit, hash) = (last.gas_limit, last.hash);
        // `sign` would use the present contract: a call for another one is not signed anew.
        let is_movable = tx.contract == self.chain.contract();
        let asked = match view.answer {
            Answer::TooCheap { tip_min } => tip_min.unwrap_or_default(),
            _ => 0,
        };
        let offer = self.chain.fees().await?.with_tip(asked);
        let price = self.rules_for(tx).await?.price(Some(last), offer, gas_limit);
        match price {
            Ok(fees) if is_movable => {
                let nonce = tx.nonce;
                tracing::info!(nonce, "replacing {hash}, which no block took, by a dearer form");
                self.sign(tx, Quote { gas_limit, fees }).await?;
                (view.answer, view.sent, view.since) = (Answer::Unsent, None, None);
                Ok(())
            }
            priced => {
                if let Err(dear) = priced {
                    tracing::debug!("a dearer form is not allowed: {dear}");
                }
                self.clock.sleep(self.pace.rules.resend_after).await;
                self.send(tx, view).await
            }
        }
    }

    async fn send(&self, tx: &Transaction, view: &mut View) -> Result<(), Error> {
        let Some(form) = tx.forms.last() else { return Ok(()) };
        if self.sole.alarm(self.clock.now()).is_some() {
            return Ok(());
        }
        failpoint::hit("send", ".before");
        view.answer = if view.sent.is_none() {
            self.chain.send(&form.raw).await?
        } else {
            self.chain.send_everywhere(&form.raw).await?
        };
        failpoint::hit("send", ".after");
        let now = self.clock.now();
        view.sent = Some(now);
        view.since.get_or_insert((now, view.head));
        Ok(())
    }

    fn late(&self, tx: &Transaction) -> chain::Error {
        let tx_hash = tx.forms.last().map(|form| form.hash.to_string()).unwrap_or_default();
        chain::Error::NotMined { tx_hash, seconds: self.pace.deadline.as_secs() }
    }

    /// Why the call reverted. The block does not say, so this simulates the call in the present
    /// state.
    async fn why_reverted(&self, call: &Call, outcome: &Outcome) -> chain::Error {
        if let Err(reverted @ chain::Error::Reverted { .. }) = self.chain.quote(call).await {
            return reverted;
        }
        let reason = format!("transaction {} failed in its block", outcome.hash);
        chain::Error::Reverted { reason }
    }
}

/// What a form cost if an endpoint says `told`. Old ones don't say (0) and some lie, so this is
/// capped at twice what the form allows, which leaves room for the data fee of a layer 2.
fn paid(form: &Form, told: u128) -> u128 {
    let most = form.fees.worst(form.gas_limit);
    if told == 0 { most } else { told.min(most.saturating_mul(2)) }
}

#[cfg(test)]
mod tests;
