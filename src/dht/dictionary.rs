//! The dictionary under a key: who published, and until when it holds.
//!
//! Must hold: the values are never decoded. They are pickle of strangers, and decoding pickle is running it.

use rmp::Marker;
use rmp::decode::{self, RmpRead as _};

use super::fault::Fault;

/// The extension type of msgpack under which Hivemind writes a dictionary.
const DICTIONARY: i8 = 0x50;

const GARBLED: Fault = Fault::Garbled("it is not a dictionary as Hivemind writes it");

/// Tells `each` of all entries whose subkey is text: the subkey, and the expiration in Unix seconds, which may be
/// any number. Entries of other kinds are left out.
pub(super) fn read(mut bytes: &[u8], mut each: impl FnMut(&str, f64)) -> Result<(), Fault> {
    let from = &mut bytes;
    let ext = decode::read_ext_meta(from).map_err(|_| GARBLED)?;
    let parts = decode::read_array_len(from).map_err(|_| GARBLED)?;
    if (ext.typeid, parts) != (DICTIONARY, 3) {
        return Err(GARBLED);
    }
    // How many entries it may have, and the latest expiration of all.
    skip(from)?;
    skip(from)?;
    let entries = decode::read_array_len(from).map_err(|_| GARBLED)?;
    for _ in 0..entries {
        if !matches!(decode::read_array_len(from), Ok(3)) {
            return Err(GARBLED);
        }
        let subkey = text(from)?;
        skip(from)?;
        let expires = number(from)?;
        if let Some(subkey) = subkey {
            each(subkey, expires);
        }
    }
    Ok(())
}

/// The text that comes next; `None` if it's something else, which is skipped.
fn text<'a>(from: &mut &'a [u8]) -> Result<Option<&'a str>, Fault> {
    match decode::read_str_from_slice(*from) {
        Ok((text, rest)) => {
            *from = rest;
            Ok(Some(text))
        }
        Err(_) => skip(from).map(|()| None),
    }
}

fn number(from: &mut &[u8]) -> Result<f64, Fault> {
    let before = *from;
    if let Ok(number) = decode::read_f64(from) {
        return Ok(number);
    }
    *from = before;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    decode::read_int::<i64, _>(from).map(|number| number as f64).map_err(|_| GARBLED)
}

/// Skips one value that has no values in it, without looking at it.
fn skip(from: &mut &[u8]) -> Result<(), Fault> {
    let marker = decode::read_marker(from).map_err(|_| GARBLED)?;
    let len = match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
        Marker::U8 | Marker::I8 => 1,
        Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
        Marker::FixExt2 => 3,
        Marker::U32 | Marker::I32 | Marker::F32 => 4,
        Marker::FixExt4 => 5,
        Marker::U64 | Marker::I64 | Marker::F64 => 8,
        Marker::FixExt8 => 9,
        Marker::FixExt16 => 17,
        Marker::FixStr(len) => usize::from(len),
        Marker::Str8 | Marker::Bin8 => usize::from(len8(from)?),
        Marker::Str16 | Marker::Bin16 => usize::from(len16(from)?),
        Marker::Str32 | Marker::Bin32 => len32(from)?,
        // One byte more for the extension's type.
        Marker::Ext8 => usize::from(len8(from)?) + 1,
        Marker::Ext16 => usize::from(len16(from)?) + 1,
        Marker::Ext32 => len32(from)?.saturating_add(1),
        // Hivemind writes none of these here.
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => return Err(GARBLED),
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 | Marker::Reserved => {
            return Err(GARBLED);
        }
    };
    *from = from.get(len..).ok_or(GARBLED)?;
    Ok(())
}

fn len8(from: &mut &[u8]) -> Result<u8, Fault> {
    from.read_data_u8().map_err(|_| GARBLED)
}

fn len16(from: &mut &[u8]) -> Result<u16, Fault> {
    from.read_data_u16().map_err(|_| GARBLED)
}

fn len32(from: &mut &[u8]) -> Result<usize, Fault> {
    let len = from.read_data_u32().map_err(|_| GARBLED)?;
    usize::try_from(len).map_err(|_| GARBLED)
}

#[cfg(test)]
mod tests {
    use rmp::encode;

    use super::*;

    /// A dictionary of these subkeys, already packed, and expirations.
    pub(crate) fn packed(entries: &[(&[u8], f64)]) -> Vec<u8> {
        let mut inner = Vec::new();
        encode::write_array_len(&mut inner, 3).unwrap();
        encode::write_f64(&mut inner, f64::INFINITY).unwrap();
        encode::write_f64(&mut inner, 0.0).unwrap();
        encode::write_array_len(&mut inner, u32::try_from(entries.len()).unwrap()).unwrap();
        for (subkey, expires) in entries {
            encode::write_array_len(&mut inner, 3).unwrap();
            inner.extend_from_slice(subkey);
            encode::write_bin(&mut inner, &[0x80; 40]).unwrap();
            encode::write_f64(&mut inner, *expires).unwrap();
        }
        let mut packed = Vec::new();
        let len = u32::try_from(inner.len()).unwrap();
        encode::write_ext_meta(&mut packed, len, DICTIONARY).unwrap();
        packed.extend(inner);
        packed
    }

    fn all(bytes: &[u8]) -> Result<Vec<(String, f64)>, Fault> {
        let mut entries = Vec::new();
        read(bytes, |subkey, expires| entries.push((subkey.to_owned(), expires)))?;
        Ok(entries)
    }

    #[test]
    fn subkeys_that_are_not_text_are_left_out_and_the_others_read() {
        // Bytes, a tuple, a number, nothing.
        for odd in [&b"\xc4\x02ab"[..], b"\xc7\x03\x40\x92\x01\x02", b"\xcd\x01\x00", b"\xc0"] {
            let bytes = packed(&[(b"\xa2Qm", 5.0), (odd, 6.0), (b"\xa212", 7.5)]);
            assert_eq!(all(&bytes).unwrap(), [("Qm".into(), 5.0), ("12".into(), 7.5)], "{odd:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_is_garbled() {
        let whole = packed(&[(b"\xa2Qm", 5.0)]);
        for end in 0..whole.len() {
            assert_eq!(all(&whole[..end]), Err(GARBLED), "{end}");
        }
        // An array of 2^32 - 1 entries, of which none is there.
        let liar = b"\xc7\x08\x50\x93\xc0\xc0\xdd\xff\xff\xff\xff";
        assert_eq!(all(liar), Err(GARBLED));
        // A value within values.
        assert_eq!(all(b"\xc7\x04\x50\x93\xc0\x91\x90"), Err(GARBLED));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let _ = all(&bytes);
            bytes.splice(0..0, *b"\xc9\0\0\xff\xff\x50\x93\xc0\xc0\xdc\0\xff");
            let _ = all(&bytes);
        }
    }
}
