//! The chain over the batches of one job: each names the head of the one before it.
//!
//! Pure. Invariant: of batches whose last head is known (it is signed in the usage record), none can be changed, left
//! out, moved, doubled or exchanged for another job's without being noticed.

use super::{Batch, InvalidBatch};
use crate::ids::{Address, Hash, JobId};

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The head of its last batch; zeros if there is none.
    pub hash: Hash,
    /// Number of batches: that of the next one.
    pub batches: u32,
    /// Number of samples in them.
    pub samples: u32,
}

/// A batch that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("batch {number} of the usage series: {why}")]
pub struct ChainBroken {
    /// The batch's place in the chain, from 0 on.
    pub number: u32,
    /// What is wrong with it: a clause.
    pub why: String,
}

/// The batches of one job that were seen so far.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Head,
    of: Option<(JobId, u32, Address)>,
}

impl Default for Chain {
    fn default() -> Self {
        Self { head: Head { hash: Hash([0; 32]), batches: 0, samples: 0 }, of: None }
    }
}

impl Chain {
    /// Checks all batches of a job, in their order. What it ends in says whether they are the signed ones.
    pub fn verify<'a>(batches: impl IntoIterator<Item = &'a [u8]>) -> Result<Head, ChainBroken> {
        let mut chain = Self::default();
        for bytes in batches {
            chain.follow(bytes)?;
        }
        Ok(chain.head)
    }

    /// Where it ends now: what the next batch has to name.
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Reads the next batch. One that does not follow leaves the chain as it is.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Batch, ChainBroken> {
        let number = self.head.batches;
        let broken = |why: String| ChainBroken { number, why };
        let (batch, hash) = Batch::unpack(bytes).map_err(|InvalidBatch(why)| broken(why))?;
        let of = (batch.job_id.clone(), batch.attempt, batch.node);
        if self.of.as_ref().is_some_and(|known| *known != of) {
            return Err(broken("it is of another job, attempt or node".to_owned()));
        }
        if batch.number != number {
            return Err(broken(format!("it is number {} of its series", batch.number)));
        }
        if batch.prev != self.head.hash {
            return Err(broken("the one before it was changed, or is another one".to_owned()));
        }
        let samples = u32::try_from(batch.samples.len()).unwrap_or(u32::MAX);
        self.head = Head {
            hash,
            batches: number.saturating_add(1),
            samples: self.head.samples.saturating_add(samples),
        };
        self.of = Some(of);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{busy_minute, pack};
    use super::*;

    /// Three batches of one job.
    fn series() -> Vec<Vec<u8>> {
        let mut chain = Chain::default();
        let mut packed = Vec::new();
        for seed in 0..3 {
            let batch = Batch {
                number: chain.head().batches,
                prev: chain.head().hash,
                ..busy_minute(seed)
            };
            let bytes = pack(&batch);
            chain.follow(&bytes).unwrap();
            packed.push(bytes);
        }
        packed
    }

    fn verify(batches: &[Vec<u8>]) -> Result<Head, ChainBroken> {
        Chain::verify(batches.iter().map(Vec::as_slice))
    }

    /// The batch with something changed in it, written anew.
    fn edited(bytes: &[u8], edit: impl FnOnce(&mut Batch)) -> Vec<u8> {
        let (mut batch, _) = Batch::unpack(bytes).unwrap();
        edit(&mut batch);
        pack(&batch)
    }

    #[test]
    fn a_whole_series_ends_in_its_head() {
        let batches = series();
        let head = verify(&batches).unwrap();
        assert_eq!((head.batches, head.samples), (3, 180));
        assert_eq!(head.hash, Batch::unpack(&batches[2]).unwrap().1);
        assert_eq!(verify(&[]).unwrap().hash, Hash([0; 32]));
    }

    #[test]
    fn a_gap_an_edit_and_another_order_are_noticed() {
        let [a, b, c] = <[_; 3]>::try_from(series()).unwrap();
        let other = edited(&b, |batch| batch.samples[7].job[crate::usage::Metric::Cpu] = Ok(1));
        let moved = edited(&c, |batch| batch.number = 1);
        let foreign = edited(&b, |batch| batch.job_id = "other".parse().unwrap());
        for (what, batches, number, says) in [
            ("a gap", vec![a.clone(), c.clone()], 1, "number 2"),
            ("a gap that is covered up", vec![a.clone(), moved], 1, "before it was changed"),
            ("no begin", vec![b.clone(), c.clone()], 0, "number 1"),
            ("an edit", vec![a.clone(), other, c.clone()], 2, "before it was changed"),
            ("another order", vec![b.clone(), a.clone(), c.clone()], 0, "number 1"),
            ("a batch twice", vec![a.clone(), a.clone(), b.clone()], 1, "number 0"),
            ("another job's", vec![a.clone(), foreign], 1, "another job"),
            ("rubbish", vec![a.clone(), b"rubbish".to_vec()], 1, "zlib"),
        ] {
            let broken = verify(&batches).unwrap_err();
            assert_eq!(broken.number, number, "{what}: {broken}");
            assert!(broken.why.contains(says), "{what}: {broken}");
        }
    }

    #[test]
    fn an_edit_of_the_last_batch_gives_another_head() {
        let mut batches = series();
        let head = verify(&batches).unwrap();
        batches[2] = edited(&batches[2], |batch| batch.cost.cpu_us += 1);
        assert_ne!(verify(&batches).unwrap().hash, head.hash);
    }

    #[test]
    fn a_batch_that_does_not_follow_leaves_the_chain_as_it_is() {
        let batches = series();
        let mut chain = Chain::default();
        chain.follow(&batches[0]).unwrap();
        chain.follow(&batches[2]).unwrap_err();
        chain.follow(&batches[1]).unwrap();
        assert_eq!(chain.head().batches, 2);
    }
}
