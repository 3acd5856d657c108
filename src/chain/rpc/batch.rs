//! Several calls in one request: how they are written and read, and how many there may be.
//!
//! Must hold: each call of a batch fails alone. How many calls an endpoint takes is remembered, and more are tried
//! again seldom.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{ErrorObject, words};
use super::health::{EndpointFault, Kind};

/// What a batch is called in messages.
pub(super) const METHOD: &str = "a batch of calls";

/// The most calls in one request.
const CALLS_MAX: usize = 1000;

/// How many answers more than there were calls are passed over.
const UNASKED_MAX: usize = 8;

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

impl Default for BatchSize {
    fn default() -> Self {
        Self(Mutex::new(Known { calls: CALLS_MAX, taken: 0 }))
    }
}

impl BatchSize {
    /// The most calls to make in one request.
    pub(super) fn calls(&self) -> usize {
        self.known(|known| known.calls)
    }

    /// Notes that a request of `size` calls was refused.
    pub(super) fn refused(&self, size: usize) {
        self.known(|known| *known = Known { calls: (size / 2).max(1), taken: 0 });
    }

    /// Notes that a request was taken.
    pub(super) fn taken(&self) {
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
    /// What came of the call.
    pub(super) fn item(self) -> Item {
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

/// The answers to a batch of `count` calls; `None` if this is no array of answers, or one of far more.
pub(super) fn answers(text: &[u8], count: usize) -> Option<Vec<Answered>> {
    let mut text = serde_json::Deserializer::from_slice(text);
    let found = text.deserialize_seq(Few(count)).ok()?;
    text.end().is_ok().then_some(found)
}

/// Reads the answers to so many calls: an answer in memory is many times larger than its text may be.
struct Few(usize);

impl<'de> Visitor<'de> for Few {
    type Value = Vec<Answered>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "answers to {} calls", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut answers: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(answer) = answers.next_element()? {
            if found.len() >= self.0.saturating_add(UNASKED_MAX) {
                return Err(A::Error::custom("there are more answers than calls"));
            }
            found.push(answer);
        }
        Ok(found)
    }
}

/// One answer for each of `count` calls, which an endpoint may give in any order, with cleaned messages.
pub(super) fn in_order(
    answers: Vec<Answered>,
    first_id: u64,
    count: usize,
    clean: impl Fn(&mut ErrorObject),
) -> Result<Value, EndpointFault> {
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
        return Err(nonsense(format!("not all of {count} calls were answered")));
    };
    let mut refusals = found.iter().map(|answer| answer.error.as_ref());
    if let Some(Some(first)) = refusals.next()
        && first.is_throttling(METHOD, &Value::Null)
        && refusals.all(|refusal| {
            refusal.is_some_and(|refusal| refusal.is_throttling(METHOD, &Value::Null))
        })
    {
        return Err(EndpointFault::new(Kind::Throttled, words(&first.message)));
    }
    serde_json::to_value(found).map_err(|_| nonsense("answers of no use".to_owned()))
}

fn nonsense(said: String) -> EndpointFault {
    EndpointFault::new(Kind::Nonsense, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(text: &str, count: usize) -> Result<Vec<Item>, String> {
        let found = in_order(answers(text.as_bytes(), count).unwrap(), 7, count, |refusal| {
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
    fn more_answers_than_calls_are_read_no_further_than_a_few() {
        let text = |count: usize| format!("[{}]", vec![r#"{"id":7}"#; count].join(","));
        let read = |count| answers(text(count).as_bytes(), 2).map(|found| found.len());
        assert_eq!(read(0), Some(0));
        assert_eq!(read(2 + UNASKED_MAX), Some(2 + UNASKED_MAX));
        assert_eq!(read(3 + UNASKED_MAX), None);
        assert!(answers(b"{}", 2).is_none() && answers(b"[] x", 2).is_none());
        // What comes after the limit is not even looked at.
        let broken = text(3 + UNASKED_MAX).replace(']', ",x");
        let told = serde_json::Deserializer::from_str(&broken).deserialize_seq(Few(2));
        assert!(told.unwrap_err().to_string().contains("more answers than calls"));
    }

    #[test]
    fn a_batch_of_which_nothing_was_answered_for_haste_asks_for_a_pause() {
        let slow = |id: u32| format!(r#"{{"id":{id},"error":{{"code":429,"message":"slow"}}}}"#);
        let all = format!("[{},{}]", slow(7), slow(8));
        assert!(ordered(&all, 2).unwrap_err().contains("Throttled"));
        let some = format!(r#"[{},{{"id":8,"result":"0x"}}]"#, slow(7));
        let items = ordered(&some, 2).unwrap();
        assert!(
            items[0].as_ref().is_err_and(|refusal| refusal.is_throttling(METHOD, &Value::Null))
        );
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
