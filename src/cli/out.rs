//! The one place that writes to standard output and standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::report::is_obeyed;

/// Writes one line to standard output.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Writes one JSON document as one line to standard output.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    line(&escaped(&serde_json::to_string(value)?))
}

/// Escapes every character in a JSON document that a terminal obeys, also those that JSON allows: U+009B acts like
/// an escape sequence, and U+202E turns a line around.
fn escaped(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for c in document.chars() {
        if is_obeyed(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Writes one line to standard error; ignores errors, because nobody may be reading.
pub(super) fn note(text: &str) {
    writeln!(io::stderr().lock(), "{text}").ok();
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Writes a stranger's bytes to standard output as they are, for whoever asked for that.
pub(super) fn raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

/// Makes a stranger's text safe to print: characters that a terminal obeys, and could so be rewritten by, are shown
/// escaped.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => clean.push(c),
            '\r' | '\n' => _ = write!(clean, "{}", c.escape_default()),
            c if is_obeyed(c) => _ = write!(clean, "{}", c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

/// An error and its causes in one line, each cause once.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            _ = write!(text, ": {cause}");
        }
    }
    text
}

/// Whether the error is that the reader of standard output has gone, as in `lamda-node watch | head`.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io.into_iter().any(|err| err.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_escape_sequences_are_shown_and_not_sent() {
        assert_eq!(clean("a\u{1b}[31mb\rc\td é"), "a\\u{1b}[31mb\\rc\td é");
        // To the clipboard, as a link, under another title, read backwards.
        for text in [
            "\u{1b}]52;c;cm0=\u{7}",
            "\u{9d}8;;http://x\u{9c}",
            "\u{1b}]0;x\u{7}",
            "a\u{202e}b\u{2066}",
        ] {
            assert!(!clean(text).chars().any(is_obeyed), "{}", clean(text));
        }
    }

    #[test]
    fn a_json_document_says_the_same_without_control_characters() {
        let text = "\u{9b}2J\u{7f}\u{1b}é\u{202e}\u{e0041}";
        let document = escaped(&serde_json::to_string(text).unwrap());
        assert_eq!(document, r#""\u009b2J\u007f\u001bé\u202e\udb40\udc41""#);
        assert_eq!(serde_json::from_str::<String>(&document).unwrap(), text);
    }

    #[test]
    fn a_cause_that_is_said_already_is_not_said_again() {
        let error = anyhow::anyhow!("no answer").context("asked: no answer").context("start");
        assert_eq!(chain(&error), "start: asked: no answer");
    }
}
