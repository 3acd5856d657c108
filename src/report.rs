//! Formats errors and foreign text for people.
//!
//! Must hold: the result of [`one_line`] and [`one_line_end`] is one bounded line without control
//! characters, so that text from outside can't move a terminal's cursor or forge a log line.

/// Any error, boxed so that it can cross tasks.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error with its causes on one line, each once.
pub fn causes(err: &(dyn std::error::Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many libraries repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The words of a text on one line, cut after `chars_max` characters.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let line = joined(text);
    if line.chars().nth(chars_max).is_none() {
        return line;
    }
    line.chars().take(chars_max).chain(std::iter::once('…')).collect()
}

/// The words of a text on one line, its last `chars_max` characters: for messages with their cause at the
/// end, after the names of all who passed it on.
pub fn one_line_end(text: &str, chars_max: usize) -> String {
    let line = joined(text);
    let over = line.chars().count().saturating_sub(chars_max);
    if over == 0 {
        return line;
    }
    std::iter::once('…').chain(line.chars().skip(over + 1)).collect()
}

fn joined(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_bounded_and_harmless() {
        assert_eq!(one_line(" two\nlines\u{1b}[2J ", 300), "two lines [2J");
        assert_eq!(one_line(&"ä".repeat(1000), 300).chars().count(), 301);
        assert_eq!(one_line_end("a b c d", 4), "…c d");
        assert_eq!(one_line_end("a\r\nb", 4), "a b");
    }
}
