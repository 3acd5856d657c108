//! File names as the upload's form encodes them.
//!
//! The form's standard (WHATWG, "multipart form data") encodes a quote and line breaks as `%22`,
//! `%0D` and `%0A`, and nothing else. A backslash is encoded likewise, as `%5C`, because half of
//! all readers take it for an escape. Invariant: a name that passes [`check`] can be encoded, and
//! the store reads back the same name; a place that passes [`check_place`] can be fetched again. Another service's answer, a CID, shows whether it does.

use std::borrow::Cow;

use super::{DEPTH_MAX, PATH_BYTES_MAX};

/// Characters that are encoded, and their escapes.
const ESCAPED: [(char, &str); 4] = [('"', "%22"), ('\r', "%0D"), ('\n', "%0A"), ('\\', "%5C")];

/// Checks a name; `Err` says why the upload can't carry it.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    if name.contains(|c: char| c.is_control() && !matches!(c, '\r' | '\n' | '\t')) {
        return Err("a name with a control character, which no upload can carry");
    }
    if ESCAPED.iter().any(|(_, escape)| name.contains(escape)) {
        return Err("a name with %22, %0D, %0A or %5C, which an upload would turn into another");
    }
    Ok(())
}

/// Checks the place of an entry that lies this many names below the root, with a path of so many bytes:
/// the same limits for what is sealed, stored and fetched. `Err` says what is exceeded.
pub(super) const fn check_place(depth: usize, path_bytes: usize) -> Result<(), &'static str> {
    if depth > DEPTH_MAX {
        return Err("more than 64 folders in one another");
    }
    if path_bytes > PATH_BYTES_MAX {
        return Err("a path of more than 2048 bytes");
    }
    Ok(())
}

/// [`check_place`] for a path as a list of names.
pub(super) fn check_path<N: AsRef<str>>(names: &[N]) -> Result<(), &'static str> {
    let bytes: usize = names.iter().map(|name| name.as_ref().len() + 1).sum();
    check_place(names.len(), bytes.saturating_sub(1))
}

/// Encodes a name for the form.
pub(super) fn written(name: &str) -> Cow<'_, str> {
    if !name.contains(ESCAPED.map(|(plain, _)| plain)) {
        return Cow::Borrowed(name);
    }
    let write = |text: String, (plain, escape): (char, &str)| text.replace(plain, escape);
    Cow::Owned(ESCAPED.into_iter().fold(name.to_owned(), write))
}

/// Decodes a name from a form.
pub(super) fn read(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut read = name.to_owned();
    for (plain, escape) in ESCAPED {
        read = read.replace(escape, plain.encode_utf8(&mut [0; 4]));
    }
    Cow::Owned(read)
}

/// A path for messages: on one line, escaped, at most 200 characters.
pub(super) fn shown(path: &str) -> String {
    path.escape_debug().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_too_deep_or_too_long() {
        assert_eq!(check_path(&["a"; 64]), Ok(()));
        check_path(&["a"; 65]).unwrap_err();
        let name = "x".repeat(204);
        let long = format!("{name}xxx");
        assert_eq!(check_path(&[&[&*name; 9][..], &[&long[..203]][..]].concat()), Ok(()));
        check_path(&[&[&*name; 9][..], &[&*long][..]].concat()).unwrap_err();
        assert!(
            check_place(1, PATH_BYTES_MAX).is_ok() && check_place(1, PATH_BYTES_MAX + 1).is_err()
        );
    }

    #[test]
    fn what_passes_is_read_back_as_it_was() {
        for name in
            ["plain", "a\"b", "back\\slash\\", "line\nbreak\r\n", "tab\tbed", "100%", "ü %2", "%%"]
        {
            check(name).unwrap();
            let form = written(name);
            assert!(!form.contains(['"', '\\', '\r', '\n']), "{form}");
            assert_eq!(read(&form), name);
        }
        for name in ["bell\u{7}", "escape\u{1b}[2J", "del\u{7f}", "c1\u{85}", "a%22b", "%0A", "%5C"]
        {
            check(name).unwrap_err();
        }
        assert_eq!(shown("a\nb\u{1b}"), "a\\nb\\u{1b}");
    }
}
