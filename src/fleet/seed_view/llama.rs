//! What happens to a llama.cpp coordinator and its RPC backends, as `SynapticLlamas` and SOLLOL publish it of their
//! own: to the channels of [`ROWS`], in their forms.
//!
//! Must hold: the channel of raw lines has the program's own lines and nothing else; what happened goes to all other
//! channels that it feeds.

use serde_json::{Map, Value, json};

use super::table::{Feed, Form, ROWS, Row};
use super::{Command, command};
use crate::clock::Timestamp;
use crate::fleet::event::Level;

/// `SynapticLlamas`' name of the coordinator.
pub const COORDINATOR: &str = "coordinator";

/// `SynapticLlamas`' name of the backends.
pub const BACKEND: &str = "rpc_backend";

/// `SynapticLlamas`' name of models.
pub const MODEL: &str = "model";

/// The backend under which SOLLOL's registry speaks for all backends.
pub const REGISTRY: &str = "rpc_registry";

/// Something that is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Something happened.
    Happened(Box<Happened>),
    /// A line of a program's output.
    Line {
        /// When it was read.
        at: Timestamp,
        /// [`COORDINATOR`] or [`BACKEND`].
        source: &'static str,
        /// The line, scrubbed.
        line: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// When.
    pub at: Timestamp,
    /// `SynapticLlamas`' component.
    pub component: &'static str,
    /// `SynapticLlamas`' type: `start`, `stop`, `model_load`, `connect`, `disconnect`, `error`, `status`.
    pub event_type: &'static str,
    /// The type of SOLLOL's network observer, if it has one.
    pub observed: Option<&'static str>,
    /// SOLLOL's backend: `host:port`, or [`REGISTRY`].
    pub backend: String,
    /// How much it matters.
    pub level: Level,
    /// What happened, in words.
    pub message: String,
    /// The facts.
    pub details: Map<String, Value>,
}

impl Told {
    /// Everything that this becomes on Redis, in the order of the table.
    pub fn commands(&self) -> Vec<Command> {
        let fed = ROWS.iter().filter(|row| self.feeds(row));
        fed.filter_map(|row| Some(command(row, self.form(row.form)?.to_string()))).collect()
    }

    fn feeds(&self, row: &Row) -> bool {
        match (self, row.feed) {
            (Self::Line { .. }, Feed::All) => row.form == Form::Raw,
            (Self::Line { source, .. }, Feed::Component(it)) => {
                row.form == Form::Raw && it == *source
            }
            (Self::Happened(_), Feed::All) => row.form != Form::Raw,
            (Self::Happened(it), Feed::Component(component)) => {
                row.form != Form::Raw && it.component == component
            }
            (Self::Happened(it), Feed::Observed(prefixes)) => {
                it.observed.is_some_and(|word| prefixes.iter().any(|it| word.starts_with(it)))
            }
            _ => false,
        }
    }

    fn form(&self, form: Form) -> Option<Value> {
        match (self, form) {
            (Self::Line { at, source, line }, Form::Raw) => {
                Some(json!({"timestamp": seconds(*at), "source": source, "line": line}))
            }
            (Self::Happened(it), Form::Log) => Some(it.log()),
            (Self::Happened(it), Form::Observer) => Some(it.observer()),
            _ => None,
        }
    }
}

impl Happened {
    fn log(&self) -> Value {
        json!({
            "timestamp": seconds(self.at),
            "component": self.component,
            "level": self.level.as_str(),
            "message": self.message,
            "event_type": self.event_type,
            "details": self.details,
        })
    }

    fn observer(&self) -> Value {
        json!({
            "timestamp": seconds(self.at),
            "iso_timestamp": self.at.to_string(),
            "backend": self.backend,
            "event_type": self.observed,
            "severity": self.level.severity(),
            "details": self.details,
        })
    }
}

fn seconds(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    let ms = at.unix_ms() as f64;
    ms / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_unix_ms(1_704_067_200_123);

    fn published(told: &Told) -> Vec<(&'static str, Value)> {
        let commands = told.commands().into_iter();
        let each = commands.filter_map(|command| match command {
            Command::Publish { channel, body } => {
                Some((channel, serde_json::from_str(&body).unwrap()))
            }
            _ => None,
        });
        each.collect()
    }

    #[test]
    fn a_start_has_the_seeds_keys_and_goes_where_the_seeds_dashboards_listen() {
        let details = json!({"port": 8080, "rpc_backends": ["192.168.1.10:50052"]});
        let told = Told::Happened(Box::new(Happened {
            at: T0,
            component: COORDINATOR,
            event_type: "start",
            observed: Some("coordinator_start"),
            backend: "127.0.0.1:8080".to_owned(),
            level: Level::Info,
            message: "llama.cpp coordinator started".to_owned(),
            details: details.as_object().unwrap().clone(),
        }));
        let all = published(&told);
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            [
                "synapticllamas:llama_cpp:logs",
                "synapticllamas:llama_cpp:coordinator",
                "sollol:dashboard:rpc:activity",
                "sollol:dashboard:logs",
            ]
        );
        let log = json!({
            "timestamp": 1_704_067_200.123, "component": "coordinator", "level": "info",
            "message": "llama.cpp coordinator started", "event_type": "start", "details": details,
        });
        assert_eq!(all[1].1, log);
        assert_eq!(all[2].1["backend"], "127.0.0.1:8080");
        assert_eq!(all[2].1["event_type"], "coordinator_start");
        assert_eq!(all[2].1["iso_timestamp"], "2024-01-01T00:00:00.123Z");
        let streams = told.commands().into_iter().filter(|it| matches!(it, Command::Append { .. }));
        assert_eq!(streams.count(), 2, "the streams of logs and of activities");
    }

    #[test]
    fn a_line_goes_to_the_channels_of_raw_lines_alone() {
        let line = |source| Told::Line { at: T0, source, line: "slots are idle".to_owned() };
        let raw = json!({
            "timestamp": 1_704_067_200.123, "source": "coordinator", "line": "slots are idle",
        });
        let all = published(&line(COORDINATOR));
        assert_eq!(
            all,
            [("synapticllamas:llama_cpp:raw", raw.clone()), ("sollol:logs:llama_cpp", raw)]
        );
        let names: Vec<_> = published(&line(BACKEND)).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["synapticllamas:llama_cpp:raw"]);
    }
}
