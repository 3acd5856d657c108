//! What the driver's events and samples say about the health of a card.
//!
//! Invariant: heat, and errors that a program is known to cause by itself, never put a card into quarantine.

use super::super::GpuUuid;
use super::super::card::{CardEvent, Round, Sample, Unknown};
use super::xid::{self, Meaning};
use super::{Health, State};

/// Samples in a row in which a card must be slowed before it is doubted: short peaks are normal.
const SLOWED_MAX: u32 = 3;

impl Health {
    /// Takes in an event, which the driver reports at once. Returns a text for the log if the running program
    /// caused it.
    pub fn happened(&mut self, uuid: &GpuUuid, event: CardEvent) -> Option<String> {
        match event {
            CardEvent::Xid(number) => {
                let words = xid::words(number);
                match xid::meaning(number).0 {
                    Meaning::Program => return Some(words),
                    Meaning::Doubt => self.doubt(uuid, &words),
                    Meaning::Defect => self.defect(uuid, &words),
                    Meaning::Final => self.retire(uuid, &words),
                }
            }
            CardEvent::UncorrectedError => {
                self.defect(uuid, "a memory error could not be corrected");
            }
            CardEvent::Unavailable => self.defect(uuid, "the driver can't reach the card"),
        }
        None
    }

    /// Takes in a round of samples.
    pub fn sampled(&mut self, round: &Round) {
        for (uuid, reading) in round {
            match reading {
                Ok(sample) => self.sampled_one(uuid, sample),
                Err(Unknown::Lost) => self.defect(uuid, "the card fell off the bus"),
                Err(_) => {}
            }
        }
    }

    fn sampled_one(&mut self, uuid: &GpuUuid, sample: &Sample) {
        let card = self.cards.entry(uuid.clone()).or_default();
        let before = card.errors;
        if let Ok(errors) = sample.uncorrected_errors {
            card.errors = Some(errors);
        }
        let is_slowed = is_slowed(sample);
        card.slowed = if is_slowed.is_some() { card.slowed.saturating_add(1) } else { 0 };
        let is_healthy = card.record.state == State::Healthy;
        let stays = is_healthy && card.slowed >= SLOWED_MAX;
        if let Ok(rows) = &sample.rows
            && rows.failed
        {
            self.retire(uuid, "a memory row is defective and no spare one is left");
        } else if let (Ok(errors), Some(before)) = (&sample.uncorrected_errors, before)
            && *errors > before
        {
            let new = errors - before;
            self.defect(uuid, &format!("{new} memory errors could not be corrected"));
        } else if let Some(why) = is_slowed
            && stays
        {
            // Its surroundings or a job may be to blame: slowness alone never leads to quarantine.
            self.not_given(uuid, why);
        }
    }
}

fn is_slowed(sample: &Sample) -> Option<&'static str> {
    match &sample.slowed {
        Ok(slowed) if slowed.thermal => Some("it is slowed because it is too hot"),
        Ok(slowed) if slowed.power_brake => Some("its power supply slows it"),
        _ => None,
    }
}
