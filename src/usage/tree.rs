//! What a tree of processes has used, from looks at its single processes.
//!
//! A process that ends leaves what it used to the one that waits for it, so its part is in two places at two looks; one
//! that nobody waits for leaves nothing. [`Tree`] tells what was used between two looks all the same.
//!
//! Pure. Invariants: what a process used is counted once, whoever waited for it; what a
//! process used before it was seen, and before the look before, is not counted.

use std::collections::BTreeMap;

/// One process at one look, with one counter of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Its number.
    pub pid: u32,
    /// The number of its parent.
    pub parent: u32,
    /// When it began, in clock ticks since the boot.
    pub started: u64,
    /// What it used itself; 0 where that can't be told from the next.
    pub own: u64,
    /// What was used by children that it has waited for, and by theirs.
    pub children: u64,
}

/// The processes of a program at the last look.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// When that was, in clock ticks since the boot; `None`: never.
    at: Option<u64>,
    before: BTreeMap<u32, Counted>,
    /// What of processes that ended did not show up at the one that waits for it yet.
    due: BTreeMap<u32, u64>,
}

impl Tree {
    /// Takes in a look of this time: what was used since the one before; `None` if there was none.
    pub fn look(&mut self, at: u64, now: &[Counted]) -> Option<u64> {
        let now: BTreeMap<u32, Counted> = now.iter().map(|it| (it.pid, *it)).collect();
        let spent = self.at.map(|before| self.spent(before, &now));
        self.before = now;
        self.at = Some(at);
        spent
    }

    /// Forgets the processes: the next look is a first one.
    pub fn lose(&mut self) {
        (self.at, self.due) = (None, BTreeMap::new());
        self.before.clear();
    }

    fn spent(&mut self, before: u64, now: &BTreeMap<u32, Counted>) -> u64 {
        let (gone, mut due) = (self.gone(now), std::mem::take(&mut self.due));
        let mut spent = 0_u64;
        for process in now.values() {
            let new = match self.before.get(&process.pid).filter(|was| is_same(was, process)) {
                Some(was) => {
                    let own = process.own.saturating_sub(was.own);
                    let left = process.children.saturating_sub(was.children);
                    let left = left.saturating_sub(due.remove(&process.pid).unwrap_or(0));
                    let known = gone.get(&process.pid).copied().unwrap_or(0);
                    // It may have been looked at a moment before it waited for what ended: the next look will show it.
                    if known > left {
                        self.due.insert(process.pid, known - left);
                    }
                    own.saturating_add(left.saturating_sub(known))
                }
                None if process.started >= before => process.own.saturating_add(process.children),
                None => 0,
            };
            spent = spent.saturating_add(new);
        }
        spent
    }

    /// What was counted of processes that have ended, by the nearest process above each that is still there.
    fn gone(&self, now: &BTreeMap<u32, Counted>) -> BTreeMap<u32, u64> {
        let is_there = |it: &Counted| now.get(&it.pid).is_some_and(|now| is_same(it, now));
        let mut gone: BTreeMap<u32, u64> = BTreeMap::new();
        for process in self.before.values().filter(|it| !is_there(it)) {
            let mut above = self.before.get(&process.parent);
            // A tree has no circle, but what was read while it changed may.
            for _ in 0..self.before.len() {
                match above {
                    Some(it) if !is_there(it) => above = self.before.get(&it.parent),
                    _ => break,
                }
            }
            if let Some(above) = above.filter(|it| is_there(it)) {
                let sum = gone.entry(above.pid).or_default();
                *sum = sum.saturating_add(process.own).saturating_add(process.children);
            }
        }
        gone
    }
}

/// A counter of the kernel's that is read again and again.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grown(Option<u64>);

impl Grown {
    /// Takes in a reading: what was counted since the one before; `None` if there was none. One that goes back by more
    /// than half has begun anew.
    pub const fn look(&mut self, value: u64) -> Option<u64> {
        let was = self.0.replace(value);
        match was {
            None => None,
            Some(was) if value < was / 2 => Some(value),
            Some(was) => Some(value.saturating_sub(was)),
        }
    }

    /// The next reading is a first one.
    pub const fn lose(&mut self) {
        self.0 = None;
    }
}

/// Whether two looks show one process: its number may be another's by now.
const fn is_same(was: &Counted, is: &Counted) -> bool {
    was.pid == is.pid && was.started == is.started
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(pid: u32, parent: u32, started: u64, own: u64, children: u64) -> Counted {
        Counted { pid, parent, started, own, children }
    }

    #[test]
    fn a_first_look_tells_nothing_and_what_was_used_before_it_is_not_counted() {
        let mut tree = Tree::default();
        assert_eq!(tree.look(100, &[one(10, 1, 5, 900, 70)]), None);
        assert_eq!(tree.look(200, &[one(10, 1, 5, 950, 70)]), Some(50));
        tree.lose();
        assert_eq!(tree.look(300, &[one(10, 1, 5, 990, 70)]), None, "nobody looked meanwhile");
        assert_eq!(tree.look(400, &[one(10, 1, 5, 991, 70)]), Some(1));
    }

    #[test]
    fn a_child_that_comes_works_and_ends_is_counted_once() {
        let mut tree = Tree::default();
        tree.look(100, &[one(10, 1, 5, 1000, 0)]);
        // It begins, and works.
        assert_eq!(tree.look(200, &[one(10, 1, 5, 1000, 0), one(11, 10, 150, 40, 0)]), Some(40));
        // It works on, ends, and its parent waits for it; a second one came and went between two looks.
        assert_eq!(tree.look(300, &[one(10, 1, 5, 1001, 60 + 7)]), Some(1 + 20 + 7));
    }

    #[test]
    fn what_nobody_waits_for_takes_nothing_from_the_others() {
        let mut tree = Tree::default();
        tree.look(100, &[one(10, 1, 5, 1000, 0), one(11, 10, 6, 500, 0)]);
        assert_eq!(tree.look(200, &[one(10, 1, 5, 1030, 0)]), Some(30), "not 30 less 500");
        assert_eq!(tree.look(300, &[one(10, 1, 5, 1030, 0)]), Some(0));
        assert_eq!(tree.look(400, &[one(10, 1, 5, 1030, 9)]), Some(9), "and that only once");
    }

    #[test]
    fn a_parent_that_was_looked_at_before_it_waited_is_not_counted_twice() {
        let mut tree = Tree::default();
        tree.look(100, &[one(10, 1, 5, 0, 0), one(11, 10, 6, 500, 0)]);
        assert_eq!(tree.look(200, &[one(10, 1, 5, 3, 0)]), Some(3));
        assert_eq!(tree.look(300, &[one(10, 1, 5, 3, 510)]), Some(10));
    }

    #[test]
    fn what_a_grandchild_used_comes_up_through_its_dead_parent() {
        let mut tree = Tree::default();
        tree.look(100, &[one(10, 1, 5, 0, 0), one(11, 10, 6, 20, 0), one(12, 11, 7, 300, 0)]);
        assert_eq!(tree.look(200, &[one(10, 1, 5, 0, 325)]), Some(5));
    }

    #[test]
    fn a_number_that_is_anothers_now_is_another_process() {
        let mut tree = Tree::default();
        tree.look(100, &[one(10, 1, 5, 1000, 0)]);
        assert_eq!(tree.look(200, &[one(10, 1, 150, 30, 1)]), Some(31), "begun since");
        assert_eq!(
            tree.look(300, &[one(10, 1, 7, 9_000, 0)]),
            Some(0),
            "older, and not seen before"
        );
        assert_eq!(tree.look(400, &[]), Some(0));
    }

    #[test]
    fn a_counter_that_begins_anew_has_counted_all_that_it_shows() {
        let mut grown = Grown::default();
        let told = [100, 130, 129, 7].map(|value| grown.look(value));
        assert_eq!(told, [None, Some(30), Some(0), Some(7)]);
        grown.lose();
        assert_eq!(grown.look(9), None);
    }

    proptest! {
        #[test]
        fn whatever_is_seen_nothing_hangs_and_what_stays_the_same_used_nothing(
            looks in proptest::collection::vec(
                proptest::collection::vec((0_u32..6, 0_u32..6, 0_u64..4, any::<u64>(), any::<u64>()), 0..6),
                1..12,
            )
        ) {
            let mut tree = Tree::default();
            for look in looks {
                let look: Vec<Counted> = look
                    .into_iter()
                    .map(|(pid, parent, started, own, children)| one(pid, parent, started, own, children))
                    .collect();
                tree.look(10, &look);
                prop_assert_eq!(tree.look(20, &look), Some(0));
            }
        }
    }
}
