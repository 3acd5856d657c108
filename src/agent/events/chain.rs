//! What is told of the chain.

use super::Events;
use crate::chain::EndpointState;
use crate::fleet::kinds;
use crate::ids::Hash;

impl Events {
    /// Notes which of the chain's endpoints answer.
    pub(in crate::agent) fn surveyed(&self, states: &[EndpointState]) {
        for EndpointState { url, trouble } in states {
            self.leans_on(&format!("chain endpoint {url}"), trouble.is_none());
        }
    }

    /// Tells of a heartbeat that is in a block: the transaction and its block, the gas and the fee in wei, and how
    /// many receipts it commits.
    pub(in crate::agent) fn beat_sent(
        &self,
        (tx, block): (Hash, u64),
        (gas, fee_wei): (u64, u128),
        receipts: usize,
    ) {
        self.tell(kinds::CHAIN_HEARTBEAT, "heartbeat sent", |event| {
            let event = event.with("tx", tx.to_string()).with("block", block);
            event.with("gas", gas).with("receipts", receipts).with("fee_wei", fee_wei.to_string())
        });
    }
}
