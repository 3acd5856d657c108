//! Signs the terminal statuses of this node's jobs.
//!
//! Invariants: every terminal status is signed before it is journaled, so that it is the same byte
//! for byte however often it is sent. Nothing here waits for the chain.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

use crate::chain::Key;
use crate::ids::{Domain, Hash, Signature};
use crate::job::Status;
use crate::job::receipt::Signed;

/// Signs terminal statuses with the node's key.
#[derive(Clone)]
pub struct Notary {
    sign: Arc<dyn Fn(Hash) -> Signature + Send + Sync>,
    domain: watch::Receiver<Option<Domain>>,
}

impl fmt::Debug for Notary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notary").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Notary {
    /// Signs with this key. `domain` is `None` until the chain has answered.
    pub fn of(key: Arc<Key>, domain: watch::Receiver<Option<Domain>>) -> Self {
        Self::new(move |digest| Signature(key.sign_digest(&digest.0)), domain)
    }

    /// Signs with any function from a digest to a signature.
    pub fn new(
        sign: impl Fn(Hash) -> Signature + Send + Sync + 'static,
        domain: watch::Receiver<Option<Domain>>,
    ) -> Self {
        Self { sign: Arc::new(sign), domain }
    }

    /// Signs the terminal ones of these statuses, in place.
    pub fn sign(&self, statuses: &mut [Status]) {
        for status in statuses.iter_mut().filter(|status| status.stage.is_terminal()) {
            status.sign(self.domain_of(status), |digest| (self.sign)(digest));
        }
    }

    /// The domain of the status's receipt. Without a receipt it is not worth waiting for the chain:
    /// the chain's domain, or [`Domain::OWN`] if the chain has not answered yet.
    fn domain_of(&self, status: &Status) -> Domain {
        let receipt = status.receipt.as_ref().and_then(|receipt| Signed::from_json(receipt).ok());
        let receipts = receipt.map(|signed| signed.domain);
        receipts.or(*self.domain.borrow()).unwrap_or(Domain::OWN)
    }
}
