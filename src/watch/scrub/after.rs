//! A value that stands on a line of its own, below its name: `password:`, and then the password.
//!
//! Must hold: what stands below such a name goes if it may be a value. A record of the log, which has several words,
//! stays: else each line that ends with `token:` would take the next one with it.

use serde::{Deserialize, Serialize};

use super::bytes::is_word;
use super::key::{self, Below};

/// What the lines so far say of the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct After {
    awaited: Option<Below>,
}

/// The most words of a value of several, if they are not words of letters alone.
const WORDS_MAX: usize = 3;

impl After {
    /// Whether nothing is awaited.
    pub const fn is_nothing(&self) -> bool {
        self.awaited.is_none()
    }

    /// Takes the next line of the same log, and says whether it is the value of a secret, and goes as a whole.
    pub fn is_value(&mut self, line: &str) -> bool {
        let text = line.trim();
        if text.is_empty() {
            return false;
        }
        let (item, is_item) = text.strip_prefix("- ").map_or((text, false), |item| (item, true));
        let is_value = self.awaited.is_some_and(|below| may_be(item, below));
        if !(is_value && is_item) {
            self.awaited = key::name_at_end(text.as_bytes());
        }
        is_value
    }
}

/// Whether a name may have this byte.
fn is_plain(byte: u8) -> bool {
    is_word(byte) || b"-. ".contains(&byte)
}

/// Whether a word is a value in base64 rather than a name: it has digits, and letters of both cases.
fn looks_random(word: &str) -> bool {
    let has = |is: fn(&u8) -> bool| word.bytes().any(|byte| is(&byte));
    has(u8::is_ascii_digit) && (has(u8::is_ascii_uppercase) || !word.contains(['_', '-', ' ']))
}

/// Whether this may be the value of a secret.
fn may_be(text: &str, below: Below) -> bool {
    // Values in base64 end with `=` too: a name has one alone, and what stands before it is a word.
    let is_word_of_names = |name: &str| name.bytes().all(is_plain);
    let is_name = text.strip_suffix(':').is_some_and(is_word_of_names)
        || text.strip_suffix('=').is_some_and(|it| is_word_of_names(it) && !looks_random(it));
    let words = || text.split_whitespace();
    let is_count = |word: &str| word.len() <= 3 && word.starts_with(|c: char| c.is_ascii_digit());
    let is_letters = |word: &str| word.chars().all(|c| c.is_alphabetic() || c == ',');
    let is_short = match below {
        Below::Word => words().count() == 1,
        Below::Line => {
            words().count() <= WORDS_MAX || words().all(|word| is_letters(word) || is_count(word))
        }
    };
    !is_name && is_short && text.bytes().any(is_word) && !key::is_nothing(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the last of these lines is a value.
    fn is_value(lines: &[&str]) -> bool {
        let mut after = After::default();
        lines.iter().map(|line| after.is_value(line)).last().unwrap()
    }

    #[test]
    fn a_value_below_its_name_may_end_like_a_name() {
        for value in ["Vw1_xk-9aQfZ0pLrT3uYsg==", "hunter2=", "aHVudGVyMg=="] {
            assert!(is_value(&["token:", value]), "{value}");
        }
        assert!(is_value(&["passwords:", "- aHVudGVyMg==", "- next-1"]));
        for name in ["user:", "max_rounds=", "some other key:"] {
            assert!(!is_value(&["token:", name]), "{name}");
        }
    }
}
