//! The state of a job at one moment: the queue, the claim, and each agent's journal.

use super::super::{Bid, Claim, Conclude, Silent, Start, State, conclude};
use super::Defect;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// Most agents and messages of any search.
pub(super) const AGENTS: usize = 3;
pub(super) const MESSAGES: usize = 2;

/// Stream sequence of the first message.
const FIRST_SEQ: u64 = 7;

pub(super) const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
pub(super) const BODY: Hash = Hash([9; 32]);

/// How often each kind of fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// A process or its host crashes.
    pub(super) crashes: u8,
    /// An agent is cut off from everybody, or its server does not answer.
    pub(super) cuts: u8,
    /// An agent is on the smaller side of a split cluster: its server answers that there is no leader.
    pub(super) splits: u8,
    /// An agent is asked to shut down.
    pub(super) shutdowns: u8,
    /// `JetStream` had no leader for longer than the ack wait: it redelivers at once what was delivered
    /// before.
    pub(super) outages: u8,
    /// A lease runs out before its agent expects it: the ack wait was edited.
    pub(super) edits: u8,
    /// The consumer is recreated: it redelivers everything and counts deliveries from 1.
    pub(super) recounts: u8,
    /// The bucket of claims is purged.
    pub(super) purges: u8,
    /// The queue is purged.
    pub(super) drains: u8,
    /// The job is delivered to an agent that it never fits.
    pub(super) misfits: u8,
    /// An agent that has accepted the job can't begin it.
    pub(super) unable: u8,
}

impl Budget {
    pub(super) const NONE: Self = Self {
        crashes: 0,
        cuts: 0,
        splits: 0,
        shutdowns: 0,
        outages: 0,
        edits: 0,
        recounts: 0,
        purges: 0,
        drains: 0,
        misfits: 0,
        unable: 0,
    };

    /// Whether nobody crashes or is split off, and nobody edits anything: then the job must run only
    /// once.
    pub(super) const fn is_calm(&self) -> bool {
        let anybody_died = self.crashes > 0 || self.splits > 0;
        let anything_edited = self.edits > 0 || self.recounts > 0 || self.purges > 0;
        !anybody_died && !anything_edited
    }
}

/// Where a message is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// Not published yet.
    Unsent,
    /// Waiting to be delivered.
    Queued,
    /// Delivered to an agent, or delayed for a whole ack wait.
    Out,
    /// Acknowledged, or purged.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Message {
    pub(super) place: Place,
    pub(super) delivered: u8,
}

/// The job's stage in an agent's journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The journal knows no such job.
    Unknown,
    /// Accepted; writing the claim is next.
    Ready,
    /// Claimed; starting the container is next.
    Starting,
    Running,
    /// The job was running when its host went down.
    Dark,
    /// The job has run; claiming its end is next.
    Concluding,
    /// The job is poison; claiming its end is next.
    Condemned,
    /// The end is claimed; committing it to the journal is next.
    Concluded,
    /// The same for a job that is poison.
    Doomed,
    /// The terminal status is committed.
    Ended,
    Settled,
    /// Interrupted; giving back the claim and the delivery is next.
    HandingBack,
    /// Let go of, since another agent may have the job; giving back the claim is next.
    LettingGo,
    /// The job can't be begun here; returning it to the pool is next.
    Returning,
    Waiting,
    Elsewhere,
}

/// What an agent can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Link {
    Online,
    /// Nothing: it gives up its jobs before their leases run out.
    Cut,
    /// A server that has no leader, while other agents continue.
    Split,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and hashed")]
pub(super) struct Agent {
    pub(super) stage: Stage,
    pub(super) attempt: u8,
    /// The message that it received, and its delivery count.
    pub(super) message: u8,
    pub(super) delivered: u8,
    pub(super) is_up: bool,
    pub(super) link: Link,
    /// Whether its container runs.
    pub(super) runs: bool,
    /// The holder of the present claim was asked and did not answer.
    pub(super) has_asked: bool,
    /// The holder that did not answer when the delivery arrived, and the attempt in its claim.
    pub(super) silent: Option<(u8, u8)>,
    /// It was unreachable: its next renewal rewrites the claim even if nothing has changed.
    pub(super) was_away: bool,
}

/// The claim in a form that can be hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Written {
    pub(super) agent: u8,
    pub(super) is_done: bool,
    pub(super) is_held: bool,
    pub(super) message: u8,
    pub(super) delivered: u8,
    pub(super) attempt: u8,
    pub(super) starts: u8,
    pub(super) silent: [Option<(u8, u8)>; 3],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) claim: Option<Written>,
    pub(super) messages: [Message; MESSAGES],
    pub(super) agents: [Agent; AGENTS],
    pub(super) left: Budget,
    pub(super) poisoned: bool,
    /// The bucket was purged, and the job's claim has not been written again yet.
    pub(super) was_purged: bool,
    /// After a purge, the agent that had claimed the job's end was away, or another had the job in hand
    /// too. Only one journal knew of the end, so another agent may end the job again: the one case in
    /// which the protocol can't keep its promise.
    pub(super) is_excused: bool,
}

impl World {
    pub(super) fn new(agents: usize, messages: usize, left: Budget) -> Self {
        let agent = Agent {
            stage: Stage::Unknown,
            attempt: 0,
            message: 0,
            delivered: 0,
            is_up: false,
            link: Link::Online,
            runs: false,
            has_asked: false,
            silent: None,
            was_away: false,
        };
        let mut world = Self {
            claim: None,
            messages: [Message { place: Place::Gone, delivered: 0 }; MESSAGES],
            agents: [agent; AGENTS],
            left,
            poisoned: false,
            was_purged: false,
            is_excused: false,
        };
        for agent in &mut world.agents[..agents] {
            agent.is_up = true;
        }
        for message in &mut world.messages[..messages] {
            message.place = Place::Unsent;
        }
        world.messages[0].place = Place::Queued;
        world
    }

    /// The claim as the production code reads it.
    pub(super) fn found(&self) -> Option<Claim> {
        self.claim.map(|written| {
            let silent: Vec<Start> = written
                .silent
                .iter()
                .flatten()
                .map(|(agent, attempt)| Start {
                    agent: address(*agent),
                    attempt: (*attempt).into(),
                })
                .collect();
            Claim {
                agent: address(written.agent),
                state: match (written.is_done, written.is_held) {
                    (true, _) => State::Done,
                    (_, true) => State::Claimed,
                    _ => State::Refused,
                },
                stream_seq: FIRST_SEQ + u64::from(written.message),
                delivered: written.delivered.into(),
                attempt: written.attempt.into(),
                starts: written.starts.into(),
                silent: Silent::of(&silent),
                spec_hash: BODY,
                faults: 0,
                faulted_by: None,
                refusals: 0,
                refused_first_at: None,
                at: NOW,
            }
        })
    }

    /// Writes the claim. An agent that read the claim before loses the race and starts over.
    pub(super) fn write(&mut self, claim: Option<Claim>) {
        self.claim = claim.map(|claim| {
            let mut silent = [None; 3];
            for (place, start) in silent.iter_mut().zip(claim.silent.iter()) {
                *place = Some((number(start.agent), small(start.attempt)));
            }
            Written {
                agent: number(claim.agent),
                is_done: claim.state == State::Done,
                is_held: claim.state == State::Claimed,
                message: small(claim.stream_seq - FIRST_SEQ),
                delivered: small(claim.delivered),
                attempt: small(claim.attempt),
                starts: small(claim.starts),
                silent,
            }
        });
        self.was_purged = false;
        for agent in &mut self.agents {
            agent.has_asked = false;
        }
    }

    /// An agent's bid for the job that it has in hand.
    pub(super) fn bid(&self, agent: usize, defect: Defect) -> Bid {
        let one = &self.agents[agent];
        let held = is_held(one.stage) && defect != Defect::TakenBack;
        let delivery = (one.message, one.delivered);
        Bid {
            held: held && defect != Defect::AnyDelivery,
            ..bid(agent, delivery, one.attempt, defect)
        }
    }

    /// Number of agents whose journal has a terminal status.
    pub(super) fn ends(&self) -> usize {
        let ended = |one: &&Agent| matches!(one.stage, Stage::Ended | Stage::Settled);
        self.agents.iter().filter(ended).count()
    }

    pub(super) fn containers(&self) -> usize {
        self.agents.iter().filter(|one| one.runs).count()
    }

    /// Number of agents that run the job and may end it under the present claim. While nobody holds the
    /// claim, that is 0: any of them may try then, and the first to write it keeps the others out.
    pub(super) fn may_conclude(&self, defect: Defect) -> usize {
        let held = |found: &Claim| found.state != State::Refused;
        let Some(found) = self.found().filter(held) else { return 0 };
        let may = |agent: &usize| {
            let bid = self.bid(*agent, defect);
            self.agents[*agent].runs && !matches!(conclude(Some(&found), &bid), Conclude::Yield(_))
        };
        (0..AGENTS).filter(may).count()
    }

    /// Whether nobody knows the job: its message was purged before any agent accepted it.
    pub(super) fn is_forgotten(&self) -> bool {
        let gone = |message: &Message| matches!(message.place, Place::Gone | Place::Unsent);
        let unknown = |one: &Agent| matches!(one.stage, Stage::Unknown);
        self.messages.iter().all(gone) && self.agents.iter().all(unknown)
    }

    /// The same state with the smallest numbers that keep their order, since only the order matters.
    pub(super) fn counted_anew(mut self) -> Self {
        for message in 0..MESSAGES {
            self.count_deliveries(message);
        }
        for agent in 0..AGENTS {
            self.count_attempts(agent);
        }
        self
    }

    fn count_deliveries(&mut self, message: usize) {
        let mut all: Vec<&mut u8> = Vec::new();
        if self.messages[message].place == Place::Gone {
            self.messages[message].delivered = 0;
        } else {
            all.push(&mut self.messages[message].delivered);
        }
        let is_its = |number: u8| usize::from(number) == message;
        all.extend(
            self.claim
                .iter_mut()
                .filter(|claim| is_its(claim.message))
                .map(|claim| &mut claim.delivered),
        );
        let agents = self.agents.iter_mut().filter(|one| is_its(one.message));
        all.extend(agents.map(|one| &mut one.delivered));
        rank(&mut all, 0);
    }

    fn count_attempts(&mut self, agent: usize) {
        let is_its = |number: u8| usize::from(number) == agent;
        let mut all = Vec::new();
        for (number, one) in self.agents.iter_mut().enumerate() {
            if number == agent {
                all.push(&mut one.attempt);
            }
            all.extend(one.silent.as_mut().filter(|it| is_its(it.0)).map(|it| &mut it.1));
        }
        if let Some(claim) = &mut self.claim {
            if is_its(claim.agent) {
                all.push(&mut claim.attempt);
            }
            let silent = claim.silent.iter_mut().flatten();
            all.extend(silent.filter(|(one, _)| is_its(*one)).map(|(_, attempt)| attempt));
        }
        all.retain(|attempt| **attempt > 0);
        rank(&mut all, 1);
    }
}

/// An agent's bid with a delivery of a message.
pub(super) fn bid(agent: usize, delivery: (u8, u8), attempt: u8, defect: Defect) -> Bid {
    let (message, delivered) = delivery;
    let any = defect == Defect::AnyDelivery;
    Bid {
        agent: address(small(agent)),
        stream_seq: FIRST_SEQ + u64::from(message),
        delivered: if any { 99 } else { delivered.into() },
        attempt: attempt.into(),
        held: false,
        spec_hash: BODY,
        now: NOW,
    }
}

/// Replaces each number by `from` plus the number of distinct smaller ones.
fn rank(all: &mut [&mut u8], from: u8) {
    let mut values: Vec<u8> = all.iter().map(|value| **value).collect();
    values.sort_unstable();
    values.dedup();
    for value in all {
        let smaller = values.iter().take_while(|other| **other < **value).count();
        **value = from + small(smaller);
    }
}

/// Whether the job was started under a claim and its end is not committed yet.
pub(super) const fn is_held(stage: Stage) -> bool {
    matches!(stage, Stage::Starting | Stage::Running | Stage::Concluding | Stage::Concluded)
}

pub(super) fn address(agent: u8) -> Address {
    Address::new([agent + 1; 20])
}

pub(super) fn number(agent: Address) -> u8 {
    (0..small(AGENTS)).find(|number| address(*number) == agent).expect("one of them")
}

fn small<T: TryInto<u8>>(number: T) -> u8 {
    number.try_into().ok().expect("a small number")
}
