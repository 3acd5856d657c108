//! The dictionary under a key: who published, and until when it holds.
//!
//! Must hold: the values are never decoded. They are pickle of strangers, and decoding pickle is running it.

use futures_util::AsyncRead;
use rmp::Marker;

use super::fault::Fault;
use super::source::Source;

/// The extension type of msgpack under which Hivemind writes a dictionary.
const DICTIONARY: u8 = 0x50;

const GARBLED: Fault = Fault::Garbled("it is not a dictionary as Hivemind writes it");

/// Reads a dictionary that lies between here and `end`, and tells `each` of all entries whose subkey is text: the
/// subkey, and the expiration in Unix seconds, which may be any number. Entries of other kinds are left out.
pub(super) async fn read<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
    mut each: impl FnMut(&str, f64),
) -> Result<(), Fault> {
    let (Len::Ext(_), DICTIONARY) = (head(from, end).await?, from.byte(end).await?) else {
        return Err(GARBLED);
    };
    if array(from, end).await? != 3 {
        return Err(GARBLED);
    }
    // How many entries it may have, and the latest expiration of all.
    skip(from, end).await?;
    skip(from, end).await?;
    for _ in 0..array(from, end).await? {
        if array(from, end).await? != 3 {
            return Err(GARBLED);
        }
        let subkey = text(from, end).await?;
        skip(from, end).await?;
        let expires = number(from, end).await?;
        if let Some(subkey) = subkey.as_ref().and_then(|subkey| str::from_utf8(subkey).ok()) {
            each(subkey, expires);
        }
    }
    Ok(())
}

/// What begins here: how many bytes, values or other things follow.
enum Len {
    /// A number or nothing, in so many bytes.
    Plain(Marker, u64),
    Text(u64),
    Bytes(u64),
    /// So many bytes after that of its type.
    Ext(u64),
    Array(u64),
}

async fn head<S: AsyncRead + Unpin>(from: &mut Source<S>, end: u64) -> Result<Len, Fault> {
    let marker = Marker::from_u8(from.byte(end).await?);
    Ok(match marker {
        Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => {
            Len::Plain(marker, 0)
        }
        Marker::U8 | Marker::I8 => Len::Plain(marker, 1),
        Marker::U16 | Marker::I16 => Len::Plain(marker, 2),
        Marker::U32 | Marker::I32 | Marker::F32 => Len::Plain(marker, 4),
        Marker::U64 | Marker::I64 | Marker::F64 => Len::Plain(marker, 8),
        Marker::FixStr(len) => Len::Text(len.into()),
        Marker::Str8 => Len::Text(from.number(1, end).await?),
        Marker::Str16 => Len::Text(from.number(2, end).await?),
        Marker::Str32 => Len::Text(from.number(4, end).await?),
        Marker::Bin8 => Len::Bytes(from.number(1, end).await?),
        Marker::Bin16 => Len::Bytes(from.number(2, end).await?),
        Marker::Bin32 => Len::Bytes(from.number(4, end).await?),
        Marker::FixExt1 => Len::Ext(1),
        Marker::FixExt2 => Len::Ext(2),
        Marker::FixExt4 => Len::Ext(4),
        Marker::FixExt8 => Len::Ext(8),
        Marker::FixExt16 => Len::Ext(16),
        Marker::Ext8 => Len::Ext(from.number(1, end).await?),
        Marker::Ext16 => Len::Ext(from.number(2, end).await?),
        Marker::Ext32 => Len::Ext(from.number(4, end).await?),
        Marker::FixArray(len) => Len::Array(len.into()),
        Marker::Array16 => Len::Array(from.number(2, end).await?),
        Marker::Array32 => Len::Array(from.number(4, end).await?),
        // Hivemind writes none of these here.
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 | Marker::Reserved => {
            return Err(GARBLED);
        }
    })
}

/// How many values follow.
async fn array<S: AsyncRead + Unpin>(from: &mut Source<S>, end: u64) -> Result<u64, Fault> {
    match head(from, end).await? {
        Len::Array(len) => Ok(len),
        _ => Err(GARBLED),
    }
}

/// The text that comes next; `None` if it's something else or long, which is skipped.
async fn text<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
) -> Result<Option<Vec<u8>>, Fault> {
    match head(from, end).await? {
        Len::Text(len) => from.keep_next(len, end).await,
        other => pass(from, other, end).await.map(|()| None),
    }
}

async fn number<S: AsyncRead + Unpin>(from: &mut Source<S>, end: u64) -> Result<f64, Fault> {
    let Len::Plain(marker, bytes) = head(from, end).await? else { return Err(GARBLED) };
    let bytes = u8::try_from(bytes).map_err(|_| GARBLED)?;
    let number = from.number(bytes, end).await?;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    match marker {
        Marker::F64 => Ok(f64::from_bits(number)),
        Marker::U32 | Marker::U64 => Ok(number as f64),
        // No time of today is written otherwise.
        _ => Err(GARBLED),
    }
}

/// Skips one value that has no values in it, without looking at it.
async fn skip<S: AsyncRead + Unpin>(from: &mut Source<S>, end: u64) -> Result<(), Fault> {
    let head = head(from, end).await?;
    pass(from, head, end).await
}

async fn pass<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    head: Len,
    end: u64,
) -> Result<(), Fault> {
    match head {
        Len::Plain(_, len) | Len::Text(len) | Len::Bytes(len) => from.skip_next(len, end).await,
        Len::Ext(len) => from.skip_next(len + 1, end).await,
        // Hivemind has no values within values here.
        Len::Array(_) => Err(GARBLED),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use rmp::encode;

    use super::*;

    /// A dictionary of these subkeys, already packed, and expirations.
    fn packed(entries: &[(&[u8], f64)]) -> Vec<u8> {
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
        encode::write_ext_meta(&mut packed, len, 0x50).unwrap();
        packed.extend(inner);
        packed
    }

    fn all(bytes: &[u8]) -> Result<Vec<(String, f64)>, Fault> {
        let mut entries = Vec::new();
        let (mut from, end) = (Source::new(bytes), bytes.len() as u64);
        let each = |subkey: &str, expires| entries.push((subkey.to_owned(), expires));
        read(&mut from, end, each).now_or_never().expect("its bytes are all there")?;
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
            assert!(matches!(all(&whole[..end]), Err(Fault::Garbled(_))), "{end}");
        }
        // An array of 2^32 - 1 entries, of which none is there.
        let liar = b"\xc7\x08\x50\x93\xc0\xc0\xdd\xff\xff\xff\xff";
        assert!(matches!(all(liar), Err(Fault::Garbled(_))));
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
