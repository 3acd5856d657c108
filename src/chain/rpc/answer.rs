//! The outcome of a JSON-RPC call: a result, a refusal, or a failure.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::Error;
use crate::report;

/// The longest excerpt of an endpoint's text in an error message.
const WORDS_MAX: usize = 300;

/// A JSON-RPC error object: the endpoint understood the call and refused it.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::chain) struct ErrorObject {
    pub(in crate::chain) code: i64,
    #[serde(default)]
    pub(in crate::chain) message: String,
    #[serde(default)]
    pub(in crate::chain) data: Value,
    /// The endpoint's redacted URL, filled in on receipt.
    #[serde(skip)]
    pub(in crate::chain) by: String,
}

/// A refusal that concerns the call itself, so that every endpoint would refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chain) enum Verdict {
    /// The contract reverted.
    Reverted,
    /// The endpoint already has the transaction.
    Known,
    /// The nonce is not the account's next one.
    Nonce,
    /// Another transaction has the nonce, and this one does not outbid it by enough.
    Occupied,
    /// The price is below the minimum.
    TooCheap,
    /// The account's balance does not cover it.
    Unpaid,
    /// The gas limit is too low, or above that of a block.
    Gas,
}

/// Phrases of the common clients (geth and its descendants, reth and anvil, Nethermind), in lower
/// case. The first match wins: "replacement transaction underpriced" is `Occupied`, not `TooCheap`.
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
    // The third is geth's message when the balance caps a gas estimate.
    (
        Verdict::Unpaid,
        &["insufficient funds", "insufficientfunds", "gas required exceeds allowance"],
    ),
    (Verdict::Reverted, &["revert", "invalid opcode", "out of gas", "stack underflow"]),
    (Verdict::Gas, &["intrinsic gas", "block gas limit", "gas limit reached", "gaslimitexceeded"]),
];

/// Words of public endpoints about a request for logs of too many blocks, or with too large an answer.
const TOO_LARGE: &[&str] = &["range", "results", "too many logs", "response size", "blocks"];

/// The code of a request that is over some limit.
pub(in crate::chain) const LIMITED: i64 = -32005;

/// The method that asks for logs.
const LOGS: &str = "eth_getLogs";

/// Why a call gave no result.
#[derive(Debug)]
pub(in crate::chain) enum RpcError {
    Refused(ErrorObject),
    Other(Error),
}

/// The body of every answer.
#[derive(Deserialize)]
pub(super) struct Answer {
    /// `Some(Null)` if the result is `null`, as for a receipt that does not exist yet.
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<ErrorObject>,
}

impl ErrorObject {
    /// The verdict on the call; `None` if the refusal concerns the endpoint instead, such as a revoked
    /// key, an unsupported method or a missing block.
    pub(in crate::chain) fn verdict(&self) -> Option<Verdict> {
        // 3 is geth's code for a revert, -32015 Nethermind's. Other clients need the message.
        if matches!(self.code, 3 | -32015) {
            return Some(Verdict::Reverted);
        }
        // "unknown transaction type" would match "known transaction".
        let message = self.message.to_ascii_lowercase().replace("unknown transaction", "");
        let is_said = |(_, phrases): &&(Verdict, &[&str])| {
            phrases.iter().any(|phrase| message.contains(phrase))
        };
        WORDS.iter().find(is_said).map(|(verdict, _)| *verdict)
    }

    /// The minimum tip in wei, if the message states it: "gas tip cap 0, minimum needed 1000000000".
    pub(in crate::chain) fn tip_min(&self) -> Option<u128> {
        let message = self.message.to_ascii_lowercase();
        let said = ["minimum needed", "tip needed"].into_iter().find_map(|words| {
            message.split_once(words).map(|(_, rest)| rest.trim_start_matches([' ', ':', '=']))
        })?;
        let digits: String = said.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    /// Whether the code means "slow down", as public endpoints use it. That does not judge the call. Some use the
    /// same code for a request for logs that is too large, which no wait makes smaller.
    pub(in crate::chain) fn is_throttling(&self, method: &str, params: &Value) -> bool {
        match self.code {
            429 => true,
            LIMITED => method != LOGS || !self.is_about_size(params),
            _ => false,
        }
    }

    /// Whether the message is about the size of this request for logs, or of its answer. "Limit exceeded" alone may be
    /// about either, but a request for one block can't be made smaller.
    fn is_about_size(&self, params: &Value) -> bool {
        let message = self.message.to_ascii_lowercase();
        let is_one_block = params[0]["fromBlock"] == params[0]["toBlock"];
        TOO_LARGE.iter().any(|words| message.contains(words))
            || (message.trim() == "limit exceeded" && !is_one_block)
    }
}

impl RpcError {
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

/// An endpoint's text, made safe for an error message: one line of at most [`WORDS_MAX`].
pub(in crate::chain) fn words(text: &str) -> String {
    report::one_line(text, WORDS_MAX)
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_for_logs_that_is_too_large_is_told_from_one_that_comes_too_soon() {
        let refusal = |code, message: &str| ErrorObject {
            code,
            message: message.into(),
            data: Value::Null,
            by: String::new(),
        };
        let of = |from: &str| serde_json::json!([{"fromBlock": from, "toBlock": "0x9"}]);
        let (many, one) = (of("0x1"), of("0x9"));
        for message in [
            "query returned more than 10000 results",
            "block range too large, max range: 1000",
            "limit exceeded",
            "eth_getLogs is limited to 10000 blocks",
        ] {
            assert!(!refusal(-32005, message).is_throttling(LOGS, &many), "{message}");
            assert!(refusal(-32005, message).is_throttling("eth_call", &many), "{message}");
            let is_bare = message == "limit exceeded";
            assert_eq!(refusal(-32005, message).is_throttling(LOGS, &one), is_bare, "{message}");
        }
        for message in ["request limit reached", "project ID request rate exceeded", ""] {
            assert!(refusal(-32005, message).is_throttling(LOGS, &many), "{message}");
        }
        let refused = refusal(429, "your app has exceeded its compute units");
        assert!(refused.is_throttling(LOGS, &many));
        let refused = refusal(-32602, "range 1000000 exceeds limit of 10000");
        assert!(!refused.is_throttling(LOGS, &many));
    }
}
