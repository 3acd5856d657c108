//! The names of users in the paths of their homes.

use std::ops::Range;

use super::bytes::{at, is_word, run};

/// The longest name of a user, in bytes.
const USER_MAX: usize = 128;

/// Most spaces and apostrophes in the name of a user.
const JOINTS_MAX: usize = 3;

/// Folders of homes.
const HOMES: [&[u8]; 2] = [b"home", b"users"];

/// The name of the user behind `/home/` or `\Users\`, which begins here.
pub(super) fn user(bytes: &[u8], here: usize) -> Option<Range<usize>> {
    let slash = bytes.get(here).copied()?;
    // Backslashes and slashes may be escaped by another backslash.
    let is_slash = |byte: u8| byte == b'/' || byte == b'\\';
    let from = run(bytes, here, 4, is_slash);
    let end = run(bytes, from, 8, |byte| byte.is_ascii_alphabetic());
    let folder = bytes.get(from..end)?;
    if !HOMES.iter().any(|home| folder.eq_ignore_ascii_case(home)) {
        return None;
    }
    let start = run(bytes, end, 4, is_slash);
    if start == end {
        return None;
    }
    // A name on Windows may hold spaces, if the path goes on behind it.
    let is_named = |byte: u8| is_word(byte) || b" .-".contains(&byte);
    let spaced = run(bytes, start, USER_MAX, is_named);
    if slash == b'\\' && bytes.get(spaced) == Some(&b'\\') && spaced > start {
        return Some(start..spaced);
    }
    let joined = joined(bytes, start);
    if joined > start && is_slash(at(bytes, joined)) {
        return Some(start..joined);
    }
    let is_user =
        |byte: u8| !byte.is_ascii_whitespace() && !b"/\\\"'`:;,()[]{}<>|*?&=".contains(&byte);
    let end = run(bytes, start, USER_MAX, is_user);
    (end > start).then_some(start..end)
}

/// Where a name ends in which single spaces and apostrophes stand between letters, a few of them: a sentence has more.
fn joined(bytes: &[u8], start: usize) -> usize {
    let mut joints = 0;
    let end = bytes.iter().enumerate().skip(start).take(USER_MAX).find(|(here, byte)| {
        if is_word(**byte) || b".-".contains(*byte) {
            return false;
        }
        joints += 1;
        let is_between =
            *here > start && is_word(at(bytes, here - 1)) && is_word(at(bytes, here + 1));
        !(b" '".contains(*byte) && is_between && joints <= JOINTS_MAX)
    });
    end.map_or(start, |(here, _)| here)
}
