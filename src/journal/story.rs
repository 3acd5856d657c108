//! What is kept of a job that is done: its last status byte for byte, and in brief what became of
//! it. Packed with a dictionary of the words that all of them share, so that a usual one takes
//! some hundred bytes.
//!
//! What must hold: what was packed reads back the same, for ever: a packed text begins with the
//! number of its dictionary, and a dictionary never changes.

use serde::{Deserialize, Serialize};

use super::Error;
use super::events::Happened;
use super::packed::{pack, unpack};
use crate::clock::Timestamp;
use crate::job::phase::Event;
use crate::job::{Job, Status};

/// The newest events and statuses of a job that are kept: what repeats itself is one of them.
pub(super) const KEPT_MAX: u32 = 64;

/// What is kept of a job, or of a message that was refused.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Story {
    /// Its last status, byte for byte as it was published.
    pub(super) last: Vec<u8>,
    /// The job; `None` where its message was refused.
    pub(super) job: Option<Job>,
    /// What happened to it, the oldest first.
    pub(super) events: Vec<Happened>,
    /// How many older events are left out.
    pub(super) left_out: u64,
    /// What was said of it before the last status, the oldest first.
    pub(super) said: Vec<Status>,
}

/// How it is written: short keys, and no field twice.
#[derive(Serialize, Deserialize)]
struct Brief {
    job: Option<Job>,
    /// When first, how often, how long from the first to the last, and what; times in milliseconds.
    events: Vec<(u64, u64, u64, Event)>,
    left_out: u64,
    said: Vec<Status>,
}

impl Story {
    /// Packs it. What a job's command, entrypoint and environment were is not kept, however long
    /// they were, and the receipt once, in the last status.
    pub(super) fn pack(self) -> Result<Vec<u8>, Error> {
        let Self { last, job, events, left_out, said } = self;
        let job = job.map(|mut job| {
            (job.spec.command, job.spec.entrypoint) = (None, None);
            job.spec.env.clear();
            job
        });
        let events = events.into_iter().map(|happened| {
            let event = match happened.event {
                Event::Attested { .. } => Event::Attested { receipt: serde_json::Value::Null },
                other => other,
            };
            let (at, until) = (happened.at.unix_ms(), happened.until.unix_ms());
            (at, happened.times, until.saturating_sub(at), event)
        });
        let brief = Brief { job, events: events.collect(), left_out, said };
        let mut text = u32::try_from(last.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        text.extend_from_slice(&last);
        serde_json::to_writer(&mut text, &brief)?;
        pack(&text)
    }

    /// Reads a packed one.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self, Error> {
        let (last, brief) = split(packed)?;
        let Brief { job, events, left_out, said } = serde_json::from_slice(&brief)?;
        let events = events.into_iter().map(|(at, times, lasted, event)| {
            let until = Timestamp::from_unix_ms(at.saturating_add(lasted));
            Happened { at: Timestamp::from_unix_ms(at), until, times, event }
        });
        Ok(Self { last, job, events: events.collect(), left_out, said })
    }

    /// The last status of a packed one.
    pub(super) fn last(packed: &[u8]) -> Result<Vec<u8>, Error> {
        split(packed).map(|(last, _)| last)
    }
}

fn split(packed: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut text = unpack(packed)?;
    let cut_short = || Error::Failed("a packed job is cut short".into());
    let (length, rest) = text.split_first_chunk::<4>().ok_or_else(cut_short)?;
    let length = u32::from_be_bytes(*length) as usize;
    if rest.len() < length {
        return Err(cut_short());
    }
    let brief = text.split_off(4 + length);
    text.drain(..4);
    Ok((text, brief))
}
