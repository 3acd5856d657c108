//! Applies the steps: each calls the decisions of the protocol and changes the state.

use super::super::{
    ACK_AWAITED_MAX, Arrival, Bid, Claim, Conclude, GiveBack, Refuse, Renew, Silent, Stand, State,
    Take, arrive, conclude, hand_back, holder_to_ask, is_free, refuse, renew, take,
};
use super::Defect;
use super::deeds::{answers, is_stoppable};
use super::world::{NOW, Place, Stage, World, bid, is_held, number};

/// Delivers a message to an agent, which answers as the intake does.
pub(super) fn give(world: &mut World, message: usize, to: usize, late: bool, defect: Defect) {
    world.messages[message].place = Place::Out;
    world.messages[message].delivered += 1;
    let delivered = world.messages[message].delivered;
    let number = u8::try_from(message).expect("a small number");
    match world.agents[to].stage {
        Stage::Unknown | Stage::Waiting => {
            let asks = bid(to, (number, delivered), 0, defect);
            let asks = if late { Bid { now: NOW.plus(ACK_AWAITED_MAX), ..asks } } else { asks };
            arrives(world, to, &asks, (number, delivered), defect);
        }
        Stage::Settled => acknowledge(world, message),
        Stage::Elsewhere => {
            let asks = bid(to, (number, delivered), 0, defect);
            let asks = if late { Bid { now: NOW.plus(ACK_AWAITED_MAX), ..asks } } else { asks };
            match arrive(world.found().as_ref(), &asks) {
                Arrival::Later => world.messages[message].place = Place::Queued,
                _ => acknowledge(world, message),
            }
        }
        _ => {
            world.agents[to].message = number;
            world.agents[to].delivered = delivered;
        }
    }
}

fn arrives(world: &mut World, to: usize, bid: &Bid, delivery: (u8, u8), defect: Defect) {
    let found = world.found();
    let found = found.as_ref();
    let message = usize::from(delivery.0);
    world.agents[to].silent = None;
    match arrive(found, bid) {
        Arrival::Open => {
            let asked = holder_to_ask(found, bid).filter(|_| defect != Defect::NotAsked);
            if asked.is_some_and(|holder| answers(world, usize::from(number(holder)))) {
                // It is redelivered after a whole ack wait, and not while its holder renews the lease.
                if defect == Defect::ComesAtOnce {
                    world.messages[message].place = Place::Queued;
                }
                return;
            }
            world.agents[to].silent = asked.and(found.map(start_of));
            accept(world, to, delivery);
        }
        Arrival::Later => world.messages[message].place = Place::Queued,
        Arrival::Duplicate => {
            acknowledge(world, message);
            if world.agents[to].stage == Stage::Waiting {
                leave(world, to, Stage::Elsewhere);
            }
        }
        Arrival::OtherBody => unreachable!("there is one body"),
    }
}

/// The start that a claim records, in small numbers.
pub(super) fn start_of(claim: &Claim) -> (u8, u8) {
    (number(claim.agent), u8::try_from(claim.attempt).expect("a small number"))
}

fn accept(world: &mut World, to: usize, delivery: (u8, u8)) {
    let one = &mut world.agents[to];
    one.stage = Stage::Ready;
    one.attempt += 1;
    (one.message, one.delivered) = delivery;
}

pub(super) fn restart(world: &mut World, agent: usize) {
    let one = &mut world.agents[agent];
    one.is_up = true;
    one.was_away = true;
    one.stage = match one.stage {
        Stage::Starting if !one.runs => Stage::Ready,
        Stage::Running if !one.runs => Stage::Concluding,
        Stage::Concluded => Stage::Concluding,
        Stage::Doomed => Stage::Condemned,
        Stage::Dark => {
            one.attempt += 1;
            Stage::Ready
        }
        stage => stage,
    };
}

/// The agent stops the job, since another may have it.
pub(super) fn let_go(world: &mut World, agent: usize) {
    let one = &mut world.agents[agent];
    one.stage = Stage::LettingGo;
    one.runs = false;
    one.has_asked = false;
    one.silent = None;
}

pub(super) fn renew_lease(world: &mut World, agent: usize, defect: Defect) {
    let one = world.agents[agent];
    let stand = match one.stage {
        Stage::Concluding | Stage::Concluded => Stand::Concluding,
        stage if is_held(stage) => Stand::Held,
        Stage::Ended => Stand::Ended,
        _ => Stand::Open,
    };
    let (found, bid) = (world.found(), world.bid(agent, defect));
    if defect == Defect::EndRenewed && found.is_some_and(|found| found.state == State::Done) {
        if let Take::Write(claim) = take(found.as_ref(), &bid) {
            world.write(Some(claim));
        }
        return;
    }
    match renew(found.as_ref(), &bid, stand, one.was_away) {
        Renew::Write(claim) => world.write(Some(claim)),
        Renew::Lost if is_stoppable(&one) => let_go(world, agent),
        Renew::Keep | Renew::Lost => {}
    }
    world.agents[agent].was_away = false;
}

pub(super) fn claim(world: &mut World, agent: usize, defect: Defect) {
    let (found, bid) = (world.found(), world.bid(agent, defect));
    let stage = match take(taken(found, defect).as_ref(), &bid) {
        Take::Write(claim) => {
            world.write(Some(claim));
            Stage::Starting
        }
        Take::Mine => Stage::Starting,
        Take::Poison => {
            world.poisoned = true;
            Stage::Condemned
        }
        Take::Yield(_) => return let_go(world, agent),
    };
    world.agents[agent].stage = stage;
}

/// The claim as [`Defect::DoneTaken`] reads it: `Done` looks like a claim that nobody holds.
fn taken(found: Option<Claim>, defect: Defect) -> Option<Claim> {
    found.map(|claim| {
        let is_taken = defect == Defect::DoneTaken && claim.state == State::Done;
        if is_taken { Claim { state: State::Refused, ..claim } } else { claim }
    })
}

pub(super) fn end(world: &mut World, agent: usize, defect: Defect) {
    let (found, bid) = (world.found(), world.bid(agent, defect));
    match conclude(taken(found, defect).as_ref(), &bid) {
        Conclude::Write(claim) => world.write(Some(claim)),
        Conclude::Mine => {}
        Conclude::Yield(_) if defect == Defect::NotConcluded => {}
        Conclude::Yield(_) => return let_go(world, agent),
    }
    let one = &mut world.agents[agent];
    one.stage = if one.stage == Stage::Condemned { Stage::Doomed } else { Stage::Concluded };
}

/// Lets go of the claim, and gives the message back if it is still this agent's to give.
pub(super) fn give_back(world: &mut World, agent: usize, defect: Defect) {
    let (found, bid) = (world.found(), world.bid(agent, defect));
    if let Some(claim) = hand_back(found.as_ref(), &bid) {
        let starts = found.map_or(0, |found| found.starts);
        let kept = Claim { starts, ..claim };
        world.write(Some(if defect == Defect::NotRefunded { kept } else { claim }));
    }
    let message = usize::from(world.agents[agent].message);
    let gives_back =
        world.agents[agent].stage == Stage::HandingBack || defect == Defect::GivenBackLate;
    if gives_back && is_free(found.as_ref(), &bid) && world.messages[message].place == Place::Out {
        world.messages[message].place = Place::Queued;
    }
}

/// Delivers a message to an agent that the job never fits.
pub(super) fn misfit(world: &mut World, message: usize, to: usize, defect: Defect) {
    world.messages[message].delivered += 1;
    let delivery = (u8::try_from(message).expect("few"), world.messages[message].delivered);
    world.messages[message].place = Place::Queued;
    let (found, asks) = (world.found(), bid(to, delivery, 0, defect));
    if arrive(found.as_ref(), &asks) != Arrival::Open {
        return;
    }
    if holder_to_ask(found.as_ref(), &asks).is_some_and(|one| answers(world, number(one).into())) {
        world.messages[message].place = Place::Out;
        return;
    }
    if let Refuse::Write(claim) = refuse(found.as_ref(), &asks) {
        write_over(world, claim, defect);
    }
}

/// Returns a job that can't be begun here to the pool. A holder that was not silent when the delivery
/// arrived, or answers now, keeps it.
pub(super) fn return_to_pool(world: &mut World, agent: usize, defect: Defect) {
    let (found, bid) = (world.found(), world.bid(agent, defect));
    let was_silent = found.as_ref().map(start_of) == world.agents[agent].silent;
    let asks = holder_to_ask(found.as_ref(), &bid).filter(|_| defect != Defect::GivenBackUnasked);
    if asks.is_some_and(|one| !was_silent || answers(world, number(one).into())) {
        return let_go(world, agent);
    }
    // The tests of `give_back` itself check how often a fault is counted.
    match super::super::give_back(found.as_ref(), &bid) {
        GiveBack::Write(claim) | GiveBack::GiveUp(claim) => write_over(world, claim, defect),
        GiveBack::Counted | GiveBack::GivenUp => {}
        GiveBack::Leave => return let_go(world, agent),
    }
    let message = usize::from(world.agents[agent].message);
    if world.messages[message].place == Place::Out {
        world.messages[message].place = Place::Queued;
    }
    let_go(world, agent);
}

fn write_over(world: &mut World, claim: Claim, defect: Defect) {
    let silent = world.found().map_or_else(Silent::default, |found| found.silent);
    let erased = Claim { silent, ..claim };
    world.write(Some(if defect == Defect::StartErased { erased } else { claim }));
}

/// Continues a job that was given back and has left the queue, unless another agent has it.
pub(super) fn reconcile(world: &mut World, agent: usize, defect: Defect) {
    let (found, bid) = (world.found(), world.bid(agent, defect));
    let done = found.is_some_and(|found| found.state == State::Done && found.agent != bid.agent);
    if done {
        return leave(world, agent, Stage::Elsewhere);
    }
    if is_free(found.as_ref(), &bid) {
        let one = world.agents[agent];
        accept(world, agent, (one.message, one.delivered));
    }
}

pub(super) fn acknowledge(world: &mut World, message: usize) {
    if world.messages[message].place != Place::Unsent {
        world.messages[message].place = Place::Gone;
    }
}

/// Nothing is left to do for the job at this agent.
pub(super) fn leave(world: &mut World, agent: usize, stage: Stage) {
    let one = &mut world.agents[agent];
    one.stage = stage;
    (one.message, one.delivered, one.attempt, one.silent) = (0, 0, 1, None);
}
