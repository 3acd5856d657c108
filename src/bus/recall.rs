//! Recalls a pool's job: finds out who has it, and removes it from the queue if nobody has it.
//!
//! Invariants: only a claim proves that a node has the job. A status may be forged: it is only a hint whom to
//! ask as well. A message is deleted only if there is no claim. If a node received it at that moment, a
//! second look finds that node.

use std::time::Duration;

use super::{Bus, Error, Found, PoolName, Search, Target};
use crate::ids::{Address, JobId};
use crate::job::Status;
use crate::job::claim::State;
use crate::job::status::Stage;
use crate::report::causes;

/// A node that cancels a pool's job puts the end into the claim before it publishes it: pause between looks.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;

/// What remains to be done or reported.
#[derive(Debug)]
pub enum Recall {
    /// This node has the job: ask it.
    Ask(Address),
    /// No node holds the job; its message was deleted.
    Withdrawn {
        /// The message's sequence number in the stream.
        seq: u64,
        /// The node of the job's latest status, which may be told.
        hint: Option<Hint>,
    },
    /// The message can't be deleted, with a reason code and a sentence. A status says that this node is
    /// working on the job: ask it, but do not believe its answer without a claim.
    Hinted(Address, &'static str, String),
    /// The job can't be cancelled, with a reason code and a sentence.
    Not(&'static str, String),
}

/// The node named by a job's latest status.
#[derive(Debug, Clone, Copy)]
pub struct Hint {
    /// The address in the status's subject, which is not proved.
    pub agent: Address,
    /// Whether the status says that the node gave the job back.
    pub is_former: bool,
}

/// Where a pool's job is, according to its claim.
enum Whereabouts {
    /// This node has it.
    With(Address),
    /// This node has ended it.
    Ended(Address),
    /// No node has it. Holds the message's sequence number, if a refused claim names it.
    Nobody(Option<u64>),
}

impl Bus {
    /// Finds out who has a pool's job, and deletes its message if nobody has it; `seq` is the message's number, if that
    /// is known.
    ///
    /// # Errors
    ///
    /// If NATS can't say whether somebody has it, or doesn't delete it though nobody does.
    pub async fn recall(
        &self,
        pool: &PoolName,
        job: &JobId,
        seq: Option<u64>,
    ) -> Result<Recall, Error> {
        recall(self, pool, job, seq).await
    }

    /// Whether a claim says, within some tries over five seconds, that this node has or had the job.
    ///
    /// # Errors
    ///
    /// If NATS can't say it.
    pub async fn is_confirmed(
        &self,
        pool: &PoolName,
        job: &JobId,
        agent: Address,
    ) -> Result<bool, Error> {
        for _ in 0..TRIES {
            match whereabouts(self, pool, job).await? {
                Whereabouts::With(holder) | Whereabouts::Ended(holder) => {
                    return Ok(holder == agent);
                }
                Whereabouts::Nobody(_) => tokio::time::sleep(AGAIN).await,
            }
        }
        Ok(false)
    }
}

async fn recall(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    seq: Option<u64>,
) -> Result<Recall, Error> {
    let claimed = match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(seq) => seq,
        elsewhere => return Ok(elsewhere.end(job)),
    };
    let hint = hint(bus, job).await?;
    let withdrawn = withdraw(bus, pool, job, (seq, claimed)).await;
    let at_work = hint.filter(|hint| !hint.is_former).map(|hint| hint.agent);
    let seq = match (withdrawn, at_work) {
        (Ok(Ok(seq)), _) => seq,
        (Ok(Err((code, error))), Some(agent)) => return Ok(Recall::Hinted(agent, code, error)),
        (Ok(Err((code, error))), None) => return Ok(Recall::Not(code, error)),
        (Err(err), Some(agent)) => {
            let error = format!("the job can't be taken out of the queue: {}", causes(&err));
            return Ok(Recall::Hinted(agent, "busy", error));
        }
        (Err(err), None) => return Err(err),
    };
    // Look again: a node may have received the message just before it was deleted.
    match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(_) => Ok(Recall::Withdrawn { seq, hint }),
        elsewhere => Ok(elsewhere.end(job)),
    }
}

/// Deletes the job's message: the one with the given number, else the claim's, else the one found in the
/// queue. Returns its number, or a reason code and a sentence.
async fn withdraw(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    (given, claimed): (Option<u64>, Option<u64>),
) -> Result<Result<u64, (&'static str, String)>, Error> {
    let target = Target::Pool(pool.clone());
    if let Some(seq) = given {
        let error = format!("number {seq} of the queue is not job {job} of {target}");
        let deleted = bus.withdraw(seq, &target, job).await?;
        return Ok(if deleted { Ok(seq) } else { Err(("unknown_job", error)) });
    }
    if let Some(seq) = claimed
        && bus.withdraw(seq, &target, job).await?
    {
        return Ok(Ok(seq));
    }
    Ok(match bus.find_job(&target, job).await? {
        Search::Found(seq) if bus.withdraw(seq, &target, job).await? => Ok(seq),
        Search::Found(_) | Search::Absent => Err((
            "unknown_job",
            format!("no job {job} is in the queue of {target}, and no node has it"),
        )),
        Search::GivenUp => Err((
            "busy",
            format!(
                "the queue is too long to look for job {job} in it: give its number with --seq \
                 (`submit` printed it)"
            ),
        )),
    })
}

impl Whereabouts {
    fn end(self, job: &JobId) -> Recall {
        match self {
            Self::With(agent) => Recall::Ask(agent),
            Self::Ended(agent) => {
                Recall::Not("too_late", format!("job {job} has ended on {agent}"))
            }
            Self::Nobody(_) => Recall::Not("unknown_job", format!("no node has job {job}")),
        }
    }
}

async fn whereabouts(bus: &Bus, pool: &PoolName, job: &JobId) -> Result<Whereabouts, Error> {
    match bus.claim(pool, job).await {
        Ok(Some(Found { claim, .. })) => Ok(match claim.state {
            State::Claimed => Whereabouts::With(claim.agent),
            State::Done => Whereabouts::Ended(claim.agent),
            State::Refused => Whereabouts::Nobody(Some(claim.stream_seq)),
        }),
        Ok(None) | Err(Error::NoClaims) => Ok(Whereabouts::Nobody(None)),
        Err(err) => Err(err),
    }
}

/// The node of the job's latest status, unless that ends the job. A job is claimed only when its container is
/// about to start, so a node may be working on it without a claim.
async fn hint(bus: &Bus, job: &JobId) -> Result<Option<Hint>, Error> {
    let Some(message) = bus.last_status(job).await? else { return Ok(None) };
    // A node that has the job would publish a valid status.
    let Ok((status, _)) = Status::read(&message.body) else { return Ok(None) };
    // A node that ended a pool's job would hold its claim. There is none, so anybody may have published this.
    let ended = status.stage.is_terminal();
    let is_former = status.stage == Stage::Interrupted;
    Ok((!ended).then_some(Hint { agent: message.agent, is_former }))
}
