//! Decides the next step of a transaction from the journal and the chain's state.
//!
//! ```text
//!  reserved ─ sign ─► signed ─ send ─► pending ─ in a block, deep enough ─► settled
//!                       ▲                 │
//!                       ├─ no block includes it: a form at a higher price, the same nonce
//!                       │                 └─ another transaction used the nonce ─► displaced
//!  settled ─ a reorganisation took it back ─► pending
//! ```
//!
//! Must hold: all forms of a transaction share its nonce, so that at most one of them is ever mined. No
//! transaction is displaced while one of its forms may still get into a block.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, Fees};
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// The owner of a nonce sequence: one account on one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// The chain's EIP-155 id.
    pub chain_id: u64,
    /// The node's address.
    pub address: Address,
}

/// A call to be made on a chain, with the nonce reserved for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The row id in the journal.
    pub id: i64,
    /// The address of the contract that is called.
    pub contract: Address,
    /// The reserved nonce, which never changes.
    pub nonce: u64,
    /// The call to make.
    pub call: Call,
    /// The progress of the transaction.
    pub state: State,
    /// The signed forms, oldest first.
    pub forms: Vec<Form>,
}

/// The progress of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// One of its forms may get into a block.
    Open,
    /// It is in a block that is deep enough.
    Settled(Outcome),
    /// Another transaction seems to have used its nonce. Checked once more before it is given up.
    Displaced,
    /// None of its forms will ever be in a block: the nonce was used otherwise, or none was signed.
    Abandoned,
}

/// One signed form of a transaction: its nonce and call at one price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// The hash that it has in a block.
    pub hash: Hash,
    /// The price that it offers.
    pub fees: Fees,
    /// The gas limit that it sets.
    pub gas_limit: u64,
    /// The time of signing.
    pub signed: Timestamp,
    /// The encoded bytes that are sent.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// The result of a transaction that is in a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The hash of the form that was included.
    pub hash: Hash,
    /// The number of the block.
    pub block: u64,
    /// Whether the call succeeded.
    pub success: bool,
    /// The gas that it used.
    pub gas_used: u64,
    /// Its total cost in wei.
    pub fee_wei: u128,
}

/// The endpoint's answer to the newest form, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// This process has not sent the form yet.
    #[default]
    Unsent,
    /// The endpoint has the form.
    Taken,
    /// Its price is below the chain's present minimum.
    TooCheap {
        /// The lowest acceptable tip in wei, if the endpoint states it.
        tip_min: Option<u128>,
    },
    /// Another transaction with the same nonce is in the pool.
    Occupied,
}

/// The chain's state, and what this process has sent so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The count of the account's transactions in blocks, which is the next nonce.
    pub nonce: u64,
    /// The latest block's number.
    pub head: u64,
    /// The outcome of the form that is in a block, if any.
    pub included: Option<Outcome>,
    /// The endpoint's answer to the newest form.
    pub answer: Answer,
    /// When the newest form was last sent.
    pub sent: Option<Timestamp>,
    /// When this process first sent it, and the chain's height then. Counted anew in each process, so
    /// that a delay by a crash or a reorganisation does not raise the price.
    pub since: Option<(Timestamp, u64)>,
    /// Since when the nonce has been used although none of the forms is in a block.
    pub taken_since: Option<Timestamp>,
}

/// The next step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sign another form, at a price that [`Rules::price`] gives, and send it.
    Sign,
    /// Send the newest form, for the first time or again.
    Send,
    /// Check again later.
    Wait,
    /// It is in a block that is deep enough.
    Settle(Outcome),
    /// Another transaction used its nonce, so it will never be in a block.
    Displace,
}

/// The limits that [`next`] and [`Rules::price`] apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The depth at which a transaction counts as final; 1 is the latest block.
    pub confirmations: u64,
    /// The minimum age of a pending form before one at a higher price replaces it.
    pub replace_after: Duration,
    /// The number of blocks that must also have passed the form over before that.
    pub replace_blocks: u64,
    /// The interval at which a pending form is sent again, since endpoints drop transactions.
    pub resend_after: Duration,
    /// How long a used nonce may lack a receipt of ours before another transaction counts as its user.
    /// Endpoints may deliver receipts late.
    pub displace_after: Duration,
    /// The highest cost of one transaction, in wei.
    pub fee_max_wei: u128,
}

/// The chain's price exceeds the limit that the node's owner set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transaction costs up to {wei} wei now, and {max} are allowed")]
pub struct TooDear {
    /// The lowest possible cost, in wei.
    pub wei: u128,
    /// The limit, in wei.
    pub max: u128,
}

/// The next step of the transaction `tx`.
pub fn next(tx: &Transaction, view: &View, rules: &Rules, now: Timestamp) -> Step {
    if let Some(outcome) = &view.included {
        let depth = view.head.saturating_add(1).saturating_sub(outcome.block);
        return if depth >= rules.confirmations {
            Step::Settle(outcome.clone())
        } else {
            Step::Wait
        };
    }
    if view.nonce > tx.nonce {
        let late = view.taken_since.is_some_and(|at| now.since(at) >= rules.displace_after);
        return if late { Step::Displace } else { Step::Wait };
    }
    if view.nonce < tx.nonce {
        // A lower nonce is missing, so no block can include it at any price.
        return Step::Wait;
    }
    let Some(form) = tx.forms.last() else { return Step::Sign };
    let (at, head) = view.since.unwrap_or((now, view.head));
    let old = now.since(at) >= rules.replace_after;
    let passed_over = view.head >= head.saturating_add(rules.replace_blocks);
    match view.answer {
        Answer::Unsent => Step::Send,
        // The wait keeps an endpoint that always answers this from driving the price up at once.
        Answer::TooCheap { .. } if now.since(form.signed) >= rules.resend_after => Step::Sign,
        Answer::TooCheap { .. } => Step::Wait,
        Answer::Taken if old && passed_over => Step::Sign,
        Answer::Taken | Answer::Occupied => {
            let due = view.sent.is_none_or(|at| now.since(at) >= rules.resend_after);
            if due { Step::Send } else { Step::Wait }
        }
    }
}

impl Rules {
    /// The fees of the next form, given the chain's `offer`. A first form takes the offer; a
    /// replacement raises it enough to replace the last form. [`TooDear`] if `fee_max_wei` does not
    /// cover `gas` units at the lowest useful price; never more than that limit.
    pub fn price(&self, last: Option<&Form>, offer: Fees, gas: u64) -> Result<Fees, TooDear> {
        let (wanted, floor) = match last {
            None => (offer, offer.least()),
            Some(form) => {
                let bumped = form.fees.replaced_by(form.fees);
                (form.fees.replaced_by(offer), bumped.per_gas())
            }
        };
        let allowed = self.fee_max_wei / u128::from(gas.max(1));
        if floor > allowed {
            let wei = floor.saturating_mul(u128::from(gas));
            return Err(TooDear { wei, max: self.fee_max_wei });
        }
        Ok(wanted.at_most(allowed))
    }
}

#[cfg(test)]
mod tests;
