//! What a job used: the values that are read of it, how they add up, and what is said about them.
//!
//! Pure. Invariants: a value that could not be read is unknown, with the reason, and never 0; a total covers the
//! job's whole life, whatever part of its samples is still kept.

pub mod advice;
pub mod anomaly;
pub mod batch;
pub mod card;
pub mod figures;
pub mod heard;
pub mod message;
pub mod metric;
pub mod profile;
pub mod record;
pub mod rollup;
pub mod sample;
mod tally;
pub mod totals;
pub mod tree;
pub mod watch;

pub use advice::{Asked, Used};
pub use batch::{Batch, Chain, Cost, Mark, MarkKind};
pub use figures::Usage;
pub use metric::{CardMetric, Kind, Metric};
pub use profile::{InvalidProfile, Profile};
pub use record::{Record, SignedUsage};
pub use rollup::{Bucket, Rollups, Span};
pub use sample::{CardReadings, Reading, Readings, Sample, Unknown};
pub use totals::{CardTotals, EnergyMethod, Totals};
