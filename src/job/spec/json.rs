//! Parses untrusted JSON once; refuses duplicate keys and unsafe integers.
//!
//! `serde_json` keeps the last of two equal keys, so two readers of one signed body could see two
//! different jobs. An integer beyond 2^53 reads differently in JavaScript (RFC 8785, section 3.2.2.3). A
//! whole number counts as an integer however it is written (`3600.0`, `3.6e3`), as in RFC 8785.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::text::{is_utf16, unmarked};

/// The largest integer that every JSON reader reads alike: 2^53.
const INTEGER_MAX: u64 = 1 << 53;

/// Parses `body` as one JSON object. The error is a sentence that quotes nothing of the body.
pub(in crate::job) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, String> {
    if is_utf16(body) {
        return Err("the message is UTF-16 text: JSON is UTF-8".to_owned());
    }
    let mut reader = serde_json::Deserializer::from_slice(unmarked(body));
    let value = Strict.deserialize(&mut reader).map_err(|err| describe(&err))?;
    reader.end().map_err(|err| describe(&err))?;
    match value {
        Value::Object(map) => Ok(map),
        _ => Err("the message is not a JSON object".to_owned()),
    }
}

/// The parser's messages quote the input only in type errors, which [`Strict`] never raises. What is left
/// are positions and this module's own sentences.
fn describe(err: &serde_json::Error) -> String {
    format!("the message is not valid JSON: {err}")
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        if value > INTEGER_MAX {
            return Err(E::custom("an integer beyond 2^53"));
        }
        Ok(value.into())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > INTEGER_MAX {
            return Err(E::custom("an integer beyond 2^53"));
        }
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // An integer literal that is too long for 64 bits arrives here as a float: it is unsafe too.
        #[expect(clippy::cast_precision_loss, reason = "2^53 is exact in f64")]
        if value.fract() == 0.0 && value.abs() > INTEGER_MAX as f64 {
            return Err(E::custom("an integer beyond 2^53"));
        }
        if value.fract() == 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "whole, and 2^53 at most")]
            return Ok((value as i64).into());
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            let value = access.next_value_seed(Strict)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_bodies_are_refused() {
        for (body, says) in [
            (r#"{"a":1,"a":2}"#, "a key stands twice"),
            (r#"{"a":{"b":1,"b":1}}"#, "a key stands twice"),
            (r#"{"a":9007199254740993}"#, "2^53"),
            (r#"{"a":-9007199254740993}"#, "2^53"),
            (r#"{"a":99999999999999999999}"#, "2^53"),
            (r#"{"a":1e999}"#, "not valid JSON"),
            ("[1]", "not a JSON object"),
            ("{} x", "not valid JSON"),
            ("", "not valid JSON"),
        ] {
            let err = parse_object(body.as_bytes()).unwrap_err();
            assert!(err.contains(says), "{body}: {err}");
        }
        assert!(parse_object("\u{feff}{}".as_bytes()).is_ok());
        assert!(parse_object(b"\xff\xfe{\0}\0").is_err_and(|what| what.contains("UTF-16")));
        assert!(parse_object(&[0xff, 0xfe]).is_err());
        assert!(parse_object("[".repeat(100_000).as_bytes()).is_err());
    }
}
