//! The one place that writes to standard output and standard error.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

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

/// Escapes every control character in a JSON document, also those that JSON allows: on a terminal, U+009B
/// acts like an escape sequence.
fn escaped(document: &str) -> String {
    let mut escaped = String::with_capacity(document.len());
    for c in document.chars() {
        if c.is_control() {
            _ = write!(escaped, "\\u{:04x}", u32::from(c));
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

/// Makes a stranger's text safe to print: control characters, which could rewrite the terminal, are shown
/// escaped.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => clean.push(c),
            c if c.is_control() => _ = write!(clean, "{}", c.escape_debug()),
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
    }

    #[test]
    fn a_json_document_says_the_same_without_control_characters() {
        let text = "\u{9b}2J\u{7f}\u{1b}é";
        let document = escaped(&serde_json::to_string(text).unwrap());
        assert_eq!(document, r#""\u009b2J\u007f\u001bé""#);
        assert_eq!(serde_json::from_str::<String>(&document).unwrap(), text);
    }

    #[test]
    fn a_cause_that_is_said_already_is_not_said_again() {
        let error = anyhow::anyhow!("no answer").context("asked: no answer").context("start");
        assert_eq!(chain(&error), "start: asked: no answer");
    }
}
