//! A large answer of a stranger, read as it comes: protobuf and msgpack of which only the small parts are kept.
//!
//! Must hold: no more than one buffer and one small part are in memory, and nothing is read beyond the end of the
//! message around it.

use futures_util::io::BufReader;
use futures_util::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

use super::fault::Fault;

/// What is read ahead, in bytes.
const BUFFER: usize = 8 * 1024;

/// The longest part that is kept, in bytes.
pub(super) const PART_MAX: u64 = 512;

const ENDS: Fault = Fault::Garbled("a part of it ends too early");

/// The bytes of one answer; see the module. Places in it are counted from its begin.
#[derive(Debug)]
pub(super) struct Source<S> {
    from: BufReader<S>,
    at: u64,
}

/// What a field of protobuf holds: a number, bytes up to this place, or a number of a kind that nothing here reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Number(u64),
    Until(u64),
    Fixed,
}

impl<S: AsyncRead + Unpin> Source<S> {
    pub(super) fn new(from: S) -> Self {
        Self { from: BufReader::with_capacity(BUFFER, from), at: 0 }
    }

    /// The next field's number and what it holds; `None` at the end of the message, which is at `end`. The bytes of
    /// a field must be read or skipped before the next one.
    pub(super) async fn field(&mut self, end: u64) -> Result<Option<(u64, Field)>, Fault> {
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.uvarint(end).await?;
        let field = match tag & 7 {
            0 => Field::Number(self.uvarint(end).await?),
            1 => {
                self.skip_next(8, end).await?;
                Field::Fixed
            }
            2 => {
                let len = self.uvarint(end).await?;
                Field::Until(self.part(len, end)?)
            }
            5 => {
                self.skip_next(4, end).await?;
                Field::Fixed
            }
            _ => return Err(Fault::Garbled("it is not protobuf")),
        };
        Ok(Some((tag >> 3, field)))
    }

    /// Where a part of this length ends, which is not behind the `end` of what is around it.
    fn part(&self, len: u64, end: u64) -> Result<u64, Fault> {
        self.at.checked_add(len).filter(|own| *own <= end).ok_or(ENDS)
    }

    /// The next byte.
    pub(super) async fn byte(&mut self, end: u64) -> Result<u8, Fault> {
        self.part(1, end)?;
        let mut byte = [0];
        self.from.read_exact(&mut byte).await?;
        self.at += 1;
        Ok(byte[0])
    }

    /// A number in so many bytes, eight at most, the highest first.
    pub(super) async fn number(&mut self, bytes: u8, end: u64) -> Result<u64, Fault> {
        let mut number = 0;
        for _ in 0..bytes {
            number = number << 8 | u64::from(self.byte(end).await?);
        }
        Ok(number)
    }

    async fn uvarint(&mut self, end: u64) -> Result<u64, Fault> {
        let mut number = 0;
        for at in 0..10 {
            let byte = self.byte(end).await?;
            number |= u64::from(byte & 127) << (7 * at);
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(Fault::Garbled("it is not protobuf"))
    }

    /// The bytes up to `until`; `None`, and they are skipped, if they are more than [`PART_MAX`].
    pub(super) async fn keep(&mut self, until: u64) -> Result<Option<Vec<u8>>, Fault> {
        let len = until.saturating_sub(self.at);
        if len > PART_MAX {
            self.skip(until).await?;
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        self.from.read_exact(&mut bytes).await?;
        self.at = until;
        Ok(Some(bytes))
    }

    /// The next `len` bytes, as [`Source::keep`].
    pub(super) async fn keep_next(&mut self, len: u64, end: u64) -> Result<Option<Vec<u8>>, Fault> {
        let until = self.part(len, end)?;
        self.keep(until).await
    }

    /// Reads up to `until` and keeps nothing.
    pub(super) async fn skip(&mut self, until: u64) -> Result<(), Fault> {
        while self.at < until {
            let ready = self.from.fill_buf().await?.len();
            if ready == 0 {
                return Err(Fault::Closed);
            }
            let left = usize::try_from(until - self.at).unwrap_or(usize::MAX);
            let taken = ready.min(left);
            self.from.consume_unpin(taken);
            self.at += taken as u64;
        }
        Ok(())
    }

    /// Skips the next `len` bytes.
    pub(super) async fn skip_next(&mut self, len: u64, end: u64) -> Result<(), Fault> {
        let until = self.part(len, end)?;
        self.skip(until).await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    type Read = (u64, Field, Option<Vec<u8>>);

    /// All fields of a message, each with its bytes.
    fn fields(message: &[u8]) -> Result<Vec<Read>, Fault> {
        let (mut source, end) = (Source::new(message), message.len() as u64);
        let all = async {
            let mut all = Vec::new();
            while let Some((number, field)) = source.field(end).await? {
                let bytes = match field {
                    Field::Until(until) => source.keep(until).await?,
                    Field::Number(_) | Field::Fixed => None,
                };
                all.push((number, field, bytes));
            }
            Ok(all)
        };
        all.now_or_never().expect("its bytes are all there")
    }

    #[test]
    fn fields_are_read_in_turn_and_a_large_one_is_passed_over() {
        let mut message = b"\x0a\x02ab\x18\x96\x01\x25\x01\x02\x03\x04".to_vec();
        message.extend(b"\x12\x80\x28");
        message.extend([7; 5120]);
        message.extend(b"\x0a\x00");
        let wanted = [
            (1, Field::Until(4), Some(b"ab".to_vec())),
            (3, Field::Number(150), None),
            (4, Field::Fixed, None),
            (2, Field::Until(5135), None),
            (1, Field::Until(5137), Some(Vec::new())),
        ];
        assert_eq!(fields(&message).unwrap(), wanted);
    }

    #[test]
    fn nothing_is_read_beyond_the_end_of_a_message() {
        let mut source = Source::new(&b"\x0a\x05abcde"[..]);
        assert_eq!(source.field(6).now_or_never(), Some(Err(ENDS)));
        for rubbish in [&[0xff; 12][..], &[0x0b], &[0x09, 1, 2], &[0x0d, 1], &[0x08]] {
            assert!(matches!(fields(rubbish), Err(Fault::Garbled(_))), "{rubbish:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes: Vec<u8>) {
            if let Ok(fields) = fields(&bytes) {
                proptest::prop_assert!(fields.len() <= bytes.len());
            }
        }
    }
}
