//! Kinds of bytes.

/// The byte at a place; 0 outside.
pub(super) fn at(bytes: &[u8], place: usize) -> u8 {
    bytes.get(place).copied().unwrap_or_default()
}

/// Whether the byte is part of a word: a letter or a digit of any alphabet, or `_`.
pub(super) const fn is_word(byte: u8) -> bool {
    WORD[byte as usize]
}

const WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80;
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    table
};

/// Whether the byte is a digit of hex.
pub(super) const fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// Where the run of such bytes ends that begins at `from`, at most `max` bytes long.
pub(super) fn run(bytes: &[u8], from: usize, max: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().take(max).take_while(|byte| is(**byte)).count()
}

/// Where the run of such bytes begins that ends before `to`, at most `max` bytes long.
pub(super) fn run_back(bytes: &[u8], to: usize, max: usize, is: impl Fn(u8) -> bool) -> usize {
    let before = bytes.get(..to).unwrap_or_default();
    to - before.iter().rev().take(max).take_while(|byte| is(**byte)).count()
}
