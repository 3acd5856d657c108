//! How far the events were read, and what is needed to notice that the chain changed behind that. Pure.
//!
//! Must hold: an event in one of the last [`UNSETTLED`] blocks is known by its block's hash, so that its loss is
//! noticed; deeper changes are noticed by marks, the hashes of some older blocks. Both are bounded.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::ids::{Address, Hash};

/// How many of the newest blocks are read again each time.
pub(super) const UNSETTLED: u64 = 64;

/// The distance between a mark and the next one.
const MARK_EVERY: u64 = 32;

/// The most marks: every second one is at least twice as deep as the one after it.
const MARKS_MAX: usize = 64;

/// The most events that are remembered. In blocks with more of them, fewer blocks are read again.
const EVENTS_MAX: usize = 4096;

/// Where to go on reading the events. Kept by the caller, together with what came of the events before it; the
/// default is that of a first reading. At most about 400 KiB as JSON, a few hundred bytes in a swarm that rests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The chain and the contract; of others it is a first reading.
    of: Option<(u64, Address)>,
    /// The first block that is read again.
    from: u64,
    /// The first block that was never read.
    next: u64,
    /// The events in the blocks that are read again, by their blocks.
    recent: Vec<Seen>,
    /// The hashes of some older blocks, the oldest first.
    marks: Vec<Mark>,
}

/// The events that were seen in one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    block: u64,
    hash: Hash,
    /// Their places in the block.
    events: Vec<u32>,
}

/// A block that was on the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) block: u64,
    pub(super) hash: Hash,
}

/// An event: its block's number and hash, and its place in it.
pub(super) type Key = (u64, Hash, u32);

impl Cursor {
    /// A first reading, which begins with this block.
    pub(super) fn first(of: (u64, Address), block: u64) -> Self {
        Self { of: Some(of), from: block, next: block, ..Self::default() }
    }

    /// Whether it is one of this chain and contract.
    pub(super) fn is_of(&self, of: (u64, Address)) -> bool {
        self.of == Some(of)
    }

    /// The last block whose events were read; `None` if none was.
    pub fn read_to(&self) -> Option<u64> {
        self.of.and(self.next.checked_sub(1))
    }

    /// The first block that is to be read, some of them again.
    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// The first block that was never read.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The events that were seen in these blocks.
    pub(super) fn seen_in(&self, blocks: &RangeInclusive<u64>) -> BTreeSet<Key> {
        let those = self.recent.iter().filter(|seen| blocks.contains(&seen.block));
        those
            .flat_map(|seen| seen.events.iter().map(|index| (seen.block, seen.hash, *index)))
            .collect()
    }

    /// Notes that these blocks were read and hold these events.
    pub(super) fn take(&mut self, blocks: &RangeInclusive<u64>, events: &BTreeSet<Key>) {
        self.recent.retain(|seen| !blocks.contains(&seen.block));
        for (block, hash, index) in events {
            match self.recent.last_mut() {
                Some(seen) if (seen.block, seen.hash) == (*block, *hash) => {
                    seen.events.push(*index);
                }
                _ => self.recent.push(Seen { block: *block, hash: *hash, events: vec![*index] }),
            }
        }
        self.recent.sort_by_key(|seen| (seen.block, seen.hash));
        self.next = self.next.max(blocks.end().saturating_add(1));
        self.settle();
    }

    /// Forgets what is too old to be read again.
    fn settle(&mut self) {
        self.from = self.from.max(self.next.saturating_sub(UNSETTLED)).min(self.next);
        let mut left = EVENTS_MAX;
        for seen in self.recent.iter().rev() {
            let Some(fewer) = left.checked_sub(seen.events.len()) else {
                self.from = self.from.max(seen.block.saturating_add(1)).min(self.next);
                break;
            };
            left = fewer;
        }
        let from = self.from;
        self.recent.retain(|seen| seen.block >= from);
    }

    /// Goes on at this block, and leaves out what is before it.
    pub(super) fn skip_to(&mut self, block: u64) {
        (self.from, self.next) = (block, block);
        self.recent.clear();
    }

    /// Forgets everything after this block.
    pub(super) fn go_back_to(&mut self, block: u64) {
        self.marks.retain(|mark| mark.block <= block);
        self.skip_to(block.saturating_add(1));
    }

    /// The marks up to this block, the newest first.
    pub(super) fn marks_to(&self, block: u64) -> Vec<Mark> {
        self.marks.iter().rev().filter(|mark| mark.block <= block).copied().collect()
    }

    /// Whether there are marks at all.
    pub(super) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// The block of which a mark is due: one that is read no more.
    pub(super) fn mark_due(&self) -> Option<u64> {
        let block = self.next.checked_sub(UNSETTLED + 1)?;
        let last = self.marks.last().map(|mark| mark.block);
        last.is_none_or(|last| block >= last.saturating_add(MARK_EVERY)).then_some(block)
    }

    /// Adds a mark, and thins the older ones: one goes if the one before it is at most twice as deep as the one after
    /// it. So a change of the chain is located to within its own depth.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push(mark);
        let depth = |one: &Mark| mark.block.saturating_sub(one.block).saturating_add(UNSETTLED);
        let mut kept: Vec<Mark> = Vec::new();
        let mut older = self.marks.iter().rev().skip(1);
        for one in self.marks.iter().rev() {
            let is_spare = kept.last().zip(older.next()).is_some_and(|(newer, older)| {
                kept.len() >= MARKS_MAX || depth(older) <= depth(newer).saturating_mul(2)
            });
            if !is_spare {
                kept.push(*one);
            }
        }
        kept.reverse();
        self.marks = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: (u64, Address) = (1, Address::new([1; 20]));

    fn hash(seed: u64) -> Hash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Hash(bytes)
    }

    fn events(blocks: impl IntoIterator<Item = u64>) -> BTreeSet<Key> {
        blocks.into_iter().map(|block| (block, hash(block), 0)).collect()
    }

    #[test]
    fn the_newest_blocks_are_read_again_and_older_ones_are_not() {
        let mut cursor = Cursor::first(OF, 100);
        assert_eq!((cursor.from(), cursor.next(), cursor.read_to()), (100, 100, Some(99)));
        cursor.take(&(100..=130), &events([101, 130]));
        assert_eq!((cursor.from(), cursor.next()), (100, 131), "never before the first one");
        cursor.take(&(100..=190), &events([101, 130, 190]));
        assert_eq!((cursor.from(), cursor.next()), (127, 191));
        assert_eq!(cursor.seen_in(&(0..=u64::MAX)), events([130, 190]));
        assert_eq!(cursor.seen_in(&(131..=190)), events([190]));
        assert_eq!(Cursor::default().read_to(), None);
    }

    #[test]
    fn blocks_that_are_not_there_now_do_not_move_it_back() {
        let mut cursor = Cursor::first(OF, 0);
        cursor.take(&(0..=200), &events([150, 199]));
        cursor.take(&(137..=180), &events([150]));
        assert_eq!((cursor.from(), cursor.next()), (137, 201));
        assert_eq!(cursor.seen_in(&(0..=u64::MAX)), events([150, 199]));
    }

    #[test]
    fn a_flood_of_events_makes_it_read_fewer_blocks_again() {
        let mut cursor = Cursor::first(OF, 0);
        let flood = (0..100_u64)
            .flat_map(|block| (0..1000).map(move |index| (block, hash(block), index)))
            .collect();
        cursor.take(&(0..=99), &flood);
        assert_eq!(cursor.seen_in(&(0..=99)).len(), 4000);
        assert_eq!((cursor.from(), cursor.next()), (96, 100));
        let written = serde_json::to_string(&cursor).unwrap();
        assert!(written.len() < 400 * 1024, "{}", written.len());
        assert_eq!(serde_json::from_str::<Cursor>(&written).unwrap(), cursor);
        let flood = (0..5000).map(|index| (100, hash(100), index)).collect();
        cursor.take(&(96..=100), &flood);
        assert_eq!((cursor.from(), cursor.next()), (101, 101), "one block with too many");
    }

    #[test]
    fn marks_are_few_and_reach_back_to_the_first() {
        let mut cursor = Cursor::first(OF, 1000);
        let mut read = 1000;
        while read < 200_000 {
            read += 30;
            cursor.take(&(cursor.from()..=read), &BTreeSet::new());
            if let Some(block) = cursor.mark_due() {
                cursor.mark(Mark { block, hash: hash(block) });
            }
        }
        let marks = cursor.marks_to(u64::MAX);
        let depths: Vec<u64> = marks.iter().map(|mark| read - mark.block).collect();
        assert!(depths[0] < UNSETTLED + 2 * MARK_EVERY, "{depths:?}");
        assert!(depths.is_sorted() && depths.len() < 30, "{depths:?}");
        assert!(*depths.last().unwrap() > 190_000, "{depths:?}");
        assert!(depths.windows(2).all(|pair| pair[1] <= 3 * pair[0]), "{depths:?}");
        cursor.go_back_to(marks[1].block);
        assert_eq!(cursor.marks_to(u64::MAX), marks[1..]);
        assert_eq!((cursor.from(), cursor.next()), (marks[1].block + 1, marks[1].block + 1));
        let written = serde_json::to_string(&cursor).unwrap();
        assert!(written.len() < 3072, "{}", written.len());
    }
}
