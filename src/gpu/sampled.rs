//! The last samples that were answered, kept for when the driver does not answer.
//!
//! Invariant: what is told has its age; a failure never makes an old round look new.

use std::time::{Duration, Instant};

use super::{Error, GpuProbe};
use crate::node::card::Round;

/// Samples of all cards, and when they were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampled<'r> {
    /// The cards' samples.
    pub round: &'r Round,
    /// How long ago they were taken.
    pub age: Duration,
}

/// Keeps the last good round.
#[derive(Debug, Default)]
pub struct LastSample(Option<(Round, Instant)>);

impl LastSample {
    /// Samples the cards once. After a failure the round before it is still [told](Self::told).
    pub async fn refresh(&mut self, probe: &impl GpuProbe) -> Result<(), Error> {
        let began = Instant::now();
        self.0 = Some((probe.sample().await?, began));
        Ok(())
    }

    /// The last good round with its age; `None` if there was none yet.
    pub fn told(&self) -> Option<Sampled<'_>> {
        self.told_at(Instant::now())
    }

    fn told_at(&self, now: Instant) -> Option<Sampled<'_>> {
        let (round, taken) = self.0.as_ref()?;
        Some(Sampled { round, age: now.saturating_duration_since(*taken) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::fake::Fake;
    use crate::node::{Gpu, GpuInventory, GpuUuid};

    #[tokio::test]
    async fn a_driver_that_fails_leaves_the_last_round_with_its_age() {
        let uuid = GpuUuid::new("GPU-a").unwrap();
        let gpu = Gpu { uuid: uuid.clone(), model: "x".to_owned(), vram_mib: 1 };
        let fake = Fake::new(GpuInventory { gpus: vec![gpu], ..GpuInventory::default() });
        let mut last = LastSample::default();
        fake.silence(Some("gone"));
        assert!(last.refresh(&fake).await.is_err());
        assert_eq!(last.told(), None);

        fake.silence(None);
        last.refresh(&fake).await.unwrap();
        let later = Instant::now() + Duration::from_secs(3);
        let first = last.told_at(later).unwrap();
        assert_eq!(first.round.keys().collect::<Vec<_>>(), [&uuid]);
        assert!(first.age >= Duration::from_secs(3), "{first:?}");
        let age = first.age;

        fake.silence(Some("gone"));
        assert!(last.refresh(&fake).await.is_err());
        assert_eq!(last.told_at(later).unwrap().age, age);
        fake.silence(None);
        last.refresh(&fake).await.unwrap();
        assert!(last.told_at(later).unwrap().age < age);
    }
}
