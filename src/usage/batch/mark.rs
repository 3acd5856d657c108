//! What happened to a job while it was watched, stamped into the series of its samples.
//!
//! Pure. Invariant: a job's own metrics, which are a stranger's text, get in only with a plain name and a finite number.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;
use crate::node::GpuUuid;

/// Longest name of a job's own metric, in bytes.
pub const OWN_NAME_BYTES_MAX: usize = 64;

/// Something that happened at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// When, by the host's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: MarkKind,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MarkKind {
    /// The kernel ended a process of the job, since there was no memory left for it.
    Oom,
    /// The driver reported an error of a card.
    Xid {
        /// The error's number in NVIDIA's list.
        number: u32,
        /// The card, if the driver named it.
        card: Option<GpuUuid>,
    },
    /// Heat or its supply slows a card.
    Throttled {
        /// The card, if the driver named it.
        card: Option<GpuUuid>,
    },
    /// The host's clock was set.
    ClockStep {
        /// By how much, in milliseconds; negative if it was set back.
        ms: i64,
    },
    /// Nobody looked for longer than the interval.
    Gap {
        /// For how long, in milliseconds.
        ms: u64,
    },
    /// A counter went back: it wrapped or began anew.
    CounterReset,
    /// A value that the job itself told.
    Own {
        /// Its name, of 1 to [`OWN_NAME_BYTES_MAX`] of `A-Za-z0-9_.:/-`.
        name: String,
        /// Its value, a finite number.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        value: f64,
    },
}

impl Mark {
    /// A job's own metric; `None` if its name or its value is not one that is taken.
    pub fn own(at: Timestamp, name: &str, value: f64) -> Option<Self> {
        let mark = Self { at, kind: MarkKind::Own { name: name.to_owned(), value } };
        (name.len() <= OWN_NAME_BYTES_MAX && mark.is_sound()).then_some(mark)
    }

    /// Whether its texts and numbers are within their limits.
    pub(super) fn is_sound(&self) -> bool {
        match &self.kind {
            MarkKind::Own { name, value } => {
                let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.:/-".contains(&b);
                (1..=OWN_NAME_BYTES_MAX).contains(&name.len())
                    && name.bytes().all(plain)
                    && value.is_finite()
            }
            MarkKind::Xid { card, .. } | MarkKind::Throttled { card } => {
                card.as_ref().is_none_or(|uuid| GpuUuid::new(uuid.as_str()).is_some())
            }
            MarkKind::Oom
            | MarkKind::ClockStep { .. }
            | MarkKind::Gap { .. }
            | MarkKind::CounterReset => true,
        }
    }
}

/// As text: a JSON parser may change the last digit of a number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn write_number<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:?}"))
}

fn read_number<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_jobs_own_metric_has_a_plain_name_and_a_finite_number() {
        let own = |name: &str, value| Mark::own(Timestamp::default(), name, value);
        let mark = own("train/loss", 0.1).unwrap();
        assert_eq!(
            serde_json::to_value(mark).unwrap(),
            json!({"at": "1970-01-01T00:00:00.000Z", "kind": "own", "name": "train/loss", "value": "0.1"})
        );
        for (name, value) in [
            ("", 1.0),
            ("a b", 1.0),
            ("a\n", 1.0),
            ("ä", 1.0),
            (&*"x".repeat(65), 1.0),
            ("a", f64::NAN),
            ("a", f64::INFINITY),
        ] {
            assert_eq!(own(name, value), None, "{name} {value}");
        }
    }
}
