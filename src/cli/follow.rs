//! Follows jobs: merges their statuses and, if wanted, their live log into one stream of news. Anybody on the
//! server may publish anything here.
//!
//! Invariants: no message keeps another from being delivered, and a sequence number has no effect beyond its
//! own status. What is delivered is not yet believed: [`super::authority`] decides that.

use std::collections::hash_map::RandomState;
use std::collections::{HashSet, VecDeque};
use std::hash::BuildHasher as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backoff::Backoff;
use crate::bus::{self, Bus, LogStream, StatusFilter, StatusMessage, StatusStream};
use crate::job::Status;

/// The wait before a broken stream is requested again.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// How many statuses are remembered, so that none is delivered twice: a stream that is requested again starts
/// with old statuses. Takes some ten megabytes at most.
const SEEN_MAX: usize = 250_000;

/// One message about the followed jobs.
#[derive(Debug)]
pub(super) enum News {
    /// A status and its body as it was sent.
    Status(Box<Status>, Value),
    /// A piece of a live log.
    Log(Line),
}

/// A piece of a live log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    /// A line that the job wrote.
    Text {
        /// Counts up from 1 without gaps.
        #[serde(default)]
        seq: u64,
        /// `stdout` or `stderr`.
        stream: String,
        /// The line's text.
        line: String,
    },
    /// Lines are missing here.
    Gap {
        /// The number of missing lines.
        dropped: u64,
    },
}

/// Follows the statuses that pass a filter, and the log of one job.
pub(super) struct Follower {
    bus: Bus,
    filter: StatusFilter,
    replay: bool,
    statuses: StatusStream,
    logs: Option<LogStream>,
    seen: Seen,
    failures: u32,
}

/// The messages seen so far, as keyed hashes that nobody can predict. The oldest are forgotten first.
#[derive(Default)]
struct Seen {
    hasher: RandomState,
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Remembers this message; returns whether it is new.
    fn is_new(&mut self, message: &StatusMessage) -> bool {
        let hash = self.hasher.hash_one((message.agent, &message.job, &message.body));
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

impl Follower {
    /// Starts following. With `replay`, begins with the oldest status that the server still has.
    pub(super) async fn start(
        bus: &Bus,
        filter: StatusFilter,
        replay: bool,
        logs: bool,
    ) -> anyhow::Result<Self> {
        // Statuses are requested first, so that a flood of log lines can't delay the server's answers.
        let statuses = bus.statuses(&filter, replay).await?;
        let logs = match &filter.job {
            Some(job) if logs => Some(bus.logs(filter.agent, job).await?),
            _ => None,
        };
        let (bus, seen) = (bus.clone(), Seen::default());
        Ok(Self { bus, filter, replay, statuses, logs, seen, failures: 0 })
    }

    /// The next message. Fails only with an error that a retry can't help.
    pub(super) async fn next(&mut self) -> anyhow::Result<News> {
        loop {
            let next = whichever(next_line(&mut self.logs), self.statuses.next()).await;
            match next {
                Next::Line(line) => match line {
                    Some(body) => {
                        if let Ok(line) = serde_json::from_slice(&body) {
                            return Ok(News::Log(line));
                        }
                    }
                    None => self.logs = None,
                },
                Next::Status(message) => match message {
                    Ok(message) => {
                        self.failures = 0;
                        if let Some(news) = self.status(&message) {
                            return Ok(news);
                        }
                    }
                    Err(err) => self.recover(err).await?,
                },
            }
        }
    }

    /// The rest of the live log: its last lines arrive at about the same time as the last status.
    pub(super) async fn last_lines(&mut self, patience: Duration) -> Vec<Line> {
        let mut lines = Vec::new();
        let gather = async {
            while let Some(body) = next_line(&mut self.logs).await {
                lines.extend(serde_json::from_slice::<Line>(&body));
            }
        };
        tokio::time::timeout(patience, gather).await.ok();
        lines
    }

    /// The status in a message, unless it is malformed, names another subject, or was seen before.
    fn status(&mut self, message: &StatusMessage) -> Option<News> {
        let (status, body) = match Status::read(&message.body) {
            Ok(read) => read,
            Err(why) => {
                tracing::debug!(job.id = %message.job, "skipped what is no status: {why}");
                return None;
            }
        };
        if (status.agent_address, &status.job_id) != (message.agent, &message.job) {
            tracing::debug!(job.id = %message.job, "skipped a status that names another subject");
            return None;
        }
        self.seen.is_new(message).then(|| News::Status(Box::new(status), body))
    }

    async fn recover(&mut self, err: bus::Error) -> anyhow::Result<()> {
        if !err.is_transient() {
            return Err(err.into());
        }
        tracing::warn!("following the statuses failed, trying again: {err}");
        self.failures = self.failures.saturating_add(1);
        tokio::time::sleep(AGAIN.jittered(self.failures)).await;
        if let Ok(statuses) = self.bus.statuses(&self.filter, self.replay).await {
            self.statuses = statuses;
        }
        Ok(())
    }
}

/// What came first: a log line or a status.
enum Next<L, S> {
    Line(L),
    Status(S),
}

/// Returns whichever is ready. If both are, the choice is random: a flood of one must not block the other.
async fn whichever<L, S>(
    line: impl Future<Output = L>,
    status: impl Future<Output = S>,
) -> Next<L, S> {
    tokio::select! {
        line = line => Next::Line(line),
        status = status => Next::Status(status),
    }
}

/// The next piece of the log; `None` once the log has ended. Never returns if no log is followed.
async fn next_line(logs: &mut Option<LogStream>) -> Option<Bytes> {
    match logs {
        Some(logs) => logs.next().await.ok(),
        None => std::future::pending().await,
    }
}

/// Connects to NATS and creates missing streams and buckets.
pub(super) async fn connect(config: &bus::Config) -> anyhow::Result<Bus> {
    let help = "start nats-server with --jetstream, or set NATS_URL";
    let bus =
        Bus::connect(config).await.with_context(|| format!("no connection to NATS ({help})"))?;
    bus.prepare().await?;
    if bus.mode() == bus::DeliveryMode::Core {
        tracing::warn!("NATS_MODE=core: jobs and statuses can get lost");
    }
    Ok(bus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn neither_lines_nor_statuses_that_never_end_keep_the_others_back() {
        let (mut lines, mut statuses) = (0, 0);
        for _ in 0..200 {
            match whichever(std::future::ready(()), std::future::ready(())).await {
                Next::Line(()) => lines += 1,
                Next::Status(()) => statuses += 1,
            }
        }
        assert!(lines > 20 && statuses > 20, "{lines} lines, {statuses} statuses");
    }
}
