//! Reading answers: what a person may see of one, and how long a service asks to be left alone.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::clock::{Clock as _, SystemClock, Timestamp};

/// Maximum characters kept of a service's explanation.
const WORDS_MAX: usize = 300;

/// An answer for people, on one line: its status and the text of its body.
pub async fn explanation(mut response: Response, idle: Duration) -> String {
    let mut body = Vec::new();
    let until = tokio::time::Instant::now() + idle;
    while let Ok(Ok(Some(piece))) = tokio::time::timeout_at(until, response.chunk()).await {
        body.extend_from_slice(&piece);
        if body.len() > 4 * WORDS_MAX {
            break;
        }
    }
    let said = said(&String::from_utf8_lossy(&body));
    if said.is_empty() {
        response.status().to_string()
    } else {
        format!("{}: {said}", response.status())
    }
}

/// The text of a body: the strings of JSON, the text of a page. No control characters, at most
/// [`WORDS_MAX`] characters.
fn said(body: &str) -> String {
    let text = match serde_json::from_str::<serde_json::Value>(body) {
        Ok(json) => {
            let mut strings = Vec::new();
            gather(&json, &mut strings);
            strings.join(": ")
        }
        Err(_) => without_tags(body),
    };
    let text = text.replace(crate::report::is_obeyed, " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS_MAX).collect()
}

/// Collects the strings of a JSON value, those that name the error first.
fn gather(json: &serde_json::Value, strings: &mut Vec<String>) {
    use serde_json::Value;
    match json {
        Value::String(text) => strings.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, strings)),
        Value::Object(items) => {
            // The error goes before the details, whatever their order in the body.
            let is_first = |name: &str| matches!(name, "error" | "reason" | "code");
            let (first, rest): (Vec<_>, Vec<_>) =
                items.iter().partition(|(name, _)| is_first(name));
            first.into_iter().chain(rest).for_each(|(_, item)| gather(item, strings));
        }
        _ => {}
    }
}

fn without_tags(page: &str) -> String {
    let mut is_inside = false;
    let keep = |c: char| {
        match c {
            '<' => is_inside = true,
            '>' if is_inside => {
                is_inside = false;
                return Some(' ');
            }
            _ => {}
        }
        (!is_inside).then_some(c)
    };
    page.chars().filter_map(keep).collect()
}

/// How long a service asks to be left alone (`Retry-After`); a date is read by this host's clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    asked_wait(headers.get(RETRY_AFTER)?.to_str().ok()?, SystemClock.now())
}

/// Reads a `Retry-After` value: seconds, or a date (RFC 9110, 10.2.3).
fn asked_wait(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = OffsetDateTime::parse(value, &Rfc2822).ok()?.unix_timestamp();
    let at = Timestamp::from_unix_ms(u64::try_from(at).ok()?.saturating_mul(1000));
    Some(at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_words_are_one_plain_line_however_they_come() {
        let scopes = r#"{"error":{"details":"This key does not have the \"pin\" scope","reason":"NO_SCOPES_FOUND"}}"#;
        assert_eq!(said(scopes), r#"NO_SCOPES_FOUND: This key does not have the "pin" scope"#);
        assert_eq!(said(r#"{"error":"File too\nlarge","n":1}"#), "File too large");
        assert_eq!(said("<html><h1>413</h1>\r\n<p>too large</p>"), "413 too large");
        assert_eq!(said("plain\u{1b}[2Jtext"), "plain [2Jtext");
        assert_eq!(said(&"x".repeat(5000)).len(), WORDS_MAX);
        assert_eq!(said(""), "");
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = "2026-11-22T10:00:00.000Z".parse().unwrap();
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 22 Nov 2026 10:01:30 GMT", Some(90)),
            ("Sun, 22 Nov 2026 09:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(asked_wait(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
