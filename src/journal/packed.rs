//! Compression of many similar texts: raw deflate (RFC 1951) with a preset dictionary.
//!
//! Invariants: a packed text can be read back unchanged by every later version. It starts with the number of
//! its dictionary, and a dictionary that was ever used never changes.

use miniz_oxide::deflate::core::{
    CompressorOxide, TDEFLFlush, compress_to_output, create_comp_flags_from_zip_params,
};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::Error;

/// Words that stories and receipts of jobs share.
const DICTIONARY: &[u8] = include_bytes!("dictionary.txt");

/// The number of [`DICTIONARY`]. A text with any other number was written by a later version.
const NUMBER: u8 = 1;

/// Upper bound on a text's length. A job's message has at most 256 KiB, so no text reaches it. The length is
/// written as three bytes.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// zlib's default level. The next levels gain about one percent and take twice as long.
const LEVEL: i32 = 6;

/// Compresses a text. Fails if it is longer than `TEXT_BYTES_MAX`.
pub(super) fn pack(text: &[u8]) -> Result<Vec<u8>, Error> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Error::Failed("a text is too long to be packed".into()));
    }
    // Negative window bits: raw deflate without a zlib header.
    let mut compressor = CompressorOxide::new(create_comp_flags_from_zip_params(LEVEL, -15, 0));
    // The reader has the dictionary too, so its compressed form is discarded. The sync flush ends it at a
    // byte boundary.
    compress_to_output(&mut compressor, DICTIONARY, TDEFLFlush::Sync, |_| true);
    let [_, length @ ..] = u32::try_from(text.len()).unwrap_or(0).to_be_bytes();
    let mut packed = vec![NUMBER];
    packed.extend_from_slice(&length);
    compress_to_output(&mut compressor, text, TDEFLFlush::Finish, |piece| {
        packed.extend_from_slice(piece);
        true
    });
    Ok(packed)
}

/// Decompresses a packed text. Fails if it is damaged or was written by a later version.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Error> {
    let broken = |what: &str| Error::Failed(format!("a packed text {what}").into());
    let (length, deflated) = match packed {
        [NUMBER, a, b, c, deflated @ ..] => (u32::from_be_bytes([0, *a, *b, *c]), deflated),
        _ => return Err(broken("is damaged or of a later version")),
    };
    let length = length as usize;
    if length > TEXT_BYTES_MAX {
        return Err(broken("has an impossible length"));
    }
    // Back references may point into the dictionary, so the output buffer starts with it.
    let mut text = DICTIONARY.to_vec();
    text.resize(DICTIONARY.len() + length, 0);
    let (status, _, written) = decompress(
        &mut DecompressorOxide::new(),
        deflated,
        &mut text,
        DICTIONARY.len(),
        TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    );
    if status == TINFLStatus::Done && written == length {
        Ok(text.split_off(DICTIONARY.len()))
    } else {
        Err(broken("can't be read"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_reads_back_the_same(text in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert_eq!(unpack(&pack(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn whatever_lies_there_is_read_or_refused(packed in proptest::collection::vec(any::<u8>(), 0..200)) {
            unpack(&packed).ok();
        }
    }

    #[test]
    fn a_long_text_that_repeats_itself_reads_back_the_same() {
        let text = b"no route to host; ".repeat(100_000);
        let packed = pack(&text).unwrap();
        assert!(packed.len() < 8_000, "{}", packed.len());
        assert_eq!(unpack(&packed).unwrap(), text);
    }

    /// Every journal holds texts that were packed with this dictionary.
    #[test]
    fn the_dictionary_never_changes() {
        use sha2::{Digest as _, Sha256};
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(DICTIONARY));
        assert_eq!(hash, "cfad6c7ea81d64ad5094fd533d9209ea3ce3eb8b9b953e9553288b4df470e2bb");
    }
}
