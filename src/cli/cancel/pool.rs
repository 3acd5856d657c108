//! Who has a pool's job, and taking it out of the queue where nobody has it.
//!
//! What must hold: a message is deleted only where neither a claim nor a status says that a node
//! has the job. A node that was given it in that very moment is found by looking once more.

use anyhow::Context as _;

use crate::bus::{self, Bus, Found, PoolName, Search, Target};
use crate::job::claim::State;
use crate::job::status::Stage;
use crate::job::{JobId, Status};
use crate::node::Address;

/// What there is to do or to say.
#[derive(Debug)]
pub(super) enum End {
    /// This node has it and is to be asked.
    Ask(Address),
    /// Nobody had it; its message is deleted.
    Withdrawn {
        /// The message's number.
        seq: u64,
        /// Who gave it back, and remembers it.
        former: Option<Address>,
    },
    /// It can't be cancelled: a reason code and a sentence.
    Not(&'static str, String),
}

/// Where a pool's job is.
enum Whereabouts {
    /// A node has it.
    With(Address),
    /// A node has ended it.
    Ended(Address),
    /// With nobody, as far as anybody says.
    Nobody(Left),
}

/// What is left of a job that nobody has.
#[derive(Default)]
struct Left {
    /// Its number in the queue, maybe.
    seq: Option<u64>,
    /// Who gave it back.
    former: Option<Address>,
}

/// Finds out who has the job, and deletes it where nobody has it.
pub(super) async fn cancel(
    bus: &Bus,
    pool: &PoolName,
    job: &JobId,
    seq: Option<u64>,
) -> anyhow::Result<End> {
    let left = match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(left) => left,
        elsewhere => return Ok(elsewhere.end(job)),
    };
    let target = Target::Pool(pool.clone());
    let deleted = match (seq, left.seq) {
        (Some(seq), _) => {
            if !bus.withdraw(seq, &target, job).await? {
                let error = format!("number {seq} of the queue is not job {job} of {target}");
                return Ok(End::Not("unknown_job", error));
            }
            seq
        }
        (None, Some(seq)) if bus.withdraw(seq, &target, job).await? => seq,
        (None, _) => match bus.find_job(&target, job).await? {
            Search::Found(seq) if bus.withdraw(seq, &target, job).await? => seq,
            Search::Found(_) | Search::Absent => {
                let error = format!("no job {job} is in the queue of {target}, and no node has it");
                return Ok(End::Not("unknown_job", error));
            }
            Search::GivenUp => {
                let error = format!(
                    "the queue is too long to look for job {job} in it: give its number with \
                     --seq (`submit` printed it)"
                );
                return Ok(End::Not("busy", error));
            }
        },
    };
    match whereabouts(bus, pool, job).await? {
        Whereabouts::Nobody(_) => Ok(End::Withdrawn { seq: deleted, former: left.former }),
        elsewhere => Ok(elsewhere.end(job)),
    }
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

/// The claim says it, or the last status: a job is claimed only when its container starts.
async fn whereabouts(bus: &Bus, pool: &PoolName, job: &JobId) -> anyhow::Result<Whereabouts> {
    let mut left = Left::default();
    match bus.claim(pool, job).await {
        Ok(Some(Found { claim, .. })) => match claim.state {
            State::Claimed => return Ok(Whereabouts::With(claim.agent)),
            State::Done => return Ok(Whereabouts::Ended(claim.agent)),
            State::Refused => left.seq = Some(claim.stream_seq),
        },
        Ok(None) | Err(bus::Error::NoClaims) => {}
        Err(err) => return Err(err).context("nobody can tell who has the job"),
    }
    let Some(message) = bus.last_status(job).await? else {
        return Ok(Whereabouts::Nobody(left));
    };
    let agent = message.agent;
    // What is no status was said by nobody who has the job.
    let Ok((status, _)) = Status::read(&message.body) else { return Ok(Whereabouts::Nobody(left)) };
    Ok(match status.stage {
        Stage::Interrupted => Whereabouts::Nobody(Left { former: Some(agent), ..left }),
        // Who ends a pool's job has its claim; without one anybody may have said it.
        stage if stage.is_terminal() => Whereabouts::Nobody(left),
        _ => Whereabouts::With(agent),
    })
}
