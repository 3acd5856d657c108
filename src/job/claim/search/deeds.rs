//! The possible next steps: those of the agents and of the server, and the faults that are left.

use super::super::holder_to_ask;
use super::steps::{
    acknowledge, claim, end, give, give_back, leave, let_go, misfit, reconcile, renew_lease,
    restart, return_to_pool, start_of,
};
use super::world::{AGENTS, Agent, Link, MESSAGES, Place, Stage, World, is_held, number};
use super::{Defect, is_in_hand};

/// One step. Agents and messages are given by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// The requester publishes the job again.
    Publish,
    /// The server delivers a message to an agent; `late`: an hour after the claim was written.
    Deliver {
        message: usize,
        to: usize,
        late: bool,
    },
    /// The lease of a message runs out.
    Expire(usize),
    Renew(usize),
    /// It asks the holder of the claim. If the holder answers, or its claim is new, it lets go of the
    /// job.
    Ask(usize),
    Claim(usize),
    Start(usize),
    Finish(usize),
    Conclude(usize),
    /// It commits its end to the journal.
    Commit(usize),
    Acknowledge(usize),
    HandBack(usize),
    /// It returns a job that it can't begin to the pool.
    Return(usize),
    /// It checks a waiting job whose message has left the queue.
    Reconcile(usize),
    /// Cut off for 0.8 of the ack wait, it stops its job.
    GiveUp(usize),
    Restart(usize),
    Heal(usize),
    /// The process dies. This step and all that follow are faults.
    Crash(usize),
    /// The host goes down, and with it the container.
    Blackout(usize),
    /// It dies after letting go of the claim and before committing that to its journal.
    CrashHandingBack(usize),
    Cut(usize),
    Split(usize),
    Shutdown(usize),
    /// A message is delivered to an agent that the job never fits.
    Misfit {
        message: usize,
        to: usize,
    },
    /// An agent can't begin a job that it has accepted.
    Unable(usize),
    /// After an outage, a message that was delivered is delivered again at once.
    Outage {
        message: usize,
        to: usize,
    },
    /// The ack wait was edited: a lease runs out at any time.
    Edit(usize),
    Recount,
    Purge,
    Drain,
}

impl Deed {
    /// Whether the step is a fault, so that reaching an end must not depend on it.
    pub(super) const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Crash(_)
                | Self::Blackout(_)
                | Self::CrashHandingBack(_)
                | Self::Cut(_)
                | Self::Split(_)
                | Self::Shutdown(_)
                | Self::Misfit { .. }
                | Self::Unable(_)
                | Self::Outage { .. }
                | Self::Edit(_)
                | Self::Recount
                | Self::Purge
                | Self::Drain
        )
    }
}

/// All possible next steps, with the states to which they lead.
pub(super) fn after(world: &World, defect: Defect) -> Vec<(Deed, World)> {
    let mut next = Next { world: *world, defect, all: Vec::new() };
    for message in 0..MESSAGES {
        next.of_message(message);
    }
    for agent in 0..AGENTS {
        next.of_agent(agent);
        next.faults_of_agent(agent);
    }
    next.faults_of_all();
    next.all
}

struct Next {
    world: World,
    defect: Defect,
    all: Vec<(Deed, World)>,
}

impl Next {
    fn can(&mut self, deed: Deed, change: impl FnOnce(&mut World)) {
        let mut world = self.world;
        change(&mut world);
        world.is_excused |= world.was_purged && an_end_is_unknown(&world);
        self.all.push((deed, world.counted_anew()));
    }

    fn of_message(&mut self, message: usize) {
        let world = self.world;
        match world.messages[message].place {
            Place::Unsent => {
                self.can(Deed::Publish, |world| world.messages[message].place = Place::Queued);
            }
            Place::Queued => {
                for to in (0..AGENTS).filter(|to| is_there(&world, *to)) {
                    self.deliver(message, to);
                }
            }
            Place::Out => {
                if !is_kept(&world, message, self.defect) {
                    self.can(Deed::Expire(message), |world| {
                        world.messages[message].place = Place::Queued;
                    });
                }
                if world.left.edits > 0 {
                    self.can(Deed::Edit(message), |world| {
                        world.left.edits -= 1;
                        world.messages[message].place = Place::Queued;
                    });
                }
            }
            Place::Gone => {}
        }
    }

    fn deliver(&mut self, message: usize, to: usize) {
        let defect = self.defect;
        let is_new = self.world.agents[to].stage == Stage::Unknown;
        if self.world.left.misfits > 0 && is_new {
            self.can(Deed::Misfit { message, to }, |world| {
                world.left.misfits -= 1;
                misfit(world, message, to, defect);
            });
        }
        self.can(Deed::Deliver { message, to, late: false }, |world| {
            give(world, message, to, false, defect);
        });
        if self.world.claim.is_some_and(|claim| claim.is_done) {
            self.can(Deed::Deliver { message, to, late: true }, |world| {
                give(world, message, to, true, defect);
            });
        }
    }

    /// The steps that an agent takes by itself.
    fn of_agent(&mut self, agent: usize) {
        let (world, defect) = (self.world, self.defect);
        let one = world.agents[agent];
        if !one.is_up {
            if one.runs {
                self.can(Deed::Finish(agent), |world| world.agents[agent].runs = false);
            }
            if one.stage != Stage::Unknown || agent_is_used(&world, agent) {
                self.can(Deed::Restart(agent), |world| restart(world, agent));
            }
            return;
        }
        match one.stage {
            Stage::Starting => self.can(Deed::Start(agent), |world| {
                world.agents[agent].stage = Stage::Running;
                world.agents[agent].runs = true;
            }),
            Stage::Running => self.can(Deed::Finish(agent), |world| {
                world.agents[agent].stage = Stage::Concluding;
                world.agents[agent].runs = false;
            }),
            Stage::Concluded | Stage::Doomed => self.can(Deed::Commit(agent), |world| {
                world.agents[agent].stage = Stage::Ended;
            }),
            _ => {}
        }
        if one.link != Link::Online {
            if one.link == Link::Cut && is_stoppable(&one) && defect != Defect::RunsOn {
                self.can(Deed::GiveUp(agent), |world| let_go(world, agent));
            }
            self.can(Deed::Heal(agent), |world| {
                world.agents[agent].link = Link::Online;
                world.agents[agent].was_away = true;
            });
            return;
        }
        self.messages_of_agent(agent);
    }

    /// The steps that an agent takes through the server.
    fn messages_of_agent(&mut self, agent: usize) {
        let (world, defect) = (self.world, self.defect);
        let one = world.agents[agent];
        if is_in_hand(one.stage) {
            self.can(Deed::Renew(agent), |world| renew_lease(world, agent, defect));
        }
        match one.stage {
            Stage::Ready => {
                let asks = holder_to_ask(world.found().as_ref(), &world.bid(agent, defect))
                    .filter(|_| defect != Defect::NotAsked);
                let is_new = world.found().map(|found| start_of(&found)) != one.silent;
                let is_new = is_new && defect != Defect::TakenUnseen;
                match asks.map(|holder| is_new || answers(&world, usize::from(number(holder)))) {
                    Some(true) => self.can(Deed::Ask(agent), |world| let_go(world, agent)),
                    Some(false) if !one.has_asked => {
                        self.can(Deed::Ask(agent), |world| world.agents[agent].has_asked = true);
                    }
                    _ => self.can(Deed::Claim(agent), |world| claim(world, agent, defect)),
                }
            }
            Stage::Concluding | Stage::Condemned => {
                self.can(Deed::Conclude(agent), |world| end(world, agent, defect));
            }
            Stage::Ended => {
                self.can(Deed::Acknowledge(agent), |world| {
                    acknowledge(world, usize::from(world.agents[agent].message));
                    leave(world, agent, Stage::Settled);
                });
            }
            Stage::HandingBack | Stage::LettingGo => {
                self.can(Deed::HandBack(agent), |world| {
                    give_back(world, agent, defect);
                    world.agents[agent].stage = Stage::Waiting;
                });
            }
            Stage::Returning => {
                self.can(Deed::Return(agent), |world| return_to_pool(world, agent, defect));
            }
            Stage::Waiting
                if world.messages[usize::from(one.message)].place == Place::Gone
                    && defect != Defect::NotReconciled =>
            {
                self.can(Deed::Reconcile(agent), |world| reconcile(world, agent, defect));
            }
            _ => {}
        }
    }

    fn faults_of_agent(&mut self, agent: usize) {
        let world = self.world;
        let (one, left) = (world.agents[agent], world.left);
        if !one.is_up {
            return;
        }
        if left.crashes > 0 && is_in_hand(one.stage) {
            let die = |world: &mut World| {
                world.left.crashes -= 1;
                world.agents[agent].is_up = false;
                world.agents[agent].has_asked = false;
                world.agents[agent].silent = None;
            };
            self.can(Deed::Crash(agent), die);
            if one.runs {
                self.can(Deed::Blackout(agent), |world| {
                    die(world);
                    world.agents[agent].runs = false;
                    world.agents[agent].stage = Stage::Dark;
                });
            }
            let defect = self.defect;
            let lets_go = matches!(one.stage, Stage::HandingBack | Stage::LettingGo);
            if lets_go && one.link == Link::Online {
                self.can(Deed::CrashHandingBack(agent), |world| {
                    give_back(world, agent, defect);
                    die(world);
                });
            }
        }
        if one.link == Link::Online && left.cuts > 0 {
            self.can(Deed::Cut(agent), |world| {
                world.left.cuts -= 1;
                world.agents[agent].link = Link::Cut;
            });
        }
        if one.link == Link::Online && left.splits > 0 {
            self.can(Deed::Split(agent), |world| {
                world.left.splits -= 1;
                world.agents[agent].link = Link::Split;
            });
        }
        if left.unable > 0 && one.stage == Stage::Ready {
            self.can(Deed::Unable(agent), |world| {
                world.left.unable -= 1;
                world.agents[agent].stage = Stage::Returning;
            });
        }
        if left.shutdowns > 0 && is_stoppable(&one) {
            self.can(Deed::Shutdown(agent), |world| {
                world.left.shutdowns -= 1;
                let_go(world, agent);
                world.agents[agent].stage = Stage::HandingBack;
            });
        }
    }

    fn faults_of_all(&mut self) {
        let (world, left, defect) = (self.world, self.world.left, self.defect);
        for message in (0..MESSAGES).filter(|_| left.outages > 0) {
            let is_out = world.messages[message].place == Place::Out;
            for to in (0..AGENTS).filter(|to| is_out && is_there(&world, *to)) {
                // An agent that is cut off just then has no time to stop before another receives its job.
                let is_late = |one: &Agent| is_stoppable(one) && one.link != Link::Online;
                if world.agents.iter().any(is_late) {
                    continue;
                }
                self.can(Deed::Outage { message, to }, |world| {
                    world.left.outages -= 1;
                    give(world, message, to, false, defect);
                });
            }
        }
        if left.recounts > 0 {
            self.can(Deed::Recount, |world| {
                world.left.recounts -= 1;
                for message in &mut world.messages {
                    if matches!(message.place, Place::Queued | Place::Out) {
                        message.place = Place::Queued;
                        message.delivered = 0;
                    }
                }
            });
        }
        if left.purges > 0 && world.claim.is_some() {
            self.can(Deed::Purge, |world| {
                world.left.purges -= 1;
                world.write(None);
                world.was_purged = true;
            });
        }
        if left.drains > 0 {
            self.can(Deed::Drain, |world| {
                world.left.drains -= 1;
                for message in 0..MESSAGES {
                    acknowledge(world, message);
                }
            });
        }
    }
}

/// Whether losing the lease stops the job.
pub(super) const fn is_stoppable(one: &Agent) -> bool {
    matches!(one.stage, Stage::Ready | Stage::Starting | Stage::Running)
}

/// Whether the server can deliver to this agent.
fn is_there(world: &World, agent: usize) -> bool {
    world.agents[agent].is_up && world.agents[agent].link == Link::Online
}

/// Whether the next agent that looks may not know of an end: the agent that claimed it is away, or was
/// away for so long that the job is on its way to another or in another's hands.
fn an_end_is_unknown(world: &World) -> bool {
    let place = |message: u8| world.messages[usize::from(message)].place;
    let is_away = |(agent, one): (usize, &Agent)| {
        let is_late = !is_there(world, agent) || place(one.message) == Place::Queued;
        has_claimed_end(one) && is_late
    };
    let is_begun = |one: &Agent| is_in_hand(one.stage) && !has_claimed_end(one);
    let any_end = world.ends() > 0 || world.agents.iter().any(has_claimed_end);
    world.agents.iter().enumerate().any(is_away) || any_end && world.agents.iter().any(is_begun)
}

const fn has_claimed_end(one: &Agent) -> bool {
    matches!(one.stage, Stage::Concluded | Stage::Doomed | Stage::Ended)
}

/// Whether the agent has had the job. Agents beyond the search's number never start.
const fn agent_is_used(world: &World, agent: usize) -> bool {
    world.agents[agent].attempt > 0
}

/// Whether a message's lease can't have run out: its agent renews it, or will stop the job first.
fn is_kept(world: &World, message: usize, defect: Defect) -> bool {
    world.agents.iter().any(|one| {
        let has = is_in_hand(one.stage) && usize::from(one.message) == message && one.is_up;
        let gives_up = is_stoppable(one) && defect != Defect::RunsOn;
        has && match one.link {
            Link::Online => true,
            Link::Cut => gives_up,
            Link::Split => false,
        }
    })
}

/// Whether the holder of a claim answers an agent that is online that it has the job.
pub(super) fn answers(world: &World, holder: usize) -> bool {
    let stage = world.agents[holder].stage;
    let has = is_held(stage);
    has && is_there(world, holder)
}
