//! One look at a job: a reading, or the reason why there is none, for each metric.

use std::fmt;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::metric::{CardMetric, Metric};
use crate::clock::Timestamp;
use crate::node::GpuUuid;

/// The most cards of a job whose readings are kept.
pub const CARDS_MAX: usize = 16;

/// A value, or why it is not known.
pub type Reading = Result<u64, Unknown>;

/// Why a value is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// The job's profile does not ask for it.
    Off,
    /// This kernel, card or setting does not have it.
    NotSupported,
    /// The node's user may not read it.
    Denied,
    /// The driver is too old to be asked.
    TooOld,
    /// What was to be read had ended.
    Gone,
    /// The answer could not be understood, or reading it failed.
    Failed,
    /// Not all of the job's life was seen: the node was not running, or could not look.
    Missed,
}

impl Unknown {
    /// The word for it in documents.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotSupported => "not_supported",
            Self::Denied => "denied",
            Self::TooOld => "too_old",
            Self::Gone => "gone",
            Self::Failed => "failed",
            Self::Missed => "missed",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "its monitoring profile does not ask for it",
            Self::NotSupported => "not supported here",
            Self::Denied => "not allowed to the node's user",
            Self::TooOld => "the driver is too old",
            Self::Gone => "it had ended before it could be read",
            Self::Failed => "it could not be read",
            Self::Missed => "the node did not see all of the job",
        })
    }
}

/// A reading of each [`Metric`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readings([Reading; Metric::COUNT]);

impl Readings {
    /// Readings of which nothing is known, for this reason.
    pub const fn unknown(why: Unknown) -> Self {
        Self([Err(why); Metric::COUNT])
    }
}

impl Index<Metric> for Readings {
    type Output = Reading;

    fn index(&self, metric: Metric) -> &Reading {
        &self.0[metric as usize]
    }
}

impl IndexMut<Metric> for Readings {
    fn index_mut(&mut self, metric: Metric) -> &mut Reading {
        &mut self.0[metric as usize]
    }
}

/// A reading of each [`CardMetric`] of one card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardReadings([Reading; CardMetric::COUNT]);

impl CardReadings {
    /// Readings of which nothing is known, for this reason.
    pub const fn unknown(why: Unknown) -> Self {
        Self([Err(why); CardMetric::COUNT])
    }
}

impl Index<CardMetric> for CardReadings {
    type Output = Reading;

    fn index(&self, metric: CardMetric) -> &Reading {
        &self.0[metric as usize]
    }
}

impl IndexMut<CardMetric> for CardReadings {
    fn index_mut(&mut self, metric: CardMetric) -> &mut Reading {
        &mut self.0[metric as usize]
    }
}

/// One look at a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, by the host's clock, which may be set back.
    pub at: Timestamp,
    /// Time since the job's container was started, by a clock that only goes forward.
    pub since_start: Duration,
    /// What the job used as a whole.
    pub job: Readings,
    /// What it used of its cards, in the order in which it has them.
    pub cards: Vec<(GpuUuid, CardReadings)>,
}
