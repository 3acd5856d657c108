//! Who has a pool's job: the claim that lies in the bucket `JOB_CLAIMS`, and what it allows.
//!
//! An agent reads the claim, asks here, and writes the answer by compare-and-set; where it loses
//! the race it reads and asks again. Each function answers one question of a job's life:
//! [`arrive`] at the intake, [`refuse`] where it never fits, [`take`] before a container starts,
//! [`renew`] while it runs, [`hand_back`] where it lets go of the job, [`give_back`] where the node
//! can't begin it, [`conclude`] before its terminal status is written down. Before a claim is taken
//! from an agent that may only have been out of reach, or given to nobody, that one is asked
//! ([`holder_to_ask`]).
//!
//! What must hold: of two agents that ask about one claim, at most one is told to write; a `Done`
//! of another agent is never taken from it; who has started the job under its claim never takes it
//! from the agent that took it over; a start whose agent is silent stays known until that one answers
//! for it; an absent claim stops nobody, since the bucket may have been lost with its server. `search` (in the tests) looks at every order in which things can happen.

mod silent;

mod faults;
mod hold;
mod orphan;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use faults::{FAULTS_MAX, GiveBack, give_back};
pub use hold::{Renew, Stand, hand_back, holder_to_ask, is_free, renew};
pub use orphan::{Orphan, orphan};
pub use silent::{Silent, Start};

use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// A job that was started so often in its pool, and ended nowhere, takes its agents down with it.
pub const STARTS_MAX: u32 = 3;

/// So many agents, or one so many times, said that the job never fits: nobody else will come.
pub const REFUSALS_MAX: u32 = 20;

/// A pool whose fitting agents are all away for so long is no pool for this job; its requester
/// learns so instead of waiting out the queue's seven days.
pub const REFUSED_FOR_MAX: Duration = Duration::from_hours(1);

/// Who concluded a job acknowledges it within seconds. One that is silent for so long may never
/// come back, and its message would go round until it is too old.
pub const ACK_AWAITED_MAX: Duration = Duration::from_hours(1);

/// A claim is some 400 bytes; a longer value was written by nobody who follows the protocol.
pub const CLAIM_BYTES_MAX: usize = 4096;

/// What the bucket holds for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who wrote it.
    pub agent: Address,
    /// Where the job stands.
    pub state: State,
    /// The message in the stream that the agent was given.
    pub stream_seq: u64,
    /// Which delivery of that message.
    pub delivered: u64,
    /// The agent's attempt at the job; 0 where nobody has started it yet.
    #[serde(default)]
    pub attempt: u32,
    /// How often it was started in the pool. Starts whose agent let go of the job don't count: a
    /// shutdown interrupted them, or their lease ran out, and the agent lived to say so.
    #[serde(default)]
    pub starts: u32,
    /// Those of them that were taken over from agents that were out of reach.
    #[serde(default, skip_serializing_if = "Silent::is_empty")]
    pub silent: Silent,
    /// Which body has the id.
    pub spec_hash: Hash,
    /// How often it was said to fit never, since it was last held.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals: u32,
    /// When that was said first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_first_at: Option<Timestamp>,
    /// How often a node could not begin it by what may be the node's own fault, weighed: see
    /// [`give_back`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub faults: u32,
    /// Which node said so last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faulted_by: Option<Address>,
    /// When this was written, by the writer's clock.
    pub at: Timestamp,
}

/// Where a claimed job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody holds it: it was refused so far, or handed back.
    Refused,
    /// The agent runs it.
    Claimed,
    /// The agent has its end.
    Done,
}

/// Who asks, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// This agent.
    pub agent: Address,
    /// The message that it was given.
    pub stream_seq: u64,
    /// Which delivery of it.
    pub delivered: u64,
    /// The attempt that would start, or runs; not looked at by [`arrive`] and [`refuse`].
    pub attempt: u32,
    /// Whether this attempt was started under a claim: then only its own claim is good enough, and
    /// no newer delivery.
    pub held: bool,
    /// The body's hash.
    pub spec_hash: Hash,
    /// The present moment.
    pub now: Timestamp,
}

/// Whom a job is left to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Who wrote the claim.
    pub agent: Address,
    /// What it says.
    pub state: State,
}

/// Whether a container may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Once this is written.
    Write(Claim),
    /// Yes: the claim says so already.
    Mine,
    /// Never again: it was started [`STARTS_MAX`] times. It goes to `jobs.dead` and is concluded.
    Poison,
    /// No.
    Yield(Holder),
}

/// Whether a terminal status may be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclude {
    /// Once this is written.
    Write(Claim),
    /// Yes: the claim says so already.
    Mine,
    /// No, and nothing more is said of the job.
    Yield(Holder),
}

/// What becomes of a delivery that the journal knows nothing of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It may be accepted.
    Open,
    /// The job has ended: acknowledge it, say nothing.
    Duplicate,
    /// Another agent is at it: back to the queue, with a delay.
    Later,
    /// A second body under a used id: refuse it under an id of its own.
    OtherBody,
}

/// What becomes of a job that never fits this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse {
    /// Counted: write this, then back to the queue with a delay.
    Write(Claim),
    /// Nobody will ever run it: write this, then reject it for the whole pool.
    GiveUp(Claim),
    /// Another agent has it: back to the queue with a delay, not counted.
    Leave(Holder),
}

/// A value of the bucket that is no claim.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is too long.
    #[error("it has {0} bytes, a claim has at most {CLAIM_BYTES_MAX}")]
    TooLong(usize),
    /// It is no JSON of a claim.
    #[error("it is no JSON object of a claim")]
    Json(#[source] serde_json::Error),
}

impl Claim {
    /// Reads a value of the bucket. Unknown keys are ignored.
    pub fn parse(value: &[u8]) -> Result<Self, Invalid> {
        if value.len() > CLAIM_BYTES_MAX {
            return Err(Invalid::TooLong(value.len()));
        }
        serde_json::from_slice(value).map_err(Invalid::Json)
    }

    /// As it lies in the bucket.
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
            // The server gave the message to the bidder later, so their lease has run out.
            State::Claimed if !bid.held && self.is_outdated_by(bid) => None,
            State::Claimed | State::Done => holder.filter(|_| theirs),
        }
    }

    /// Whether another body has the id. A job that nobody has started has used no id up.
    fn is_other_body(&self, bid: &Bid) -> bool {
        let used = self.state != State::Refused || self.attempt > 0;
        used && self.spec_hash != bid.spec_hash
    }

    /// The start that it stands for.
    pub const fn start(&self) -> Start {
        Start { agent: self.agent, attempt: self.attempt }
    }

    /// The starts that nobody has answered for, once the bidder's word takes the place of this claim:
    /// that of another agent whose lease has run out is one of them, whatever the bidder says.
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

/// Before a container starts.
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
        // Killed between the claim and the journal, or given the job once more meanwhile. The
        // claim follows the newest delivery, or an agent with one in between could take it.
        let same = found.stream_seq == bid.stream_seq;
        return if same && !found.is_outdated_by(bid) {
            Take::Mine
        } else {
            let claim = bid.claim(State::Claimed, found.starts);
            Take::Write(Claim { silent: found.silent, ..claim })
        };
    }
    // Taken over while this agent was out of reach, and let go of since: it was counted then.
    if let Some(silent) = found.silent.without(bid.start()) {
        return Take::Write(Claim { silent, ..bid.claim(State::Claimed, found.starts) });
    }
    // What is left: nobody's, a dead agent's, our own earlier attempt. Or our own `Done` of a job
    // that our journal calls open (or nobody would ask): we were killed between the two, nobody
    // has seen a terminal status, and so the job is open again.
    if found.starts >= STARTS_MAX {
        return Take::Poison;
    }
    let silent = found.silent_before(bid);
    Take::Write(Claim { silent, ..bid.claim(State::Claimed, found.starts + 1) })
}

/// Before the terminal status is written down.
pub fn conclude(found: Option<&Claim>, bid: &Bid) -> Conclude {
    let Some(found) = found else { return Conclude::Write(bid.claim(State::Done, 0)) };
    match found.holder_before(bid) {
        Some(holder) => Conclude::Yield(holder),
        None if found.state == State::Done => Conclude::Mine,
        None => Conclude::Write(bid.claim(State::Done, found.starts)),
    }
}

/// While it waits or runs: whether the job went to another agent, so that its container must stop.
pub fn is_lost(found: Option<&Claim>, bid: &Bid) -> bool {
    matches!(conclude(found, bid), Conclude::Yield(_))
}

/// At the intake. The agent's own journal is asked first: a job that it knows does not come here.
pub fn arrive(found: Option<&Claim>, bid: &Bid) -> Arrival {
    let Some(found) = found else { return Arrival::Open };
    if found.is_other_body(bid) {
        return Arrival::OtherBody;
    }
    let same_message = found.stream_seq == bid.stream_seq;
    match found.state {
        // Killed before the refusal that this was written for could be written down.
        State::Done if same_message && found.agent == bid.agent => Arrival::Open,
        State::Done if same_message && bid.now.since(found.at) < ACK_AWAITED_MAX => Arrival::Later,
        State::Done => Arrival::Duplicate,
        _ if found.holder_before(bid).is_some() => Arrival::Later,
        State::Claimed | State::Refused => Arrival::Open,
    }
}

/// Where the job never fits this node.
pub fn refuse(found: Option<&Claim>, bid: &Bid) -> Refuse {
    let holder = found.and_then(|found| {
        let done = found.state == State::Done;
        let done = done.then_some(Holder { agent: found.agent, state: found.state });
        found.holder_before(bid).or(done)
    });
    if let Some(holder) = holder {
        // Killed before the refusal that this was written for could be written down.
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
        // Of who held it before: its id stays used, its starts stay counted.
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
