//! Patterns of a profile: regular expressions that take linear time and bounded memory.
//!
//! Must hold: a pattern that would take more than [`PATTERN_MEMORY_MAX`] is refused when the profile is read,
//! never met while a log is.

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 2_000;

/// The most memory that one pattern takes, in bytes.
pub const PATTERN_MEMORY_MAX: usize = 512 * 1024;

/// The most memory that all patterns that are held against one log take together, in bytes.
const SET_MEMORY_MAX: usize = 8 * 1024 * 1024;

/// The most memory that a search may keep of what it found out about a pattern, in bytes.
const CACHE_MAX: usize = 512 * 1024;

/// A pattern that can't be used: a clause, such as "takes too much memory".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPattern(String);

/// A pattern. Two are equal if they are written alike.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    /// Reads a pattern in the syntax of the crate `regex`. `^` and `$` are the start and the end of a line.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern("the pattern is empty".to_owned()));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPattern(format!(
                "the pattern has more than {PATTERN_BYTES_MAX} bytes"
            )));
        }
        let built = RegexBuilder::new(text)
            .multi_line(true)
            .size_limit(PATTERN_MEMORY_MAX)
            .dfa_size_limit(CACHE_MAX)
            .nest_limit(50)
            .build();
        built.map(Self).map_err(|err| InvalidPattern(clause(&err)))
    }

    /// Whether the text matches anywhere.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The names of its groups.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }

    /// The compiled pattern.
    pub(super) fn regex(&self) -> &Regex {
        &self.0
    }

    /// All of these at once: which of them match a text.
    pub(super) fn set<'a>(
        patterns: impl Iterator<Item = &'a Self>,
    ) -> Result<RegexSet, InvalidPattern> {
        let built = RegexSetBuilder::new(patterns.map(|pattern| pattern.0.as_str()))
            .multi_line(true)
            .size_limit(SET_MEMORY_MAX)
            .dfa_size_limit(4 * CACHE_MAX)
            .build();
        built.map_err(|err| InvalidPattern(clause(&err)))
    }
}

/// What is wrong with a pattern, on one line.
fn clause(err: &regex::Error) -> String {
    match err {
        regex::Error::CompiledTooBig(_) => {
            "the pattern takes too much memory: repeat less, or less often".to_owned()
        }
        // The last line of a syntax error is the reason; those before draw the place.
        other => {
            let text = other.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!("no pattern: {}", crate::report::one_line(reason, 200))
        }
    }
}
