//! The reason of a contract's revert, in words.

use alloy::hex;
use alloy::primitives::Bytes;
use alloy::sol_types::{Panic, Revert, SolError as _, SolInterface as _};
use serde_json::Value;

use super::bindings::NodeReputation::NodeReputationErrors;
use super::rpc::{ErrorObject, Verdict, words};
use crate::ids::Address;

/// The contract's reason for a revert; `None` if the endpoint, not the contract, refused the call.
pub(super) fn reason(refusal: &ErrorObject) -> Option<String> {
    if refusal.verdict() != Some(Verdict::Reverted) {
        return None;
    }
    let data = revert_data(&refusal.data);
    Some(data.and_then(|data| decode(&data)).unwrap_or_else(|| {
        let said = words(&refusal.message);
        let bare = said.trim_start_matches("execution reverted").trim_start_matches([':', ' ']);
        if bare.is_empty() { "it gives no reason".into() } else { bare.to_owned() }
    }))
}

/// The revert data. Clients wrap it differently: bare hex, hex after a word (Nethermind), an object.
pub(super) fn revert_data(data: &Value) -> Option<Bytes> {
    match data {
        Value::String(text) => {
            let digits = text.rsplit("0x").next()?;
            hex::decode(digits).ok().map(Bytes::from)
        }
        Value::Object(fields) => fields.get("data").and_then(revert_data),
        _ => None,
    }
}

fn decode(data: &[u8]) -> Option<String> {
    if let Ok(Revert { reason }) = Revert::abi_decode(data) {
        return Some(words(&reason));
    }
    if let Ok(panic) = Panic::abi_decode(data) {
        let why = panic.kind().map_or("an unknown panic", |kind| kind.as_str());
        return Some(format!("it panics: {why} (code {:#04x})", panic.code));
    }
    let account = |address: alloy::primitives::Address| Address::new(address.into_array());
    if let Ok(error) = NodeReputationErrors::abi_decode(data) {
        return Some(match error {
            NodeReputationErrors::OwnableUnauthorizedAccount(error) => {
                format!("{} is not its owner (OwnableUnauthorizedAccount)", account(error.account))
            }
            NodeReputationErrors::OwnableInvalidOwner(error) => {
                format!("{} can't be its owner (OwnableInvalidOwner)", account(error.owner))
            }
            NodeReputationErrors::NodeNotRegistered(error) => {
                format!("{} is not registered (NodeNotRegistered)", account(error.provider))
            }
            NodeReputationErrors::ReceiptsRootMissing(_) => {
                "the root of the receipts is zero (ReceiptsRootMissing)".to_owned()
            }
            NodeReputationErrors::ReceiptsMissing(_) => {
                "there are no receipts to commit to (ReceiptsMissing)".to_owned()
            }
        });
    }
    let selector = data.get(..4)?;
    Some(format!("an error that its interface doesn't name (0x{})", hex::encode(selector)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::bindings::NodeReputation::{
        NodeNotRegistered, ReceiptsMissing, ReceiptsRootMissing,
    };
    use super::*;

    fn refusal(code: i64, message: &str, data: Value) -> ErrorObject {
        ErrorObject { code, message: message.into(), data, by: String::new() }
    }

    fn encoded(error: &impl alloy::sol_types::SolError) -> String {
        hex::encode_prefixed(error.abi_encode())
    }

    #[test]
    fn every_kind_of_revert_is_told_in_words() {
        let text = encoded(&Revert::from("not registered"));
        let panic = encoded(&Panic::from(0x11));
        let owner = format!("0x118cdaa7{}{}", "00".repeat(12), "11".repeat(20));
        let stranger = encoded(&NodeNotRegistered { provider: [0x11; 20].into() });
        for (refusal, told) in [
            (refusal(3, "execution reverted", json!(text)), "not registered"),
            (
                refusal(-32015, "VM execution error.", json!(format!("Reverted {text}"))),
                "not registered",
            ),
            (refusal(-32000, "reverted", json!({"data": text})), "not registered"),
            (
                refusal(3, "execution reverted", json!(panic)),
                "it panics: arithmetic underflow or overflow (code 0x11)",
            ),
            (
                refusal(3, "execution reverted", json!(owner)),
                "0x1111111111111111111111111111111111111111 is not its owner \
                 (OwnableUnauthorizedAccount)",
            ),
            (
                refusal(3, "execution reverted", json!(stranger)),
                "0x1111111111111111111111111111111111111111 is not registered (NodeNotRegistered)",
            ),
            (
                refusal(3, "execution reverted", json!(encoded(&ReceiptsRootMissing {}))),
                "the root of the receipts is zero (ReceiptsRootMissing)",
            ),
            (
                refusal(3, "execution reverted", json!(encoded(&ReceiptsMissing {}))),
                "there are no receipts to commit to (ReceiptsMissing)",
            ),
            (
                refusal(3, "execution reverted", json!("0xdeadbeef")),
                "an error that its interface doesn't name (0xdeadbeef)",
            ),
            (refusal(-32000, "execution reverted: too early", Value::Null), "too early"),
            (refusal(3, "execution reverted", json!("0x")), "it gives no reason"),
        ] {
            assert_eq!(reason(&refusal).as_deref(), Some(told), "{refusal:?}");
        }
    }

    #[test]
    fn a_refusal_of_the_endpoint_is_no_revert() {
        for message in ["header not found", "method not found", "insufficient funds"] {
            assert_eq!(reason(&refusal(-32000, message, Value::Null)), None, "{message}");
        }
    }
}
