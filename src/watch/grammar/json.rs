//! Reads a line that is a JSON object.
//!
//! Must hold: what JSON had hidden behind escapes is scrubbed once more before anything sees it.

use serde_json::{Map, Value};

use super::{JsonKeys, level};
use crate::fleet::Level;
use crate::watch::line::Line;
use crate::watch::scrub::{After, REDACTED};

/// What an object says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) time: Option<String>,
    pub(super) level: Option<Level>,
    pub(super) logger: Option<String>,
    pub(super) message: Option<String>,
}

/// What a line says, if it is an object.
pub(super) fn read(keys: &JsonKeys, line: &str) -> Option<Said> {
    if !line.starts_with('{') {
        return None;
    }
    let object = object(line)?;
    let text = |names: &[String]| names.iter().find_map(|name| shown(lookup(&object, name)?));
    // Escapes may hide anything, such as an `@`.
    let has_escapes = line.contains('\\');
    let scrubbed = |text: String| if has_escapes { again(&text) } else { text };
    Some(Said {
        time: text(&keys.time),
        level: text(&keys.level).and_then(|word| level::of(&word)),
        logger: text(&keys.logger).map(scrubbed),
        message: text(&keys.message).map(scrubbed),
    })
}

/// The object that a line is. A number that was scrubbed away stands there without quotes.
fn object(line: &str) -> Option<Map<String, Value>> {
    let quoted = || {
        let bare = format!(":{REDACTED}");
        let line = line.replace(": [", ":[").replace(&bare, &format!(":\"{REDACTED}\""));
        serde_json::from_str(&line).ok()
    };
    serde_json::from_str(line).ok().or_else(quoted)
}

/// The value of a key, or of a key within an object: `fields.message`.
fn lookup<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    object.get(outer)?.as_object()?.get(inner)
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn again(text: &str) -> String {
    let mut after = After::default();
    let lines = text.split('\n').map(|line| Line::read_after(line.as_bytes(), &mut after));
    let lines: Vec<String> = lines.map(|line| line.as_str().to_owned()).collect();
    lines.join("\n")
}
