//! The signature of a terminal status: what it covers, and in which domain it was made.
//!
//! EIP-712 `Status(string jobId,address node,uint64 seq,bytes32 bodyHash)`, where `bodyHash` is
//! keccak-256 of the whole status in canonical JSON (RFC 8785) without its `signature`. Invariants:
//! everybody who has a status computes the same hash from it, unknown keys included; a status that two
//! readers could read differently has no hash.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::spec::parse_object;
use super::status::Status;
use crate::ids::eip712::{Domain, Word};
use crate::ids::hash::keccak256;
use crate::ids::{Hash, Signature};

/// The struct's type, as EIP-712 encodes it.
const KIND: &str = "Status(string jobId,address node,uint64 seq,bytes32 bodyHash)";

/// The largest integer that every JSON reader reads alike: 2^53.
const INTEGER_MAX: u64 = 1 << 53;

impl Status {
    /// Parses a status as it was sent, and returns it with its body. The error is a sentence that quotes
    /// nothing of the body.
    pub fn read(body: &[u8]) -> Result<(Self, Value), String> {
        let body = Value::Object(parse_object(body)?);
        let status = Self::deserialize(&body).map_err(|_| "it is no status".to_owned())?;
        if status.status == status.stage.word() {
            Ok((status, body))
        } else {
            Err("its `status` and its `stage` contradict each other".to_owned())
        }
    }

    /// Signs the status in this domain; replaces an earlier signature.
    pub fn sign(&mut self, domain: Domain, sign: impl FnOnce(Hash) -> Signature) {
        self.signature = None;
        self.signed_for = Some(domain.into());
        let body = serde_json::to_value(&*self).unwrap_or_default();
        self.signature = self.digest(&body).map(sign);
    }

    /// The digest that the status's signature covers, given its body as it was sent; `None` if the status
    /// names no domain or the body can't be hashed.
    pub fn digest(&self, body: &Value) -> Option<Hash> {
        let domain = Domain::from(self.signed_for?);
        let words = [
            Word::text(self.job_id.as_str()),
            Word::address(self.agent_address),
            Word::number(self.seq),
            Word::bytes32(body_hash(body.as_object()?)?),
        ];
        Some(domain.digest_of(KIND, &words))
    }
}

/// keccak-256 of a status's canonical JSON without its `signature`; `None` if it holds an integer that
/// not every reader reads alike.
pub fn body_hash(body: &Map<String, Value>) -> Option<Hash> {
    if !body.values().all(is_exact) {
        return None;
    }
    let mut unsigned = body.clone();
    unsigned.remove("signature");
    serde_json_canonicalizer::to_vec(&unsigned).ok().map(|canonical| keccak256(&canonical))
}

fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number <= INTEGER_MAX,
            (None, Some(number)) => number.unsigned_abs() <= INTEGER_MAX,
            (None, None) => true,
        },
        Value::Array(values) => values.iter().all(is_exact),
        Value::Object(map) => map.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::Address;

    /// A fake signature that holds the digest over which it was made.
    fn mark(digest: Hash) -> Signature {
        let mut bytes = [27; 65];
        bytes[..32].copy_from_slice(&digest.0);
        Signature(bytes)
    }

    fn status() -> Value {
        json!({
            "agent_address": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "job_id": "j",
            "status": "failed", "timestamp": "2024-01-01T12:00:00.000Z", "seq": 3, "attempt": 1,
            "stage": "failed", "reason_code": "nonzero_exit", "error": "é", "exit_code": 1,
            "duration_ms": {"run": 12}, "receipt": {"a": [1, -1.5, null, true]},
        })
    }

    fn read(body: &Value) -> (Status, Value) {
        Status::read(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_status_that_was_signed_and_sent_is_what_was_signed() {
        let (mut status, _) = read(&status());
        status.sign(Domain::OWN, mark);
        let (heard, body) = Status::read(&serde_json::to_vec(&status).unwrap()).unwrap();
        assert_eq!(heard, status);
        assert_eq!(heard.signature, heard.digest(&body).map(mark));
        // Signing again changes nothing: the digest does not cover the signature.
        status.sign(Domain::OWN, mark);
        assert_eq!(heard, status);
    }

    #[test]
    fn every_key_is_signed_also_one_that_is_not_known_here() {
        let (mut signed, _) = read(&status());
        signed.sign(Domain::OWN, mark);
        let good = serde_json::to_value(&signed).unwrap();
        let (status, body) = read(&good);
        let digest = status.digest(&body);
        for (key, value) in [
            ("job_id", json!("k")),
            ("seq", json!(4)),
            ("attempt", json!(2)),
            ("error", json!("e")),
            ("exit_code", json!(2)),
            ("log_cid", json!("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354")),
            ("timestamp", json!("2024-01-01T12:00:00.001Z")),
            ("receipt", json!({})),
            ("signed_for", json!({"chain_id": 1, "contract": Address::new([0; 20])})),
            ("of_a_later_version", json!(1)),
        ] {
            let mut other = good.clone();
            other[key] = value;
            let (status, body) = read(&other);
            assert_ne!(status.digest(&body), digest, "{key}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_no_status() {
        let mut huge = status();
        huge["seq"] = json!(u64::MAX);
        let mut torn = status();
        torn["stage"] = json!("running");
        let twice = status().to_string().replacen('{', "{\"seq\":9,", 1);
        for body in [huge.to_string(), torn.to_string(), twice, "[]".to_owned(), "{}".to_owned()] {
            assert!(Status::read(body.as_bytes()).is_err(), "{body}");
        }
        assert_eq!(body_hash(json!({"a": {"b": [u64::MAX]}}).as_object().unwrap()), None);
    }
}
