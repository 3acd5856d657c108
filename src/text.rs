//! Decodes text from outside before anything reads it.
//!
//! Must hold: this happens only here, so that every file and message is read in the same way.

/// The byte order mark with which editors on Windows mark a file as UTF-8.
const MARK: &str = "\u{feff}";

/// The bytes without a byte order mark at their start, which is not part of the text.
pub fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes)
}

/// The bytes as text, without a byte order mark at the start. The error is a clause about the file or
/// message, such as "it is not UTF-8 text".
pub fn utf8(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(unmarked(bytes))
        .map_err(|_| if is_utf16(bytes) { UTF16 } else { "it is not UTF-8 text" })
}

/// The error clause for UTF-16 text.
pub const UTF16: &str = "it is UTF-16 text: save it as UTF-8";

/// Whether the bytes start as UTF-16, which some shells and editors on Windows write and this program
/// doesn't read.
pub fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

/// Implements serde for a type through its text: `Display` writes it, `FromStr` checks and reads it.
macro_rules! serde_as_text {
    ($name:ident) => {
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_text;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_at_the_head_is_left_out_and_nothing_else() {
        for (bytes, left) in [
            ("\u{feff}a", "a"),
            ("a\u{feff}", "a\u{feff}"),
            ("\u{feff}\u{feff}a", "\u{feff}a"),
            ("", ""),
        ] {
            assert_eq!(unmarked(bytes.as_bytes()), left.as_bytes());
            assert_eq!(utf8(bytes.as_bytes()), Ok(left));
        }
    }

    #[test]
    fn text_of_another_encoding_is_told_by_its_name() {
        for (bytes, says) in
            [(&b"\xff\xfea\0"[..], "UTF-16"), (b"\xfe\xff\0a", "UTF-16"), (b"caf\xe9", "not UTF-8")]
        {
            assert!(utf8(bytes).is_err_and(|what| what.contains(says)), "{bytes:?}");
        }
    }
}
