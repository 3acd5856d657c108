//! Takes personal data out of a line: mail addresses, IP addresses, wallets, keys and other secrets, serial
//! numbers, names of users in paths. Peer ids and numbers stay: they say what a program does.
//!
//! Must hold: what is personal becomes [`REDACTED`] wherever it stands, in lists, JSON, URLs or next to any
//! punctuation; the time is linear in the line's length; [`scrub`] needs nothing but the line, and [`After`] knows
//! which line is the value of a name that stood on the one before. In doubt it goes.

mod address;
mod after;
mod bytes;
mod coin;
mod id;
mod key;
mod path;
mod phrase;

use std::borrow::Cow;
use std::ops::Range;

pub use after::After;
use bytes::{at, is_hex, is_word};

/// What stands where personal data stood.
pub const REDACTED: &str = "[REDACTED]";

/// The shortest word that may hold a secret of its own.
const LONG: usize = 16;

/// The text without personal data.
pub fn scrub(text: &str) -> Cow<'_, str> {
    let mut spans = spans(text.as_bytes());
    if spans.is_empty() {
        return Cow::Borrowed(text);
    }
    spans.sort_unstable_by_key(|span| span.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    let mut spans = spans.into_iter().peekable();
    while let Some(span) = spans.next() {
        let mut end = span.end;
        while let Some(next) = spans.next_if(|next| next.start <= end) {
            end = end.max(next.end);
        }
        let (start, end) = (text.floor_char_boundary(span.start), text.ceil_char_boundary(end));
        out.push_str(text.get(done..start).unwrap_or_default());
        out.push_str(REDACTED);
        done = end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(out)
}

/// Where personal data stands. The spans may overlap.
fn spans(bytes: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut here, mut blob_end) = (Vec::new(), 0, 0);
    let mut row = phrase::Row::default();
    found.extend(id::encoded_line(bytes));
    id::web_tokens(bytes, &mut found);
    while let Some(&byte) = bytes.get(here) {
        if is_word(byte) {
            let rest = bytes.get(here..).unwrap_or_default();
            let length = rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len());
            let word = here..here + length;
            if length >= LONG {
                id::long_word(bytes, &word, &mut found);
                coin::addresses(bytes, &word, &mut found);
                if word.start >= blob_end {
                    blob_end = id::blob(bytes, word.start, &mut found);
                }
            }
            here = match row.next(bytes, &word) {
                Some(phrase) => take(Some(phrase), here, &mut found),
                None => after_word(bytes, word, &mut found),
            };
        } else {
            here = match byte {
                b'@' => take(address::mail(bytes, here, 1), here, &mut found),
                b'%' if at(bytes, here + 1) == b'4' && at(bytes, here + 2) == b'0' => {
                    take(address::mail(bytes, here, 3), here, &mut found)
                }
                b':' => colon(bytes, here, &mut found),
                b'=' => take(key::value_after(bytes, here), here, &mut found),
                b'/' | b'\\' => {
                    let user = path::user(bytes, here).or_else(|| address::dns(bytes, here));
                    take(user, here, &mut found)
                }
                b'-' if at(bytes, here + 1) == b'-' => {
                    take(key::option(bytes, here), here, &mut found)
                }
                b'-' if at(bytes, here + 1) == b'u' => {
                    take(key::user(bytes, here, here + 2), here, &mut found)
                }
                _ => here + 1,
            };
        }
    }
    found
}

/// Notes a span, and says where to go on: behind it, or behind this byte.
fn take(span: Option<Range<usize>>, here: usize, found: &mut Vec<Range<usize>>) -> usize {
    let next = span.as_ref().map_or(here + 1, |span| span.end.max(here + 1));
    found.extend(span);
    next
}

/// What a word and the byte after it begin.
fn after_word(bytes: &[u8], word: Range<usize>, found: &mut Vec<Range<usize>>) -> usize {
    let last = at(bytes, word.end - 1);
    let span = match at(bytes, word.end) {
        b'.' if last.is_ascii_digit() => address::v4(bytes, &word, b'.'),
        b'-' if is_hex(last) => id::dashed(bytes, &word).or_else(|| id::vendor(bytes, &word)),
        b'-' => id::vendor(bytes, &word).or_else(|| address::cloud_host(bytes, &word)),
        b' ' | b'\t' => key::after_word(bytes, &word),
        _ => None,
    };
    let end = word.end;
    span.map_or(end, |span| take(Some(span), end - 1, found))
}

/// What a colon may be part of: an address, the end of a URL's scheme, the end of a key.
fn colon(bytes: &[u8], here: usize, found: &mut Vec<Range<usize>>) -> usize {
    if at(bytes, here + 1) == b'/' && at(bytes, here + 2) == b'/' {
        id::url_keys(bytes, here + 3, found);
        let Some(user) = address::user_of_url(bytes, here + 3) else { return here + 1 };
        // The `@` is no part of a mail address.
        let next = user.end + 1;
        found.push(user);
        return next;
    }
    let span = address::v6(bytes, here)
        .or_else(|| id::bot(bytes, here))
        .or_else(|| key::value_after(bytes, here));
    take(span, here, found)
}

#[cfg(test)]
mod tests;
