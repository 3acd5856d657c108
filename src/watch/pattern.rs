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
    /// Reads a pattern in the syntax of the crate `regex`. `^` and `$` are the start and the end of a line, `\b` is
    /// the border of a word of ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidPattern> {
        Self::built(text, true)
    }

    /// The same for a pattern that begins with `^` and is held against single lines: what doesn't match at the
    /// start of a line is told at once.
    pub(super) fn at_start(text: &str) -> Result<Self, InvalidPattern> {
        Self::built(text, false)
    }

    fn built(text: &str, of_lines: bool) -> Result<Self, InvalidPattern> {
        if text.is_empty() {
            return Err(InvalidPattern("the pattern is empty".to_owned()));
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InvalidPattern(format!(
                "the pattern has more than {PATTERN_BYTES_MAX} bytes"
            )));
        }
        let built = RegexBuilder::new(&ascii_words(text))
            .multi_line(of_lines)
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

/// The pattern with `\b` as the border of a word of ASCII. That of Unicode would make the search of each line with
/// any other letter some fifty times slower.
fn ascii_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = if c == '\\' { chars.next() } else { None };
        match next {
            Some('b') if chars.peek() != Some(&'{') => out.push_str(r"(?-u:\b)"),
            Some(next) => out.extend([c, next]),
            None => out.push(c),
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_border_of_a_word_is_one_of_ascii_and_nothing_else_changes() {
        for (text, wanted) in [
            (r"\bx\b", r"(?-u:\b)x(?-u:\b)"),
            (r"\\b \d\b{start}", r"\\b \d\b{start}"),
            ("x\\", "x\\"),
        ] {
            assert_eq!(ascii_words(text), wanted);
        }
        assert!(Pattern::new(r"\bround\b").unwrap().is_match("🐝 round: 5"));
    }

    #[test]
    fn a_pattern_that_takes_too_much_is_refused_and_others_are_linear() {
        for (text, says) in [
            ("(a{1000}){1000}", "takes too much memory"),
            ("(((a{90}){90}){90})", "takes too much memory"),
            ("(?=a)", "no pattern: "),
            ("(a)\\1", "no pattern: "),
            ("", "is empty"),
        ] {
            let told = Pattern::new(text).unwrap_err().to_string();
            assert!(told.contains(says), "{told}");
        }
        // Exponential where a search goes back.
        let begun = std::time::Instant::now();
        assert!(!Pattern::new("^(a+)+$").unwrap().is_match(&format!("{}b", "a".repeat(60_000))));
        assert!(begun.elapsed().as_secs() < 5);
    }
}
