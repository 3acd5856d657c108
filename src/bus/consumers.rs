//! The durable consumers that jobs are pulled from.
//!
//! Like streams, they are made where they are missing, refused where they would break us, and never
//! changed: an administrator may have given one another ack wait, and that one holds.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{ConsumerCreateStrictErrorKind, Stream};

use super::subjects::Target;
use super::{Bus, Error};

const WHAT: &str = "find or make a consumer";

/// Deliveries that may wait for their acks: far more than any node or pool runs at a time.
const ACK_PENDING_MAX: i64 = 10_000;

/// Pulls that may wait at a pool's consumer: every agent of the pool keeps one or a few there (the
/// server's own limit is 512).
const POOL_WAITING_MAX: i64 = 10_000;

/// A durable consumer as the protocol wants it.
#[derive(Debug, Clone)]
pub(super) struct ConsumerPlan {
    name: String,
    filters: Vec<String>,
    ack_wait: Duration,
    max_waiting: i64,
}

impl ConsumerPlan {
    /// The consumer that holds the jobs of this source.
    pub(super) fn of(source: &Target) -> Self {
        let (name, ack_wait, max_waiting) = match source {
            // One reader, which has to be quick in saying that it is alive.
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
    /// The consumer of this plan, made where it is missing.
    pub(super) async fn ensure_consumer(
        &self,
        stream: &Stream,
        plan: &ConsumerPlan,
    ) -> Result<Consumer<pull::Config>, Error> {
        // A second round where another made it between our question and our creating it.
        for _ in 0..2 {
            match stream.consumer_info(&plan.name).await {
                Ok(info) => {
                    let name = &stream.cached_info().config.name;
                    return adopt_consumer(self, name, plan, info);
                }
                Err(err) if err.kind() == ConsumerInfoErrorKind::NotFound => {}
                Err(err) if err.kind() == ConsumerInfoErrorKind::TimedOut => {
                    return Err(Error::Timeout { what: WHAT });
                }
                Err(err) => return Err(Error::Refused { what: WHAT, source: Box::new(err) }),
            }
            match stream.create_consumer_strict(plan.config()).await {
                Ok(consumer) => return Ok(consumer),
                Err(err) if err.kind() == ConsumerCreateStrictErrorKind::AlreadyExists => {}
                Err(err) => return Err(Error::Refused { what: WHAT, source: Box::new(err) }),
            }
        }
        Err(Error::Timeout { what: WHAT })
    }
}

/// Takes a consumer that exists as it is, or says why it can't be used.
fn adopt_consumer(
    bus: &Bus,
    stream: &str,
    plan: &ConsumerPlan,
    info: async_nats::jetstream::consumer::Info,
) -> Result<Consumer<pull::Config>, Error> {
    let found = &info.config;
    let filters: BTreeSet<&str> = std::iter::once(found.filter_subject.as_str())
        .chain(found.filter_subjects.iter().map(String::as_str))
        .filter(|filter| !filter.is_empty())
        .collect();
    let wanted: BTreeSet<&str> = plan.filters.iter().map(String::as_str).collect();
    let name = &plan.name;
    let problem = if found.deliver_subject.is_some() {
        Some(format!("its consumer {name} is a push consumer"))
    } else if filters != wanted {
        Some(format!("its consumer {name} takes {filters:?}, not {wanted:?}"))
    } else if found.ack_policy != AckPolicy::Explicit {
        Some(format!("its consumer {name} does not want explicit acks"))
    } else if found.max_deliver > 0 {
        Some(format!("its consumer {name} gives a job up after {} tries", found.max_deliver))
    } else {
        None
    };
    if let Some(problem) = problem {
        return Err(Error::Stream { stream: stream.to_owned(), problem });
    }
    let config = pull::Config { ack_wait: found.ack_wait, ..plan.config() };
    Ok(Consumer::new(config, info, bus.jetstream().clone()))
}
