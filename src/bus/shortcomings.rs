//! Settings of streams and consumers that work, but not well. They are reported and never changed.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::Config;

use super::consumers::{ACK_PENDING_MAX, ROOM_MAX};
use super::stream_kind::{CLAIMS_TO_JOBS, StreamKind};
use super::{Bus, DeliveryMode, Error, Target};
use crate::clock::Timestamp;

/// Below this a consumer allows fewer unacknowledged jobs than one node may request.
#[expect(clippy::cast_possible_wrap, reason = "the value is a few hundred")]
const ACK_PENDING_FEW: i64 = ROOM_MAX as i64;

/// A poor setting, and what the stream's owner can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortcoming {
    /// The setting and its consequence.
    pub what: String,
    /// The command that corrects it.
    pub remedy: String,
}

impl Bus {
    /// Poor settings of the streams, and what keeps jobs of `sources` back as far as their consumers
    /// already exist.
    pub async fn shortcomings(&self, sources: &[Target]) -> Result<Vec<Shortcoming>, Error> {
        if self.mode() == DeliveryMode::Core {
            return Ok(Vec::new());
        }
        let [jobs, claims] = [StreamKind::Jobs, StreamKind::Claims].map(StreamKind::name);
        let (jobs, claims) = (self.find_stream(jobs).await?, self.find_stream(claims).await?);
        let mut held_back = Vec::new();
        if let Some(jobs) = &jobs {
            for source in sources {
                // Without permission to see the consumer, still report on the streams.
                let info = self.consumer_info(jobs, source).await.ok().flatten();
                held_back.extend(info.iter().flat_map(of_consumer));
            }
        }
        let short = jobs.zip(claims).and_then(|(jobs, claims)| {
            fall_short(&jobs.cached_info().config, &claims.cached_info().config)
        });
        // If this program may create streams, it creates RESULTS when it first needs it.
        let results = StreamKind::Results.name();
        let lacks = !self.manage_streams() && self.find_stream(results).await?.is_none();
        Ok(short.into_iter().chain(lacks.then(no_results)).chain(held_back).collect())
    }
}

/// What keeps the jobs of a consumer back, according to its current settings.
pub(super) fn of_consumer(info: &Info) -> Vec<Shortcoming> {
    let name = &info.name;
    let paused = info.paused.then(|| {
        let until = info.config.pause_until.map(|at| {
            let ms = at.unix_timestamp_nanos() / 1_000_000;
            format!(" until {}", Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or_default()))
        });
        let until = until.unwrap_or_default();
        Shortcoming {
            what: format!("the consumer {name} of JOBS is paused{until}: none of its jobs comes"),
            remedy: format!("nats consumer resume JOBS {name}"),
        }
    });
    let most = info.config.max_ack_pending;
    let few = (most > 0 && most < ACK_PENDING_FEW).then(|| Shortcoming {
        what: format!(
            "the consumer {name} of JOBS has {most} jobs in hand at the most, on all nodes together \
             (max_ack_pending): the others wait"
        ),
        remedy: format!("nats consumer edit JOBS {name} --max-pending={ACK_PENDING_MAX}"),
    });
    paused.into_iter().chain(few).collect()
}

fn no_results() -> Shortcoming {
    Shortcoming {
        what:
            "there is no stream RESULTS, and this program may not make it: that a kept output was \
               published after all can't be told"
                .to_owned(),
        remedy:
            "nats stream add RESULTS --subjects 'jobs.results.*.*' --storage file --max-age 720h \
                 --max-bytes 1GiB --defaults, or deploy/nats/provision.py"
                .to_owned(),
    }
}

/// Why claims may expire before their jobs, if they may. Everything still works, but a job that waits
/// long may run twice.
fn fall_short(jobs: &Config, claims: &Config) -> Option<Shortcoming> {
    let mib = |bytes: i64| bytes / (1 << 20);
    let short = |why: String, option: String| Shortcoming {
        what: format!("KV_JOB_CLAIMS may forget a job that still waits: {why}"),
        remedy: format!("nats stream edit KV_JOB_CLAIMS {option}"),
    };
    let has = mib(claims.max_bytes);
    // A size of -1 means no limit.
    if claims.max_bytes > 0 && jobs.max_bytes <= 0 {
        let why = format!("it holds {has} MiB of claims, and JOBS has no limit");
        return Some(short(why, "--max-bytes=-1".to_owned()));
    }
    let needed = CLAIMS_TO_JOBS.saturating_mul(jobs.max_bytes);
    if claims.max_bytes > 0 && claims.max_bytes < needed {
        let (jobs, in_mib) = (mib(jobs.max_bytes), mib(needed));
        let why = format!("it has {has} MiB; for the {jobs} MiB of JOBS it needs {in_mib}");
        return Some(short(why, format!("--max-bytes={needed}")));
    }
    let forever = claims.max_age.is_zero();
    if !forever && (jobs.max_age.is_zero() || claims.max_age < jobs.max_age) {
        let hours = |age: Duration| age.as_secs().div_ceil(3600);
        let (has, waits) = (claims.max_age.as_secs() / 3600, hours(jobs.max_age));
        let why = if jobs.max_age.is_zero() {
            format!("it forgets a claim after {has} h, JOBS no job")
        } else {
            format!("it forgets a claim after {has} h, JOBS a job after {waits} h")
        };
        // An age of 0 means no limit.
        return Some(short(why, format!("--max-age={waits}h")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's information about a consumer, with more `settings` in its configuration and `more` keys.
    fn told(settings: &str, more: &str) -> Info {
        let text = format!(
            r#"{{"stream_name": "JOBS", "name": "pool-a100", "created": "2026-11-22T10:00:00Z",
            "config": {{"durable_name": "pool-a100", "deliver_policy": "all", "ack_policy": "explicit",
            "ack_wait": 120000000000, "max_deliver": -1, "replay_policy": "instant"{settings}}},
            "delivered": {{"consumer_seq": 0, "stream_seq": 0}},
            "ack_floor": {{"consumer_seq": 0, "stream_seq": 0}}, "num_ack_pending": 0,
            "num_redelivered": 0, "num_waiting": 0, "num_pending": 0{more}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_keeps_the_jobs_of_a_consumer_back_is_told_with_its_end() {
        let plenty = r#", "max_ack_pending": 10000"#;
        let until = r#", "max_ack_pending": 10000, "pause_until": "2030-01-02T03:04:05.6Z""#;
        for (settings, more, says, remedy) in [
            (plenty, "", None, ""),
            (r#", "max_ack_pending": -1"#, "", None, ""),
            // The pause has ended.
            (until, "", None, ""),
            (
                until,
                r#", "paused": true, "pause_remaining": 1000000000"#,
                Some("paused until 2030-01-02T03:04:05.600Z"),
                "nats consumer resume JOBS pool-a100",
            ),
            (
                r#", "max_ack_pending": 1"#,
                "",
                Some("has 1 jobs in hand at the most"),
                "nats consumer edit JOBS pool-a100 --max-pending=10000",
            ),
        ] {
            let found = of_consumer(&told(settings, more));
            let found: Vec<_> = found.iter().map(|one| (&*one.what, &*one.remedy)).collect();
            match says {
                None => assert_eq!(found, []),
                Some(says) => assert!(
                    matches!(found[..], [(what, mends)] if what.contains(says) && mends == remedy),
                    "{found:?}"
                ),
            }
        }
    }

    const DAY: Duration = Duration::from_hours(24);
    const GIB: i64 = 1 << 30;

    #[test]
    fn claims_that_may_be_forgotten_before_their_jobs_are_told() {
        let (jobs, claims) = (StreamKind::Jobs.wanted(), StreamKind::Claims.wanted());
        assert_eq!(fall_short(&jobs, &claims), None, "as they are made");
        let with = |change: fn(&mut Config, &mut Config)| {
            let (mut jobs, mut claims) = (jobs.clone(), claims.clone());
            change(&mut jobs, &mut claims);
            fall_short(&jobs, &claims)
        };
        assert_eq!(with(|_, claims| claims.max_bytes = -1), None);
        for (change, said, option) in [
            // As earlier versions created it.
            (
                (|_, claims| claims.max_bytes = GIB / 4) as fn(&mut Config, &mut Config),
                "needs 2048",
                "--max-bytes=2147483648",
            ),
            (|jobs, _| jobs.max_bytes = 4 * GIB, "needs 8192", "--max-bytes=8589934592"),
            (|jobs, _| jobs.max_bytes = -1, "no limit", "--max-bytes=-1"),
            (|jobs, _| jobs.max_age = 60 * DAY, "after 720 h", "--max-age=1440h"),
            (|jobs, _| jobs.max_age = Duration::ZERO, "JOBS no job", "--max-age=0h"),
        ] {
            let Shortcoming { what, remedy } = with(change).expect(said);
            assert!(what.contains(said) && remedy.ends_with(option), "{what}: {remedy}");
        }
    }
}
