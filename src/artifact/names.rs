//! Names of files, as the upload's form carries them.
//!
//! The form's standard (WHATWG, "multipart form data") writes a quote and line breaks as `%22`,
//! `%0D` and `%0A`, and nothing else. A backslash is written likewise, as `%5C`: half of all readers
//! take one for an escape. What must hold: a name that passes the seal can be written, and what the
//! store reads back is the name that was written; whether a foreign service reads it so, the CID
//! that it answers decides.

use std::borrow::Cow;

/// What is written otherwise, and how.
const ESCAPED: [(char, &str); 4] = [('"', "%22"), ('\r', "%0D"), ('\n', "%0A"), ('\\', "%5C")];

/// Why the upload can't carry this name; `Ok` where it can.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    if name.contains(|c: char| c.is_control() && !matches!(c, '\r' | '\n' | '\t')) {
        return Err("a name with a control character, which no upload can carry");
    }
    if ESCAPED.iter().any(|(_, escape)| name.contains(escape)) {
        return Err("a name with %22, %0D, %0A or %5C, which an upload would turn into another");
    }
    Ok(())
}

/// The name as it stands in the form.
pub(super) fn written(name: &str) -> Cow<'_, str> {
    if !name.contains(ESCAPED.map(|(plain, _)| plain)) {
        return Cow::Borrowed(name);
    }
    let write = |text: String, (plain, escape): (char, &str)| text.replace(plain, escape);
    Cow::Owned(ESCAPED.into_iter().fold(name.to_owned(), write))
}

/// The name that stands in a form.
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

/// A path as a person may read it, on one line.
pub(super) fn shown(path: &str) -> String {
    path.escape_debug().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
