//! Asks every endpoint whether it would serve, at rest or not.

use futures_util::future::join_all;
use serde_json::Value;

use super::{CallError, Rpc, words};

/// The state of one endpoint, as a survey found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// The endpoint's URL, redacted.
    pub url: String,
    /// Why the endpoint can't be used, in words; `None` if it can.
    pub trouble: Option<String>,
}

impl Rpc {
    /// Asks every endpoint, resting ones too, for its chain, its head and these requests. A refusal
    /// that judges the call counts as served. Sets no endpoint aside.
    pub(in crate::chain) async fn survey(&self, questions: &[(&str, Value)]) -> Vec<EndpointState> {
        join_all((0..self.endpoints.len()).map(async |index| {
            let looked = self.serves(index, questions).await;
            let trouble = looked.err().map(|trouble| match trouble {
                CallError::Fault(fault) => fault.said,
                CallError::Refused(refusal) => words(&refusal.message),
            });
            EndpointState { url: self.endpoints[index].shown.clone(), trouble }
        }))
        .await
    }

    async fn serves(&self, index: usize, questions: &[(&str, Value)]) -> Result<(), CallError> {
        self.look_at(index, true).await?;
        for (method, params) in questions {
            match self.endpoints[index].call(method, params).await {
                Ok(_) => {}
                Err(CallError::Refused(refusal)) if refusal.verdict().is_some() => {}
                Err(trouble) => return Err(trouble.of_method(method)),
            }
        }
        Ok(())
    }
}
