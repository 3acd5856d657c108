//! Who has a pool's job, and taking it out of the queue where nobody has it.
//!
//! What must hold: only a claim says that a node has the job. What a status says is a stranger's word: a
//! hint whom to ask beside, on which nothing rests; a message is deleted only where there is no
//! claim. A node that was given it in that very moment is found by looking once more.

use std::time::Duration;

use anyhow::Context as _;

use super::super::out;
use crate::bus::{self, Bus, Found, PoolName, Search, Target};
use crate::ids::{Address, JobId};
use crate::job::Status;
use crate::job::claim::State;
use crate::job::status::Stage;

/// A node that has cancelled a pool's job claims its end before it tells it.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 10;

/// What there is to do or to say.
#[derive(Debug)]
pub(super) enum End {
    /// This node has it and is to be asked.
    Ask(Address),
    /// No node holds it; its message is deleted.
    Withdrawn {
        /// The message's number.
        seq: u64,
        /// Who said something of it last, and may be told.
        hint: Option<Hint>,
    },
    /// Its message can't be deleted, for this reason code and sentence. This node says that it is
    /// at work on it: it is to be asked, and not believed without a claim.
    Hinted(Address, &'static str, String),
    /// It can't be cancelled: a reason code and a sentence.
    Not(&'static str, String),
}

/// Who said something of a job last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint {
    /// Under this name; anybody could have said it.
    pub(super) agent: Address,
    /// Whether it says that it gave the job back.
    pub(super) is_former: bool,
}

/// Where a pool's job is, by its claim.
enum Whereabouts {
    /// A node has it.
    With(Address),
    /// A node has ended it.
    Ended(Address),
    /// With nobody; its number in the queue, maybe.
    Nobody(Option<u64>),
}

/// Finds out who has the job, and deletes it where nobody has it.
pub(super) async fn cancel(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    seq: Option<u64>,
) -> anyhow::Result<End> {
    let claimed = match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(seq) => seq,
        elsewhere => return Ok(elsewhere.end(job)),
    };
    let hint = hint(bus, job).await?;
    let withdrawn = withdraw(bus, pool, job, (seq, claimed)).await;
    let at_work = hint.filter(|hint| !hint.is_former).map(|hint| hint.agent);
    let seq = match (withdrawn, at_work) {
        (Ok(Ok(seq)), _) => seq,
        (Ok(Err((code, error))), Some(agent)) => return Ok(End::Hinted(agent, code, error)),
        (Ok(Err((code, error))), None) => return Ok(End::Not(code, error)),
        (Err(err), Some(agent)) => {
            let error = format!("the job can't be taken out of the queue: {}", out::chain(&err));
            return Ok(End::Hinted(agent, "busy", error));
        }
        (Err(err), None) => return Err(err),
    };
    match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(_) => Ok(End::Withdrawn { seq, hint }),
        elsewhere => Ok(elsewhere.end(job)),
    }
}

/// Deletes the job's message: the one of the number that was given, else of the claim's, else the
/// one that is found. Its number, or a reason code and a sentence.
async fn withdraw(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    (given, claimed): (Option<u64>, Option<u64>),
) -> anyhow::Result<Result<u64, (&'static str, String)>> {
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

/// Whether a claim comes to say that this node has, or had, the job.
pub(super) async fn is_confirmed(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    agent: Address,
) -> anyhow::Result<bool> {
    for _ in 0..TRIES {
        match whereabouts(bus, pool, job).await? {
            Whereabouts::With(holder) | Whereabouts::Ended(holder) => return Ok(holder == agent),
            Whereabouts::Nobody(_) => tokio::time::sleep(AGAIN).await,
        }
    }
    Ok(false)
}

impl Whereabouts {
    fn end(self, job: &JobId) -> End {
        match self {
            Self::With(agent) => End::Ask(agent),
            Self::Ended(agent) => End::Not("too_late", format!("job {job} has ended on {agent}")),
            Self::Nobody(_) => End::Not("unknown_job", format!("no node has job {job}")),
        }
    }
}

async fn whereabouts(bus: &Bus, pool: &PoolName, job: &JobId) -> anyhow::Result<Whereabouts> {
    match bus.claim(pool, job).await {
        Ok(Some(Found { claim, .. })) => Ok(match claim.state {
            State::Claimed => Whereabouts::With(claim.agent),
            State::Done => Whereabouts::Ended(claim.agent),
            State::Refused => Whereabouts::Nobody(Some(claim.stream_seq)),
        }),
        Ok(None) | Err(bus::Error::NoClaims) => Ok(Whereabouts::Nobody(None)),
        Err(err) => Err(err).context("nobody can tell who has the job"),
    }
}

/// Who says that it has to do with the job: a job is claimed only when its container starts.
async fn hint(bus: &Bus, job: &JobId) -> anyhow::Result<Option<Hint>> {
    let Some(message) = bus.last_status(job).await? else { return Ok(None) };
    // What is no status was said by nobody who has the job.
    let Ok((status, _)) = Status::read(&message.body) else { return Ok(None) };
    // Who ends a pool's job has its claim; without one anybody may have said it.
    let ended = status.stage.is_terminal();
    let is_former = status.stage == Stage::Interrupted;
    Ok((!ended).then_some(Hint { agent: message.agent, is_former }))
}
