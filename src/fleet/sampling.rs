//! Which events go to a sink that does not get all of them.
//!
//! Must hold: of a job all events below a warning go or none, on whichever node it runs; warnings and errors
//! always go, and so does what is about no job.

use super::event::{Event, Level, TraceId};

/// The share of jobs whose events go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling(f64);

impl Sampling {
    /// All events go.
    pub const ALL: Self = Self(1.0);

    /// This share of jobs; one outside of 0 to 1 is brought to the nearer end, and what is no number is 1.
    pub fn of(rate: f64) -> Self {
        if rate.is_nan() { Self::ALL } else { Self(rate.clamp(0.0, 1.0)) }
    }

    /// The share of jobs whose events go, 0 to 1.
    pub const fn rate(self) -> f64 {
        self.0
    }

    /// Whether the event goes.
    pub fn takes(self, event: &Event) -> bool {
        let Some(job) = &event.job_id else { return true };
        // Without the comparison, rounding could leave one job in 2^53 out.
        event.level >= Level::Warning || self.0 >= 1.0 || place(&TraceId::of_job(job)) < self.0
    }
}

/// The place of a job between 0 and 1, the same on every node and evenly spread: the first 53 bits of its hash.
fn place(id: &TraceId) -> f64 {
    let bits = id.0.iter().take(8).fold(0, |bits: u64, byte| (bits << 8) | u64::from(*byte)) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
    let place = bits as f64 / (1_u64 << 53) as f64;
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::fleet::{Kind, kinds};
    use crate::ids::{Address, JobId};

    fn event(kind: Kind, job: &str) -> Event {
        let job: JobId = job.parse().unwrap();
        Event::new(kind, Address::new([1; 20]), Timestamp::default(), "m").about(&job)
    }

    #[test]
    fn all_events_of_a_job_go_or_none_and_the_rate_is_kept() {
        let sampling = Sampling::of(0.1);
        let jobs = 10_000;
        let mut taken = 0;
        for job in 0..jobs {
            let job = format!("job-{job}");
            let goes = sampling.takes(&event(kinds::JOB_ACCEPTED, &job));
            assert_eq!(goes, sampling.takes(&event(kinds::JOB_COMPLETED, &job)), "{job}");
            taken += u32::from(goes);
        }
        assert!((850..1150).contains(&taken), "{taken} of {jobs}");
    }

    #[test]
    fn warnings_errors_and_what_is_about_no_job_always_go() {
        let none = Sampling::of(0.0);
        assert!(!none.takes(&event(kinds::JOB_RUNNING, "j")));
        for kind in [kinds::JOB_RETRIED, kinds::JOB_FAILED, kinds::JOB_REJECTED] {
            assert!(none.takes(&event(kind, "j")), "{}", kind.event_type);
        }
        let jobless =
            Event::new(kinds::NODE_STARTED, Address::new([1; 20]), Timestamp::default(), "m");
        assert!(none.takes(&jobless));
    }

    #[test]
    fn a_rate_outside_of_its_range_is_brought_to_it() {
        for (set, kept) in [(-1.0, 0.0), (0.25, 0.25), (7.0, 1.0), (f64::NAN, 1.0)] {
            assert!((Sampling::of(set).rate() - kept).abs() < f64::EPSILON, "{set}");
        }
        assert!(
            (0..1000)
                .all(|job| { Sampling::ALL.takes(&event(kinds::JOB_RUNNING, &format!("j{job}"))) })
        );
    }
}
