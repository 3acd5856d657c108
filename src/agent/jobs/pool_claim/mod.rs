//! A pool's job and the other agents of the pool: the claim is read, `job::claim` decides, the
//! answer is written by compare-and-set.
//!
//! What must hold: a container of a pool's job is started, and its terminal status written down,
//! only after the claim says that it is ours; whoever loses a race asks again from the start.

use super::attempt::Desk;
use super::board::{Board, InHand};
use super::effects::Effects;
use crate::bus::{self, AckHandle, Found, PoolName};
use crate::clock::Clock;
use crate::failpoint;
use crate::ids::{Address, Hash, JobId};
use crate::job::claim::{self, Bid, Claim};
use crate::job::phase::{Event, Fault, Retry};
use crate::job::{Job, Reason};
use crate::report::causes;

/// Races that are lost in a row before the job waits for its next try.
const RACES_MAX: u32 = 8;

const FASTER: &str = "other agents of the pool were faster every time";

/// What a claim is asked for with: nothing where the job came by no pool, or without `JetStream`,
/// where nobody else can have been given it.
struct Asked {
    pool: PoolName,
    bid: Bid,
}

/// What was decided about a claim.
#[expect(clippy::large_enum_variant, reason = "it is on the stack for one decision")]
enum Decided<T> {
    /// Nothing is to be written.
    Is(T),
    /// So, once this is written.
    Write(Claim, T),
}

/// Before the container starts: is the job this node's? Whose lease has run out is asked first: it
/// may be at work, and only have been out of the queue's reach.
pub(super) async fn take<E: Effects, C: Clock>(job: &Job, effects: &E, desk: &Desk<C>) -> Event {
    let delivery = desk.board.delivery(job.id());
    let Some(Asked { pool, bid }) = asked(job, delivery.as_ref(), &desk.clock) else {
        return Event::Claimed;
    };
    for _ in 0..RACES_MAX {
        let found = match effects.claim(&pool, job.id()).await {
            Ok(found) => found,
            Err(err) => return failed(&causes(&err)),
        };
        let claim = found.as_ref().map(|found| &found.claim);
        if is_kept(claim, &bid, job.id(), &desk.board, effects).await {
            return Event::Outbid;
        }
        let claim = match claim::take(claim, &bid) {
            claim::Take::Mine => return Event::Claimed,
            claim::Take::Poison => return Event::Poisoned,
            claim::Take::Yield(_) => return Event::Outbid,
            claim::Take::Write(claim) => claim,
        };
        match put(&pool, job.id(), &claim, found, effects).await {
            Ok(true) => return Event::Claimed,
            // Whoever was faster may be the holder, who is back: the question is asked anew.
            Ok(false) => {}
            Err(err) => return failed(&causes(&err)),
        }
    }
    failed(FASTER)
}

/// Whether the agent that holds the claim which the bidder would write over keeps the job. One that
/// claimed it only since the delivery came may be at work, though it does not answer now: the job
/// comes again.
async fn is_kept<E: Effects>(
    found: Option<&Claim>,
    bid: &Bid,
    job: &JobId,
    board: &Board,
    effects: &E,
) -> bool {
    let Some(holder) = claim::holder_to_ask(found, bid) else { return false };
    let was_silent = found.map(Claim::start) == board.silent_holder(job);
    let is_kept = !was_silent || effects.keeps(holder, job).await.is_some();
    if is_kept {
        tracing::info!(job.id = %job, "job {job} is kept by {holder}");
    }
    is_kept
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
        Ok(None) => failed(FASTER),
        Err(err) => failed(&causes(&err)),
    }
}

/// Renews the claim of a job in hand, before its lease is: `false` where another agent has it, so
/// that it must be left to that one. `anew`: it is written though it says so already.
///
/// How far the job is counts as it is once the claim is read: it moves before it writes its claim
/// itself, so that what it has concluded or given back is never claimed again from here.
pub(super) async fn renew<E: Effects, C: Clock>(
    job: &InHand,
    anew: bool,
    effects: &E,
    desk: &Desk<C>,
) -> Result<bool, bus::Error> {
    let Some(pool) = &job.pool else { return Ok(true) };
    let bid = bid(job.node, &job.delivery, job.attempt, job.spec_hash, &desk.clock);
    let decide = |found: Option<&Claim>, bid: &Bid| {
        let Some(stand) = desk.board.stand(&job.id, job.attempt) else { return Decided::Is(true) };
        match claim::renew(found, &Bid { held: stand.is_held(), ..*bid }, stand, anew) {
            claim::Renew::Keep => Decided::Is(true),
            claim::Renew::Write(claim) => Decided::Write(claim, true),
            claim::Renew::Lost => Decided::Is(false),
        }
    };
    let ours = settle(pool, &job.id, &bid, effects, decide).await?;
    // Lost races say nothing of whose it is: it is asked again.
    ours.ok_or(bus::Error::Timeout { what: "renew a claim" })
}

/// Lets go of the claim, so that the start does not count. `false` where another agent has the job,
/// or may have it: then the delivery is not this one's to give back.
pub(super) async fn hand_back<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    clock: &C,
) -> Result<bool, bus::Error> {
    let Some(asked) = asked(job, Some(delivery), clock) else { return Ok(true) };
    let decide = |found: Option<&Claim>, bid: &Bid| {
        let is_free = claim::is_free(found, bid);
        match claim::hand_back(found, bid) {
            Some(claim) => Decided::Write(claim, is_free),
            None => Decided::Is(is_free),
        }
    };
    let ours = settle(&asked.pool, job.id(), &asked.bid, effects, decide).await?;
    ours.ok_or(bus::Error::Timeout { what: "give a claim back" })
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

/// This node can't begin the job: counted, so that it does not go round for ever. Not where its
/// holder of before is back at work: what is given back then goes to a third agent, unasked.
pub(super) async fn give_back<E: Effects, C: Clock>(
    job: &Job,
    delivery: &AckHandle,
    effects: &E,
    desk: &Desk<C>,
) -> Result<Given, bus::Error> {
    let Some(asked) = asked(job, Some(delivery), &desk.clock) else { return Ok(Given::Up) };
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::give_back(found, bid) {
        claim::GiveBack::Write(claim) => Decided::Write(claim, Given::Back),
        claim::GiveBack::GiveUp(claim) => Decided::Write(claim, Given::Up),
        claim::GiveBack::Counted => Decided::Is(Given::Back),
        claim::GiveBack::GivenUp => Decided::Is(Given::Up),
        claim::GiveBack::Leave => Decided::Is(Given::Lost),
    };
    let kept = Some(Kept { board: &desk.board, answer: Given::Lost });
    let given = settle_unless(kept, &asked.pool, job.id(), &asked.bid, effects, decide).await?;
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
/// one to say so. Nothing is counted where its holder of before is back at work.
pub(super) async fn refuse<E: Effects>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    board: &Board,
    effects: &E,
) -> Result<bool, bus::Error> {
    let decide = |found: Option<&Claim>, bid: &Bid| match claim::refuse(found, bid) {
        claim::Refuse::Write(claim) => Decided::Write(claim, false),
        claim::Refuse::GiveUp(claim) => Decided::Write(claim, true),
        claim::Refuse::Leave(_) => Decided::Is(false),
    };
    let kept = Some(Kept { board, answer: false });
    Ok(settle_unless(kept, pool, job, bid, effects, decide).await?.unwrap_or(false))
}

/// What is answered where the holder that would be written over keeps the job, and who knows whether
/// it was silent when the delivery came.
struct Kept<'a, T> {
    board: &'a Board,
    answer: T,
}

/// Reads, decides and writes until the answer stands; `None` where every race was lost.
async fn settle<E: Effects, T: Send + Sync>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
    decide: impl Fn(Option<&Claim>, &Bid) -> Decided<T> + Send,
) -> Result<Option<T>, bus::Error> {
    settle_unless(None, pool, job, bid, effects, decide).await
}

/// The same; who would be written over is asked first, where there is an answer for that.
async fn settle_unless<E: Effects, T: Send + Sync>(
    kept: Option<Kept<'_, T>>,
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
    decide: impl Fn(Option<&Claim>, &Bid) -> Decided<T> + Send,
) -> Result<Option<T>, bus::Error> {
    for _ in 0..RACES_MAX {
        let found = effects.claim(pool, job).await?;
        let claim = found.as_ref().map(|found| &found.claim);
        if let Some(Kept { board, .. }) = &kept
            && is_kept(claim, bid, job, board, effects).await
        {
            return Ok(kept.map(|kept| kept.answer));
        }
        match decide(claim, bid) {
            Decided::Is(answer) => return Ok(Some(answer)),
            Decided::Write(claim, answer) => {
                if put(pool, job, &claim, found, effects).await? {
                    return Ok(Some(answer));
                }
            }
        }
    }
    Ok(None)
}

/// Writes the claim over what was found; `false` where somebody was faster.
async fn put<E: Effects>(
    pool: &PoolName,
    job: &JobId,
    claim: &Claim,
    found: Option<Found>,
    effects: &E,
) -> Result<bool, bus::Error> {
    let over = found.map(|found| found.revision);
    failpoint::hit("put_claim", ".before");
    let is_ours = effects.put_claim(pool, job, claim, over).await?;
    failpoint::hit("put_claim", ".after");
    Ok(is_ours)
}

fn asked<C: Clock>(job: &Job, delivery: Option<&AckHandle>, clock: &C) -> Option<Asked> {
    let pool = job.pool()?.parse().ok()?;
    let bid = bid(job.node, delivery?, job.attempt, job.spec_hash, clock);
    let held = job.phase.stand().is_held();
    Some(Asked { pool, bid: Bid { held, ..bid } })
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
    Bid { agent, stream_seq, delivered, attempt, held: false, spec_hash, now: clock.now() }
}

fn failed(error: &str) -> Event {
    let fault = Fault::new(Reason::NodeFault, format!("the claim on the job: {error}"));
    Event::Failed { fault, retry: Retry::Always }
}

#[cfg(test)]
mod tests;
