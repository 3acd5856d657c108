//! Bodies of requests: bounded, and JSON.

use serde_json::{Map, Value, json};

use super::error::Refusal;
use crate::fleet::beat::BODY_BYTES_MAX;
use crate::web::body::{Body, to_bytes};
use crate::web::http::{HeaderMap, StatusCode, header};

/// The body's bytes. One that says that it is too large is not read at all.
pub(super) async fn bytes(head: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    bytes_within(head, body, BODY_BYTES_MAX).await
}

/// As [`bytes`], at most so many.
pub(super) async fn bytes_within(
    head: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let what = format!("the body has more than {bytes_max} bytes");
        Refusal::Plain(StatusCode::PAYLOAD_TOO_LARGE, what)
    };
    let length = head.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    if length.and_then(|it| it.parse::<u64>().ok()).is_some_and(|it| it > bytes_max as u64) {
        return Err(too_large());
    }
    let bytes = to_bytes(body, bytes_max).await.map_err(|_| too_large())?;
    Ok(bytes.into())
}

/// The JSON of a body; null if it is empty.
pub(super) fn json(bytes: &[u8]) -> Result<Value, Refusal> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|err| {
        Refusal::Unprocessable(json!({
            "type": "json_invalid", "loc": ["body", err.column().saturating_sub(1)],
            "msg": "JSON decode error", "input": {}, "ctx": {"error": "Expecting value"},
        }))
    })
}

/// The JSON object of a body.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match json(bytes)? {
        Value::Object(map) => Ok(map),
        Value::Null => Err(Refusal::wrong("missing", &[], "Field required", Value::Null)),
        other => {
            let what = "Input should be a valid dictionary or object to extract fields from";
            Err(Refusal::wrong("model_attributes_type", &[], what, other))
        }
    }
}

/// The text under a key.
pub(super) fn text(map: &Map<String, Value>, key: &str) -> Result<String, Refusal> {
    match map.get(key) {
        Some(Value::String(text)) => Ok(text.trim().to_owned()),
        Some(other) => {
            let what = "Input should be a valid string";
            Err(Refusal::wrong("string_type", &[key], what, other.clone()))
        }
        None => Err(Refusal::missing(key, Value::Object(map.clone()))),
    }
}
