//! What is told of the chain.

use std::sync::PoisonError;

use super::Events;
use crate::chain::EndpointState;
use crate::fleet::kinds;
use crate::ids::Hash;

/// The chain as a whole, where its endpoints are not known one by one.
const CHAIN: &str = "chain";

/// Begins the name of an endpoint.
const ENDPOINT: &str = "chain endpoint ";

impl Events {
    /// Notes whether the chain answers. Where its endpoints are counted each, it is not counted beside them.
    pub(in crate::agent) fn chain_answers(&self, answers: bool) {
        let Some(inner) = &self.0 else { return };
        let services = inner.services.lock().unwrap_or_else(PoisonError::into_inner);
        let is_surveyed = services.keys().any(|name| name.starts_with(ENDPOINT));
        drop(services);
        if !is_surveyed {
            self.leans_on(CHAIN, answers);
        }
    }

    /// Notes which of the chain's endpoints answer.
    pub(in crate::agent) fn surveyed(&self, states: &[EndpointState]) {
        for EndpointState { url, trouble } in states {
            self.leans_on(&format!("{ENDPOINT}{url}"), trouble.is_none());
        }
        if let Some(inner) = self.0.as_ref().filter(|_| !states.is_empty()) {
            inner.services.lock().unwrap_or_else(PoisonError::into_inner).remove(CHAIN);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::events::tests::events;

    #[test]
    fn the_chain_is_not_counted_beside_its_endpoints() {
        let events = events();
        let names = || {
            let services = events.0.as_ref().unwrap().services.lock().unwrap();
            services.keys().cloned().collect::<Vec<_>>()
        };
        events.chain_answers(true);
        assert_eq!(names(), ["chain"], "a lone endpoint is not asked");
        events.surveyed(&[EndpointState { url: "http://a".to_owned(), trouble: None }]);
        events.chain_answers(false);
        assert_eq!(names(), ["chain endpoint http://a"]);
    }
}
