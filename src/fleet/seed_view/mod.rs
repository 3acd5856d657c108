//! Events as the dashboards of `SynapticLlamas` and SOLLOL read them from Redis.
//!
//! [`table`] says which event of ours feeds which of their channels, streams and keys, and in which words; [`llama`]
//! is what watched programs of theirs do. The
//! forms here are theirs: times are seconds since 1970 as a float, absent values are left out. [`sockets`] has what
//! SOLLOL's dashboard passes on to its pages.

pub mod llama;
pub mod sockets;
pub mod table;

use serde_json::{Map, Value, json};

use super::event::Event;
use table::{Feed, Form, Kept, ROWS, Row, Seen};

/// One thing to write to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `PUBLISH channel body`.
    Publish {
        /// The channel.
        channel: &'static str,
        /// The message.
        body: String,
    },
    /// `XADD stream MAXLEN ~ max * field value …`.
    Append {
        /// The stream.
        stream: &'static str,
        /// About how many entries it keeps.
        max: usize,
        /// The entry.
        fields: Vec<(&'static str, String)>,
    },
    /// `LPUSH list body`, then `LTRIM list 0 max-1`.
    Push {
        /// The list.
        list: &'static str,
        /// How many entries it keeps.
        max: usize,
        /// The entry, put first.
        body: String,
    },
    /// `SET key body EX seconds`.
    Set {
        /// The key.
        key: String,
        /// The value.
        body: String,
        /// How long it stays, in seconds.
        seconds: u64,
    },
}

/// Everything that an event becomes on Redis, in the order of the table.
pub fn commands(event: &Event) -> Vec<Command> {
    let Some(seen) = table::seen(event) else { return Vec::new() };
    let fed = ROWS.iter().filter(|row| feeds(row.feed, event, seen));
    fed.map(|row| command(row, form(row.form, event, seen))).collect()
}

fn command(row: &Row, body: String) -> Command {
    match row.kept {
        Kept::Channel => Command::Publish { channel: row.name, body },
        Kept::Stream { field, max } => {
            Command::Append { stream: row.name, max, fields: vec![(field, body)] }
        }
        Kept::List { max } => Command::Push { list: row.name, max, body },
        Kept::Key { seconds } => Command::Set { key: row.name.to_owned(), body, seconds },
    }
}

/// Whether an event that is seen like this feeds what has this feed.
pub fn feeds(feed: Feed, event: &Event, seen: &Seen) -> bool {
    match feed {
        Feed::All => true,
        Feed::Component(component) => seen.component == component,
        Feed::Metrics => ["metric", "performance", "stats"].contains(&seen.event_type),
        Feed::Observed(prefixes) => {
            seen.observed.is_some_and(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        }
        Feed::Routed => seen.routed.is_some(),
        Feed::OfJobs => event.job_id.is_some(),
        Feed::Gpus | Feed::Nothing(_) => false,
    }
}

fn form(form: Form, event: &Event, seen: &Seen) -> String {
    match form {
        Form::Log => log(event, seen),
        Form::Raw => raw(event, seen),
        Form::Observer => observer(event, seen),
        Form::Routing => routing(event, seen),
        Form::Ours | Form::Gpu => return event.to_json(),
    }
    .to_string()
}

/// `SynapticLlamas`' event.
fn log(event: &Event, seen: &Seen) -> Value {
    json!({
        "timestamp": seconds(event),
        "component": seen.component,
        "level": event.level.as_str(),
        "message": event.message(),
        "event_type": seen.event_type,
        "details": details(event),
    })
}

/// `SynapticLlamas`' line of a program's output.
fn raw(event: &Event, seen: &Seen) -> Value {
    let (level, message) = (event.level.as_str(), event.message());
    let line = format!("{level} {}/{}: {message}", event.component, event.event_type);
    json!({"timestamp": seconds(event), "source": seen.component, "line": line})
}

/// SOLLOL's `NetworkEvent`, with the text of its time.
fn observer(event: &Event, seen: &Seen) -> Value {
    let backend = seen.backend.map_or_else(|| event.node.to_string(), str::to_owned);
    json!({
        "timestamp": seconds(event),
        "iso_timestamp": event.timestamp.to_string(),
        "backend": backend,
        "event_type": seen.observed,
        "severity": event.level.severity(),
        "details": details(event),
    })
}

/// SOLLOL's routing event.
fn routing(event: &Event, seen: &Seen) -> Value {
    let mut routed = Map::new();
    routed.insert("timestamp".into(), json!(event.timestamp.to_string()));
    routed.insert("instance_id".into(), json!(event.node));
    routed.insert("hostname".into(), json!(event.node));
    routed.insert("event_type".into(), json!(seen.routed));
    routed.insert("backend".into(), json!("lamda"));
    routed.insert("reason".into(), json!(event.message()));
    if let Some(job) = &event.job_id {
        routed.insert("task_id".into(), json!(job));
        routed.insert("worker".into(), json!(event.node));
    }
    // Its viewer pads the text, and fails where there is none. No event names an image.
    routed.insert("model".into(), json!(""));
    if let Some(run_ms) = event.details().get("run_ms").and_then(Value::as_u64) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a job are exact")]
        routed.insert("duration".into(), json!(run_ms as f64 / 1000.0));
        routed.insert("success".into(), json!(event.event_type.as_str() == "completed"));
    }
    Value::Object(routed)
}

/// The details, and the keys that their forms don't have.
fn details(event: &Event) -> Map<String, Value> {
    let mut details = event.details().clone();
    let mut add = |key: &str, value: Value| {
        details.entry(key).or_insert(value);
    };
    add("node", json!(event.node));
    add("message", json!(event.message()));
    if let Some(job) = &event.job_id {
        add("job_id", json!(job));
    }
    if let Some(trace) = &event.trace_id {
        add("trace_id", json!(trace));
    }
    details
}

fn seconds(event: &Event) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    let ms = event.timestamp.unix_ms() as f64;
    ms / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::fleet::{Kind, kinds};
    use crate::ids::Address;

    fn told(kind: Kind) -> Event {
        let at = Timestamp::from_unix_ms(1_704_067_200_123);
        Event::new(kind, Address::new([7; 20]), at, "it was said")
    }

    fn published(event: &Event, to: &str) -> Option<Value> {
        commands(event).into_iter().find_map(|command| match command {
            Command::Publish { channel, body } if channel == to => {
                Some(serde_json::from_str(&body).unwrap())
            }
            _ => None,
        })
    }

    #[test]
    fn a_job_is_seen_as_synaptic_llamas_logs_it() {
        let event = told(kinds::JOB_RUNNING).about(&"j".parse().unwrap()).with("attempt", 2);
        let log = published(&event, "synapticllamas:llama_cpp:coordinator").unwrap();
        assert_eq!(log["timestamp"], 1_704_067_200.123);
        assert_eq!((&log["component"], &log["level"]), (&"coordinator".into(), &"info".into()));
        assert_eq!((&log["event_type"], &log["message"]), (&"start".into(), &"it was said".into()));
        assert_eq!(
            (&log["details"]["attempt"], &log["details"]["job_id"]),
            (&2.into(), &"j".into())
        );
        let raw = published(&event, "synapticllamas:llama_cpp:raw").unwrap();
        assert_eq!(raw["source"], "coordinator");
        assert_eq!(raw["line"], "info job/running: it was said");
        assert_eq!(published(&event, "synapticllamas:llama_cpp:metrics"), None);
        assert_eq!(published(&event, "synapticllamas:llama_cpp:rpc_backends"), None);
    }

    #[test]
    fn the_registry_is_seen_as_the_network_observer_sends_it() {
        let event = told(kinds::REGISTRY_HEARTBEAT).with("total_active", 3);
        let seen = published(&event, "sollol:dashboard:rpc:activity").unwrap();
        assert_eq!(seen["event_type"], "rpc_backend_connect");
        assert_eq!((&seen["backend"], &seen["severity"]), (&"rpc_registry".into(), &"info".into()));
        assert_eq!(seen["iso_timestamp"], "2024-01-01T00:00:00.123Z");
        assert_eq!(seen["details"]["total_active"], 3);
    }

    #[test]
    fn a_job_that_ends_is_a_completed_task_with_its_time_in_seconds() {
        let event = told(kinds::JOB_COMPLETED).about(&"j".parse().unwrap()).with("run_ms", 1500);
        let routed = published(&event, "sollol:routing_events").unwrap();
        assert_eq!(routed["event_type"], "TASK_COMPLETE");
        assert_eq!((&routed["duration"], &routed["success"]), (&1.5.into(), &true.into()));
        assert_eq!((&routed["task_id"], &routed["model"]), (&"j".into(), &"".into()));
    }
}
