//! A Rust file as the rules see it: its code without comments and strings, the paths that the code names,
//! and the lines of its tests. A lexer for what matters here, not a parser of Rust.

use std::ops::Range;

/// A path as the code writes it. `use` trees are flattened: `use a::{b, c::d}` gives `a::b`, `a::c::d`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// A string literal in the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// One Rust file, split into what the rules look at.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path relative to the repository's root.
    pub(crate) path: String,
    pub(crate) first_line: String,
    pub(crate) lines: usize,
    pub(crate) tokens: Vec<Token>,
    pub(crate) paths: Vec<Named>,
    pub(crate) literals: Vec<Literal>,
    tests: Vec<Range<usize>>,
}

/// An identifier or one punctuation mark (`::` counts as one), with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

impl Source {
    /// Reads the text of the file at `path`.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let (tokens, literals) = lex(text);
        Self {
            path: path.to_owned(),
            first_line: text.lines().find(|line| !line.is_empty()).unwrap_or_default().to_owned(),
            lines: text.lines().count(),
            paths: named_paths(&tokens),
            tests: test_modules(&tokens),
            tokens,
            literals,
        }
    }

    /// Whether this line belongs to tests: to an inline test module, or to a file of only tests.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        let whole = self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.starts_with("src/") && self.path.ends_with("/fakes.rs")
            || ["/tests/", "/search/"].iter().any(|folder| self.path.contains(folder));
        whole || self.tests.iter().any(|range| range.contains(&line))
    }

    /// How many lines don't belong to tests.
    pub(crate) fn production_lines(&self) -> usize {
        (1..=self.lines).filter(|line| !self.is_test(*line)).count()
    }
}

/// Splits the text into tokens and string literals; drops comments.
fn lex(text: &str) -> (Vec<Token>, Vec<Literal>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut literals) = (Vec::new(), Vec::new());
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let start = at;
        let started = line;
        match scan(&chars, at) {
            Scanned::Skip(end) => at = end,
            Scanned::Text { from, to, end } => {
                literals.push(Literal { text: chars[from..to].iter().collect(), line: started });
                at = end;
            }
            Scanned::Token(end) => {
                tokens.push(Token { text: chars[start..end].iter().collect(), line: started });
                at = end;
            }
        }
        line += chars[start..at].iter().filter(|c| **c == '\n').count();
    }
    (tokens, literals)
}

enum Scanned {
    Skip(usize),
    Text { from: usize, to: usize, end: usize },
    Token(usize),
}

/// What begins at `at`, and where it ends.
fn scan(chars: &[char], at: usize) -> Scanned {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        c if c.is_whitespace() => Scanned::Skip(at + 1),
        '/' if next == Some('/') => Scanned::Skip(find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Scanned::Skip(block_comment(chars, at)),
        '"' => string(chars, at + 1),
        '\'' => Scanned::Skip(char_or_lifetime(chars, at)),
        'r' | 'b' | 'c' => prefixed(chars, at),
        ':' if next == Some(':') => Scanned::Token(at + 2),
        c if is_word(c) => Scanned::Token(find(chars, at, |c| !is_word(c))),
        _ => Scanned::Token(at + 1),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|i| stop(chars[*i])).unwrap_or(chars.len())
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut at, mut depth) = (at + 2, 1);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// A string; `from` is behind its opening quote.
fn string(chars: &[char], from: usize) -> Scanned {
    let mut at = from;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    let to = at.min(chars.len());
    Scanned::Text { from, to, end: (to + 1).min(chars.len()) }
}

/// Where a char or a lifetime ends: `'x'` and `'\n'` behind the closing quote, `'a` before its letter.
fn char_or_lifetime(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => (find(chars, at + 3, |c| c == '\'') + 1).min(chars.len()),
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `b'…'`, `c"…"`; otherwise a word that begins with such a letter.
fn prefixed(chars: &[char], at: usize) -> Scanned {
    let word_end = find(chars, at, |c| !is_word(c));
    let prefix: String = chars[at..word_end].iter().collect();
    let is_raw = matches!(prefix.as_str(), "r" | "br" | "cr");
    let quote = find(chars, word_end, |c| c != '#');
    let opens = chars.get(quote) == Some(&'"');
    match chars.get(word_end) {
        Some('"') if matches!(prefix.as_str(), "b" | "c") => string(chars, word_end + 1),
        Some('\'') if prefix == "b" => Scanned::Skip(char_or_lifetime(chars, word_end)),
        _ if is_raw && opens => raw_string(chars, quote + 1, quote - word_end),
        _ => Scanned::Token(word_end),
    }
}

fn raw_string(chars: &[char], from: usize, hashes: usize) -> Scanned {
    let closes =
        |at: usize| chars[at] == '"' && (1..=hashes).all(|i| chars.get(at + i) == Some(&'#'));
    let to = (from..chars.len()).find(|at| closes(*at)).unwrap_or(chars.len());
    Scanned::Text { from, to, end: (to + 1 + hashes).min(chars.len()) }
}

/// Every path in the code, with `use` trees flattened.
fn named_paths(tokens: &[Token]) -> Vec<Named> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = if tokens[at].text == "use" && !follows(tokens, at, "<") {
            use_tree(tokens, at + 1, &[], &mut found)
        } else if is_path_start(tokens, at) {
            expression_path(tokens, at, &mut found)
        } else {
            at + 1
        };
    }
    found
}

fn follows(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at + 1).is_some_and(|token| token.text == text)
}

fn is_identifier(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Whether an identifier begins a path: it is not a field or method, nor a macro's `$` variable.
fn is_path_start(tokens: &[Token], at: usize) -> bool {
    let before = at.checked_sub(1).map(|i| tokens[i].text.as_str());
    is_identifier(&tokens[at]) && !matches!(before, Some("." | "$"))
}

fn expression_path(tokens: &[Token], at: usize, found: &mut Vec<Named>) -> usize {
    let mut segments = vec![tokens[at].text.clone()];
    let mut end = at + 1;
    while tokens.get(end).is_some_and(|t| t.text == "::")
        && tokens.get(end + 1).is_some_and(is_identifier)
    {
        segments.push(tokens[end + 1].text.clone());
        end += 2;
    }
    found.push(Named { segments, line: tokens[at].line });
    end
}

/// Reads one branch of a `use` tree from `at`; returns where it ends.
fn use_tree(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let mut segments = prefix.to_vec();
    let mut line = tokens.get(at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => at += 1,
            "{" => return use_group(tokens, at + 1, &segments, found),
            "as" => at += 2,
            "," | "}" | ";" => break,
            text => {
                segments.push(text.to_owned());
                line = token.line;
                at += 1;
            }
        }
    }
    found.push(Named { segments, line });
    at
}

fn use_group(tokens: &[Token], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            "," => at += 1,
            _ => at = use_tree(tokens, at, prefix, found),
        }
    }
    at
}

/// The lines of each inline `#[cfg(test)] mod … { … }`.
fn test_modules(tokens: &[Token]) -> Vec<Range<usize>> {
    const HEAD: &[&str] = &["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let is_head =
        |window: &[Token]| window.iter().zip(HEAD).all(|(token, text)| token.text == *text);
    let mut found = Vec::new();
    for (start, window) in tokens.windows(HEAD.len()).enumerate() {
        let body = start + HEAD.len() + 1;
        if is_head(window) && tokens.get(body).is_some_and(|token| token.text == "{") {
            found.push(tokens[start].line..closing_line(tokens, body) + 1);
        }
    }
    found
}

/// The line of the brace that closes the one at `open`.
fn closing_line(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for token in &tokens[open..] {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return token.line,
            "}" => depth -= 1,
            _ => {}
        }
    }
    usize::MAX - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let source = Source::parse("src/x.rs", text);
        source.paths.iter().map(|named| named.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_flattened() {
        let text = "use crate::{bus, chain::{self, Evm as E}, node::*};\nuse std::env;";
        let wanted =
            ["crate::bus", "crate::chain::self", "crate::chain::Evm", "crate::node::*", "std::env"];
        assert_eq!(paths(text), wanted);
    }

    #[test]
    fn paths_in_expressions_and_types_are_seen() {
        let found =
            paths("fn f(x: &crate::bus::Bus) { <crate::job::Id as Display>::fmt(x.chain) }");
        assert!(found.contains(&"crate::bus::Bus".to_owned()), "{found:?}");
        assert!(found.contains(&"crate::job::Id".to_owned()), "{found:?}");
        assert!(!found.contains(&"chain".to_owned()), "a field is no path: {found:?}");
    }

    #[test]
    fn comments_and_strings_name_nothing() {
        let text = r##"
            // crate::a
            /* crate::b /* crate::c */ crate::d */
            const X: &str = "crate::e \" crate::f";
            const Y: &str = r#"crate::g " crate::h"#;
            const Z: (&[u8], char, char) = (b"crate::i", '"', '\'');
            fn f<'a>(x: &'a str) {}
        "##;
        assert!(!paths(text).iter().any(|path| path.starts_with("crate")), "{:?}", paths(text));
    }

    #[test]
    fn literals_are_kept_with_their_line() {
        let source = Source::parse("src/x.rs", "\nfn f() { var(\"NATS_URL\") }");
        assert_eq!(source.literals, [Literal { text: "NATS_URL".to_owned(), line: 2 }]);
    }

    #[test]
    fn an_inline_test_module_is_no_production() {
        let text = "//! x\nfn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { {} }\n}\nfn h() {}\n";
        let source = Source::parse("src/x.rs", text);
        assert_eq!(source.production_lines(), 3);
        assert!(source.is_test(5) && !source.is_test(7));
    }

    #[test]
    fn a_file_of_tests_is_no_production() {
        assert_eq!(Source::parse("src/x/tests.rs", "fn f() {}\n").production_lines(), 0);
        assert_eq!(Source::parse("tests/it/x.rs", "fn f() {}\n").production_lines(), 0);
    }
}
