//! The file's values by their paths (`section.key`), each taken once by the kind that it has to be of.
//!
//! Must hold: problems name the key and the kind that was wanted, never the value, which may be a secret; the
//! texts of the tree are wiped when it is dropped.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use zeroize::Zeroize as _;

use super::keys::KEYS;
use crate::report::one_line;
use crate::secret::Secret;

/// Longest text of a value, in bytes: a JWT has less than two thousand.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Longest name of an unknown key in a message, in characters.
const KEY_CHARS_MAX: usize = 80;

/// Longest message of the parser, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Values, and what was found about them so far.
pub(super) struct Tree {
    root: Value,
    problems: Vec<String>,
    placeholders: Vec<&'static str>,
}

impl Drop for Tree {
    fn drop(&mut self) {
        wipe(&mut self.root);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(items) => items.values_mut().for_each(wipe),
        _ => {}
    }
}

impl Tree {
    /// Parses one YAML document, with limits on what it may grow to.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let root: Option<Value> =
            serde_saphyr::from_str_with_options(text, options()).map_err(|err| {
                // A line is quoted by no message: it may hold a token.
                let err = err.without_snippet();
                one_line(&err.to_string(), MESSAGE_CHARS_MAX)
            })?;
        let root = match root {
            None | Some(Value::Null) => Value::Object(Map::new()),
            Some(root @ Value::Object(_)) => root,
            Some(_) => return Err("it has no keys: it is no configuration".to_owned()),
        };
        Ok(Self { root, problems: Vec::new(), placeholders: Vec::new() })
    }

    /// What is wrong, all of it.
    pub(super) fn problems(&self) -> Result<(), String> {
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems.join("; ")) }
    }

    /// The keys whose value is the original's example.
    pub(super) fn placeholders(&self) -> &[&'static str] {
        &self.placeholders
    }

    /// Whether the file has the key.
    pub(super) fn is_set(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The keys that the original does not have.
    pub(super) fn unknown(&self) -> Vec<String> {
        let mut unknown = Vec::new();
        for (name, value) in self.root.as_object().into_iter().flatten() {
            let section = format!("{name}.");
            match value {
                _ if is_key(name) => {}
                Value::Object(inner) if is_section(&section) => {
                    let paths = inner.keys().map(|key| section.clone() + key);
                    unknown.extend(paths.filter(|path| !is_key(path)));
                }
                _ if is_section(&section) => {}
                _ => unknown.push(name.clone()),
            }
        }
        unknown.into_iter().map(|path| one_line(&path, KEY_CHARS_MAX)).collect()
    }

    fn find(&self, path: &str) -> Option<&Value> {
        let found = match path.split_once('.') {
            Some((section, key)) => self.root.get(section)?.get(key)?,
            None => self.root.get(path)?,
        };
        (!found.is_null()).then_some(found)
    }

    fn problem(&mut self, path: &str, wanted: &str) {
        self.problems.push(format!("{path}: {wanted}"));
    }

    /// A text; a number or a word such as `true` is the text that it was written as.
    pub(super) fn text(&mut self, path: &'static str) -> Option<String> {
        self.section(path)?;
        let text = match self.find(path)? {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) => number.to_string(),
            Value::Bool(word) => word.to_string(),
            _ => {
                self.problem(path, "one text was expected");
                return None;
            }
        };
        self.checked(path, text)
    }

    fn checked(&mut self, path: &'static str, text: String) -> Option<String> {
        if text.len() > TEXT_BYTES_MAX || text.chars().any(crate::report::is_obeyed) {
            self.problem(path, "it is too long, or has a control character");
            return None;
        }
        if is_placeholder(&text) {
            self.placeholders.push(path);
            return None;
        }
        (!text.is_empty()).then_some(text)
    }

    pub(super) fn secret(&mut self, path: &'static str) -> Option<Secret> {
        self.text(path).map(Secret::new)
    }

    pub(super) fn path(&mut self, path: &'static str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn texts(&mut self, path: &'static str, most: usize) -> Vec<String> {
        if self.section(path).is_none() {
            return Vec::new();
        }
        let items = match self.find(path) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items.clone(),
            Some(one) => vec![one.clone()],
        };
        let texts: Option<Vec<String>> =
            items.iter().map(|item| item.as_str().map(|text| text.trim().to_owned())).collect();
        match texts {
            None => self.problem(path, "a list of texts was expected"),
            Some(texts) if texts.len() > most => {
                self.problem(path, &format!("the list has more than {most} entries"));
            }
            Some(texts) => {
                return texts.into_iter().filter_map(|text| self.checked(path, text)).collect();
            }
        }
        Vec::new()
    }

    pub(super) fn paths(&mut self, path: &'static str, most: usize) -> Vec<PathBuf> {
        self.texts(path, most).into_iter().map(PathBuf::from).collect()
    }

    pub(super) fn flag(&mut self, path: &'static str) -> Option<bool> {
        self.section(path)?;
        let flag = match self.find(path)? {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        };
        if flag.is_none() {
            self.problem(path, "true or false was expected");
        }
        flag
    }

    /// A whole number, if there is one.
    pub(super) fn whole_number(&self, path: &str) -> Option<u64> {
        match self.find(path)? {
            Value::Number(number) => number.as_u64(),
            // With quotes.
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn number(&mut self, path: &'static str, most: u64) -> Option<u64> {
        self.section(path)?;
        self.find(path)?;
        let number = self.whole_number(path).filter(|number| *number <= most);
        if number.is_none() {
            let limit = if most == u64::MAX { String::new() } else { format!(" up to {most}") };
            self.problem(path, &format!("a whole number{limit} was expected"));
        }
        number
    }

    pub(super) fn count(&mut self, path: &'static str, most: u32) -> Option<usize> {
        let number = self.number(path, u64::from(most))?;
        usize::try_from(number).ok()
    }

    pub(super) fn port(&mut self, path: &'static str) -> Option<u16> {
        let port = self.number(path, u64::from(u16::MAX))?;
        // 0 is what the original has for none.
        u16::try_from(port).ok().filter(|port| *port > 0)
    }

    /// A span in seconds; 0 is what the original has for none.
    pub(super) fn seconds(&mut self, path: &'static str, most: u64) -> Option<Duration> {
        let seconds = self.number(path, most)?;
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Nothing where the key's section is no section, which is told once.
    fn section(&mut self, path: &str) -> Option<()> {
        let Some((name, _)) = path.split_once('.') else { return Some(()) };
        match self.root.get(name) {
            None | Some(Value::Object(_) | Value::Null) => return Some(()),
            Some(_) => {}
        }
        let problem = format!("{name}: a section with keys was expected");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
        None
    }
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_events: 20_000,
        max_aliases: 100,
        max_anchors: 100,
        max_recorded_anchor_events: 20_000,
        max_recorded_anchor_bytes: 1 << 20,
        max_depth: 16,
        max_documents: 1,
        max_nodes: 10_000,
        max_total_scalar_bytes: 1 << 20,
        max_merge_keys: 100,
    };
    serde_saphyr::options! {
        budget: budget,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, },
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn is_key(path: &str) -> bool {
    KEYS.iter().any(|key| key.path == path)
}

fn is_section(prefix: &str) -> bool {
    KEYS.iter().any(|key| key.path.starts_with(prefix))
}

/// Whether this is an example that somebody was to replace, such as `<JWT from the dashboard>`.
fn is_placeholder(text: &str) -> bool {
    // What looks like a token is one, whatever letters it happens to have.
    let is_token = text.starts_with("eyJ") && text.matches('.').count() == 2;
    let lower = text.to_ascii_lowercase();
    let words = ["your-", "your_", "your ", "changeme", "change-me", "placeholder", "replace"];
    let is_framed = (text.starts_with('<') && text.ends_with('>')) || text.ends_with("...");
    !is_token && (is_framed || words.iter().any(|word| lower.contains(word)))
}
