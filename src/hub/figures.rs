//! What jobs told lately of what they use, in memory, for the rules about anomalies.
//!
//! Must hold: it knows at most [`JOBS_MAX`] jobs, those that were heard last, with at most [`SAMPLES_MAX`] samples each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::usage::anomaly::Memory;
use crate::usage::heard::{Heard, Kind};

/// The most jobs that are known.
pub const JOBS_MAX: usize = 2_000;

/// The most samples of a job: an hour of one each [`APART`].
pub const SAMPLES_MAX: usize = 120;

/// How far apart samples are at least: a job that tells more is not watched for a shorter time.
pub const APART: Duration = Duration::from_secs(30);

/// A job that has told nothing for so long is over, or nobody knows of it any more.
pub const FRESH: Duration = Duration::from_mins(10);

/// The figures of all jobs. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<BTreeMap<Key, Job>>>);

/// A node, and a job that it told of: what another one tells of a job of the same id changes nothing.
type Key = (String, String);

#[derive(Debug, Clone)]
struct Job {
    heard: Timestamp,
    memory: VecDeque<Memory>,
}

/// The samples of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples {
    /// The job's id.
    pub job: String,
    /// Its node, by the address in lower case.
    pub node: String,
    /// What it had of main memory, the oldest first.
    pub memory: Vec<Memory>,
}

impl Figures {
    /// Takes note of what was told.
    pub fn note(&self, heard: &[Heard]) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for one in heard.iter().filter(|it| it.kind == Kind::Job) {
            let (Some(id), Some(bytes)) = (&one.job, one.memory_bytes()) else { continue };
            let key = (one.node.clone(), id.clone());
            if !jobs.contains_key(&key) && jobs.len() >= JOBS_MAX {
                let oldest =
                    jobs.iter().min_by_key(|(_, job)| job.heard).map(|(key, _)| key.clone());
                oldest.and_then(|key| jobs.remove(&key));
            }
            let new = || Job { heard: one.at, memory: VecDeque::new() };
            let job = jobs.entry(key).or_insert_with(new);
            job.heard = job.heard.max(one.at);
            let is_due = job.memory.back().is_none_or(|last| one.at >= last.at.plus(APART));
            if is_due {
                if job.memory.len() >= SAMPLES_MAX {
                    job.memory.pop_front();
                }
                job.memory.push_back(Memory { at: one.at, bytes });
            }
        }
    }

    /// The samples of all jobs that told something lately.
    pub fn lately(&self, now: Timestamp) -> Vec<Samples> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = jobs.iter().filter(|(_, job)| now.since(job.heard) <= FRESH);
        let samples = fresh.map(|((node, job_id), job)| Samples {
            job: job_id.clone(),
            node: node.clone(),
            memory: job.memory.iter().copied().collect(),
        });
        samples.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(job: &str, node: &str, seconds: u64, bytes: u64) -> Heard {
        Heard {
            kind: Kind::Job,
            node: node.to_owned(),
            job: Some(job.to_owned()),
            at: Timestamp::from_unix_ms(seconds * 1_000),
            body: json!({"metrics": {"memory_bytes": bytes}}),
        }
    }

    #[test]
    fn a_job_has_one_sample_each_half_minute_and_on_another_node_it_has_others() {
        let figures = Figures::default();
        let all: Vec<_> = (0..1_000).map(|it| told("j", "a", it * 10, it)).collect();
        figures.note(&all);
        let now = Timestamp::from_unix_ms(9_990_000);
        let samples = figures.lately(now);
        assert_eq!(samples[0].memory.len(), SAMPLES_MAX);
        assert_eq!(samples[0].memory.last().unwrap().bytes, 999);
        figures.note(&[told("j", "b", 10_000, 5)]);
        let samples = figures.lately(Timestamp::from_unix_ms(10_000_000));
        let lengths: Vec<_> =
            samples.iter().map(|it| (it.node.as_str(), it.memory.len())).collect();
        assert_eq!(lengths, [("a", SAMPLES_MAX), ("b", 1)], "another node takes nothing away");
        assert!(figures.lately(Timestamp::from_unix_ms(10_601_000)).is_empty());
    }

    #[test]
    fn whoever_invents_jobs_takes_no_more_memory() {
        let figures = Figures::default();
        for number in 0..3_000 {
            figures.note(&[told(&format!("j{number}"), "a", number, 1)]);
        }
        assert_eq!(figures.0.lock().unwrap().len(), JOBS_MAX);
    }
}
