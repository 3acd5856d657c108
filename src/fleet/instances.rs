//! The runs of the program that were heard with one key: which beat was taken already, and whether two run at once.
//! Pure.
//!
//! A program that starts anew is a new run, and the old one is never heard again. So two run at once if one that was
//! heard before is heard again after another one.
//!
//! Must hold: at most [`RUNS_MAX`] are remembered, and none is forgotten while a beat that it signed could be taken a
//! second time. What nobody signed keeps no signed beat out.

use std::time::Duration;

use super::signed::{Refused, SKEW_MAX};
use crate::clock::Timestamp;
use crate::ids::Hash;

/// Most runs of one key that are kept apart: a program that ends and starts again each 40 s makes no more.
pub const RUNS_MAX: usize = 16;

/// Most of them that have signed nothing: anybody who may write to NATS can invent those.
pub const UNSIGNED_MAX: usize = 4;

/// How long a silent run is remembered: what it signed ahead of the hub's clock is stale only then.
pub const KEPT: Duration = Duration::from_secs(2 * SKEW_MAX.as_secs() + 1);

/// Where a run was heard that was not heard over HTTP.
pub const ON_NATS: &str = "NATS";

/// A run of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub instance: Hash,
    /// The latest time that it signed a beat at, in ms since 1970; 0: none.
    pub signed_ms: u64,
    /// When it was heard last, by the hub's clock.
    pub heard: Timestamp,
    /// Where from: the address of its last beat, or [`ON_NATS`].
    pub place: String,
}

/// Two runs with one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// When that was seen last.
    pub at: Timestamp,
    /// Who they are, in words.
    pub who: String,
}

/// The runs that were heard with one key.
#[derive(Debug, Clone, Default)]
pub struct Instances(Vec<Run>);

impl Instances {
    /// Those of before a restart of the hub.
    pub fn of(runs: Vec<Run>) -> Self {
        Self(runs)
    }

    /// Whether nothing of this counts any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.0.iter().all(|run| now.since(run.heard) > KEPT)
    }

    /// A run was heard at `now`; `signed_ms`: by a beat that it signed at this time. Returns the clash with another
    /// run that was heard within `patience`, if there is one.
    pub fn hears(
        &mut self,
        (instance, signed_ms): (Hash, Option<u64>),
        place: &str,
        patience: Duration,
        now: Timestamp,
    ) -> Result<Option<Clash>, Refused> {
        self.0.retain(|run| now.since(run.heard) <= KEPT);
        let known = self.0.iter().position(|run| run.instance == instance);
        let Some(known) = known.and_then(|at| self.0.get_mut(at)) else {
            self.make_room(signed_ms.is_some())?;
            let (signed_ms, place) = (signed_ms.unwrap_or_default(), place.to_owned());
            self.0.push(Run { instance, signed_ms, heard: now, place });
            return Ok(None);
        };
        if signed_ms.is_some_and(|at| at <= known.signed_ms) {
            return Err(Refused::Replayed);
        }
        let before = known.heard;
        known.heard = now;
        known.signed_ms = signed_ms.unwrap_or(known.signed_ms);
        if signed_ms.is_some() || known.place == ON_NATS {
            place.clone_into(&mut known.place);
        }
        let me = known.clone();
        let others = self.0.iter().filter(|run| run.instance != instance);
        let between = others.filter(|run| run.heard >= before && now.since(run.heard) <= patience);
        let other = between.max_by_key(|run| run.heard).filter(|_| now.since(before) <= patience);
        Ok(other.map(|other| Clash { at: now, who: who(&me, other) }))
    }
}

impl Instances {
    /// Makes a place for one more run: in that of one that has signed nothing, so that no beat can be repeated by it.
    fn make_room(&mut self, is_signed: bool) -> Result<(), Refused> {
        let unsigned = self.0.iter().enumerate().filter(|(_, run)| run.signed_ms == 0);
        let count = unsigned.clone().count();
        if self.0.len() < RUNS_MAX && (is_signed || count < UNSIGNED_MAX) {
            return Ok(());
        }
        let oldest = unsigned.min_by_key(|(_, run)| run.heard).map(|(at, _)| at);
        self.0.remove(oldest.ok_or(Refused::Crowd)?);
        Ok(())
    }
}

/// Both in words, always in the same order.
fn who(one: &Run, other: &Run) -> String {
    let (first, second) = if one.instance <= other.instance { (one, other) } else { (other, one) };
    let run = |run: &Run| format!("{} from {}", short(run.instance), run.place);
    format!("two programs use its key: {} and {}", run(first), run(second))
}

/// The first digits of an id.
fn short(instance: Hash) -> String {
    instance.to_string().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
    const PATIENCE: Duration = Duration::from_mins(3);
    const A: Hash = Hash([0xa; 32]);
    const B: Hash = Hash([0xb; 32]);

    fn at(second: u64) -> Timestamp {
        T0.plus(Duration::from_secs(second))
    }

    /// Hears these runs at these seconds, and returns the seconds at which two ran at once.
    fn clashes(heard: &[(Hash, u64)]) -> Vec<u64> {
        let mut runs = Instances::default();
        let mut seen = Vec::new();
        for (instance, second) in heard {
            let now = at(*second);
            let said = (*instance, Some(now.unix_ms()));
            let clash = runs.hears(said, "203.0.113.7", PATIENCE, now).unwrap();
            seen.extend(clash.map(|_| *second));
        }
        seen
    }

    #[test]
    fn a_program_that_starts_anew_is_no_second_one() {
        assert_eq!(clashes(&[(A, 0), (A, 30), (B, 40), (B, 70), (B, 100)]), [0; 0]);
        assert_eq!(clashes(&[(A, 0), (B, 5), (Hash([3; 32]), 9)]), [0; 0]);
    }

    #[test]
    fn one_that_is_heard_again_after_another_is() {
        assert_eq!(clashes(&[(A, 0), (B, 10), (A, 30), (B, 40), (A, 60), (A, 90)]), [30, 40, 60]);
        assert_eq!(clashes(&[(A, 0), (B, 10), (A, 200)]), [0; 0], "not within the patience");
    }

    #[test]
    fn who_they_are_is_said_with_both_places() {
        let mut runs = Instances::default();
        let hears = |runs: &mut Instances, run, signed: Option<u64>, place: &str, second| {
            runs.hears((run, signed), place, PATIENCE, at(second)).unwrap()
        };
        hears(&mut runs, B, Some(1), "203.0.113.7", 0);
        hears(&mut runs, B, None, ON_NATS, 1);
        hears(&mut runs, A, None, ON_NATS, 2);
        let clash = hears(&mut runs, B, None, ON_NATS, 3).unwrap();
        let who = "two programs use its key: 0x0a0a0a0a from NATS and 0x0b0b0b0b from 203.0.113.7";
        assert_eq!((clash.who.as_str(), clash.at), (who, at(3)));
    }

    #[test]
    fn a_beat_is_taken_once_and_each_run_has_its_own_clock() {
        let mut runs = Instances::default();
        let mut hears =
            |run, signed, second| runs.hears((run, Some(signed)), "p", PATIENCE, at(second));
        assert_eq!(hears(A, 1_000, 0), Ok(None));
        assert_eq!(hears(A, 1_000, 1), Err(Refused::Replayed));
        assert_eq!(hears(A, 999, 1), Err(Refused::Replayed));
        assert_eq!(hears(B, 500, 2), Ok(None), "its clock is behind");
        assert!(hears(A, 1_001, 3).unwrap().is_some());
        // As long as the beat itself is fresh, which may have been signed ahead of the hub's clock.
        assert_eq!(hears(A, 1_001, 3 + 600), Err(Refused::Replayed));
    }

    #[test]
    fn however_many_runs_nobody_signed_for_a_signed_beat_is_taken_and_no_other_one_twice() {
        let mut runs = Instances::default();
        let mut hears = |run: u8, signed, second| {
            runs.hears((Hash([run; 32]), signed), "p", PATIENCE, at(second))
        };
        for run in 0..100 {
            assert_eq!(hears(run, None, u64::from(run)), Ok(None));
        }
        for run in 100..116 {
            assert_eq!(hears(run, Some(1), 100), Ok(None), "{run}");
        }
        assert_eq!(hears(116, Some(1), 101), Err(Refused::Crowd));
        assert_eq!(hears(117, None, 101), Err(Refused::Crowd));
        assert_eq!(hears(100, Some(1), 102), Err(Refused::Replayed));
    }

    #[test]
    fn two_on_nats_are_told_of_however_often_they_started_before() {
        let mut runs = Instances::default();
        for run in 0..20 {
            runs.hears((Hash([run; 32]), None), ON_NATS, PATIENCE, at(u64::from(run))).unwrap();
        }
        let clash = runs.hears((Hash([18; 32]), None), ON_NATS, PATIENCE, at(21)).unwrap();
        assert!(clash.is_some());
    }

    #[test]
    fn of_more_runs_than_can_be_kept_apart_none_is_forgotten_early() {
        let mut runs = Instances::default();
        let mut hears = |run: u8, second| {
            runs.hears((Hash([run; 32]), Some(1)), "p", PATIENCE, at(second)).map(|_| ())
        };
        for run in 0..16 {
            assert_eq!(hears(run, 0), Ok(()));
        }
        assert_eq!(hears(16, 600), Err(Refused::Crowd));
        assert_eq!(hears(0, 600), Err(Refused::Replayed));
        assert_eq!(hears(16, 602), Ok(()), "the others are forgotten");
        assert!(!runs.is_over(at(602 + 601)) && runs.is_over(at(602 + 602)));
    }
}
