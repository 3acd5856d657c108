//! Where a log is begun of which nothing was read before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::Start;

/// How many last bytes are looked through for lines.
const BACK_BYTES_MAX: u64 = 1 << 20;

/// The offset of the first line to read.
pub(super) fn offset(file: &File, size: u64, start: Start) -> io::Result<u64> {
    let count = match start {
        Start::Beginning => return Ok(0),
        Start::End => 0,
        Start::LastLines(count) => count,
    };
    let from = size.saturating_sub(BACK_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(size - from).unwrap_or(0)];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        let more = file.read_at(rest, from + length as u64)?;
        if more == 0 {
            break;
        }
        length += more;
    }
    bytes.truncate(length);
    // A line that has not ended yet is read from its beginning.
    let found = memchr::memrchr_iter(b'\n', &bytes).nth(count);
    if from == 0 && found.is_none() {
        return Ok(0);
    }
    // Of so many lines the first ones begin before what was looked through.
    let first = || memchr::memchr(b'\n', &bytes);
    Ok(found.or_else(first).map_or(size, |at| from + at as u64 + 1))
}
