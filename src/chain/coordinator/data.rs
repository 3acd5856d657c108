//! Reads what a strange contract encoded, without trusting a length in it.
//!
//! Must hold: nothing is allocated for a length before that many bytes are known to be there, and at most what the
//! caller allows comes out, however often parts of the data refer to the same bytes. A text that is shown differently
//! from how it was written never equals a text that was written so.

use alloy::primitives::{Address as Word, I256, U256};

use super::Amount;
use crate::ids::Address;
use crate::report;

const WORD: usize = 32;

/// Encoded data: an answer, or an event's arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Data<'a>(pub(super) &'a [u8]);

/// A list of texts, as far as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) texts: Vec<String>,
    /// How many more there are.
    pub(super) more: u64,
}

impl<'a> Data<'a> {
    /// The word that is all of this data.
    pub(super) fn word(self) -> Option<[u8; WORD]> {
        self.0.try_into().ok()
    }

    /// The word at this byte.
    pub(super) fn word_at(self, at: usize) -> Option<[u8; WORD]> {
        self.0.get(at..at.checked_add(WORD)?)?.try_into().ok()
    }

    /// The words of the list that is all of this data, if there are `count`.
    pub(super) fn words(self, count: usize) -> Option<Vec<[u8; WORD]>> {
        let list = self.offset_at(0)?;
        if self.offset_at(list)? != count || count > self.0.len() / WORD {
            return None;
        }
        (1..=count).map(|place| self.word_at(list.checked_add(place * WORD)?)).collect()
    }

    /// The text whose place is told at this byte, at most `chars_max` characters of it.
    pub(super) fn text_at(self, at: usize, chars_max: usize) -> Option<String> {
        Some(shown(self.bytes_from(0, at)?, chars_max))
    }

    /// The texts of the list whose place is told at this byte: at most `texts_max` of them, each of at most
    /// `chars_max` characters.
    pub(super) fn texts_at(self, at: usize, texts_max: usize, chars_max: usize) -> Option<Texts> {
        let list = self.offset_at(at)?;
        let count = self.offset_at(list)?;
        // Each text has a word of its own that tells its place.
        if count > self.0.len() / WORD {
            return None;
        }
        let heads = list.checked_add(WORD)?;
        let text = |place: usize| {
            let bytes = self.bytes_from(heads, heads.checked_add(place * WORD)?)?;
            Some(shown(bytes, chars_max))
        };
        let texts = (0..count.min(texts_max)).map(text).collect::<Option<Vec<_>>>()?;
        Some(Texts { texts, more: u64::try_from(count.saturating_sub(texts_max)).ok()? })
    }

    /// The bytes whose place, counted from `start`, is told at this byte.
    fn bytes_from(self, start: usize, at: usize) -> Option<&'a [u8]> {
        let length_at = start.checked_add(self.offset_at(at)?)?;
        let first = length_at.checked_add(WORD)?;
        self.0.get(first..first.checked_add(self.offset_at(length_at)?)?)
    }

    fn offset_at(self, at: usize) -> Option<usize> {
        U256::from_be_bytes(self.word_at(at)?).try_into().ok()
    }
}

/// An unsigned number; one of more than 64 bits counts as the largest.
pub(super) fn number(word: [u8; WORD]) -> u64 {
    U256::from_be_bytes(word).saturating_to()
}

/// A signed number.
pub(super) fn amount(word: [u8; WORD]) -> Amount {
    Amount::new(I256::from_be_bytes(word))
}

/// An account: twelve zero bytes, then its own.
pub(super) fn account(word: [u8; WORD]) -> Option<Address> {
    let is_account = word.iter().take(12).all(|byte| *byte == 0);
    is_account.then(|| Address::new(Word::from_word(word.into()).into_array()))
}

/// A stranger's text as it is kept: unchanged, or else with a mark at its end that no peer id has.
fn shown(bytes: &[u8], chars_max: usize) -> String {
    // A character has at most four bytes: what follows them is cut anyway.
    let bytes_max = chars_max.saturating_mul(4);
    let kept = bytes.get(..bytes_max).unwrap_or(bytes);
    let text = String::from_utf8_lossy(kept);
    let line = report::one_line(&text, chars_max);
    if line.as_bytes() == bytes { line } else { line.trim_end_matches('…').to_owned() + "…" }
}

#[cfg(test)]
mod tests {
    use alloy::hex;
    use alloy::sol_types::SolValue as _;
    use proptest::prelude::*;

    use super::*;

    fn strings(texts: &[&str]) -> Vec<u8> {
        texts.iter().map(ToString::to_string).collect::<Vec<_>>().abi_encode()
    }

    fn word(number: u64) -> [u8; 32] {
        U256::from(number).to_be_bytes()
    }

    #[test]
    fn lists_are_read_as_they_were_encoded() {
        let encoded = strings(&["/ip4/10.0.0.1/tcp/1", "", "/dns/é"]);
        let told = Data(&encoded).texts_at(0, 3, 100).unwrap();
        assert_eq!(
            told,
            Texts {
                texts: vec!["/ip4/10.0.0.1/tcp/1".into(), String::new(), "/dns/é".into()],
                more: 0
            }
        );
        let few = Data(&encoded).texts_at(0, 1, 4).unwrap();
        assert_eq!(few, Texts { texts: vec!["/ip4…".into()], more: 2 });
        let rewards = vec![I256::MINUS_ONE, I256::MIN].abi_encode();
        let words = Data(&rewards).words(2).unwrap();
        assert_eq!(amount(words[0]).to_string(), "-1");
        assert_eq!(amount(words[1]).to_string(), I256::MIN.to_string());
        assert_eq!(Data(&rewards).words(1), None, "another count than was asked for");
    }

    #[test]
    fn a_list_that_claims_to_be_enormous_is_refused_before_anything_is_allocated() {
        for count in [2_u64, 1 << 20, 1 << 60, u64::MAX] {
            let bomb = [word(32), word(count)].concat();
            assert_eq!(Data(&bomb).texts_at(0, 64, 64), None, "{count}");
            assert_eq!(Data(&bomb).words(usize::try_from(count).unwrap()), None, "{count}");
        }
        let beyond = [[0xff; 32], [0xff; 32]].concat();
        assert_eq!(Data(&beyond).texts_at(0, 64, 64), None);
        assert_eq!(Data(&beyond).text_at(0, 64), None);
    }

    #[test]
    fn many_references_to_one_long_text_yield_little() {
        let (count, long) = (1_000_u64, 500_000);
        let mut bomb = [word(32), word(count)].concat();
        (0..count).for_each(|_| bomb.extend(word(count * 32)));
        bomb.extend(word(long));
        bomb.extend(vec![b'a'; usize::try_from(long).unwrap()]);
        let told = Data(&bomb).texts_at(0, 64, 256).unwrap();
        assert_eq!((told.texts.len(), told.more), (64, count - 64));
        assert!(told.texts.iter().all(|text| text.chars().count() == 257));
    }

    #[test]
    fn no_other_text_passes_for_a_peer_id() {
        let id = "QmQ2gEXoPJg6iMBSUFWGzAabS2VhnzuS782Y637hGjfsRJ";
        assert_eq!(shown(id.as_bytes(), 128), id);
        for other in
            [format!("{id}\n"), format!(" {id}"), format!("{id}\u{202e}"), format!("{id}…")]
        {
            assert_ne!(shown(other.as_bytes(), 128), id, "{other:?}");
        }
        assert_ne!(shown(&[id.as_bytes(), &[0xff]].concat(), 128), id);
        let long = "a".repeat(200);
        assert_eq!(shown(long.as_bytes(), 128), "a".repeat(128) + "…");
    }

    proptest! {
        #[test]
        fn no_data_makes_it_panic(data: Vec<u8>, at in 0_usize..200, count in 0_usize..9) {
            let data = Data(&data);
            data.texts_at(at, 4, 16);
            data.text_at(at, 16);
            data.words(count);
        }

        #[test]
        fn texts_come_back_whole(texts in prop::collection::vec("[!-~]{0,60}", 0..6)) {
            let encoded = texts.abi_encode();
            let told = Data(&encoded).texts_at(0, 6, 60).unwrap();
            prop_assert_eq!(told.texts, texts);
        }

        #[test]
        fn flipped_bytes_yield_no_more_than_is_allowed(
            at in 0_usize..256, byte: u8, texts in prop::collection::vec("[a-z]{0,40}", 1..5)
        ) {
            let mut encoded = texts.abi_encode();
            let place = at % encoded.len();
            encoded[place] = byte;
            if let Some(told) = Data(&encoded).texts_at(0, 3, 16) {
                prop_assert!(told.texts.len() <= 3);
                prop_assert!(told.texts.iter().all(|text| text.chars().count() <= 17));
            }
        }
    }

    #[test]
    fn an_account_is_twelve_zero_bytes_and_its_own() {
        let eoa = hex!("0000000000000000000000001111111111111111111111111111111111111111");
        assert_eq!(account(eoa), Some(Address::new([0x11; 20])));
        assert_eq!(account([0x11; 32]), None);
    }
}
