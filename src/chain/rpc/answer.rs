//! What may come back from a JSON-RPC call: a result, a refusal, or a failure.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Error;
use crate::report;

/// What a text of the endpoint's may take of an error message.
const WORDS_MAX: usize = 300;

/// The endpoint understood the call and said no: JSON-RPC's error object.
#[derive(Debug, Deserialize)]
pub(in crate::chain) struct Refusal {
    pub(in crate::chain) code: i64,
    #[serde(default)]
    pub(in crate::chain) message: String,
    #[serde(default)]
    pub(in crate::chain) data: Value,
    /// Who says so, redacted; filled in here.
    #[serde(skip)]
    pub(in crate::chain) by: String,
}

/// What a refusal says of the call itself, so that every endpoint would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chain) enum Verdict {
    /// The contract refuses.
    Reverted,
    /// The transaction is known here.
    Known,
    /// Its nonce is not the account's next.
    Nonce,
    /// Another one has its nonce, and it pays too little more.
    Occupied,
    /// It pays less than is asked for.
    TooCheap,
    /// The account can't pay for it.
    Unpaid,
    /// Its gas is too little, or more than a block has.
    Gas,
}

/// The words of the clients in use (geth and its descendants, reth and anvil, Nethermind), in lower
/// case, in the order in which they are looked for: "replacement transaction underpriced".
const WORDS: &[(Verdict, &[&str])] = &[
    (Verdict::Reverted, &["execution reverted"]),
    (Verdict::Known, &["already known", "alreadyknown", "known transaction", "already imported"]),
    (Verdict::Nonce, &["nonce too low", "nonce too high", "oldnonce", "nonce gap"]),
    (Verdict::Occupied, &["replacement", "replacementnotallowed"]),
    (
        Verdict::TooCheap,
        &[
            "underpriced",
            "less than block base fee",
            "feecaptoolow",
            "fee too low",
            "price too low",
            "feetoolow",
        ],
    ),
    // The second is what geth says where the balance caps an estimate.
    (
        Verdict::Unpaid,
        &["insufficient funds", "insufficientfunds", "gas required exceeds allowance"],
    ),
    (Verdict::Reverted, &["revert", "invalid opcode", "out of gas", "stack underflow"]),
    (Verdict::Gas, &["intrinsic gas", "block gas limit", "gas limit reached", "gaslimitexceeded"]),
];

/// Why a call gave no result.
#[derive(Debug)]
pub(in crate::chain) enum Failure {
    Refused(Refusal),
    Other(Error),
}

/// The body of every answer.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// `null` is a result: of a receipt that is not there yet.
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Refusal>,
}

impl Refusal {
    /// What it says of the call; `None` where it says something of the endpoint: that a key was
    /// withdrawn, a method is not served, a block is not there.
    pub(in crate::chain) fn verdict(&self) -> Option<Verdict> {
        // 3 is geth's code of a revert, -32015 Nethermind's; others are told by their message alone.
        if matches!(self.code, 3 | -32015) {
            return Some(Verdict::Reverted);
        }
        // "unknown transaction type" knows none.
        let message = self.message.to_ascii_lowercase().replace("unknown transaction", "");
        let is_said = |(_, phrases): &&(Verdict, &[&str])| {
            phrases.iter().any(|phrase| message.contains(phrase))
        };
        WORDS.iter().find(is_said).map(|(verdict, _)| *verdict)
    }

    /// The tip that it says is needed, in wei: "gas tip cap 0, minimum needed 1000000000".
    pub(in crate::chain) fn tip_min(&self) -> Option<u128> {
        let message = self.message.to_ascii_lowercase();
        let said = ["minimum needed", "tip needed"].into_iter().find_map(|words| {
            message.split_once(words).map(|(_, rest)| rest.trim_start_matches([' ', ':', '=']))
        })?;
        let digits: String = said.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Public endpoints say "slow down" by these codes: it is no answer to the call.
    pub(super) fn is_throttling(&self) -> bool {
        matches!(self.code, -32005 | 429)
    }
}

impl Failure {
    /// The error of a call that should not have been refused.
    pub(in crate::chain) fn unexpected(self, method: &str) -> Error {
        match self {
            Self::Other(error) => error,
            Self::Refused(refusal) => Error::Unexpected {
                reason: format!("{} refuses {method}: {}", refusal.by, words(&refusal.message)),
            },
        }
    }
}

/// An endpoint's words as they may stand in an error.
pub(in crate::chain) fn words(text: &str) -> String {
    report::one_line(text, WORDS_MAX)
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
