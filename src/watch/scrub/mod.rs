//! Personal data leaves a line.
use std::borrow::Cow;
/// Scrub.
pub fn scrub(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}
