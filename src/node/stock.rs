//! The files and images that a node keeps on its disks, and which images go when room is short. Pure.
//!
//! Invariants: only images that this node pulled are removed, and never one in use; the least recently used
//! one goes first, and no more than needed; a kept output never goes: a node that is short of room takes no
//! jobs instead.

use super::fitness::Disk;
use crate::clock::Timestamp;

/// Bytes in a MiB.
const MIB: u64 = 1 << 20;
/// Images go when less than this many quarters of `DISK_FREE_MIN_MIB` is free on the engine's disk: before
/// the node stops taking jobs.
const QUARTERS: u64 = 6;
/// One part in so many of the budget, at most `DISK_FREE_MIN_MIB`, must be left for jobs, or the node takes
/// none.
const BUDGET_PART: u64 = 8;

/// An image that this node pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id in the engine.
    pub id: String,
    /// Its names.
    pub names: Vec<String>,
    /// Its size in bytes; shared layers count for each image.
    pub bytes: u64,
    /// When a job last asked for it.
    pub used: Timestamp,
    /// Whether a job in hand needs it.
    pub in_use: bool,
}

/// Everything that counts against the budget, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stock {
    /// The images that this node pulled, the most recently used one last.
    pub images: Vec<Item>,
    /// Inputs of jobs in hand.
    pub inputs: u64,
    /// Outputs of jobs in hand.
    pub outputs: u64,
    /// Outputs that could not be published in time.
    pub kept: u64,
    /// Kept logs, and the room taken for them.
    pub logs: u64,
    /// The journal.
    pub journal: u64,
    /// Files that wait for their removal.
    pub trash: u64,
    /// The reserve for a full disk.
    pub reserve: u64,
    /// Whether all of it could be measured.
    pub is_whole: bool,
}

/// The owner's limits, and the free space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// `DISK_BUDGET_MIB`, in bytes.
    pub budget: Option<u64>,
    /// `DISK_FREE_MIN_MIB`, in bytes.
    pub free_min: u64,
    /// Bytes free on the engine's disk, if it is known.
    pub engine_free: Option<u64>,
}

impl Room {
    /// The bytes that the engine's disk lacks.
    pub fn short(&self) -> u64 {
        let wanted = self.free_min.saturating_mul(QUARTERS) / 4;
        self.engine_free.map_or(0, |free| wanted.saturating_sub(free))
    }
}

impl Stock {
    /// All bytes of the images.
    pub fn images_bytes(&self) -> u64 {
        self.images.iter().fold(0, |sum: u64, image| sum.saturating_add(image.bytes))
    }

    /// All bytes.
    pub fn used(&self) -> u64 {
        let files = [self.inputs, self.outputs, self.kept, self.logs];
        let own = [self.journal, self.trash, self.reserve];
        let sum = files.into_iter().chain(own).fold(0, u64::saturating_add);
        sum.saturating_add(self.images_bytes())
    }

    /// The image to remove next, after the first `tried` of the idle ones were tried, which freed `freed`
    /// bytes. What could not be measured counts as nothing, so no more goes than after a complete look.
    pub fn next_to_go(&self, room: Room, tried: usize, freed: u64) -> Option<&Item> {
        let over = room.budget.map_or(0, |budget| self.used().saturating_sub(budget));
        let need = room.short().max(over);
        (freed < need).then(|| self.idle().nth(tried)).flatten()
    }

    /// The images that no job in hand needs, the least recently used one first.
    pub fn idle(&self) -> impl Iterator<Item = &Item> {
        self.images.iter().filter(|image| !image.in_use)
    }

    /// The bytes that the budget lacks even without any idle image; then the node takes no job.
    pub fn lack(&self, room: Room) -> Option<Disk> {
        let budget = room.budget?;
        let idle = self.idle().fold(0, |sum: u64, image| sum.saturating_add(image.bytes));
        let free_mib = budget.saturating_sub(self.used().saturating_sub(idle)) / MIB;
        let min_mib = room.free_min.min(budget / BUDGET_PART) / MIB;
        (free_mib < min_mib).then_some(Disk { free_mib, min_mib })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, mib: u64, used: u64, in_use: bool) -> Item {
        let (names, used) = (vec![id.to_owned()], Timestamp::from_unix_ms(used));
        Item { id: id.to_owned(), names, bytes: mib * MIB, used, in_use }
    }

    fn stock() -> Stock {
        let images =
            [image("a", 100, 1, false), image("b", 200, 2, true), image("c", 300, 3, false)];
        Stock { images: images.to_vec(), outputs: 50 * MIB, is_whole: true, ..Stock::default() }
    }

    fn room(budget_mib: Option<u64>, free_mib: u64) -> Room {
        let budget = budget_mib.map(|mib| mib * MIB);
        Room { budget, free_min: 1000 * MIB, engine_free: Some(free_mib * MIB) }
    }

    fn going(room: Room) -> Vec<String> {
        going_but(room, "")
    }

    /// The images that go, if this one stays although it is tried.
    fn going_but(room: Room, stays: &str) -> Vec<String> {
        let (stock, mut gone, mut freed) = (stock(), Vec::new(), 0);
        let mut tried = 0;
        while let Some(image) = stock.next_to_go(room, tried, freed) {
            tried += 1;
            if image.id != stays {
                freed += image.bytes;
                gone.push(image.id.clone());
            }
        }
        gone
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_only_as_much_as_is_needed() {
        assert_eq!(going(room(None, 1500)), [""; 0], "there is room");
        assert_eq!(going(room(None, 1499)), ["a"]);
        assert_eq!(going(room(None, 1400)), ["a"]);
        assert_eq!(going(room(None, 1399)), ["a", "c"]);
        assert_eq!(going(room(None, 0)), ["a", "c"], "what a job needs stays");
        assert_eq!(going(room(Some(650), 9000)), [""; 0]);
        assert_eq!(going(room(Some(649), 9000)), ["a"]);
        assert_eq!(going(room(Some(100), 9000)), ["a", "c"]);
        assert_eq!(going(Room { engine_free: None, ..room(None, 0) }), [""; 0], "nothing is known");
        assert_eq!(going_but(room(None, 1499), "a"), ["c"], "what stayed has freed nothing");
    }

    #[test]
    fn a_budget_that_images_can_not_make_room_in_stops_the_intake() {
        // 200 MiB of an image in use and 50 of outputs are left.
        assert_eq!(stock().lack(room(Some(2000), 0)), None);
        assert_eq!(stock().lack(room(Some(286), 0)), None, "36 are left, 35 are wanted");
        assert_eq!(stock().lack(room(Some(284), 0)), Some(Disk { free_mib: 34, min_mib: 35 }));
        assert_eq!(stock().lack(room(None, 0)), None);
    }
}
