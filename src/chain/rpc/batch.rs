//! Several calls in one request.
//!
//! Must hold: each call of a batch fails alone. An endpoint that refuses a batch is asked for smaller ones, down
//! to single calls; how many calls it takes is remembered, and more are tried again seldom.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::ErrorObject;
use super::endpoint::CallError;
use super::health::{EndpointFault, Kind};
use super::question::Question;
use super::{Error, Rpc, RpcError};

/// What a batch is called in messages.
pub(super) const METHOD: &str = "a batch of calls";

/// The most calls in one request.
const CALLS_MAX: usize = 1000;

/// After this many requests that were taken, a batch of twice the size is tried.
const TAKEN_BEFORE_MORE: u32 = 64;

/// A method and its parameters.
pub(in crate::chain) type Call = (&'static str, Value);

/// The answer to one call of a batch.
pub(in crate::chain) type Item = Result<Value, ErrorObject>;

/// How many calls the endpoints take at once.
#[derive(Debug)]
pub(super) struct BatchSize(Mutex<Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    calls: usize,
    /// Requests that were taken since the size was last changed.
    taken: u32,
}

/// One answer, as it comes and as it goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answered {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

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

impl Default for BatchSize {
    fn default() -> Self {
        Self(Mutex::new(Known { calls: CALLS_MAX, taken: 0 }))
    }
}

impl BatchSize {
    fn calls(&self) -> usize {
        self.known(|known| known.calls)
    }

    /// Notes that a request of `size` calls was refused.
    fn refused(&self, size: usize) {
        self.known(|known| *known = Known { calls: (size / 2).max(1), taken: 0 });
    }

    /// Notes that a request was taken.
    fn taken(&self) {
        self.known(|known| {
            known.taken = known.taken.saturating_add(1);
            if known.taken >= TAKEN_BEFORE_MORE {
                *known = Known { calls: known.calls.saturating_mul(2).min(CALLS_MAX), taken: 0 };
            }
        });
    }

    fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Answered {
    fn item(self) -> Item {
        match self.error {
            Some(refusal) => Err(refusal),
            None => Ok(self.result.unwrap_or_default()),
        }
    }
}

/// The request: the calls with consecutive ids.
pub(super) fn body(calls: &[Call], first_id: u64) -> Value {
    let request = |(id, (method, params)): (u64, &Call)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    (first_id..).zip(calls).map(request).collect()
}

/// The answers to a batch; `None` if this is no array of answers.
pub(super) fn answers(text: &[u8]) -> Option<Vec<Answered>> {
    serde_json::from_slice(text).ok()
}

/// One answer for each of `count` calls, which an endpoint may give in any order, with cleaned messages.
pub(super) fn in_order(
    answers: Vec<Answered>,
    first_id: u64,
    count: usize,
    clean: impl Fn(&mut ErrorObject),
) -> Result<Value, CallError> {
    let mut slots: Vec<Option<Answered>> = Vec::new();
    slots.resize_with(count, || None);
    for mut answer in answers {
        let place = answer.id.as_u64().and_then(|id| id.checked_sub(first_id));
        let slot = place.and_then(|place| slots.get_mut(usize::try_from(place).ok()?));
        answer.error.as_mut().into_iter().for_each(&clean);
        if let Some(slot) = slot {
            slot.get_or_insert(answer);
        }
    }
    let found: Option<Vec<Answered>> = slots.into_iter().collect();
    let Some(found) = found else {
        return Err(CallError::nonsense(format!("not all of {count} calls were answered")));
    };
    let mut refusals = found.iter().map(|answer| answer.error.as_ref());
    if let Some(Some(first)) = refusals.next()
        && first.is_throttling(METHOD)
        && refusals.all(|refusal| refusal.is_some_and(|refusal| refusal.is_throttling(METHOD)))
    {
        let said = super::words(&first.message);
        return Err(CallError::Fault(EndpointFault::new(Kind::Throttled, said)));
    }
    serde_json::to_value(found).map_err(|_| CallError::nonsense("answers of no use".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(text: &str, count: usize) -> Result<Vec<Item>, String> {
        let found = in_order(answers(text.as_bytes()).unwrap(), 7, count, |refusal| {
            refusal.message = refusal.message.replace("key", "***");
        });
        match found {
            Ok(found) => {
                let found: Vec<Answered> = serde_json::from_value(found).unwrap();
                Ok(found.into_iter().map(Answered::item).collect())
            }
            Err(trouble) => Err(format!("{trouble:?}")),
        }
    }

    #[test]
    fn answers_find_their_calls_in_any_order_and_fail_alone() {
        let text = r#"[{"id":8,"error":{"code":3,"message":"no key","data":"0x"}},
                       {"id":99,"result":"0x63"},{"id":7,"result":"0x1"},{"id":7,"result":"0x2"}]"#;
        let items = ordered(text, 2).unwrap();
        assert_eq!(items[0].as_ref().unwrap(), &json!("0x1"), "the first answer stays");
        assert_eq!(items[1].as_ref().unwrap_err().message, "no ***");
        assert!(ordered(text, 3).unwrap_err().contains("not all of 3 calls"));
    }

    #[test]
    fn a_batch_of_which_nothing_was_answered_for_haste_asks_for_a_pause() {
        let slow = |id: u32| format!(r#"{{"id":{id},"error":{{"code":429,"message":"slow"}}}}"#);
        let all = format!("[{},{}]", slow(7), slow(8));
        assert!(ordered(&all, 2).unwrap_err().contains("Throttled"));
        let some = format!(r#"[{},{{"id":8,"result":"0x"}}]"#, slow(7));
        let items = ordered(&some, 2).unwrap();
        assert!(items[0].as_ref().is_err_and(|refusal| refusal.is_throttling(METHOD)));
        assert!(items[1].is_ok());
    }

    #[test]
    fn a_size_that_was_refused_is_halved_and_tried_again_seldom() {
        let size = BatchSize::default();
        size.refused(205);
        assert_eq!(size.calls(), 102);
        for _ in 1..TAKEN_BEFORE_MORE {
            size.taken();
        }
        assert_eq!(size.calls(), 102);
        size.taken();
        assert_eq!(size.calls(), 204);
        size.refused(1);
        assert_eq!(size.calls(), 1);
    }
}
