//! A pool's job and the other agents of the pool: the claim is read, `job::claim` decides, the
//! answer is written by compare-and-set.
//!
//! What must hold: a container of a pool's job is started, and its terminal status written down,
//! only after the claim says that it is ours; whoever loses a race asks again from the start.

use super::attempt::Desk;
use super::effects::Effects;
use crate::bus::{self, AckHandle, PoolName};
use crate::clock::Clock;
use crate::failpoint;
use crate::job::claim::{self, Bid, Claim};
use crate::job::phase::{Event, Fault, Phase, Retry};
use crate::job::{Hash, Job, JobId, Reason};
use crate::node::Address;
use crate::supervise::chain;

/// Races that are lost in a row before the job waits for its next try.
const RACES_MAX: u32 = 8;

/// What a claim is asked for with: nothing where the job came by no pool, or without `JetStream`,
/// where nobody else can have been given it.
struct Asked {
    pool: PoolName,
    bid: Bid,
}

/// What was decided about a claim.
enum Decided<T> {
    /// Nothing is to be written.
    Is(T),
    /// So, once this is written.
    Write(Claim, T),
}

/// Before the container starts: is the job this node's?
pub(super) async fn take<E: Effects, C: Clock>(job: &Job, effects: &E, desk: &Desk<C>) -> Event {
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::take(found, bid) {
        claim::Take::Write(claim) => Decided::Write(claim, Event::Claimed),
        claim::Take::Mine => Decided::Is(Event::Claimed),
        claim::Take::Poison => Decided::Is(Event::Poisoned),
        claim::Take::Yield(_) => Decided::Is(Event::Outbid),
    };
    ask(job, effects, desk, Event::Claimed, decide).await
}

/// Before the terminal status is written down: is it this node's to say?
pub(super) async fn conclude<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Event {
    let decide =
        |found: Option<&Claim>, bid: &Bid| conclusion(found, bid, Event::Concluded, Event::Outbid);
    ask(job, effects, desk, Event::Concluded, decide).await
}

/// Whether an end is this node's to say: `ours`, or else `theirs`.
fn conclusion<T>(found: Option<&Claim>, bid: &Bid, ours: T, theirs: T) -> Decided<T> {
    match claim::conclude(found, bid) {
        claim::Conclude::Write(claim) => Decided::Write(claim, ours),
        claim::Conclude::Mine => Decided::Is(ours),
        claim::Conclude::Yield(_) => Decided::Is(theirs),
    }
}

async fn ask<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
    unasked: Event,
    decide: impl Fn(Option<&Claim>, &Bid) -> Decided<Event> + Send,
) -> Event {
    let delivery = desk.board.delivery(job.id());
    let Some(asked) = asked(job, delivery.as_ref(), &desk.clock) else { return unasked };
    match settle(&asked.pool, job.id(), &asked.bid, effects, decide).await {
        Ok(Some(event)) => event,
        Ok(None) => failed("other agents of the pool were faster every time"),
        Err(err) => failed(&chain(&err)),
    }
}

/// Whether the claim went to another agent, so that the job must be left to it. Where the job was
/// started, the claim follows its newest delivery: an agent with one in between could take it.
pub(super) async fn is_lost<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    clock: &C,
) -> Result<bool, bus::Error> {
    let Some(asked) = asked(job, Some(delivery), clock) else { return Ok(false) };
    let started = matches!(
        job.phase,
        Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. }
    );
    let decide = |found: Option<&Claim>, bid: &Bid| {
        if claim::is_lost(found, bid) || !started {
            return Decided::Is(claim::is_lost(found, bid));
        }
        match claim::take(found, bid) {
            claim::Take::Write(claim) => Decided::Write(claim, false),
            _ => Decided::Is(false),
        }
    };
    let lost = settle(&asked.pool, job.id(), &asked.bid, effects, decide).await?;
    Ok(lost.unwrap_or(false))
}

/// Gives the claim back, so that a start that a shutdown interrupted does not count. `false` where
/// the claim is another agent's: then the delivery is, too.
pub(super) async fn hand_back<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    clock: &C,
) -> Result<bool, bus::Error> {
    let Some(asked) = asked(job, Some(delivery), clock) else { return Ok(true) };
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::hand_back(found, bid) {
        Some(claim) => Decided::Write(claim, true),
        None => Decided::Is(!claim::is_lost(found, bid)),
    };
    let ours = settle(&asked.pool, job.id(), &asked.bid, effects, decide).await?;
    Ok(ours.unwrap_or(false))
}

/// What became of a job that this node can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It goes back to the pool.
    Back,
    /// Nobody can begin it: it ends here.
    Up,
    /// Another agent has it, and its delivery.
    Lost,
}

/// This node can't begin the job: counted, so that it does not go round for ever.
pub(super) async fn give_back<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    clock: &C,
) -> Result<Given, bus::Error> {
    let Some(asked) = asked(job, Some(delivery), clock) else { return Ok(Given::Up) };
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::give_back(found, bid) {
        claim::GiveBack::Write(claim) => Decided::Write(claim, Given::Back),
        claim::GiveBack::GiveUp(claim) => Decided::Write(claim, Given::Up),
        claim::GiveBack::Counted => Decided::Is(Given::Back),
        claim::GiveBack::GivenUp => Decided::Is(Given::Up),
        claim::GiveBack::Leave => Decided::Is(Given::Lost),
    };
    let given = settle(&asked.pool, job.id(), &asked.bid, effects, decide).await?;
    Ok(given.unwrap_or(Given::Lost))
}

/// A pool's job that nobody will ever run, such as one that came too late. `true`: this agent is
/// the one to say so.
pub(super) async fn reject<E: Effects>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
) -> Result<bool, bus::Error> {
    let decide = |found: Option<&Claim>, bid: &Bid| conclusion(found, bid, true, false);
    Ok(settle(pool, job, bid, effects, decide).await?.unwrap_or(false))
}

/// One more node that a pool's job never fits. `true`: nobody is left to try, and this agent is the
/// one to say so.
pub(super) async fn refuse<E: Effects>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
) -> Result<bool, bus::Error> {
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::refuse(found, bid) {
        claim::Refuse::Write(claim) => Decided::Write(claim, false),
        claim::Refuse::GiveUp(claim) => Decided::Write(claim, true),
        claim::Refuse::Leave(_) => Decided::Is(false),
    };
    Ok(settle(pool, job, bid, effects, decide).await?.unwrap_or(false))
}

/// Reads, decides and writes until the answer stands; `None` where every race was lost.
async fn settle<E: Effects, T: Send>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
    decide: impl Fn(Option<&Claim>, &Bid) -> Decided<T> + Send,
) -> Result<Option<T>, bus::Error> {
    for _ in 0..RACES_MAX {
        let found = effects.claim(pool, job).await?;
        match decide(found.as_ref().map(|found| &found.claim), bid) {
            Decided::Is(answer) => return Ok(Some(answer)),
            Decided::Write(claim, answer) => {
                let over = found.map(|found| found.revision);
                failpoint::hit("put_claim", ".before");
                let is_ours = effects.put_claim(pool, job, &claim, over).await?;
                failpoint::hit("put_claim", ".after");
                if is_ours {
                    return Ok(Some(answer));
                }
            }
        }
    }
    Ok(None)
}

fn asked<C: Clock>(job: &Job, delivery: Option<&AckHandle>, clock: &C) -> Option<Asked> {
    let pool = job.pool()?.parse().ok()?;
    let bid = bid(job.node, delivery?, job.attempt, job.spec_hash, clock);
    Some(Asked { pool, bid })
}

/// What this node asks with.
pub(super) fn bid<C: Clock>(
    agent: Address,
    delivery: &AckHandle,
    attempt: u32,
    spec_hash: Hash,
    clock: &C,
) -> Bid {
    let (stream_seq, delivered) = (delivery.stream_seq, delivery.delivered);
    Bid { agent, stream_seq, delivered, attempt, spec_hash, now: clock.now() }
}

fn failed(error: &str) -> Event {
    let fault = Fault::new(Reason::NodeFault, format!("the claim on the job: {error}"));
    Event::Failed { fault, retry: Retry::Always }
}
