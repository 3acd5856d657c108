//! Makes grammars of their tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bounds::names;
use super::written as file;
use crate::watch::grammar::{Form, Grammar, JsonKeys, TimeForm};
use crate::watch::pattern::Pattern;

/// The grammars of tables, by name. `whose` they are stands before what is wrong; empty: the profile's.
pub(super) fn grammars(
    written: Vec<file::Grammar>,
    whose: &str,
) -> Result<BTreeMap<String, Arc<Grammar>>, String> {
    names("grammar", "name", 32, written.iter().map(|it| it.name.as_str()))
        .map_err(|what| if whose.is_empty() { what } else { format!("{whose}: {what}") })?;
    let mut all = BTreeMap::new();
    for written in written {
        let place = format!("[[grammar]] {:?}", written.name);
        let grammar = grammar(written).map_err(|what| format!("{place}, {what}"))?;
        all.insert(grammar.name.clone(), Arc::new(grammar));
    }
    Ok(all)
}

fn grammar(written: file::Grammar) -> Result<Grammar, String> {
    let file::Grammar { name, header, json, time, zone } = written;
    let time = time.map(|format| TimeForm { format, is_utc: zone == file::Zone::Utc });
    if let Some(time) = &time {
        time.check().map_err(|what| format!("time: {what}"))?;
    }
    let form = match (header, json) {
        (None, None) => Form::Plain,
        (Some(_), Some(_)) => {
            return Err("json: a grammar has a header or json, not both".to_owned());
        }
        (Some(header), None) => Form::Header(self::header(&header)?),
        (None, Some(json)) => {
            let keys = JsonKeys {
                time: json.time,
                level: json.level,
                logger: json.logger,
                message: json.message,
            };
            let all = [&keys.time, &keys.level, &keys.logger, &keys.message];
            if all.iter().any(|keys| keys.len() > 8) || keys.message.is_empty() {
                return Err("json: message names a key, and each at most eight".to_owned());
            }
            Form::Json(keys)
        }
    };
    let has_time = match &form {
        Form::Plain => false,
        Form::Header(pattern) => pattern.groups().any(|group| group == "time"),
        Form::Json(keys) => !keys.time.is_empty(),
    };
    if time.is_some() && !has_time {
        return Err("time: the header has no group (?<time>…), json no key for it".to_owned());
    }
    Ok(Grammar { name, form, time })
}

fn header(text: &str) -> Result<Pattern, String> {
    const GROUPS: [&str; 4] = ["time", "level", "logger", "message"];
    if !text.starts_with('^') {
        return Err("header: it begins with ^: a header is at the start of a line".to_owned());
    }
    let pattern = Pattern::at_start(text).map_err(|err| format!("header: {err}"))?;
    if let Some(group) = pattern.groups().find(|group| !GROUPS.contains(group)) {
        return Err(format!("header: the group {group:?} is none of {}", GROUPS.join(", ")));
    }
    Ok(pattern)
}
