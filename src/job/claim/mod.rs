//! Which agent has a pool's job: the claim in the bucket `JOB_CLAIMS`, and what it permits.
//!
//! An agent reads the claim, decides with a function of this module, and writes the result by
//! compare-and-set. If it loses the race, it reads and decides again. Each function answers one question
//! in a job's life: [`arrive`] at intake, [`refuse`] if the job never fits the node, [`take`] before a
//! container starts, [`renew`] while it runs, [`hand_back`] when the agent lets go of the job,
//! [`give_back`] if the node can't begin it, [`conclude`] before its terminal status is committed. Before
//! a claim is taken from an agent that may only be unreachable, or replaced by one that nobody holds,
//! that agent is asked ([`holder_to_ask`]).
//!
//! Invariants: of two agents that act on the same claim, at most one succeeds in writing; no agent takes
//! another's `Done` claim; an agent that started the job under its claim never takes it back from the
//! agent that took it over; the start of a silent agent stays recorded until that agent answers for it; a
//! missing claim stops nobody, since the bucket may have been lost with its server. The tests in `search`
//! explore every order of steps.

mod starts_lost;

mod faults;
mod orphan;
mod takeover;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use faults::{FAULTS_MAX, GiveBack, give_back};
pub use orphan::{Orphan, orphan};
pub use starts_lost::{Silent, Start};
pub use takeover::{Renew, Stand, hand_back, holder_to_ask, is_free, renew};

use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// Starts in the pool without an end after which a job is poison: it brings its agents down.
pub const STARTS_MAX: u32 = 3;

/// Refusals, by different agents or the same one, after which a job is given up as fitting no node.
pub const REFUSALS_MAX: u32 = 20;

/// How long a job may be refused before it is given up. If all fitting agents are away for longer, its
/// requester learns so instead of waiting out the queue's seven days.
pub const REFUSED_FOR_MAX: Duration = Duration::from_hours(1);

/// How long to wait until the agent that concluded a job acknowledges its message, which takes seconds.
/// An agent that is silent for longer may never come back, and the message would be redelivered until it
/// expires.
pub const ACK_AWAITED_MAX: Duration = Duration::from_hours(1);

/// Largest bucket value that is read, in bytes. A real claim has some 400.
pub const CLAIM_BYTES_MAX: usize = 4096;

/// The bucket's value for a job (docs/protocol.md, section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The agent that wrote it.
    pub agent: Address,
    /// Where the job stands.
    pub state: State,
    /// Stream sequence of the message that the agent received.
    pub stream_seq: u64,
    /// Delivery count of that message.
    pub delivered: u64,
    /// The agent's attempt at the job; 0 if nobody has started it yet.
    #[serde(default)]
    pub attempt: u32,
    /// How often the job was started in the pool. A start whose agent let go of the job, for a shutdown
    /// or a lost lease, is not counted: the agent survived it.
    #[serde(default)]
    pub starts: u32,
    /// The counted starts that were taken over from unreachable agents.
    #[serde(default, skip_serializing_if = "Silent::is_empty")]
    pub silent: Silent,
    /// Hash of the body that holds the id.
    pub spec_hash: Hash,
    /// How often agents refused the job as never fitting, since it was last held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    /// When the first of those refusals was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_first_at: Option<Timestamp>,
    /// Weighted count of reports that a node could not begin the job: see [`FAULTS_MAX`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub faults: u32,
    /// The node that made the last such report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faulted_by: Option<Address>,
    /// When this was written, by the writer's clock.
    pub at: Timestamp,
}

/// The state of a claimed job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody holds the job: it was only refused so far, or it was handed back.
    Refused,
    /// The agent holds the job and runs it.
    Claimed,
    /// The agent alone may end the job.
    Done,
}

/// An agent's request for a job, which is checked against the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// The agent that asks.
    pub agent: Address,
    /// Stream sequence of the message that it received.
    pub stream_seq: u64,
    /// Delivery count of that message.
    pub delivered: u64,
    /// The attempt that would start or is running; [`arrive`] and [`refuse`] ignore it.
    pub attempt: u32,
    /// Whether this attempt was started under a claim. If so, a newer delivery does not entitle it to
    /// take another agent's claim.
    pub held: bool,
    /// Hash of the job's body.
    pub spec_hash: Hash,
    /// The current time.
    pub now: Timestamp,
}

/// The agent to which a job is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The agent that wrote the claim.
    pub agent: Address,
    /// The state that the claim gives.
    pub state: State,
}

/// Whether a container may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Yes, once this claim is written.
    Write(Claim),
    /// Yes: the claim says so already.
    Mine,
    /// No, never again: the job was started [`STARTS_MAX`] times. It goes to `jobs.dead` and is
    /// concluded.
    Poison,
    /// No: this agent has the job.
    Yield(Holder),
}

/// Whether a terminal status may be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclude {
    /// Yes, once this claim is written.
    Write(Claim),
    /// Yes: the claim says so already.
    Mine,
    /// No: this agent has the job. Publish nothing more about it.
    Yield(Holder),
}

/// What to do with a delivery of a job that is unknown here, or waits here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The job may be accepted.
    Open,
    /// The job has ended: acknowledge the delivery and publish nothing.
    Duplicate,
    /// Another agent has the job: return the delivery to the queue with a delay.
    Later,
    /// A second body under a used id: refuse it under an id that is made from the body.
    OtherBody,
}

/// What to do with a job that never fits this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// Counted: write this claim, then return the delivery to the queue with a delay.
    Write(Claim),
    /// No node will ever run the job: write this claim, then fail the job for the whole pool.
    GiveUp(Claim),
    /// Another agent has the job: return the delivery with a delay, without counting it.
    Leave(Holder),
}

/// A bucket value that is not a claim.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// Longer than [`CLAIM_BYTES_MAX`]; holds the length in bytes.
    #[error("it has {0} bytes, a claim has at most {CLAIM_BYTES_MAX}")]
    TooLong(usize),
    /// Not a JSON object with a claim's keys.
    #[error("it is no JSON object of a claim")]
    Json(#[source] serde_json::Error),
}

impl Claim {
    /// Parses a bucket value. Unknown keys are ignored.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        if value.len() > CLAIM_BYTES_MAX {
            return Err(Invalid::TooLong(value.len()));
        }
        serde_json::from_slice(value).map_err(Invalid::Json)
    }

    /// The claim as JSON, as the bucket stores it.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// The holder that outranks the bidder, if any; `None` means that the bidder may take the job.
    fn holder_before(&self, bid: &Bid) -> Option<Holder> {
        let holder = Some(Holder { agent: self.agent, state: self.state });
        if self.is_other_body(bid) {
            return holder;
        }
        let theirs = self.agent != bid.agent;
        match self.state {
            State::Refused => None,
            // The bidder has a later delivery of the message, so the holder's lease has run out.
            State::Claimed if !bid.held && self.is_outdated_by(bid) => None,
            State::Claimed | State::Done => holder.filter(|_| theirs),
        }
    }

    /// Whether another body holds the id. A job that was refused and never started does not hold it.
    fn is_other_body(&self, bid: &Bid) -> bool {
        let used = self.state != State::Refused || self.attempt > 0;
        used && self.spec_hash != bid.spec_hash
    }

    /// The start that this claim records.
    pub const fn start(&self) -> Start {
        Start { agent: self.agent, attempt: self.attempt }
    }

    /// The silent starts once the bidder replaces this claim. If another agent holds this claim, its
    /// lease has run out, and its start becomes one of them, whatever the bidder writes.
    fn silent_before(&self, bid: &Bid) -> Silent {
        let is_theirs = self.state == State::Claimed && self.agent != bid.agent;
        if is_theirs { self.silent.with(self.start()) } else { self.silent }
    }

    /// Whether the bidder has a newer delivery of the same message.
    fn is_outdated_by(&self, bid: &Bid) -> bool {
        self.stream_seq == bid.stream_seq && self.delivered < bid.delivered
    }
}

impl Bid {
    const fn start(&self) -> Start {
        Start { agent: self.agent, attempt: self.attempt }
    }

    fn claim(&self, state: State, starts: u32) -> Claim {
        Claim {
            agent: self.agent,
            state,
            stream_seq: self.stream_seq,
            delivered: self.delivered,
            attempt: self.attempt,
            starts,
            silent: Silent::default(),
            spec_hash: self.spec_hash,
            refusals: 0,
            refused_first_at: None,
            faults: 0,
            faulted_by: None,
            at: self.now,
        }
    }
}

/// Decides whether a container may start.
pub fn take(found: Option<&Claim>, bid: &Bid) -> Take {
    match start(found, bid) {
        Take::Write(claim) => Take::Write(faults::carried(found, claim)),
        other => other,
    }
}

fn start(found: Option<&Claim>, bid: &Bid) -> Take {
    let Some(found) = found else { return Take::Write(bid.claim(State::Claimed, 1)) };
    if let Some(holder) = found.holder_before(bid) {
        return Take::Yield(holder);
    }
    let ours = found.state == State::Claimed && found.agent == bid.agent;
    if ours && found.attempt == bid.attempt {
        // Killed between writing the claim and the journal, or the job was delivered again meanwhile. The
        // claim follows the newest delivery, or an agent with a delivery in between could take it.
        let same = found.stream_seq == bid.stream_seq;
        return if same && !found.is_outdated_by(bid) {
            Take::Mine
        } else {
            let claim = bid.claim(State::Claimed, found.starts);
            Take::Write(Claim { silent: found.silent, ..claim })
        };
    }
    // Taken over while this agent was unreachable, and let go of since: it is already counted.
    if let Some(silent) = found.silent.without(bid.start()) {
        return Take::Write(Claim { silent, ..bid.claim(State::Claimed, found.starts) });
    }
    // What remains is nobody's claim, a dead agent's, our own earlier attempt's, or our own `Done`. The
    // last means that we were killed between claim and journal: our journal still has the job open (or we
    // would not ask), no terminal status was published, and so the job is open again.
    if found.starts >= STARTS_MAX {
        return Take::Poison;
    }
    let silent = found.silent_before(bid);
    Take::Write(Claim { silent, ..bid.claim(State::Claimed, found.starts + 1) })
}

/// Decides whether the terminal status may be committed.
pub fn conclude(found: Option<&Claim>, bid: &Bid) -> Conclude {
    let Some(found) = found else { return Conclude::Write(bid.claim(State::Done, 0)) };
    match found.holder_before(bid) {
        Some(holder) => Conclude::Yield(holder),
        None if found.state == State::Done => Conclude::Mine,
        None => Conclude::Write(bid.claim(State::Done, found.starts)),
    }
}

/// Whether the job went to another agent while it waited or ran here, so that its container must stop.
pub fn is_lost(found: Option<&Claim>, bid: &Bid) -> bool {
    matches!(conclude(found, bid), Conclude::Yield(_))
}

/// Decides about a delivery at intake. The agent checks its own journal first: of the jobs that it knows,
/// only those that wait or ended elsewhere come here.
pub fn arrive(found: Option<&Claim>, bid: &Bid) -> Arrival {
    let Some(found) = found else { return Arrival::Open };
    if found.is_other_body(bid) {
        return Arrival::OtherBody;
    }
    let same_message = found.stream_seq == bid.stream_seq;
    match found.state {
        // Killed after writing this claim, before the refusal that it announces was committed.
        State::Done if same_message && found.agent == bid.agent => Arrival::Open,
        State::Done if same_message && bid.now.since(found.at) < ACK_AWAITED_MAX => Arrival::Later,
        State::Done => Arrival::Duplicate,
        _ if found.holder_before(bid).is_some() => Arrival::Later,
        State::Claimed | State::Refused => Arrival::Open,
    }
}

/// Decides about a job that never fits this node.
pub fn refuse(found: Option<&Claim>, bid: &Bid) -> Refuse {
    let holder = found.and_then(|found| {
        let done = found.state == State::Done;
        let done = done.then_some(Holder { agent: found.agent, state: found.state });
        found.holder_before(bid).or(done)
    });
    if let Some(holder) = holder {
        // Killed after writing this claim, before the refusal that it announces was committed.
        let own = found.filter(|found| {
            let same_message = found.stream_seq == bid.stream_seq;
            same_message && found.refusals > 0 && holder.agent == bid.agent
        });
        return own.map_or(Refuse::Leave(holder), |found| Refuse::GiveUp(*found));
    }
    let refusals = found.map_or(0, |found| found.refusals).saturating_add(1);
    let first_at = found.and_then(|found| found.refused_first_at).unwrap_or(bid.now);
    let tired = refusals >= REFUSALS_MAX || bid.now.since(first_at) >= REFUSED_FOR_MAX;
    let claim = Claim {
        // Kept from the previous holder: its id stays used, its starts stay counted.
        attempt: found.map_or(0, |found| found.attempt),
        silent: found.map_or_else(Silent::default, |found| found.silent_before(bid)),
        refusals,
        refused_first_at: Some(first_at),
        ..bid.claim(
            if tired { State::Done } else { State::Refused },
            found.map_or(0, |found| found.starts),
        )
    };
    let claim = faults::carried(found, claim);
    if tired { Refuse::GiveUp(claim) } else { Refuse::Write(claim) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like this")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod search;
#[cfg(test)]
mod tests;
