//! A transaction's next step, decided from what is written down and what the chain shows.
//!
//! ```text
//!  reserved ─ sign ─► signed ─ send ─► pending ─ in a block, deep enough ─► settled
//!                       ▲                 │
//!                       ├─ no block takes it: a dearer form, the same nonce
//!                       │                 └─ another transaction used the nonce ─► displaced
//!  settled ─ a reorganisation took it back ─► pending
//! ```
//!
//! What must hold: all forms of a transaction have its nonce, so that at most one of them is ever
//! mined; nothing is displaced while one of its forms may still get into a block.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, Fees};
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// Whose transactions are counted: nonces are an account's on one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// EIP-155 id.
    pub chain_id: u64,
    /// The node's address.
    pub address: Address,
}

/// Something that is to be done on a chain, with the nonce that is reserved for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its row in the journal.
    pub id: i64,
    /// The contract that is called.
    pub contract: Address,
    /// The account's nonce, for good.
    pub nonce: u64,
    /// What is called.
    pub call: Call,
    /// Where it stands.
    pub state: State,
    /// What was signed for it, oldest first.
    pub forms: Vec<Form>,
}

/// Where a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A form of it may get into a block.
    Open,
    /// It is in a block, deep enough.
    Settled(Outcome),
    /// Its nonce seems to be another's. Looked at once more before it is given up.
    Displaced,
    /// No form of it will ever be in a block: its nonce is another's, or it was never signed.
    Abandoned,
}

/// A form of a transaction: the same nonce and call at some price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// The hash that it has in a block.
    pub hash: Hash,
    /// What it offers.
    pub fees: Fees,
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// When it was signed.
    pub signed: Timestamp,
    /// What is sent.
    #[serde(skip)]
    pub raw: Vec<u8>,
}

/// A transaction in its block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The form that got there.
    pub hash: Hash,
    /// The block's number.
    pub block: u64,
    /// Whether the contract did what it was asked.
    pub success: bool,
    /// Gas used.
    pub gas_used: u64,
    /// What it cost, in wei.
    pub fee_wei: u128,
}

/// What the endpoint said to the newest form, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// It was not sent by this process yet.
    #[default]
    Unsent,
    /// It has it.
    Taken,
    /// Its price is below what the chain takes now.
    TooCheap {
        /// The tip that is asked for at least, in wei, where the endpoint says so.
        tip_min: Option<u128>,
    },
    /// A transaction of the same nonce stands in its way.
    Occupied,
}

/// What the chain shows, and what this process did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// How many transactions of the account are in blocks: the next nonce.
    pub nonce: u64,
    /// The latest block.
    pub head: u64,
    /// One of the forms, in a block.
    pub included: Option<Outcome>,
    /// See [`Answer`].
    pub answer: Answer,
    /// When the newest form was last sent.
    pub sent: Option<Timestamp>,
    /// When it was first sent by this process, and the chain's height then: what a crash or a
    /// reorganisation held up is not dearer for it.
    pub since: Option<(Timestamp, u64)>,
    /// Since when the nonce has been used without any form being in a block.
    pub taken_since: Option<Timestamp>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Sign another form, at a price that [`Rules::price`] gives, and send it.
    Sign,
    /// Send the newest form, for the first time or again.
    Send,
    /// Look again later.
    Wait,
    /// It is done.
    Settle(Outcome),
    /// It will never be done: another transaction has its nonce.
    Displace,
}

/// When to do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// In how deep a block a transaction is taken for final; 1 is the latest.
    pub confirmations: u64,
    /// A form that is in no block after this long is replaced by a dearer one,
    pub replace_after: Duration,
    /// if the chain has made this many blocks meanwhile.
    pub replace_blocks: u64,
    /// A form that is in no block is sent again this often: endpoints forget.
    pub resend_after: Duration,
    /// A used nonce without a receipt of ours is another's after this long: endpoints are late.
    pub displace_after: Duration,
    /// The most that one transaction may cost, in wei.
    pub fee_max_wei: u128,
}

/// What the chain asks for is more than the owner allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a transaction costs up to {wei} wei now, and {max} are allowed")]
pub struct TooDear {
    /// What it would cost at the least.
    pub wei: u128,
    /// What is allowed.
    pub max: u128,
}

/// The next step of `tx`.
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
        // Something before it is missing: it can be in no block whatever it offers.
        return Step::Wait;
    }
    let Some(form) = tx.forms.last() else { return Step::Sign };
    let (at, head) = view.since.unwrap_or((now, view.head));
    let old = now.since(at) >= rules.replace_after;
    let passed_over = view.head >= head.saturating_add(rules.replace_blocks);
    match view.answer {
        Answer::Unsent => Step::Send,
        // An endpoint that always says so must not drive the price up in a moment.
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
    /// What the next form of a transaction offers, where the chain asks for `offer`: for a first
    /// form that, for a replacement enough to take the last form's place. Never more than is
    /// allowed.
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
