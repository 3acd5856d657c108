//! Parses the lines of a `.env`: `NAME=value` as shells write it, except that a `$` is literal.
//!
//! Pure. Must hold: text that could be a value leaves this file only as a value; a problem with a line is
//! described in fixed words, with the line's number.

use zeroize::Zeroizing;

/// A line that is neither empty nor a comment.
#[derive(Debug)]
pub(super) struct Line {
    /// The line's number as editors count, from 1.
    pub(super) number: usize,
    /// The name before `=`, if there is one. Check that it is a setting's before showing it.
    pub(super) name: Option<String>,
    /// The value, or why there is none.
    pub(super) value: Result<Value, &'static str>,
}

/// The value after `=`, and what a shell would make of it.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) text: Zeroizing<String>,
    /// How much of it a shell would have substituted.
    pub(super) reference: Reference,
}

/// How much of a value a shell would have substituted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    None,
    Part,
    Whole,
}

const NO_LINE: &str = "it is neither NAME=value nor a # comment";
const OPEN_QUOTE: &str = "a quotation mark in it is not closed";
const SPACE: &str = "its value has a space, and no quotation marks around it";
const BACKSLASH: &str = "its value has a backslash, and no single quotation marks around it";

/// All lines except comments and empty ones. `is_ours` recognizes this program's settings, whose values end
/// with their line; values of others may span lines while a quotation mark is open.
pub(super) fn parse(text: &str, is_ours: impl Fn(&str) -> bool) -> Vec<Line> {
    let (mut found, mut rest, mut number) = (Vec::new(), text, 1);
    while !rest.is_empty() {
        let end = rest.find('\n').map_or(rest.len(), |end| end + 1);
        let mut read = 0;
        if let Some((name, begin)) = assignment(&rest[..end]) {
            let span = if is_ours(name) { end } else { rest.len() };
            let value = scan(&rest[begin..span]).map(|(value, length)| {
                read = begin + length;
                value
            });
            found.push(Line { number, name: Some(name.to_owned()), value });
        } else if !is_silent(&rest[..end]) {
            found.push(Line { number, name: None, value: Err(NO_LINE) });
        }
        let taken = rest[read..].find('\n').map_or(rest.len(), |end| read + end + 1);
        number += rest[..taken].matches('\n').count();
        rest = &rest[taken..];
    }
    found
}

/// The name, and the offset at which the value begins.
fn assignment(line: &str) -> Option<(&str, usize)> {
    let (left, _) = line.split_once('=')?;
    let name = left.trim();
    let name = name
        .strip_prefix("export")
        .map_or(name, |rest| if rest.starts_with([' ', '\t']) { rest.trim_start() } else { name });
    let led = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    (led && plain).then_some((name, left.len() + 1))
}

fn is_silent(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

/// The state of reading one value.
#[derive(Default)]
struct Scan {
    text: Zeroizing<String>,
    quote: Option<char>,
    escaped: bool,
    /// Whitespace has ended the value: only a comment may follow.
    ended: bool,
    /// Offsets in `text` at which a shell would look for a variable.
    dollars: Vec<usize>,
}

/// The value at the start of `input`, and how many bytes were read for it.
fn scan(input: &str) -> Result<(Value, usize), &'static str> {
    let lead = input.len() - input.trim_start_matches([' ', '\t']).len();
    let mut scan = Scan::default();
    let mut length = input.len();
    // A comment may also begin right after the space of `NAME= # none`.
    scan.ended = input[lead..].starts_with('#');
    for (at, c) in input[lead..].char_indices() {
        if (c == '\n' && scan.quote.is_none()) || (c == '#' && scan.ended) {
            length = lead + at;
            break;
        }
        scan.take(c)?;
    }
    if scan.quote.is_some() {
        return Err(OPEN_QUOTE);
    }
    if scan.escaped {
        return Err(BACKSLASH);
    }
    Ok((scan.finish(), length))
}

impl Scan {
    fn take(&mut self, c: char) -> Result<(), &'static str> {
        if self.ended {
            return if c.is_whitespace() { Ok(()) } else { Err(SPACE) };
        }
        if self.escaped {
            self.escaped = false;
            self.text.push(match c {
                '\\' | '\'' | '"' | '$' | ' ' => c,
                'n' => '\n',
                _ => return Err(BACKSLASH),
            });
            return Ok(());
        }
        match (self.quote, c) {
            (Some(open), c) if open == c => self.quote = None,
            (None, '\'' | '"') => self.quote = Some(c),
            (Some('\''), c) => self.text.push(c),
            (_, '\\') => self.escaped = true,
            (None, c) if c.is_whitespace() => self.ended = true,
            (_, c) => {
                if c == '$' {
                    self.dollars.push(self.text.len());
                }
                self.text.push(c);
            }
        }
        Ok(())
    }

    fn finish(self) -> Value {
        let led = |at: &usize| {
            self.text[at + 1..].starts_with(|c: char| c.is_ascii_alphabetic() || "_{".contains(c))
        };
        let reference = match self.dollars.iter().find(|at| led(at)) {
            None => Reference::None,
            Some(0) if is_name(&self.text[1..]) => Reference::Whole,
            Some(_) => Reference::Part,
        };
        Value { text: self.text, reference }
    }
}

/// Whether this is a variable's name and nothing else, in braces or not.
fn is_name(text: &str) -> bool {
    let bare = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one value of `NAME=value`, or what is wrong with it.
    fn value(text: &str) -> Result<String, &'static str> {
        let line = format!("NAME={text}\n");
        let mut lines = parse(&line, |_| true);
        assert_eq!(lines.len(), 1, "{text}");
        lines.remove(0).value.map(|value| value.text.to_string())
    }

    #[test]
    fn a_value_is_what_stands_there() {
        for (written, read) in [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("  led and trailed  ", Err(SPACE)),
            ("  led  ", Ok("led")),
            ("a # comment", Ok("a")),
            ("a#b", Ok("a#b")),
            (" # comment", Ok("")),
            ("abc$def", Ok("abc$def")),
            ("pa$$w0rd", Ok("pa$$w0rd")),
            ("${HOME}/x", Ok("${HOME}/x")),
            (r"a\$b", Ok("a$b")),
            ("'a b $c \\ \"'", Ok("a b $c \\ \"")),
            ("\"a b \\\" \\n\" # c", Ok("a b \" \n")),
            ("a=b=", Ok("a=b=")),
            ("c2Vj= oops", Err(SPACE)),
            ("'a' b", Err(SPACE)),
            ("'a", Err(OPEN_QUOTE)),
            ("a\\", Err(BACKSLASH)),
            ("a\\q", Err(BACKSLASH)),
            ("über", Ok("über")),
        ] {
            assert_eq!(value(written), read.map(str::to_owned), "{written}");
        }
    }

    #[test]
    fn names_and_line_numbers_are_those_that_an_editor_shows() {
        let text = "# c\r\n\r\nexport A = 1\r\nB='x\ny' # c\nC=\"x\nplain words\n D=2";
        let lines = parse(text, |name| name == "C");
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.name.as_deref(), line.value.as_ref().err().copied()))
            .collect();
        let (b, c) = ((4, Some("B"), None), (6, Some("C"), Some(OPEN_QUOTE)));
        let d = (8, Some("D"), None);
        assert_eq!(told, [(3, Some("A"), None), b, c, (7, None, Some(NO_LINE)), d]);
        assert_eq!(lines[1].value.as_ref().unwrap().text.as_str(), "x\ny");
    }

    #[test]
    fn what_a_shell_would_have_replaced_is_seen() {
        for (text, reference) in [
            ("$BOSS", Reference::Whole),
            ("${BOSS}", Reference::Whole),
            ("\"$BOSS\"", Reference::Whole),
            ("$HOME/x", Reference::Part),
            ("a${B}", Reference::Part),
            ("'$BOSS'", Reference::None),
            (r"\$BOSS", Reference::None),
            ("5$", Reference::None),
            ("$5", Reference::None),
            ("a$$", Reference::None),
        ] {
            let line = format!("A={text}");
            let lines = parse(&line, |_| true);
            assert_eq!(lines[0].value.as_ref().unwrap().reference, reference, "{text}");
        }
    }
}
