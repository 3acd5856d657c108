//! The subjects that the program publishes and listens on. They are built and parsed only here. Pure.
//!
//! NATS subjects are case-sensitive. Addresses go out in EIP-55; incoming subjects may also spell them
//! in lower case, and both spellings must reach the same agent.

use std::fmt;
use std::str::FromStr;

use crate::fleet::{Event, Token};
use crate::ids::{Address, JobId};
use crate::usage::heard::Kind;

/// Every status goes to this subject too, as it did with the first agents of this network.
pub const AGENT_STATUS: &str = "agent.status";

/// The prefix of the subjects that answers go to.
pub const INBOX: &str = "_INBOX";

const HOLDS: &str = "jobs.holds.";

/// The longest name of a pool, in bytes.
pub const POOL_BYTES_MAX: usize = 32;

/// The name of a pool of agents that share jobs: 1 to 32 of `A-Za-z0-9_-`, one token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(String);

impl PoolName {
    /// The name as it stands in subjects.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a valid name of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pool's name is 1 to {POOL_BYTES_MAX} of A-Za-z0-9_-")]
pub struct InvalidPoolName;

impl FromStr for PoolName {
    type Err = InvalidPoolName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sized = (1..=POOL_BYTES_MAX).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if sized && plain { Ok(Self(text.to_owned())) } else { Err(InvalidPoolName) }
    }
}

crate::text::serde_as_text!(PoolName);

/// Whom a job is for. `Display` writes what a requester signs: `dispatch.0x…` (EIP-55) or `pool.a100`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// The agent with this address.
    Agent(Address),
    /// The agent of the pool that has room first.
    Pool(PoolName),
}

/// Where an intake takes jobs from: the same thing that a job is sent to.
pub type Source = Target;

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(address) => write!(f, "dispatch.{address}"),
            Self::Pool(pool) => write!(f, "pool.{pool}"),
        }
    }
}

impl Target {
    /// Whom a message on this subject is for; `None` if it is not the subject of a job.
    pub fn of_subject(subject: &str) -> Option<Self> {
        let (kind, name) = subject.strip_prefix("jobs.")?.split_once('.')?;
        match kind {
            "dispatch" => name.parse().ok().map(Self::Agent),
            "pool" => name.parse().ok().map(Self::Pool),
            _ => None,
        }
    }

    /// The subject that a job for this target is published on.
    pub fn subject(&self) -> String {
        format!("jobs.{self}")
    }

    /// Every subject on which its jobs may arrive: an agent's in both spellings.
    pub fn subjects(&self) -> Vec<String> {
        match self {
            Self::Agent(address) => spellings(*address)
                .into_iter()
                .map(|name| format!("jobs.dispatch.{name}"))
                .collect(),
            Self::Pool(_) => vec![self.subject()],
        }
    }

    /// The subject for jobs of this target that could not be run.
    pub fn dead_subject(&self) -> String {
        match self {
            Self::Agent(address) => format!("jobs.dead.{address}"),
            Self::Pool(pool) => format!("jobs.dead.{pool}"),
        }
    }
}

/// The status subject of a job on an agent.
pub fn status(agent: Address, job: &JobId) -> String {
    format!("jobs.status.{agent}.{job}")
}

/// A filter on status subjects; `None` matches any agent or job.
pub fn status_filter(agent: Option<Address>, job: Option<&JobId>) -> String {
    format!("jobs.status.{}.{}", or_any(agent.as_ref()), or_any(job))
}

/// The agent and job of a status subject; `None` if it is not one.
pub fn parse_status(subject: &str) -> Option<(Address, JobId)> {
    let (agent, job) = subject.strip_prefix("jobs.status.")?.split_once('.')?;
    Some((agent.parse().ok()?, job.parse().ok()?))
}

/// The subject of an output that was published after its job's terminal status.
pub fn result(agent: Address, job: &JobId) -> String {
    format!("jobs.results.{agent}.{job}")
}

/// The subject of the batches of what a job uses.
pub fn usage(agent: Address, job: &JobId) -> String {
    format!("usage.{agent}.{job}")
}

/// A filter on [`usage`]; `None` matches any agent.
pub fn usage_filter(agent: Option<Address>, job: &JobId) -> String {
    format!("usage.{}.{job}", or_any(agent.as_ref()))
}

/// The filter on [`usage`] of all agents and jobs.
pub const ALL_USAGE: &str = "usage.*.*";

/// The agent and job of a subject of [`usage`]; `None` if it is not one.
pub fn parse_usage(subject: &str) -> Option<(Address, JobId)> {
    let (agent, job) = subject.strip_prefix("usage.")?.split_once('.')?;
    Some((agent.parse().ok()?, job.parse().ok()?))
}

/// Where live figures are published: in `m/<domain>/c/<channel>/…` as MQTT clients write it, with dots for the slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsTopic {
    prefix: String,
}

/// The longest name of a domain or channel of [`MetricsTopic`], in bytes.
const TOPIC_BYTES_MAX: usize = 64;

/// The text is not a valid name of a domain or channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be 1 to {TOPIC_BYTES_MAX} of A-Za-z0-9_-: anything else ends an MQTT client or means something else"
)]
pub struct InvalidTopic;

impl MetricsTopic {
    /// The topic of this domain and channel, each 1 to 64 of `A-Za-z0-9_-`: a space, which NATS allows, ends MQTT
    /// clients.
    pub fn new(domain: &str, channel: &str) -> Result<Self, InvalidTopic> {
        let is_plain = |text: &str| {
            (1..=TOPIC_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        if !is_plain(domain) || !is_plain(channel) {
            return Err(InvalidTopic);
        }
        Ok(Self { prefix: format!("m.{domain}.c.{channel}") })
    }

    /// The subject of one kind of the node's own messages.
    pub(super) fn of_node(&self, kind: &str) -> String {
        format!("{}.control.proplet.{kind}", self.prefix)
    }

    /// The two subjects on which readers wait for what jobs use.
    pub(super) fn of_jobs(&self) -> [String; 2] {
        ["control.proplet.task_metrics", "metrics.proplet"]
            .map(|end| format!("{}.{end}", self.prefix))
    }
}

/// The subjects of what nodes tell live of themselves and of their jobs, in every domain and channel.
pub const OF_PROPLETS: &str = "m.*.c.*.control.proplet.*";

/// Which message a subject of [`OF_PROPLETS`] brings; `None` for one that nobody here reads.
pub fn parse_of_proplet(subject: &str) -> Option<Kind> {
    Kind::of(subject.rsplit_once('.')?.1)
}

/// The subject of a job's live log.
pub fn log(agent: Address, job: &JobId) -> String {
    log_filter(Some(agent), job)
}

/// The subject of a job's live log on one agent or any.
pub fn log_filter(agent: Option<Address>, job: &JobId) -> String {
    format!("jobs.logs.{}.{job}", or_any(agent.as_ref()))
}

/// The subject of an event: `events.<address>.<component>.<event_type>`.
pub fn event(event: &Event) -> String {
    format!("events.{}.{}.{}", event.node, event.component, event.event_type)
}

/// A filter on the subjects of events; `None` matches any node.
pub fn event_filter(node: Option<Address>) -> String {
    format!("events.{}.*.*", or_any(node.as_ref()))
}

/// The node, component and type that an event's subject names; `None` if it is not one.
pub fn parse_event(subject: &str) -> Option<(Address, Token, Token)> {
    let (node, rest) = subject.strip_prefix("events.")?.split_once('.')?;
    let (component, event_type) = rest.split_once('.')?;
    Some((node.parse().ok()?, component.parse().ok()?, event_type.parse().ok()?))
}

/// The subject on which an agent gets control messages.
pub fn control(agent: Address) -> String {
    format!("jobs.control.{agent}")
}

/// The subject of [`control`] in both spellings of the address, to listen on.
pub fn controls(agent: Address) -> Vec<String> {
    spellings(agent).into_iter().map(|name| format!("jobs.control.{name}")).collect()
}

/// The subject on which other agents ask an agent whether it is working on a pool's job. It differs from
/// the control subject, so that nodes need no permission to publish there.
pub fn holds(agent: Address) -> String {
    format!("{HOLDS}{agent}")
}

/// The subject of [`holds`] in both spellings of the address, to listen on.
pub fn all_holds(agent: Address) -> Vec<String> {
    spellings(agent).into_iter().map(|name| format!("{HOLDS}{name}")).collect()
}

/// Whether this is a subject of [`holds`].
pub fn is_to_holder(subject: &str) -> bool {
    subject.starts_with(HOLDS)
}

/// Whether this can be a requester's inbox: `_INBOX.…`, or `_INBOX` with what the server's owner
/// appends to it (`NATS_INBOX_PREFIX`).
pub fn is_inbox(subject: &str) -> bool {
    subject.starts_with(INBOX)
}

/// Whether `pattern` matches everything that `subject` (possibly a pattern itself) matches.
pub(super) fn covers(pattern: &str, subject: &str) -> bool {
    let mut wanted = subject.split('.');
    for token in pattern.split('.') {
        match (token, wanted.next()) {
            (">", Some(_)) => return true,
            ("*", Some(other)) if other != ">" => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    wanted.next().is_none()
}

/// EIP-55 first, then lower case; only one if they are equal (no letters, or all of them lower case).
fn spellings(address: Address) -> Vec<String> {
    let mut names = vec![address.to_string(), address.lower_hex()];
    names.dedup();
    names
}

fn or_any<T: fmt::Display>(token: Option<&T>) -> String {
    token.map_or_else(|| "*".to_owned(), T::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Gpu, pools};

    const EIP55: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn agent() -> Address {
        EIP55.parse().unwrap()
    }

    #[test]
    fn a_target_is_read_from_either_spelling_and_printed_in_eip55() {
        let lower = format!("jobs.dispatch.{}", EIP55.to_lowercase());
        for subject in [format!("jobs.dispatch.{EIP55}"), lower] {
            let target = Target::of_subject(&subject).unwrap();
            assert_eq!(target.to_string(), format!("dispatch.{EIP55}"));
            assert_eq!(target.subject(), format!("jobs.dispatch.{EIP55}"));
        }
        let pool = Target::of_subject("jobs.pool.a100").unwrap();
        assert_eq!(
            (pool.to_string(), pool.subject()),
            ("pool.a100".into(), "jobs.pool.a100".into())
        );
        assert_eq!(pool.dead_subject(), "jobs.dead.a100");
    }

    #[test]
    fn what_is_no_job_subject_has_no_target() {
        for subject in
            ["jobs.dispatch", "jobs.dispatch.x", "jobs.pool.", "jobs.pool.a.b", "jobs.status.a", ""]
        {
            assert_eq!(Target::of_subject(subject), None, "{subject}");
        }
    }

    #[test]
    fn an_address_without_letters_is_listened_to_once() {
        assert_eq!(Target::Agent(Address::new([0x11; 20])).subjects().len(), 1);
        assert_eq!(Target::Agent(agent()).subjects().len(), 2);
        assert_eq!(controls(agent()).len(), 2);
    }

    #[test]
    fn a_status_subject_survives_a_round_trip_and_filters_leave_tokens_open() {
        let job: JobId = "job-1".parse().unwrap();
        assert_eq!(parse_status(&status(agent(), &job)), Some((agent(), job.clone())));
        assert_eq!(parse_status("jobs.status.x.job-1"), None);
        assert_eq!(parse_status(&format!("jobs.status.{EIP55}.a.b")), None);
        assert_eq!(status_filter(None, Some(&job)), "jobs.status.*.job-1");
        assert_eq!(status_filter(Some(agent()), None), format!("jobs.status.{EIP55}.*"));
        assert_eq!(log_filter(None, &job), "jobs.logs.*.job-1");
    }

    #[test]
    fn the_subject_of_an_event_names_what_the_event_does() {
        let at = crate::clock::Timestamp::default();
        let told = Event::new(crate::fleet::kinds::LINK_LOST, agent(), at, "it is gone");
        let subject = event(&told);
        assert_eq!(subject, format!("events.{EIP55}.link.lost"));
        assert_eq!(parse_event(&subject), Some((agent(), told.component, told.event_type)));
        for subject in ["events.x.link.lost", "events", &format!("events.{EIP55}.a.b.c")] {
            assert_eq!(parse_event(subject), None, "{subject}");
        }
        assert_eq!(event_filter(None), "events.*.*.*");
    }

    #[test]
    fn a_pattern_covers_what_it_matches_and_nothing_more() {
        for (pattern, subject, expected) in [
            ("jobs.dispatch.*", "jobs.dispatch.*", true),
            ("jobs.>", "jobs.dispatch.*", true),
            (">", "jobs.dispatch.*", true),
            ("jobs.*.*", "jobs.dispatch.*", true),
            ("jobs.dispatch.a", "jobs.dispatch.*", false),
            ("jobs.dispatch", "jobs.dispatch.*", false),
            ("jobs.dispatch.*.*", "jobs.dispatch.*", false),
            ("jobs.*", "jobs.>", false),
        ] {
            assert_eq!(covers(pattern, subject), expected, "{pattern} {subject}");
        }
    }

    #[test]
    fn only_an_inbox_is_answered() {
        for subject in ["_INBOX.a.b", "_INBOX_0x5a.b", "_INBOX_dispatcher.x.y"] {
            assert!(is_inbox(subject), "{subject}");
        }
        for subject in ["$KV.JOB_CLAIMS.p.j", "jobs.dispatch.x", "$JS.API.INFO", "x._INBOX.y", ""] {
            assert!(!is_inbox(subject), "{subject}");
        }
    }

    #[test]
    fn hostile_pool_names_are_refused() {
        for name in ["", "a.b", "a b", "*", ">", "ä", &"x".repeat(33)] {
            assert_eq!(name.parse::<PoolName>(), Err(InvalidPoolName), "{name:?}");
        }
        assert!("a100_spot-2".parse::<PoolName>().is_ok());
    }
    #[test]
    fn every_pool_that_hardware_stands_for_is_a_pool() {
        let uuid = crate::node::GpuUuid::new("GPU-1").unwrap();
        for model in ["NVIDIA GeForce RTX 4060 Ti", "ä/b.c*", &"long ".repeat(40), ""] {
            let gpu = Gpu { uuid: uuid.clone(), model: model.to_owned(), vram_mib: 1 };
            for pool in pools::pools_of(&[gpu]).into_iter().chain(pools::pools_of(&[])) {
                assert!(pool.parse::<PoolName>().is_ok(), "{pool}");
            }
        }
    }
}
