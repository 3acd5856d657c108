//! Finds out what a record means.

use std::collections::BTreeMap;

use regex::RegexSet;

use super::{Cause, FIELD_BYTES_MAX, FIELDS_MAX, Kind, Meaning, Means};
use crate::fleet::Level;
use crate::watch::line::Record;
use crate::watch::pattern::{InvalidPattern, Pattern};

/// Says what the records of one log mean.
#[derive(Debug, Clone)]
pub struct Classifier {
    means: Vec<Means>,
    causes: Vec<(String, Pattern)>,
    /// First the patterns of `means`, then those of `causes`.
    set: RegexSet,
}

impl Classifier {
    /// What is known about the records of this log.
    pub fn new(log: &str, means: &[Means], causes: &[Cause]) -> Result<Self, InvalidPattern> {
        let is_here = |it: &&Means| it.log.as_ref().is_none_or(|name| name == log);
        let means: Vec<Means> = means.iter().filter(is_here).cloned().collect();
        let causes: Vec<(String, Pattern)> = causes
            .iter()
            .filter_map(|cause| Some((cause.id.clone(), cause.pattern.clone()?)))
            .collect();
        let patterns = means.iter().map(|it| &it.pattern).chain(causes.iter().map(|it| &it.1));
        let set = Pattern::set(patterns)?;
        Ok(Self { means, causes, set })
    }

    /// What a record means; none if it means nothing.
    pub fn meaning(&self, record: &Record) -> Option<Meaning> {
        let failed = record.level.filter(|level| *level >= Level::Error);
        let hits = self.set.matches(&record.text);
        if !hits.matched_any() {
            let fields = BTreeMap::new();
            return failed.map(|level| Meaning { kind: Kind::Error, level, fields, cause: None });
        }
        let means = self.means.iter().enumerate().find(|(at, _)| hits.matched(*at));
        let shown = || {
            let known = self.causes.iter().zip(self.means.len()..);
            known.filter(|(_, at)| hits.matched(*at)).map(|((id, _), _)| id.clone()).next()
        };
        let Some((_, means)) = means else {
            let level = record.level.unwrap_or(Level::Warning).max(Level::Warning);
            let fields = BTreeMap::new();
            return Some(Meaning { kind: Kind::Error, level, fields, cause: shown() });
        };
        let own = record.level.unwrap_or(Level::Info);
        let level = means.level.unwrap_or_else(|| match means.kind.level() {
            Level::Info => own,
            kind => own.max(kind),
        });
        Some(Meaning {
            kind: means.kind,
            level,
            fields: fields(&means.pattern, &record.text),
            cause: means.cause.clone().or_else(shown),
        })
    }
}

/// What the named groups of a pattern hold, each cut to its limit.
fn fields(pattern: &Pattern, text: &str) -> BTreeMap<String, String> {
    let regex = pattern.regex();
    // Without named groups there is nothing to find out again.
    let Some(found) = (regex.captures_len() > 1).then(|| regex.captures(text)).flatten() else {
        return BTreeMap::new();
    };
    let named = regex.capture_names().flatten();
    let held = named.filter_map(|name| Some((name, found.name(name)?.as_str())));
    let cut = |value: &str| {
        value.get(..value.floor_char_boundary(FIELD_BYTES_MAX)).unwrap_or_default().to_owned()
    };
    held.take(FIELDS_MAX).map(|(name, value)| (name.to_owned(), cut(value))).collect()
}
