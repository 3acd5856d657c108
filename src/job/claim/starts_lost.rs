//! Starts of a job that were taken over from unreachable agents: a short list within a claim.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::STARTS_MAX;
use crate::ids::Address;

/// Every counted start may be that of a silent agent.
const MAX: usize = STARTS_MAX as usize;

/// One start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The agent that started the job.
    pub agent: Address,
    /// The number of that agent's attempt.
    pub attempt: u32,
}

/// Counted starts whose agents have not reported yet what became of them. An agent that comes back
/// removes its own start: it was only cut off, and the job did not bring it down. Each start is listed
/// once, so that it can't be removed twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silent([Option<Start>; MAX]);

impl Silent {
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The starts, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Start> + '_ {
        self.0.iter().copied().flatten()
    }

    /// Adds a start; drops the oldest if there are more than a claim counts.
    pub(super) fn with(self, start: Start) -> Self {
        let all: Vec<Start> =
            self.iter().filter(|one| *one != start).chain(std::iter::once(start)).collect();
        Self::of(&all[all.len().saturating_sub(MAX)..])
    }

    /// Removes a start; `None` if it is not listed.
    pub(super) fn without(self, start: Start) -> Option<Self> {
        let rest: Vec<Start> = self.iter().filter(|one| *one != start).collect();
        (rest.len() < self.iter().count()).then(|| Self::of(&rest))
    }

    pub(super) fn of(starts: &[Start]) -> Self {
        let mut silent = Self::default();
        for (place, start) in silent.0.iter_mut().zip(starts) {
            *place = Some(*start);
        }
        silent
    }
}

impl Serialize for Silent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Silent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Another agent wrote this. A claim is bounded, so keep only the newest `MAX` starts.
        let all = Vec::<Start>::deserialize(deserializer)?;
        Ok(Self::of(&all[all.len().saturating_sub(MAX)..]))
    }
}
