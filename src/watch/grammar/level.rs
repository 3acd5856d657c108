//! The words and signs for how much a line matters.

use crate::fleet::Level;

/// The level that a word, a letter, a sign (Redis) or a number (pino) stands for.
pub(super) fn of(text: &str) -> Option<Level> {
    const WORDS: [(Level, &[&str]); 5] = [
        (Level::Debug, &["debug", "trace", "verbose", "d", ".", "-", "10", "20"]),
        (Level::Info, &["info", "notice", "log", "i", "*", "30"]),
        (Level::Warning, &["warning", "warn", "w", "#", "40"]),
        (Level::Error, &["error", "err", "e", "50"]),
        (
            Level::Critical,
            &["critical", "fatal", "crit", "alert", "emerg", "panic", "c", "f", "60"],
        ),
    ];
    let text = text.trim();
    let is = |word: &&str| text.eq_ignore_ascii_case(word);
    WORDS.iter().find(|(_, words)| words.iter().any(is)).map(|(level, _)| *level)
}
