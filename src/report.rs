//! Formats errors and foreign text for people.
//!
//! Must hold: the result of [`one_line`] and [`one_line_end`] is one bounded line without characters that a
//! terminal obeys ([`is_obeyed`]), so that text from outside can't move its cursor or forge a log line.

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

/// Whether a terminal obeys this character, or may, instead of showing it: the controls of C0 and C1, one of which
/// begins every escape sequence; those that turn the direction of text, so that it reads as something else; those
/// that end a line or annotate it; and the tags, which nobody sees.
pub const fn is_obeyed(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
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
    let words = text.split(|c: char| c.is_whitespace() || is_obeyed(c));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_and_what_turns_text_around_is_obeyed_and_no_letter_is() {
        for c in '\u{0}'..=char::MAX {
            if c.is_control() {
                assert!(is_obeyed(c), "{}", c.escape_unicode());
            } else if c.is_alphanumeric() || c.is_ascii() {
                assert!(!is_obeyed(c), "{}", c.escape_unicode());
            }
        }
        // All that Unicode's algorithm of directions takes for a command.
        for c in "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}"
            .chars()
        {
            assert!(is_obeyed(c), "{}", c.escape_unicode());
        }
        // Joiners are part of words and of pictures.
        assert!("é ü 𝄞 👩\u{200d}🔬 نامه\u{200c}ای".chars().all(|c| !is_obeyed(c)));
    }

    #[test]
    fn hostile_text_is_bounded_and_harmless() {
        assert_eq!(one_line(" two\nlines\u{1b}[2J ", 300), "two lines [2J");
        assert_eq!(one_line(&"ä".repeat(1000), 300).chars().count(), 301);
        assert_eq!(one_line("exe.\u{202e}gpj", 300), "exe. gpj");
        assert_eq!(one_line_end("a b c d", 4), "…c d");
        assert_eq!(one_line_end("a\r\nb", 4), "a b");
    }
}
