//! Coordination of a pool's job with the other agents of the pool: read the claim, let `job::claim`
//! decide, write the answer by compare-and-set.
//!
//! Invariants: the container of a pool's job is started, and its terminal status journaled, only
//! after the claim is this agent's. An agent that loses a race starts over with a fresh read.

use super::board::{Board, InHand};
use super::desk::Desk;
use super::effects::Effects;
use crate::bus::{self, AckHandle, Found, PoolName};
use crate::clock::Clock;
use crate::failpoint;
use crate::ids::{Address, Hash, JobId};
use crate::job::claim::{self, Bid, Claim};
use crate::job::phase::{Event, Fault, Retry};
use crate::job::{Job, Reason};
use crate::report::causes;

/// Races lost in a row before the job waits for its next try.
const RACES_MAX: u32 = 8;

const FASTER: &str = "other agents of the pool were faster every time";

/// The pool and the bid to decide about a job's claim with. There is none for a job that came from
/// no pool, or without `JetStream`: no other agent can have been given it.
struct Asked {
    pool: PoolName,
    bid: Bid,
}

/// A decision about a claim.
#[expect(clippy::large_enum_variant, reason = "it is on the stack for one decision")]
enum Decided<T> {
    /// The answer; nothing has to be written.
    Is(T),
    /// The answer, valid once this claim is written.
    Write(Claim, T),
}

/// Claims the job before its container starts. A holder whose lease has expired is asked first: it
/// may be at work, and only have been cut off from the queue.
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
            // The faster writer may be the previous holder, back at work: start over.
            Ok(false) => {}
            Err(err) => return failed(&causes(&err)),
        }
    }
    failed(FASTER)
}

/// Whether the holder whose claim the bidder would overwrite keeps the job. A holder that was not
/// already silent when the delivery came keeps it unasked: it may be at work, and the job is
/// redelivered.
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

/// Claims the job's end before its terminal status is journaled.
pub(super) async fn conclude<E: Effects, C: Clock>(
    job: &Job,
    effects: &E,
    desk: &Desk<C>,
) -> Event {
    let decide =
        |found: Option<&Claim>, bid: &Bid| conclusion(found, bid, Event::Concluded, Event::Outbid);
    ask(job, effects, desk, Event::Concluded, decide).await
}

/// `ours` if this node may report the job's end, otherwise `theirs`.
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
    match compare_and_set(&asked.pool, job.id(), &asked.bid, effects, decide).await {
        Ok(Some(event)) => event,
        Ok(None) => failed(FASTER),
        Err(err) => failed(&causes(&err)),
    }
}

/// Renews the claim of a job in hand, before its lease is renewed. `false` if another agent has the
/// job, which must be left to it. `anew`: write the claim even if it is up to date.
///
/// The job's stand is looked up after the claim is read. Since a job changes its phase before it
/// writes its own claim, a job that was concluded or given back is never claimed again here.
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
    let ours = compare_and_set(pool, &job.id, &bid, effects, decide).await?;
    // Lost races don't tell whose it is: the caller tries again.
    ours.ok_or(bus::Error::Timeout { what: "renew a claim" })
}

/// Releases the claim, so that this start does not count. `false` if another agent has the job or
/// may have it: then the delivery is not this agent's to give back.
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
    let ours = compare_and_set(&asked.pool, job.id(), &asked.bid, effects, decide).await?;
    ours.ok_or(bus::Error::Timeout { what: "give a claim back" })
}

/// The fate of a job that this node can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It goes back to the pool.
    Back,
    /// Too many nodes could not begin it: it ends here.
    Up,
    /// Another agent has it, or may have it, and its delivery.
    Lost,
}

/// Counts in the claim that this node can't begin the job, so that it does not circulate for ever.
/// Not if its previous holder is back at work: a job given back then would go to a third agent,
/// which would not ask that holder.
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
    let given =
        compare_and_set_unless(kept, &asked.pool, job.id(), &asked.bid, effects, decide).await?;
    Ok(given.unwrap_or(Given::Lost))
}

/// Concludes a pool's job that no agent will ever run, such as one past its deadline. `true` if
/// this agent is the one to report it.
pub(super) async fn reject<E: Effects>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
) -> Result<bool, bus::Error> {
    let decide = |found: Option<&Claim>, bid: &Bid| conclusion(found, bid, true, false);
    Ok(compare_and_set(pool, job, bid, effects, decide).await?.unwrap_or(false))
}

/// Counts one more node that a pool's job can never fit. `true` if the job is given up with that,
/// and this agent is the one to report it. Nothing is counted if its previous holder is back at
/// work.
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
    Ok(compare_and_set_unless(kept, pool, job, bid, effects, decide).await?.unwrap_or(false))
}

/// The answer if the holder that would be overwritten keeps the job, and the board that knows
/// whether this holder was silent when the delivery came.
struct Kept<'a, T> {
    board: &'a Board,
    answer: T,
}

/// Reads, decides and writes until a write succeeds or none is needed; `None` if every race was
/// lost.
async fn compare_and_set<E: Effects, T: Send + Sync>(
    pool: &PoolName,
    job: &JobId,
    bid: &Bid,
    effects: &E,
    decide: impl Fn(Option<&Claim>, &Bid) -> Decided<T> + Send,
) -> Result<Option<T>, bus::Error> {
    compare_and_set_unless(None, pool, job, bid, effects, decide).await
}

/// The same, but with `kept` the holder that would be overwritten is asked first.
async fn compare_and_set_unless<E: Effects, T: Send + Sync>(
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

/// Writes the claim over what was found; `false` if another agent was faster.
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

/// This node's bid for a job, as one that has not started it.
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
