//! One question on its way from endpoint to endpoint.

use std::sync::atomic::AtomicBool;

use serde_json::Value;
use tokio::time::Instant;

use super::answer::ErrorObject;
use super::batch::{self, Call};
use super::health::EndpointFault;
use super::{BLOCK, CHAIN_ID, SEND};

/// One call on its way from endpoint to endpoint.
pub(super) struct Round {
    pub(super) began: Instant,
    pub(super) tried: Vec<usize>,
    pub(super) has_waited: bool,
    /// The first failure; for a transaction, rather the first after which it may have been accepted.
    pub(super) failure: Option<(usize, EndpointFault)>,
    /// Refusals that do not judge the call. They are the endpoint's fault if another one answers.
    pub(super) refusals: Vec<(usize, ErrorObject, Instant)>,
}

/// A request to an endpoint. The first two also check their answer.
pub(super) enum Question<'a> {
    ChainId,
    Head,
    Call {
        method: &'static str,
        params: &'a Value,
    },
    /// `is_refused` becomes true if an endpoint got the batch, and refused it or gave no answer that can be used.
    Batch {
        calls: &'a [Call],
        is_refused: &'a AtomicBool,
    },
}

impl Round {
    pub(super) fn new() -> Self {
        let (began, tried, refusals) = (Instant::now(), Vec::new(), Vec::new());
        Self { began, tried, has_waited: false, failure: None, refusals }
    }

    pub(super) fn failed(&mut self, index: usize, fault: EndpointFault, is_send: bool) {
        let known = self.failure.as_ref();
        let is_graver =
            |known: &(usize, EndpointFault)| is_send && fault.perhaps_done && !known.1.perhaps_done;
        if known.is_none_or(is_graver) {
            self.failure = Some((index, fault));
        }
    }
}

impl Question<'_> {
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::ChainId => CHAIN_ID,
            Self::Head => BLOCK,
            Self::Call { method, .. } => method,
            Self::Batch { .. } => batch::METHOD,
        }
    }

    pub(super) fn is_send(&self) -> bool {
        self.method() == SEND
    }
}
