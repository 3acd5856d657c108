//! A heartbeat as the agents of the original monitor post it, read once.
//!
//! Must hold: what is read is bounded; a name has no characters that a terminal obeys. A text that is too long is
//! cut, a beat without a usable name or with an unknown status refused.

use serde_json::{Map, Value};

use crate::report::is_obeyed;

/// The largest body that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024;

/// The longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The longest `ip`, in characters: agents ask strangers for it, who may answer with a page.
const IP_CHARS_MAX: usize = 64;

/// The longest `meta`, in characters.
const META_CHARS_MAX: usize = 512;

/// The most peers of a beat, and the longest name of one, in characters.
const PEERS_MAX: usize = 64;
const PEER_CHARS_MAX: usize = 128;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    /// Its name: 1 to [`NAME_BYTES_MAX`] bytes.
    pub node_id: String,
    /// The address that it found for itself; may be empty.
    pub ip: String,
    /// Whatever else its owner wants to see; may be empty.
    pub meta: String,
    /// Whether it says that it is down.
    pub is_down: bool,
    /// What newer agents add, under the keys `eoa`, `peer_ids` and `tgid`.
    pub gswarm: Option<Map<String, Value>>,
}

/// Why a body is no beat.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is not UTF-8.
    #[error("Invalid JSON encoding (expected UTF-8)")]
    Encoding,
    /// It is not a JSON object.
    #[error("Malformed JSON payload")]
    Form,
    /// It names no node.
    #[error("node_id required")]
    NoName,
    /// The name can't be used.
    #[error("node_id has 1 to {NAME_BYTES_MAX} bytes, without control characters")]
    Name,
    /// The status is neither UP nor DOWN.
    #[error("Input should be 'UP' or 'DOWN'")]
    Status(Value),
}

impl Beat {
    /// Reads a body.
    pub fn parse(body: &[u8]) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(body).map_err(|_| Invalid::Encoding)?;
        let mut parts: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| Invalid::Form)?;
        let status = parts.remove("status").unwrap_or(Value::Null);
        Ok(Self {
            node_id: name(&text_of(parts.get("node_id")))?,
            ip: cut(text_of(parts.get("ip")).trim(), IP_CHARS_MAX),
            meta: cut(&text_of(parts.get("meta")), META_CHARS_MAX),
            is_down: is_down(status)?,
            gswarm: gswarm(&parts),
        })
    }
}

/// The name of a node that somebody wrote, without the spaces around it.
pub fn name(written: &str) -> Result<String, Invalid> {
    match written.trim() {
        "" => Err(Invalid::NoName),
        name if name.len() > NAME_BYTES_MAX || name.chars().any(is_obeyed) => Err(Invalid::Name),
        name => Ok(name.to_owned()),
    }
}

fn is_down(status: Value) -> Result<bool, Invalid> {
    match &status {
        Value::Null => Ok(false),
        Value::String(text) => match text.trim().to_ascii_uppercase().as_str() {
            "UP" => Ok(false),
            "DOWN" => Ok(true),
            _ => Err(Invalid::Status(status)),
        },
        _ => Err(Invalid::Status(status)),
    }
}

/// A value as text: agents in shell may send a number where a text belongs.
fn text_of(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// One line of at most so many characters.
fn cut(text: &str, chars_max: usize) -> String {
    let clean = |c: char| if is_obeyed(c) { ' ' } else { c };
    let mut line: String = text.chars().take(chars_max).map(clean).collect();
    if text.chars().nth(chars_max).is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// The newer keys, at the top (`gswarm_eoa`) or together (`gswarm: {eoa}`); the top wins.
fn gswarm(parts: &Map<String, Value>) -> Option<Map<String, Value>> {
    let together = parts.get("gswarm").and_then(Value::as_object);
    let find = |names: [&str; 3]| {
        let [top, inner, other] = names;
        let within = || together.and_then(|it| it.get(inner).or_else(|| it.get(other)));
        parts.get(top).filter(|value| !value.is_null()).or_else(within)
    };
    let text = |value: Option<&Value>| cut(text_of(value).trim(), PEER_CHARS_MAX);
    let eoa = text(find(["gswarm_eoa", "eoa", "eoa"]));
    let tgid = text(find(["gswarm_tgid", "tgid", "telegram_id"]));
    let peers = peers(find(["gswarm_peer_ids", "peer_ids", "peer_ids"]));
    let mut found = Map::new();
    for (key, text) in [("eoa", eoa), ("tgid", tgid)] {
        if !text.is_empty() {
            found.insert(key.to_owned(), text.into());
        }
    }
    if !peers.is_empty() {
        found.insert("peer_ids".to_owned(), peers.into());
    }
    (!found.is_empty()).then_some(found)
}

/// Peers as an array, as the text of one, or with commas between them; each once.
pub fn peers(value: Option<&Value>) -> Vec<String> {
    let written = text_of(value);
    let array = match value {
        Some(Value::Array(array)) => Some(array.clone()),
        _ => serde_json::from_str(&written).ok(),
    };
    let listed: Vec<String> = match array {
        Some(array) => array.iter().map(|it| text_of(Some(it))).collect(),
        None => written.split(',').map(str::to_owned).collect(),
    };
    let mut peers: Vec<String> = Vec::new();
    for peer in listed.iter().map(|peer| cut(peer.trim(), PEER_CHARS_MAX)) {
        if !peer.is_empty() && !peers.contains(&peer) && peers.len() < PEERS_MAX {
            peers.push(peer);
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn beat(body: &str) -> Beat {
        Beat::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn what_the_linux_agent_posts_is_read() {
        let up = beat(
            r#"{"node_id":"gensyn-01","ip":"203.0.113.7","meta":"hetzner-fsn1","status":"UP"}"#,
        );
        let expected = Beat {
            node_id: "gensyn-01".into(),
            ip: "203.0.113.7".into(),
            meta: "hetzner-fsn1".into(),
            is_down: false,
            gswarm: None,
        };
        assert_eq!(up, expected);
        let down = beat(concat!(
            r#"{"node_id":"a \"b\" \\ c","ip":"","meta":"x,reason=port_closed_3000","status":"DOWN","#,
            r#""gswarm_eoa":"0xAb","gswarm_peer_ids":"Qm1, Qm2,Qm1"}"#
        ));
        assert!(down.is_down && down.ip.is_empty() && down.meta == "x,reason=port_closed_3000");
        assert_eq!(down.node_id, r#"a "b" \ c"#);
        let gswarm = json!({"eoa": "0xAb", "peer_ids": ["Qm1", "Qm2"]});
        assert_eq!(Value::Object(down.gswarm.unwrap()), gswarm);
    }

    #[test]
    fn what_the_windows_agent_posts_is_read() {
        // A variable that is not set is null; the older PowerShell escapes what is not ASCII, or spreads the
        // object over lines.
        let one =
            r#"{"node_id":"WIN-1-gensyn","ip":"","meta":null,"status":"DOWN","gswarm_tgid":"77"}"#;
        let one = beat(one);
        assert!(one.is_down && one.meta.is_empty());
        assert_eq!(Value::Object(one.gswarm.unwrap()), json!({"tgid": "77"}));
        let other = "{\r\n    \"node_id\":  \"\\u0434\\u043e\\u043c\",\r\n    \"ip\":  \"1.2.3.4\",\r\n    \
                     \"meta\":  \"dc=home-lab\",\r\n    \"status\":  \"UP\"\r\n}";
        assert_eq!(beat(other).node_id, "дом");
    }

    #[test]
    fn newer_keys_are_read_at_the_top_and_together_and_as_an_array_in_text() {
        let read = |body: Value| Beat::parse(body.to_string().as_bytes()).unwrap().gswarm;
        let expected = json!({"eoa": "0x1", "peer_ids": ["a", "b"], "tgid": "5"});
        for body in [
            json!({"node_id": "n", "gswarm": {"eoa": "0x1", "peer_ids": ["a", "b"], "tgid": 5}}),
            json!({"node_id": "n", "gswarm": {"eoa": "0x1", "peer_ids": "a,b", "telegram_id": "5"}}),
            json!({"node_id": "n", "gswarm_eoa": " 0x1 ", "gswarm_peer_ids": "[\"a\", \"b\"]",
                   "gswarm": {"eoa": "0x2", "tgid": "5"}}),
        ] {
            assert_eq!(read(body).map(Value::Object), Some(expected.clone()));
        }
        assert_eq!(read(json!({"node_id": "n", "gswarm_eoa": "", "gswarm": {}})), None);
    }

    #[test]
    fn a_body_that_is_no_beat_is_refused_with_its_reason() {
        let refused = |body: &[u8]| Beat::parse(body).unwrap_err();
        assert_eq!(refused(b"{\"node_id\":\"\xe9\"}"), Invalid::Encoding);
        for body in ["", "[]", "{", "null", "\"x\"", r#"{"node_id":"a"} x"#] {
            assert_eq!(refused(body.as_bytes()), Invalid::Form, "{body}");
        }
        for body in ["{}", r#"{"node_id":" "}"#, r#"{"node_id":null}"#] {
            assert_eq!(refused(body.as_bytes()), Invalid::NoName, "{body}");
        }
        for name in ["a\\nb", "a\\u202eb", "\\u001b[2J", &"x".repeat(129)] {
            let body = format!("{{\"node_id\":\"{name}\"}}");
            assert_eq!(refused(body.as_bytes()), Invalid::Name, "{body}");
        }
        for status in ["\"MAYBE\"", "1", "[]", "\"\""] {
            let body = format!("{{\"node_id\":\"n\",\"status\":{status}}}");
            assert!(matches!(refused(body.as_bytes()), Invalid::Status(_)), "{body}");
        }
        let deep =
            format!("{{\"node_id\":\"n\",\"meta\":{}1{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(refused(deep.as_bytes()), Invalid::Form);
    }

    #[test]
    fn an_absent_status_is_up_and_a_number_is_a_name() {
        let down = beat(r#"{"node_id":17,"status":" down "}"#);
        assert!(down.node_id == "17" && down.is_down);
        assert!(!Beat::parse(br#"{"node_id":"n"}"#).unwrap().is_down);
    }

    #[test]
    fn long_and_hostile_texts_are_cut_and_stay_one_line() {
        let body = json!({"node_id": "n", "ip": format!("<html>\n{}", "x".repeat(900)),
            "meta": "ä".repeat(900), "gswarm_peer_ids": (0..500).collect::<Vec<_>>()});
        let beat = Beat::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(beat.ip.chars().count(), IP_CHARS_MAX);
        assert!(beat.ip.starts_with("<html> xx") && beat.ip.ends_with('…'));
        assert_eq!(beat.meta.chars().count(), META_CHARS_MAX);
        assert_eq!(beat.gswarm.unwrap()["peer_ids"].as_array().unwrap().len(), PEERS_MAX);
    }
}
