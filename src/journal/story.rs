//! What is kept about a finished job: its last status byte for byte and a summary of its history. It is
//! compressed with a shared dictionary, so that a usual story takes some hundred bytes.
//!
//! Invariant: a packed story can be read back by every later version (see `packed`).

use serde::{Deserialize, Serialize};

use super::Error;
use super::events::Happened;
use super::packed::{pack, unpack};
use crate::clock::Timestamp;
use crate::job::phase::Event;
use crate::job::{Job, Status};

/// How many of a job's newest events and statuses are kept. Consecutive repeats of an event count as one.
pub(super) const KEPT_MAX: u32 = 64;

/// What is kept about a job or a refused message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Story {
    /// The last status, byte for byte as it was published.
    pub(super) last: Vec<u8>,
    /// The job; `None` if its message was refused.
    pub(super) job: Option<Job>,
    /// The events, oldest first.
    pub(super) events: Vec<Happened>,
    /// The number of older events that were dropped.
    pub(super) left_out: u64,
    /// The statuses before the last one, oldest first.
    pub(super) said: Vec<Status>,
}

/// The serialized form, next to the last status.
#[derive(Serialize, Deserialize)]
struct Brief {
    job: Option<Job>,
    /// First time, count, span from the first to the last time, and event. Times are in milliseconds.
    events: Vec<(u64, u64, u64, Event)>,
    left_out: u64,
    said: Vec<Status>,
}

impl Story {
    /// Packs the story. The job's command, entrypoint and environment are dropped, because they can be long.
    /// The receipt is kept only once, in the last status.
    pub(super) fn pack(self) -> Result<Vec<u8>, Error> {
        let Self { last, job, events, left_out, said } = self;
        let job = job.map(|mut job| {
            (job.spec.command, job.spec.entrypoint) = (None, None);
            job.spec.env.clear();
            job
        });
        let events = events.into_iter().map(|happened| {
            let event = match happened.event {
                Event::Attested { .. } => {
                    Event::Attested { receipt: serde_json::Value::Null, usage: None }
                }
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

    /// Reads a packed story.
    pub(super) fn unpack(packed: &[u8]) -> Result<Self, Error> {
        let (last, brief) = split(packed)?;
        let Brief { job, events, left_out, said } = serde_json::from_slice(&brief)?;
        let events = events.into_iter().map(|(at, times, lasted, event)| {
            let until = Timestamp::from_unix_ms(at.saturating_add(lasted));
            Happened { at: Timestamp::from_unix_ms(at), until, times, event }
        });
        Ok(Self { last, job, events: events.collect(), left_out, said })
    }

    /// Reads only the last status of a packed story.
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
