//! The starts of a job that were taken over from agents that were out of reach: a few, in a claim.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::STARTS_MAX;
use crate::ids::Address;

/// Each start that is counted may be that of an agent that is silent.
const MAX: usize = STARTS_MAX as usize;

/// One start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Who started it.
    pub agent: Address,
    /// Which attempt of that agent's it was.
    pub attempt: u32,
}

/// Starts that are counted and whose agents have not said yet what became of them. An agent that
/// comes back takes its own out: it was cut off, and the job did not take it down. Each start
/// stands here once, so that it can't be taken out twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Silent([Option<Start>; MAX]);

impl Silent {
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Start> + '_ {
        self.0.iter().copied().flatten()
    }

    /// With this one; the oldest goes where there are more than a claim can count.
    pub(super) fn with(self, start: Start) -> Self {
        let all: Vec<Start> =
            self.iter().filter(|one| *one != start).chain(std::iter::once(start)).collect();
        Self::of(&all[all.len().saturating_sub(MAX)..])
    }

    /// Without this one; `None` where it is none of them.
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
        // A claim is bounded, and so is this; the newest count where somebody wrote more.
        let all = Vec::<Start>::deserialize(deserializer)?;
        Ok(Self::of(&all[all.len().saturating_sub(MAX)..]))
    }
}
