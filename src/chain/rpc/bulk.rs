//! Asks for several things at once.
//!
//! Must hold: an endpoint that refuses a batch is asked for smaller ones, down to single calls; an endpoint that was not
//! asked, or not well for another reason, says nothing of the size.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::batch::{Answered, Call, Item};
use super::question::Question;
use super::{Error, Rpc, RpcError};

impl Rpc {
    /// Makes these calls in as few requests as the endpoints take. Each may be refused alone; an error means that
    /// no endpoint took them.
    pub(in crate::chain) async fn batch(&self, calls: &[Call]) -> Result<Vec<Item>, Error> {
        let (mut items, mut left) = (Vec::with_capacity(calls.len()), calls);
        while let Some((method, params)) = left.first() {
            let size = self.batches.calls().min(left.len());
            if size == 1 {
                items.push(self.alone(method, params).await?);
                left = left.get(1..).unwrap_or_default();
                self.batches.taken();
                continue;
            }
            let (part, rest) = left.split_at(size);
            let is_refused = AtomicBool::new(false);
            let question = Question::Batch { calls: part, is_refused: &is_refused };
            match self.put::<Vec<Answered>>(&question).await {
                Ok(found) if found.len() == size => {
                    items.extend(found.into_iter().map(Answered::item));
                    left = rest;
                    self.batches.taken();
                }
                Err(RpcError::Other(error)) if !is_refused.load(Ordering::Relaxed) => {
                    return Err(error);
                }
                // Endpoints have no common error for "too many", so any refusal and any answer that
                // can't be used halves the batch.
                Ok(_) | Err(RpcError::Refused(_) | RpcError::Other(Error::Unexpected { .. })) => {
                    self.batches.refused(size);
                }
                Err(RpcError::Other(error)) => return Err(error),
            }
        }
        Ok(items)
    }

    /// One call of its own. A refusal that does not judge the call would meet the other calls too.
    async fn alone(&self, method: &'static str, params: &Value) -> Result<Item, Error> {
        match self.call(method, params.clone()).await {
            Ok(found) => Ok(Ok(found)),
            Err(RpcError::Refused(refusal)) if refusal.verdict().is_some() => Ok(Err(refusal)),
            Err(failure) => Err(failure.unexpected(method)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio::time::Instant;

    use super::super::health::{EndpointFault, EndpointLimits, Kind};
    use super::*;
    use crate::backoff::Backoff;

    #[tokio::test]
    async fn a_batch_that_nobody_was_asked_for_leaves_the_size_as_it_was() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let hour = Duration::from_hours(1);
        let limits = EndpointLimits { rest: Backoff::new(hour, hour), ..EndpointLimits::default() };
        let urls = ["http://127.0.0.1:1".to_owned()];
        let rpc = Rpc::new(&urls, None, Duration::from_secs(1), limits).unwrap();
        let before = rpc.batches.calls();
        for kind in [Kind::Nonsense, Kind::Stale, Kind::Unwilling("eth_call")] {
            rpc.set_aside(0, EndpointFault::new(kind, "a hiccup"), Instant::now());
            let calls = vec![("eth_call", json!([])); 100];
            let told = rpc.batch(&calls).await.unwrap_err();
            assert!(told.to_string().contains("a hiccup"), "{told}");
            assert_eq!(rpc.batches.calls(), before, "{kind:?}");
        }
    }
}
