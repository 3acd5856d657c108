//! The errors that NVIDIA's driver reports ("Xid"), and their meaning for a card.
//!
//! The numbers and their causes: <https://docs.nvidia.com/deploy/xid-errors/>. Invariant: an error that a
//! program can cause by itself never counts against the card. Otherwise a stranger's job could take cards
//! from others.

/// The meaning of an Xid for its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The program's own fault: the card is well.
    Program,
    /// Unclear, or mild: the card needs a proof that it works.
    Doubt,
    /// The card, its memory or its firmware failed: nothing that runs on it can be trusted.
    Defect,
    /// Defective for good: it has no spare memory row left.
    Final,
}

/// The meaning of this Xid, and its name.
pub const fn meaning(xid: u64) -> (Meaning, &'static str) {
    match xid {
        13 => (Meaning::Program, "graphics engine exception"),
        31 => (Meaning::Program, "memory page fault"),
        32 => (Meaning::Program, "invalid or corrupted push buffer"),
        43 => (Meaning::Program, "the program's channel was reset"),
        45 => (Meaning::Program, "cleanup after an earlier error"),
        68 => (Meaning::Program, "video processor exception"),
        69 => (Meaning::Program, "graphics engine class error"),
        109 => (Meaning::Program, "context switch timeout"),
        48 => (Meaning::Defect, "memory error that could not be corrected"),
        61 | 62 => (Meaning::Defect, "the card's controller halted"),
        64 => (Meaning::Final, "a memory row could not be replaced"),
        74 => (Meaning::Defect, "NVLink error"),
        79 => (Meaning::Defect, "the card fell off the bus"),
        95 => (Meaning::Defect, "memory error that was not contained"),
        110 => (Meaning::Defect, "security fault"),
        119 | 120 => (Meaning::Defect, "the card's firmware does not answer"),
        136 | 137 | 145 | 149 => (Meaning::Defect, "NVLink failure"),
        140 => (Meaning::Defect, "memory error that was not recovered from"),
        63 => (Meaning::Doubt, "a memory row will be replaced at the next reset"),
        92 => (Meaning::Doubt, "many memory errors that were corrected"),
        94 => (Meaning::Doubt, "memory error that was contained"),
        _ => (Meaning::Doubt, "an error of the driver or the card"),
    }
}

/// The Xid in words, such as `Xid 79: the card fell off the bus`.
pub fn words(xid: u64) -> String {
    format!("Xid {xid}: {}", meaning(xid).1)
}
