//! The score of a node, computed from its data on the chain.
//!
//! The contract computes the same number (`contracts/src/libraries/Score.sol`). One file of vectors
//! checks both against the rule in docs/reputation.md.
//!
//! Must hold: all arithmetic is on integers, and each division rounds down.

/// The upper bound of the score, which no node reaches.
pub const WHOLE: u16 = 10_000;

/// Slots counted as missed from the start (one day), so that a new node begins at 0.
const SLOTS_TO_PROVE: u64 = 288;

/// Jobs counted as not confirmed from the start.
const JOBS_TO_PROVE: u64 = 10;

/// The share of the score that uptime earns without any confirmed job, out of [`WHOLE`].
const UPTIME_ALONE: u64 = 2_000;

/// The highest number of jobs that counts; the contract's counters saturate here.
const JOBS_MAX: u64 = (1 << 40) - 1;

/// The on-chain data that determines a score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Slots of 300 s with a heartbeat.
    pub on_time: u32,
    /// Slots without a heartbeat.
    pub missed: u32,
    /// Jobs that the contract's owner confirmed.
    pub confirmed: u64,
    /// Jobs that the node itself reports as failed.
    pub failed: u64,
}

/// The score of these facts, from 0 to less than [`WHOLE`].
pub fn score(facts: Facts) -> u16 {
    let whole = u64::from(WHOLE);
    let (on_time, missed) = (u64::from(facts.on_time), u64::from(facts.missed));
    let (confirmed, failed) = (facts.confirmed.min(JOBS_MAX), facts.failed.min(JOBS_MAX));
    let uptime = whole * on_time / (on_time + missed + SLOTS_TO_PROVE);
    let work = whole * confirmed / (confirmed + failed + JOBS_TO_PROVE);
    let share = UPTIME_ALONE + (whole - UPTIME_ALONE) * work / whole;
    // Both factors are at most `whole`, so the score fits.
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
