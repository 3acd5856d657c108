//! The score of a node, from what the chain knows of it.
//!
//! The contract computes the same number (`contracts/src/libraries/Score.sol`), and one file of
//! vectors holds both to the rule that docs/reputation.md explains. What must hold: integers alone,
//! each division rounds down.

/// The best score. It is approached, never reached.
pub const WHOLE: u16 = 10_000;

/// A day of slots counts as missed beforehand, so that a new node begins at 0.
const SLOTS_TO_PROVE: u64 = 288;

/// So many jobs count as not confirmed beforehand.
const JOBS_TO_PROVE: u64 = 10;

/// What uptime earns without any confirmed job.
const UPTIME_ALONE: u64 = 2_000;

/// Jobs beyond this many change nothing: the contract counts no further.
const JOBS_MAX: u64 = (1 << 40) - 1;

/// The facts on chain that a score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Slots of 300 s with a beat.
    pub on_time: u32,
    /// Slots without one.
    pub missed: u32,
    /// Jobs that the contract's owner confirmed.
    pub confirmed: u64,
    /// Jobs that the node itself says have failed.
    pub failed: u64,
}

/// The score of these facts, 0 to [`WHOLE`].
pub fn score(facts: Facts) -> u16 {
    let whole = u64::from(WHOLE);
    let (on_time, missed) = (u64::from(facts.on_time), u64::from(facts.missed));
    let (confirmed, failed) = (facts.confirmed.min(JOBS_MAX), facts.failed.min(JOBS_MAX));
    let uptime = whole * on_time / (on_time + missed + SLOTS_TO_PROVE);
    let work = whole * confirmed / (confirmed + failed + JOBS_TO_PROVE);
    let share = UPTIME_ALONE + (whole - UPTIME_ALONE) * work / whole;
    // Both factors are at most `whole`, and so is the score.
    u16::try_from(uptime * share / whole).unwrap_or(WHOLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        vectors: Vec<Vector>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Vector {
        why: String,
        on_time: u32,
        missed: u32,
        confirmed: u64,
        failed: u64,
        score: u16,
    }

    #[test]
    fn every_vector_of_the_contracts_file_holds() {
        let text = include_str!("../../contracts/test/vectors/score.json");
        let file: File = serde_json::from_str(text).unwrap();
        assert!(file.vectors.len() > 25, "the file was read to its end");
        for vector in file.vectors {
            let Vector { why, on_time, missed, confirmed, failed, score: expected } = vector;
            assert_eq!(score(Facts { on_time, missed, confirmed, failed }), expected, "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_facts_overflow_and_none_are_perfect(
            (on_time, missed) in any::<(u32, u32)>(),
            (confirmed, failed) in any::<(u64, u64)>(),
        ) {
            let facts = Facts { on_time, missed, confirmed, failed };
            prop_assert!(score(facts) < WHOLE);
        }
    }
}
