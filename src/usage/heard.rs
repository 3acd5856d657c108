//! What nodes tell of themselves and of their jobs in the messages of the third original system: ours, and those of
//! its own proplets.
//!
//! Pure. Must hold: what is read is bounded and has an id that can be looked up; when it was heard is the hub's word, and
//! a time that it tells lies not in the future; a value is taken as it was told, and what is not known is absent.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::ids::Address;

/// The longest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The longest message that is kept, in bytes; one of a node of ours about its job has its cards with it.
pub const KEPT_BYTES_MAX: usize = 4 * 1024;
const KEPT_WITH_CARDS_BYTES_MAX: usize = 8 * 1024;

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// The keys that are kept of a job's message, of a long one without its last ones; the last two are ours.
const OF_JOBS: [&str; 4] = ["metrics", "aggregated", "unknown", "gpus"];

/// The keys that are kept of a node's message.
const OF_NODES: [&str; 3] = ["namespace", "cpu_metrics", "memory_metrics"];

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node says that it is there.
    Alive,
    /// A node says what it uses itself.
    Node,
    /// A node says what one of its jobs uses.
    Job,
}

impl Kind {
    /// The kind of the message whose subject ends so.
    pub fn of(word: &str) -> Option<Self> {
        match word {
            "alive" => Some(Self::Alive),
            "metrics" => Some(Self::Node),
            "task_metrics" => Some(Self::Job),
            _ => None,
        }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// Which one it is.
    pub kind: Kind,
    /// Who sent it: an address in lower case, or what another system's node calls itself.
    pub node: String,
    /// The job that it is about.
    pub job: Option<String>,
    /// When it was heard. The message tells another time, and anybody may have sent it.
    pub at: Timestamp,
    /// The message as the third original system's API tells it.
    pub body: Value,
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It has more bytes than any.
    #[error(
        "it has more than {MESSAGE_BYTES_MAX} bytes, or more than {KEPT_BYTES_MAX} that would be kept"
    )]
    TooLong,
    /// It is not the JSON of such a message.
    #[error("it is no JSON object with an id and what it tells")]
    Form,
}

impl Heard {
    /// Reads what anybody may have sent.
    pub fn parse(kind: Kind, body: &[u8], now: Timestamp) -> Result<Self, Invalid> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        let map: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Invalid::Form)?;
        let said = map.get("proplet_id").and_then(Value::as_str).ok_or(Invalid::Form)?;
        let node = node_id(said).ok_or(Invalid::Form)?;
        let job = match kind {
            Kind::Job => {
                let job = map.get("task_id").and_then(Value::as_str).ok_or(Invalid::Form)?;
                Some(id(job).ok_or(Invalid::Form)?.to_owned())
            }
            Kind::Alive | Kind::Node => None,
        };
        let told_at = time(&map).unwrap_or(now).min(now);
        let keys: &[&str] = match kind {
            Kind::Alive => &[],
            Kind::Node => &OF_NODES,
            Kind::Job => &OF_JOBS,
        };
        if kind == Kind::Job && !map.get("metrics").is_some_and(Value::is_object) {
            return Err(Invalid::Form);
        }
        let mut told = Map::new();
        if let Some(job) = &job {
            told.insert("task_id".to_owned(), job.as_str().into());
        }
        told.insert("proplet_id".to_owned(), said.into());
        told.insert("timestamp".to_owned(), told_at.to_string().into());
        for key in keys {
            told.extend(map.get(*key).map(|value| ((*key).to_owned(), value.clone())));
        }
        let is_ours = kind == Kind::Job && node.parse::<Address>().is_ok();
        let most = if is_ours { KEPT_WITH_CARDS_BYTES_MAX } else { KEPT_BYTES_MAX };
        let body = within(told, keys, most)?;
        Ok(Self { kind, node, job, at: now, body })
    }

    /// The node and the job, where the node is one of ours: it tells statuses of the job as well.
    pub fn of_ours(&self) -> Option<(&str, &str)> {
        self.node.parse::<Address>().ok()?;
        Some((&self.node, self.job.as_deref()?))
    }

    /// What the job has of main memory, in bytes.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.body.get("metrics")?.get("memory_bytes")?.as_u64()
    }
}

/// What is kept of a message: of a long one without its last keys, but never without its first.
fn within(mut told: Map<String, Value>, keys: &[&str], most: usize) -> Result<Value, Invalid> {
    let mut more = keys.iter().skip(1).rev();
    loop {
        let body = Value::Object(told);
        if body.to_string().len() <= most {
            return Ok(body);
        }
        let (Value::Object(map), Some(key)) = (body, more.next()) else {
            return Err(Invalid::TooLong);
        };
        told = map;
        told.remove(*key);
    }
}

/// Under which id a node is looked up, by what it calls itself.
pub fn node_id(said: &str) -> Option<String> {
    match said.parse::<Address>() {
        Ok(address) => Some(address.lower_hex()),
        Err(_) => id(said).map(str::to_owned),
    }
}

fn id(text: &str) -> Option<&str> {
    let is_sized = (1..=ID_BYTES_MAX).contains(&text.len());
    Some(text).filter(|text| is_sized && !text.chars().any(char::is_control))
}

/// When it was so: as text, or as Rust writes a time; beside the values, or among them.
fn time(map: &Map<String, Value>) -> Option<Timestamp> {
    let among = map.get("metrics").and_then(|metrics| metrics.get("timestamp"));
    [map.get("timestamp"), among].into_iter().flatten().find_map(|value| match value {
        Value::String(text) => text.parse().ok(),
        Value::Object(parts) => {
            let seconds = parts.get("secs_since_epoch")?.as_u64()?;
            let nanos = parts.get("nanos_since_epoch").and_then(Value::as_u64).unwrap_or_default();
            Some(Timestamp::from_unix_ms(
                seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000),
            ))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_736_937_000_000);
    const NODE: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn read(kind: Kind, body: &Value) -> Result<Heard, Invalid> {
        Heard::parse(kind, body.to_string().as_bytes(), NOW)
    }

    #[test]
    fn our_message_of_a_job_is_kept_with_its_time_where_the_api_has_it() {
        let body = json!({
            "task_id": "j", "proplet_id": NODE, "unknown": {}, "gpus": [], "other": 7,
            "metrics": {"memory_bytes": 5, "timestamp": "2025-01-15T10:29:59.000Z"},
        });
        let heard = read(Kind::Job, &body).unwrap();
        assert_eq!((heard.node.as_str(), heard.job.as_deref()), (&*NODE.to_lowercase(), Some("j")));
        assert_eq!(heard.memory_bytes(), Some(5));
        assert_eq!(heard.body["timestamp"], "2025-01-15T10:29:59.000Z");
        assert_eq!((heard.body.get("other"), &heard.body["proplet_id"]), (None, &NODE.into()));
    }

    #[test]
    fn another_systems_node_writes_its_time_as_rust_does() {
        let body = json!({
            "proplet_id": "550e8400-e29b", "cpu_metrics": {"percent": 1.0},
            "timestamp": {"secs_since_epoch": 1_736_936_000, "nanos_since_epoch": 500_000_000},
        });
        let heard = read(Kind::Node, &body).unwrap();
        assert_eq!((heard.node.as_str(), heard.at), ("550e8400-e29b", NOW), "it is heard now");
        assert_eq!(heard.body["timestamp"], "2025-01-15T10:13:20.500Z");
        let ahead = json!({"proplet_id": "p", "timestamp": {"secs_since_epoch": u64::MAX}});
        let ahead = read(Kind::Alive, &ahead).unwrap();
        assert_eq!(ahead.body["timestamp"], NOW.to_string(), "no time lies in the future");
    }

    #[test]
    fn of_a_long_message_its_figures_are_kept_and_what_is_longer_still_is_refused() {
        let figures = json!({"memory_bytes": 5});
        let long = |node: &str, bytes: usize| {
            json!({"task_id": "j", "proplet_id": node, "metrics": figures, "aggregated": {"n": 1},
                "gpus": ["x".repeat(bytes)]})
        };
        let cards = |node: &str, bytes| {
            let heard = read(Kind::Job, &long(node, bytes)).unwrap();
            assert_eq!(
                (&heard.body["metrics"], &heard.body["aggregated"]["n"]),
                (&figures, &1.into())
            );
            heard.body.get("gpus").is_some()
        };
        assert!(cards("p", 3_000) && !cards("p", 5_000));
        assert!(cards(NODE, 7_000) && !cards(NODE, 9_000), "a node of ours has cards");
        let body = json!({"task_id": "j", "proplet_id": "p", "metrics": {"x": "x".repeat(5_000)}});
        assert_eq!(read(Kind::Job, &body), Err(Invalid::TooLong));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (kind, body) in [
            (Kind::Alive, json!({})),
            (Kind::Alive, json!([])),
            (Kind::Alive, json!({"proplet_id": ""})),
            (Kind::Alive, json!({"proplet_id": "a\nb"})),
            (Kind::Alive, json!({"proplet_id": "x".repeat(129)})),
            (Kind::Job, json!({"proplet_id": "p", "metrics": {}})),
            (Kind::Job, json!({"proplet_id": "p", "task_id": "j", "metrics": 5})),
        ] {
            assert_eq!(read(kind, &body), Err(Invalid::Form), "{body}");
        }
        let long = json!({"proplet_id": "p", "x": "x".repeat(MESSAGE_BYTES_MAX)});
        assert_eq!(read(Kind::Alive, &long), Err(Invalid::TooLong));
    }
}
