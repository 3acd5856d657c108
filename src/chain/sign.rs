//! Signs and encodes transactions.
//!
//! Must hold: the same fields give the same bytes and the same hash (deterministic signatures,
//! RFC 6979), so that a transaction that a crash left unsent is signed again identically.

use alloy::consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy::eips::eip2718::Encodable2718;
use alloy::primitives::{Bytes, TxKind, U256};

use super::Signed;
use super::key::Key;
use crate::ids::Hash;
use crate::reputation::Fees;

/// A call's contract and calldata, or the bytecode of a new contract.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) to: TxKind,
    pub(super) data: Bytes,
}

/// The fields of a transaction. Its value is always zero.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub(super) chain_id: u64,
    pub(super) nonce: u64,
    pub(super) gas_limit: u64,
    pub(super) fees: Fees,
    pub(super) target: Target,
}

/// Signs a legacy transaction (EIP-155) or an EIP-1559 one, depending on the fees.
pub(super) fn sign(key: &Key, fields: Fields) -> Signed {
    let Fields { chain_id, nonce, gas_limit, fees, target: Target { to, data: input } } = fields;
    let value = U256::ZERO;
    match fees {
        Fees::Legacy { gas_price } => {
            let chain_id = Some(chain_id);
            seal(key, TxLegacy { chain_id, nonce, gas_price, gas_limit, to, value, input })
        }
        Fees::Eip1559 { max, tip } => seal(
            key,
            TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: max,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list: alloy::eips::eip2930::AccessList::default(),
                input,
            },
        ),
    }
}

fn seal<T>(key: &Key, tx: T) -> Signed
where
    T: SignableTransaction<alloy::primitives::Signature>,
    alloy::consensus::Signed<T>: Encodable2718,
{
    let signature = key.sign(&tx.signature_hash());
    let tx = tx.into_signed(signature);
    Signed { hash: Hash(tx.trie_hash().0), raw: tx.encoded_2718() }
}
