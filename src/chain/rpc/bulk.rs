//! Asks for several things at once.
//!
//! Must hold: an endpoint that refuses a batch is asked for smaller ones, down to single calls.

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
            match self.put::<Vec<Answered>>(&Question::Batch(part)).await {
                Ok(found) if found.len() == size => {
                    items.extend(found.into_iter().map(Answered::item));
                    left = rest;
                    self.batches.taken();
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
