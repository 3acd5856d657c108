//! A block's header, as far as it is read.

use alloy::primitives::{U64, U128};
use serde::Deserialize;

use super::health::Head;

/// The fields of a block that are read here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::chain) struct Block {
    number: U64,
    timestamp: U64,
    base_fee_per_gas: Option<U128>,
}

impl Block {
    /// The fields that are judged and used.
    pub(in crate::chain) fn head(&self) -> Head {
        Head {
            number: self.number.to(),
            timestamp_s: self.timestamp.to(),
            base_fee: self.base_fee_per_gas.map(|fee| fee.to()),
        }
    }
}
