//! The durable consumers from which jobs are pulled.
//!
//! Must hold: like a stream, a consumer is created if missing, refused if unusable, and never changed.
//! An administrator may change its ack wait at any time; that value applies.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{
    AckPolicy, Config, Consumer, DeliverPolicy, Info, ReplayPolicy, pull,
};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream::{
    ConsumerCreateStrictError, ConsumerCreateStrictErrorKind, Stream,
};
use futures_util::StreamExt as _;

use super::stream_kind::StreamKind;
use super::subjects::Target;
use super::subjects::covers;
use super::{AckHandle, Bus, Error};

const WHAT: &str = "find or make a consumer";

/// How long the server keeps a pull; the next one follows at once.
pub(super) const PULL: Duration = Duration::from_secs(30);

/// The most jobs asked for at a time: below the 512 pulls that a consumer keeps by default, above any
/// node's slots.
pub(super) const ROOM_MAX: usize = 256;

/// Unacknowledged deliveries per consumer: far more than any node or pool runs at a time.
pub(super) const ACK_PENDING_MAX: i64 = 10_000;

/// Pulls that may wait at a pool's consumer: each agent of the pool keeps one or a few there (the
/// server's default is 512).
const POOL_WAITING_MAX: i64 = 10_000;

/// How many consumers are searched for a conflicting one: more than a queue of ours ever has.
const CONSUMERS_MAX: usize = 1000;

/// The shortest usable ack wait: leases are renewed after a third of it, but at most once a second.
const ACK_WAIT_MIN: Duration = Duration::from_secs(3);

/// A durable consumer as the protocol requires it.
#[derive(Debug, Clone)]
pub(super) struct ConsumerPlan {
    name: String,
    filters: Vec<String>,
    ack_wait: Duration,
    max_waiting: i64,
}

impl ConsumerPlan {
    /// The consumer for the jobs of this source.
    pub(super) fn of(source: &Target) -> Self {
        let (name, ack_wait, max_waiting) = match source {
            // One reader, which must renew often; a pool's agents get more time.
            Target::Agent(address) => (format!("agent-{}", address.lower_hex()), 30, 0),
            Target::Pool(pool) => (format!("pool-{pool}"), 120, POOL_WAITING_MAX),
        };
        let ack_wait = Duration::from_secs(ack_wait);
        Self { name, filters: source.subjects(), ack_wait, max_waiting }
    }

    fn config(&self) -> pull::Config {
        let (one, many) = match self.filters.as_slice() {
            [one] => (one.clone(), Vec::new()),
            many => (String::new(), many.to_vec()),
        };
        pull::Config {
            durable_name: Some(self.name.clone()),
            filter_subject: one,
            filter_subjects: many,
            ack_policy: AckPolicy::Explicit,
            deliver_policy: DeliverPolicy::All,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: ACK_PENDING_MAX,
            max_waiting: self.max_waiting,
            ..pull::Config::default()
        }
    }
}

impl Bus {
    /// The planned consumer, created if missing. An error if it is unusable, or if another consumer takes
    /// its jobs.
    pub(super) async fn ensure_consumer<I>(
        &self,
        stream: &Stream<I>,
        plan: &ConsumerPlan,
    ) -> Result<Consumer<pull::Config>, Error> {
        // Twice, because another program may create it between the lookup and the creation.
        for _ in 0..2 {
            match stream.consumer_info(&plan.name).await {
                Ok(info) => {
                    return adopt_consumer(self, StreamKind::Jobs.name(), plan, info);
                }
                Err(err) if err.kind() == ConsumerInfoErrorKind::NotFound => {}
                Err(err) => return Err(unanswered(WHAT, err)),
            }
            match stream.create_consumer_strict(plan.config()).await {
                Ok(consumer) => return Ok(consumer),
                Err(err) if err.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => {}
                Err(err) if is_taken(&err) => return Err(self.rival(stream, plan).await),
                Err(err) => return Err(Error::Refused { what: WHAT, source: Box::new(err) }),
            }
        }
        Err(Error::Timeout { what: WHAT })
    }

    /// The error that names the consumer which takes these jobs already: a work queue allows one reader
    /// for each job.
    async fn rival<I>(&self, stream: &Stream<I>, plan: &ConsumerPlan) -> Error {
        let mut found = Vec::new();
        let mut all = std::pin::pin!(stream.consumers().take(CONSUMERS_MAX));
        while let Some(Ok(info)) = all.next().await {
            if overlaps(plan, &info.config) {
                found.push(info.name);
            }
        }
        let (stream, filters) = (StreamKind::Jobs.name(), plan.filters.join(" and "));
        let problem = if let Some(name) = found.first() {
            format!(
                "its consumer {name} takes {filters} too, and a job has one reader: whoever made it \
                 must remove it (nats consumer rm {stream} {name})"
            )
        } else {
            format!("another consumer takes {filters} too, and a job has one reader")
        };
        Error::Stream { stream: stream.to_owned(), problem }
    }

    /// The server's information about this source's consumer, if it exists.
    pub(super) async fn consumer_info<I>(
        &self,
        stream: &Stream<I>,
        source: &Target,
    ) -> Result<Option<Info>, Error> {
        match stream.consumer_info(&ConsumerPlan::of(source).name).await {
            Ok(info) => Ok(Some(info)),
            Err(err) if err.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(err) => Err(unanswered("look at a consumer", err)),
        }
    }

    /// The current ack wait of the consumer that made this delivery. An administrator may have changed
    /// it since.
    pub async fn ack_wait(&self, delivery: &AckHandle) -> Result<Duration, Error> {
        const WHAT: &str = "read a consumer's ack wait";
        self.online()?;
        let stream = self.stream_unseen(StreamKind::Jobs).await?;
        match stream.consumer_info(&delivery.consumer).await {
            Ok(info) => Ok(info.config.ack_wait),
            Err(err) => Err(unanswered(WHAT, err)),
        }
    }
}

/// Whether another consumer of the work queue takes these jobs already.
fn is_taken(err: &ConsumerCreateStrictError) -> bool {
    let ConsumerCreateStrictErrorKind::JetStream(answer) = err.kind() else { return false };
    let taken =
        [ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE, ErrorCode::CONSUMER_WQ_MULTIPLE_UNFILTERED];
    taken.contains(&answer.error_code())
}

/// Whether consumer `found` receives messages that the planned one is for. Without a filter it
/// receives all.
fn overlaps(plan: &ConsumerPlan, found: &Config) -> bool {
    let one = Some(&found.filter_subject).filter(|filter| !filter.is_empty());
    let mut filters = one.into_iter().chain(&found.filter_subjects).peekable();
    if filters.peek().is_none() {
        return true;
    }
    filters.any(|filter| plan.filters.iter().any(|own| covers(filter, own) || covers(own, filter)))
}

/// The error of a consumer lookup that got no usable answer.
fn unanswered(what: &'static str, err: ConsumerInfoError) -> Error {
    match err.kind() {
        ConsumerInfoErrorKind::TimedOut => Error::Timeout { what },
        ConsumerInfoErrorKind::JetStream(answer) => Error::refused(what, answer),
        _ => Error::Refused { what, source: Box::new(err) },
    }
}

/// Uses an existing consumer as it is, or says why it can't be used.
fn adopt_consumer(
    bus: &Bus,
    stream: &str,
    plan: &ConsumerPlan,
    info: Info,
) -> Result<Consumer<pull::Config>, Error> {
    if let Some(problem) = difference(plan, &info.config) {
        let problem = format!("its consumer {} {problem}", plan.name);
        return Err(Error::Stream { stream: stream.to_owned(), problem });
    }
    let config = pull::Config { ack_wait: info.config.ack_wait, ..plan.config() };
    Ok(Consumer::new(config, info, bus.jetstream().clone()))
}

/// What makes a consumer unusable, in words that name the setting.
fn difference(plan: &ConsumerPlan, found: &Config) -> Option<String> {
    let filters: BTreeSet<&str> = std::iter::once(found.filter_subject.as_str())
        .chain(found.filter_subjects.iter().map(String::as_str))
        .filter(|filter| !filter.is_empty())
        .collect();
    let wanted: BTreeSet<&str> = plan.filters.iter().map(String::as_str).collect();
    if found.deliver_subject.is_some() {
        return Some("is a push consumer (deliver_subject)".to_owned());
    }
    if filters != wanted {
        return Some(format!("takes {filters:?}, not {wanted:?} (filter_subjects)"));
    }
    if found.ack_policy != AckPolicy::Explicit {
        return Some("does not want explicit acks (ack_policy)".to_owned());
    }
    if found.deliver_policy != DeliverPolicy::All {
        return Some("does not begin with the first job that waits (deliver_policy)".to_owned());
    }
    if found.replay_policy != ReplayPolicy::Instant {
        return Some("gives jobs out as slowly as they came (replay_policy)".to_owned());
    }
    if found.headers_only {
        return Some("gives jobs out without their bodies (headers_only)".to_owned());
    }
    if found.max_deliver > 0 {
        return Some(format!("gives a job up after {} tries (max_deliver)", found.max_deliver));
    }
    lifetime_difference(found).or_else(|| pull_difference(found))
}

/// A setting that would let leases expire or reset the count of deliveries.
fn lifetime_difference(found: &Config) -> Option<String> {
    if !found.backoff.is_empty() {
        let problem = "has waits of its own in the place of one ack wait (backoff)";
        return Some(problem.to_owned());
    }
    if found.ack_wait < ACK_WAIT_MIN {
        let (is, min) = (found.ack_wait.as_millis(), ACK_WAIT_MIN.as_millis());
        return Some(format!("waits {is} ms for a sign of life, it must be {min} (ack_wait)"));
    }
    if !found.inactive_threshold.is_zero() {
        let problem = "is removed while nobody asks, and counts anew (inactive_threshold)";
        return Some(problem.to_owned());
    }
    // After a restart the server would redeliver everything in hand and restart its counts.
    found.memory_storage.then(|| "forgets with its server what is in hand (mem_storage)".to_owned())
}

/// A setting with which the server would reject our pulls.
fn pull_difference(found: &Config) -> Option<String> {
    let (batch_min, expires_min) = (i64::try_from(ROOM_MAX).unwrap_or(i64::MAX), PULL);
    if found.max_batch > 0 && found.max_batch < batch_min {
        let is = found.max_batch;
        return Some(format!("gives out {is} at a time, it must be {batch_min} (max_batch)"));
    }
    if !found.max_expires.is_zero() && found.max_expires < expires_min {
        let (is, min) = (found.max_expires.as_secs(), expires_min.as_secs());
        return Some(format!("keeps a pull for {is} s, it must be {min} (max_expires)"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut Config);

    #[test]
    fn a_consumer_is_in_the_way_where_it_gets_one_of_our_jobs() {
        let plan = ConsumerPlan::of(&Target::Pool("a100".parse().unwrap()));
        for (filters, is_rival) in [
            (&[][..], true),
            (&["jobs.>"][..], true),
            (&["jobs.pool.*"], true),
            (&["jobs.pool.b", "jobs.pool.a100"], true),
            (&["jobs.pool.b"], false),
            (&["jobs.dispatch.*"], false),
        ] {
            let filter_subjects = filters.iter().map(|&filter| filter.to_owned()).collect();
            let found = Config { filter_subjects, ..Config::default() };
            assert_eq!(overlaps(&plan, &found), is_rival, "{filters:?}");
        }
    }

    #[test]
    fn a_consumer_is_refused_for_what_breaks_us_and_for_nothing_else() {
        let plan = ConsumerPlan::of(&Target::Pool("a100".parse().unwrap()));
        let as_made = Config {
            filter_subject: "jobs.pool.a100".to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_mins(2),
            max_deliver: -1,
            ..Config::default()
        };
        let with = |change: Change| {
            let mut found = as_made.clone();
            change(&mut found);
            difference(&plan, &found)
        };
        let harmless: [Change; 6] = [
            |_| {},
            |found| found.ack_wait = Duration::from_secs(3),
            |found| found.max_ack_pending = 1,
            |found| found.max_waiting = 20,
            |found| found.num_replicas = 3,
            |found| found.max_batch = 1000,
        ];
        for change in harmless {
            assert_eq!(with(change), None);
        }
        let breaks: [(Change, &str); 12] = [
            (|found| found.deliver_subject = Some("x".into()), "deliver_subject"),
            (|found| found.filter_subject = "jobs.pool.b".into(), "filter_subjects"),
            (|found| found.ack_policy = AckPolicy::All, "ack_policy"),
            (|found| found.deliver_policy = DeliverPolicy::New, "deliver_policy"),
            (|found| found.replay_policy = ReplayPolicy::Original, "replay_policy"),
            (|found| found.headers_only = true, "headers_only"),
            (|found| found.max_deliver = 5, "max_deliver"),
            (|found| found.backoff = vec![Duration::from_secs(1)], "backoff"),
            (|found| found.ack_wait = Duration::from_millis(500), "ack_wait"),
            (|found| found.inactive_threshold = Duration::from_mins(1), "inactive_threshold"),
            (|found| found.memory_storage = true, "mem_storage"),
            (|found| found.max_expires = Duration::from_secs(1), "max_expires"),
        ];
        for (change, field) in breaks {
            let problem = with(change).expect(field);
            assert!(problem.contains(field), "{problem}");
        }
        assert!(with(|found| found.max_batch = 10).is_some_and(|it| it.contains("max_batch")));
    }
}
