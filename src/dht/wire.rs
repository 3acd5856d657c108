//! Protobuf as strangers write it: the fields of a message, where they lie in its bytes.
//!
//! Must hold: reading allocates nothing, so that a small message can't become a large one in memory, and no
//! bytes make it panic.

use super::fault::Fault;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes, which nothing here reads.
    Fixed,
}

impl<'a> Value<'a> {
    /// The bytes, or nothing if the field is of another kind.
    pub(super) const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The fields of one message, in their order: their number and value. Ends after the first that can't be read.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let tag = uvarint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Int(uvarint(&mut self.0)?),
            1 => {
                self.0 = self.0.get(8..)?;
                Value::Fixed
            }
            2 => {
                let len = usize::try_from(uvarint(&mut self.0)?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => {
                self.0 = self.0.get(4..)?;
                Value::Fixed
            }
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.field().ok_or_else(|| {
            self.0 = &[];
            Fault::Garbled("it is not protobuf")
        }))
    }
}

/// The number at the front of `bytes`, which moves behind it.
fn uvarint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 127).checked_shl(7 * at)?;
        if byte < 128 {
            return Some(number);
        }
    }
    None
}

/// Appends a number.
pub(super) fn put_uvarint(to: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 127) as u8;
        number >>= 7;
        if number == 0 {
            to.push(low);
            return;
        }
        to.push(low | 128);
    }
}

/// Appends a field of bytes. `number` is below 16.
pub(super) fn put_bytes(to: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    to.push((number << 3) | 2);
    put_uvarint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Appends a field that is a number. `number` is below 16.
pub(super) fn put_int(to: &mut Vec<u8>, number: u8, value: u64) {
    to.push(number << 3);
    put_uvarint(to, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, &[7; 300]);
        put_int(&mut message, 15, u64::MAX);
        message.extend([3 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        let fields: Result<Vec<_>, _> = Fields::of(&message).collect();
        let wanted = [(1, Value::Bytes(&[7; 300])), (15, Value::Int(u64::MAX)), (3, Value::Fixed)];
        assert_eq!(fields.unwrap(), wanted);
    }

    #[test]
    fn rubbish_ends_with_one_fault() {
        for rubbish in [&[0x0a, 5, 1][..], &[0xff; 12], &[0x0b], &[0x09, 1, 2], &[0x0d, 1], &[0x08]]
        {
            let read: Vec<_> = Fields::of(rubbish).collect();
            assert_eq!(read, [Err(Fault::Garbled("it is not protobuf"))], "{rubbish:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_go_on_for_ever(bytes: Vec<u8>) {
            proptest::prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }
    }
}
