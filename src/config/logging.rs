//! Log settings: level and format.

use super::env::{Env, Variable, shown};

const LOG_LEVEL: Variable = Variable::new("LOG_LEVEL", "info");
const LOG_FORMAT: Variable = Variable::new("LOG_FORMAT", "text");

/// The NATS client logs each refused attempt as an error of its own; `bus` reports it once.
pub(crate) const SILENT: &str = "async_nats=off";

/// How the program logs, always to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// A directive for `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Text lines or JSON objects.
    pub format: Format,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people to read.
    Text,
    /// One JSON object per line.
    Json,
}

pub(super) fn read(env: &mut Env<'_>) -> Option<Logging> {
    let format = env.choice(LOG_FORMAT, &[("text", Format::Text), ("json", Format::Json)]);
    let filter = filter(env);
    Some(Logging { filter: filter?, format: format? })
}

/// A level for this program (libraries stay at warnings), or directives such as
/// `info,lamda_node::bus=debug`.
fn filter(env: &mut Env<'_>) -> Option<String> {
    let set = env.is_set(LOG_LEVEL);
    let text = env.text(LOG_LEVEL);
    if !set {
        return Some(format!("warn,{SILENT},lamda_node=info"));
    }
    let text = text?;
    let level = match text.to_ascii_lowercase().as_str() {
        level @ ("trace" | "debug" | "info" | "warn" | "error") => level.to_owned(),
        // Level names that the network's first agents took.
        "warning" => "warn".to_owned(),
        "fatal" | "panic" => "error".to_owned(),
        "off" => return Some("off".to_owned()),
        _ if text.contains(['=', ',']) => {
            let valid = tracing_subscriber::EnvFilter::try_new(&text).is_ok();
            let what = || format!("{} is no list of log directives", shown(&text));
            // At the front: a later directive for the same target overrides it.
            let filter = valid.then(|| format!("{SILENT},{text}"));
            return env.keep(LOG_LEVEL, filter.ok_or_else(what));
        }
        _ => {
            env.problem(LOG_LEVEL, format!("{} is no level", shown(&text)));
            return None;
        }
    };
    // Libraries' messages below warnings are of no use to an owner.
    let vendors = if level == "error" { "error" } else { "warn" };
    Some(format!("{vendors},{SILENT},lamda_node={level}"))
}
