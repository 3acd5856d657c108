//! A line of a log without personal data, and a record: the lines that a program wrote at once.
//!
//! Must hold: a [`Line`] is made only of scrubbed text, so that what takes one never sees personal data; it has
//! no character that a terminal obeys, and a bounded length.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::scrub::{After, REDACTED, scrub};
use crate::clock::Timestamp;
use crate::fleet::Level;
use crate::report;

/// The longest line, in bytes. Of a longer one the end is cut off.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The most lines that one record keeps.
pub const RECORD_LINES_MAX: u32 = 200;

/// The most bytes that one record keeps.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// One line, cleaned and scrubbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line(String);

impl Line {
    /// Reads a line as it stands in a log, without its line end. What is no UTF-8 becomes U+FFFD, colours and
    /// controls go, of a progress bar that overwrites itself (`\r`) the last state stays, personal data becomes
    /// `[REDACTED]`.
    pub fn read(bytes: &[u8]) -> Self {
        Self::read_after(bytes, &mut After::default())
    }

    /// The same, of a line that follows others in its log: a value goes whose name stood at the end of the one before.
    pub fn read_after(bytes: &[u8], after: &mut After) -> Self {
        let bytes = whole_words(bytes);
        // Nearly every line is good, and this tells it faster.
        let text = std::str::from_utf8(bytes)
            .map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        let plain = plain(&text);
        if after.is_value(&plain) {
            return Self(REDACTED.to_owned());
        }
        let mut text = scrub(&plain).into_owned();
        text.truncate(text.floor_char_boundary(LINE_BYTES_MAX));
        Self(text)
    }

    /// The text, which may be empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a program wrote at once: a line and those that continue it, such as a traceback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the program says that it wrote this, if it says so in a form that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How much it matters, if the program says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// The part of the program that wrote it; empty if it doesn't say so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub logger: String,
    /// The message, then the lines that continue it, at most [`RECORD_BYTES_MAX`] bytes and
    /// [`RECORD_LINES_MAX`] lines.
    pub text: String,
    /// How many lines were left out because they didn't fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u32,
}

impl Record {
    /// The first line of the text.
    pub fn message(&self) -> &str {
        self.text.split('\n').next().unwrap_or_default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// As much of a line as is kept. The last word of a line that was cut goes: it may be the first half of a secret,
/// which nobody would know for one.
fn whole_words(bytes: &[u8]) -> &[u8] {
    let Some(kept) = bytes.get(..LINE_BYTES_MAX) else { return bytes };
    let is_end = |byte: &u8| byte.is_ascii_whitespace();
    let words = kept.iter().rposition(is_end).and_then(|end| kept.get(..end));
    words.unwrap_or_default()
}

/// The text as a person sees it in the end: the last state of what overwrites itself, without escape sequences
/// and controls.
fn plain(text: &str) -> Cow<'_, str> {
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default();
    // Nearly every line is printable ASCII, which has nothing to take out.
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    if is_plain || !text.chars().any(|c| c != '\t' && report::is_obeyed(c)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut chars),
            '\t' => out.push(c),
            // Not a space: whoever hides one within a secret doesn't split it.
            c if report::is_obeyed(c) => {}
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Skips what follows an escape: a control sequence up to its last byte, a command to the terminal up to its
/// end, otherwise one character.
fn skip_sequence(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            chars.by_ref().find(|c| matches!(c, '@'..='~'));
        }
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' {
                    return;
                }
                if c == '\u{1b}' {
                    chars.next();
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> String {
        Line::read(bytes).as_str().to_owned()
    }

    #[test]
    fn colours_and_controls_go_and_hide_no_secret() {
        assert_eq!(read(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\0y"), "red xy");
        assert_eq!(read("bob\x1b[0m@exam\u{200e}ple.com".as_bytes()), "[REDACTED]");
        assert_eq!(read(b"\xff caf\xe9"), "\u{fffd} caf\u{fffd}");
        assert_eq!(read(b"a\tb\r\n"), "a\tb");
        assert_eq!(read("🐝 Joining round: 5".as_bytes()), "🐝 Joining round: 5");
    }

    /// Lines of one log.
    fn read_all(text: &str) -> Vec<String> {
        let mut after = After::default();
        let lines = text.lines().map(|line| Line::read_after(line.as_bytes(), &mut after));
        lines.map(|line| line.as_str().to_owned()).collect()
    }

    #[test]
    fn a_value_below_its_name_goes_and_the_next_record_stays() {
        for (text, wanted) in [
            ("password:\nhunter2\nnext", "password:|[REDACTED]|next"),
            ("  \"token\":\n    \"abc\",\nx", "  \"token\":|[REDACTED]|x"),
            ("api_key = \n\nabc", "api_key = ||[REDACTED]"),
            ("secret: |-\n  abc\nmore", "secret: [REDACTED]|[REDACTED]|more"),
            ("passwords:\n- a\n- b\nhost: x", "passwords:|[REDACTED]|[REDACTED]|host: x"),
            ("mnemonic:\nsome words of yours here\nx", "mnemonic:|[REDACTED]|x"),
            ("Authorization:\nBearer ab", "Authorization:|[REDACTED]"),
            (
                "no token:\n[2025-08-05 02:04:54,237][a][INFO] - Joining round: 5",
                "no token:|[2025-08-05 02:04:54,237][a][INFO] - Joining round: 5",
            ),
            (
                "mnemonic:\n2025-08-05 02:04:54 INFO it is there",
                "mnemonic:|2025-08-05 02:04:54 INFO it is there",
            ),
            ("secrets:\n  host:\n    a", "secrets:|  host:|    a"),
            ("password:\nNone\n{\nauth:\nok", "password:|None|{|auth:|ok"),
            ("tokens:\n12", "tokens:|12"),
        ] {
            assert_eq!(read_all(text).join("|"), wanted, "of {text}");
        }
    }

    #[test]
    fn the_last_word_of_a_line_that_was_cut_goes() {
        let secret = "0123456789abcdef".repeat(4);
        for kept in [8, 15, 40] {
            let mut line = "x ".repeat(LINE_BYTES_MAX / 2 - kept).into_bytes();
            line.extend(b"y".repeat(kept));
            line.extend_from_slice(b" ");
            line.extend_from_slice(secret.as_bytes());
            let text = read(&line[..LINE_BYTES_MAX]);
            assert!(text.len() <= LINE_BYTES_MAX && !text.contains("0123"), "{kept}");
        }
        assert!(read(&vec![b'x'; 10 * LINE_BYTES_MAX]).is_empty());
    }
}
