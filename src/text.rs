//! What is done to text from outside before anything reads it.
//!
//! What must hold: it is done here only, so that every file and message is read alike.

/// How editors on Windows mark a file as UTF-8.
const MARK: &str = "\u{feff}";

/// The bytes without the byte order mark at their head. It is no part of what anybody wrote.
pub fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK.as_bytes()).unwrap_or(bytes)
}

/// What the bytes say, without the mark at their head; or why they say nothing, as a clause whose
/// subject is the file or message.
pub fn utf8(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(unmarked(bytes))
        .map_err(|_| if is_utf16(bytes) { UTF16 } else { "it is not UTF-8 text" })
}

/// What is wrong with UTF-16.
pub const UTF16: &str = "it is UTF-16 text: save it as UTF-8";

/// Whether the bytes are UTF-16, as some shells and editors on Windows write: nobody here reads it.
pub fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff])
}

/// Implements serde for a type by its text: `Display` writes it, `FromStr` checks and reads it.
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
