//! A run of samples as it goes over the wire and lies on the disk: columns of changes in JSON, compressed, and chained
//! by hashes ([`chain`]).
//!
//! Pure. Invariants: a batch reads back as it was written (times since the start in whole microseconds); it has one
//! text alone, so that its head names its content; reading one takes bounded memory.

pub mod chain;
mod columns;
pub mod mark;
#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainBroken, Head};
pub use mark::{Mark, MarkKind};

use std::time::Duration;

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::metric::{CardMetric, Metric};
use super::sample::{CARDS_MAX, CardReadings, Reading, Readings, Sample, Unknown};
use super::tally::micros;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash, JobId};
use crate::node::GpuUuid;
use columns::{Columns, read_series, write_series};

/// Most samples in one batch.
pub const SAMPLES_MAX: usize = 1_000;

/// Most marks in one batch.
pub const MARKS_MAX: usize = 1_000;

/// Longest batch, in bytes, as it is sent.
pub const BYTES_MAX: usize = 64 << 10;

/// Longest text of a batch, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Version of the text.
const VERSION: u32 = 1;

/// zlib's default level. The next levels gain about one percent and take twice as long.
const LEVEL: u8 = 6;

/// What the sampler itself used for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// CPU time, in microseconds.
    pub cpu_us: u64,
    /// Bytes of the batches before it.
    pub bytes: u64,
}

/// A run of samples of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The job.
    pub job_id: JobId,
    /// Which attempt at it.
    pub attempt: u32,
    /// The node that runs it.
    pub node: Address,
    /// Its number in the chain, from 0 on.
    pub number: u32,
    /// The head of the batch before it; zeros in the first.
    pub prev: Hash,
    /// The samples, at most [`SAMPLES_MAX`], in their order. All have the same cards, at most [`CARDS_MAX`].
    pub samples: Vec<Sample>,
    /// What happened meanwhile, at most [`MARKS_MAX`].
    pub marks: Vec<Mark>,
    /// What it took to make it.
    pub cost: Cost,
}

/// A batch as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The text, compressed by zlib; at most [`BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// SHA-256 of the text: the `prev` of the next batch.
    pub head: Hash,
}

/// Why a batch can't be written or read: a clause about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidBatch(String);

/// The text of a batch. The order of the keys is part of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    v: u32,
    job_id: JobId,
    attempt: u32,
    node: Address,
    number: u32,
    prev: Hash,
    cost: Cost,
    at_ms: Vec<i64>,
    since_start_us: Vec<i64>,
    job: Columns,
    cards: Vec<CardColumns>,
    marks: Vec<Mark>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CardColumns {
    uuid: String,
    readings: Columns,
}

impl Batch {
    /// Writes it. Fails if it is over one of its limits, or if its samples have different cards.
    pub fn pack(&self) -> Result<Packed, InvalidBatch> {
        let text = self.text()?;
        let bytes = compress_to_vec_zlib(&text, LEVEL);
        if bytes.len() > BYTES_MAX {
            return Err(InvalidBatch(format!("it is longer than {BYTES_MAX} bytes")));
        }
        Ok(Packed { bytes, head: head_of(&text) })
    }

    /// Reads what [`Batch::pack`] wrote; its head too. Fails if it is anything else.
    pub fn unpack(bytes: &[u8]) -> Result<(Self, Hash), InvalidBatch> {
        if bytes.len() > BYTES_MAX {
            return Err(InvalidBatch(format!("it is longer than {BYTES_MAX} bytes")));
        }
        let text = decompress_to_vec_zlib_with_limit(bytes, TEXT_BYTES_MAX).map_err(|_| {
            InvalidBatch(format!("it is not zlib data of at most {TEXT_BYTES_MAX} bytes"))
        })?;
        let document: Document =
            serde_json::from_slice(&text).map_err(|err| InvalidBatch(err.to_string()))?;
        let batch = document.batch()?;
        if batch.text()? == text {
            Ok((batch, head_of(&text)))
        } else {
            Err(InvalidBatch("it is not written in the one form that a batch has".to_owned()))
        }
    }

    fn text(&self) -> Result<Vec<u8>, InvalidBatch> {
        let invalid = |what: String| Err(InvalidBatch(what));
        let cards: &[_] = self.samples.first().map_or(&[], |sample| &sample.cards);
        let same_cards = |sample: &Sample| {
            let uuids = sample.cards.iter().map(|(uuid, _)| uuid);
            uuids.eq(cards.iter().map(|(uuid, _)| uuid))
        };
        if self.samples.len() > SAMPLES_MAX {
            return invalid(format!("it has more than {SAMPLES_MAX} samples"));
        } else if cards.len() > CARDS_MAX {
            return invalid(format!("it has more than {CARDS_MAX} cards"));
        } else if !self.samples.iter().all(same_cards) {
            return invalid("its samples have different cards".to_owned());
        } else if self.marks.len() > MARKS_MAX {
            return invalid(format!("it has more than {MARKS_MAX} marks"));
        } else if !self.marks.iter().all(Mark::is_sound) {
            return invalid("a mark has an impossible name, number or card".to_owned());
        }
        let document = Document {
            v: VERSION,
            job_id: self.job_id.clone(),
            attempt: self.attempt,
            node: self.node,
            number: self.number,
            prev: self.prev,
            cost: self.cost,
            at_ms: write_series(self.samples.iter().map(|sample| sample.at.unix_ms())),
            since_start_us: write_series(self.samples.iter().map(|s| micros(s.since_start))),
            job: self.job_columns(),
            cards: (0..).zip(cards).map(|(at, (uuid, _))| self.card_columns(at, uuid)).collect(),
            marks: self.marks.clone(),
        };
        let text = serde_json::to_vec(&document).map_err(|err| InvalidBatch(err.to_string()))?;
        if text.len() > TEXT_BYTES_MAX {
            return invalid(format!("its text is longer than {TEXT_BYTES_MAX} bytes"));
        }
        Ok(text)
    }

    fn job_columns(&self) -> Columns {
        let mut columns = Columns::default();
        for metric in Metric::ALL {
            let column: Vec<Reading> = self.samples.iter().map(|s| s.job[metric]).collect();
            columns.write(metric.name(), &column);
        }
        columns
    }

    fn card_columns(&self, at: usize, uuid: &GpuUuid) -> CardColumns {
        let mut readings = Columns::default();
        for metric in CardMetric::ALL {
            let cards = self.samples.iter().filter_map(|sample| sample.cards.get(at));
            let column: Vec<Reading> = cards.map(|(_, readings)| readings[metric]).collect();
            readings.write(metric.name(), &column);
        }
        CardColumns { uuid: uuid.to_string(), readings }
    }
}

impl Document {
    fn batch(mut self) -> Result<Batch, InvalidBatch> {
        let count = self.at_ms.len();
        if self.v != VERSION {
            return Err(InvalidBatch(format!("it is of version {}", self.v)));
        } else if count > SAMPLES_MAX {
            return Err(InvalidBatch(format!("it has more than {SAMPLES_MAX} samples")));
        } else if self.since_start_us.len() != count {
            return Err(InvalidBatch("its samples lack times".to_owned()));
        } else if self.cards.len() > CARDS_MAX {
            return Err(InvalidBatch(format!("it has more than {CARDS_MAX} cards")));
        }
        let times = read_series(&self.at_ms).zip(read_series(&self.since_start_us));
        let mut samples: Vec<Sample> = times
            .map(|(at_ms, since_start_us)| Sample {
                at: Timestamp::from_unix_ms(at_ms),
                since_start: Duration::from_micros(since_start_us),
                job: Readings::unknown(Unknown::Failed),
                cards: Vec::with_capacity(self.cards.len()),
            })
            .collect();
        for metric in Metric::ALL {
            let column = self.job.read(metric.name(), count).map_err(InvalidBatch)?;
            for (sample, reading) in samples.iter_mut().zip(column) {
                sample.job[metric] = reading;
            }
        }
        for card in self.cards {
            card.read(&mut samples)?;
        }
        Ok(Batch {
            job_id: self.job_id,
            attempt: self.attempt,
            node: self.node,
            number: self.number,
            prev: self.prev,
            samples,
            marks: self.marks,
            cost: self.cost,
        })
    }
}

impl CardColumns {
    /// Adds the card to each of the samples.
    fn read(mut self, samples: &mut [Sample]) -> Result<(), InvalidBatch> {
        let uuid = GpuUuid::new(&self.uuid)
            .ok_or_else(|| InvalidBatch("a card's `uuid` is not one".to_owned()))?;
        let mut cards = vec![CardReadings::unknown(Unknown::Failed); samples.len()];
        for metric in CardMetric::ALL {
            let column = self.readings.read(metric.name(), samples.len());
            for (card, reading) in cards.iter_mut().zip(column.map_err(InvalidBatch)?) {
                card[metric] = reading;
            }
        }
        for (sample, card) in samples.iter_mut().zip(cards) {
            sample.cards.push((uuid.clone(), card));
        }
        Ok(())
    }
}

fn head_of(text: &[u8]) -> Hash {
    Hash(Sha256::digest(text).into())
}
