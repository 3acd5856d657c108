//! Explores every order of steps for a pool's job: a breadth-first search over a few agents, one or two
//! messages and a few faults, with the production decisions of [`super`].
//!
//! [`world`] is the state, [`deeds`] lists the possible next steps, [`steps`] applies them. Deliveries
//! and attempts matter only by their order, so they are renumbered in each state: that keeps the number
//! of states finite. [`Budget`] bounds how often each kind of fault happens.
//!
//! Invariants in each state: at most one agent has ended the job (`World::is_excused` is the one
//! exception); of two agents that run it, at most one may conclude it; if nobody crashes and nobody edits
//! anything, at most one runs it, and it is not poison; and from each state in which anybody knows the
//! job, an end can be reached without a further fault. [`Defect`]s are planted one by one, and the search
//! finds each.

mod deeds;
mod steps;
mod world;

use std::collections::{HashMap, VecDeque};

use deeds::{Deed, after};
use world::{Budget, Stage, World};

/// A mistake that is planted in the protocol, to check that the search finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// No mistake: the protocol as it is.
    None,
    /// Another agent's claim is taken, whatever the delivery.
    AnyDelivery,
    /// Another agent's `Done` is taken like any claim.
    DoneTaken,
    /// An agent that lost the job while it runs it takes it back with a newer delivery.
    TakenBack,
    /// A start whose agent let go of the job stays counted.
    NotRefunded,
    /// A claim is taken without asking its holder.
    NotAsked,
    /// A claim is taken that was written after the delivery arrived.
    TakenUnseen,
    /// A delivery whose lease may have run out is given back, although another agent may have it.
    GivenBackLate,
    /// A job that its holder keeps is redelivered at once.
    ComesAtOnce,
    /// An agent that is cut off does not stop its job.
    RunsOn,
    /// A renewal takes the agent's own `Done` for an earlier claim and overwrites it.
    EndRenewed,
    /// The terminal status is committed in spite of another agent's claim.
    NotConcluded,
    /// Nobody continues a waiting job whose message has left the queue.
    NotReconciled,
    /// An agent that can't run a job erases the start of the agent that had it.
    StartErased,
    /// An agent that can't begin a job gives it back without asking the agent that has it.
    GivenBackUnasked,
}

/// What a search covers, and the mistake that is planted in it.
struct Search {
    agents: usize,
    messages: usize,
    budget: Budget,
    defect: Defect,
}

/// The result of a search.
struct Found {
    states: usize,
    /// The invariant that was broken, with every step that led there.
    broken: Option<String>,
}

impl Search {
    const fn of(agents: usize, messages: usize, budget: Budget) -> Self {
        Self { agents, messages, budget, defect: Defect::None }
    }

    fn run(&self) -> Found {
        let mut graph = Graph::default();
        graph.add(World::new(self.agents, self.messages, self.budget), None);
        let mut next = 0;
        while let Some(world) = graph.worlds.get(next).copied() {
            if let Some(broken) = self.broken_in(&world) {
                return graph.told(next, broken);
            }
            for (deed, world) in after(&world, self.defect) {
                let to = graph.add(world, Some((next, deed)));
                if !deed.is_fault() {
                    graph.ways.push((next, to));
                }
            }
            next += 1;
        }
        match graph.endless() {
            Some(state) => graph.told(state, "from here the job can never end"),
            None => Found { states: graph.worlds.len(), broken: None },
        }
    }

    /// The invariant that this state breaks by itself, if any.
    fn broken_in(&self, world: &World) -> Option<&'static str> {
        let calm = self.budget.is_calm();
        if world.ends() > 1 && !world.is_excused {
            return Some("two agents have ended the job");
        }
        if world.may_conclude(self.defect) > 1 {
            return Some("two agents run it, and both may say how it ended");
        }
        if calm && world.containers() > 1 {
            return Some("two agents run it, though nobody died and nobody edited anything");
        }
        (calm && world.poisoned).then_some("it is poison, though it took nobody down")
    }
}

/// All states that were reached, each with the step that led there first.
#[derive(Default)]
struct Graph {
    worlds: Vec<World>,
    known: HashMap<World, u32>,
    from: Vec<Option<(u32, Deed)>>,
    /// The steps from state to state that are not faults.
    ways: Vec<(usize, usize)>,
}

impl Graph {
    fn add(&mut self, world: World, from: Option<(usize, Deed)>) -> usize {
        let number = u32::try_from(self.worlds.len()).expect("fewer states");
        let known = *self.known.entry(world).or_insert(number);
        if known == number {
            self.worlds.push(world);
            self.from.push(from.map(|(at, deed)| (u32::try_from(at).expect("fewer"), deed)));
        }
        known as usize
    }

    /// The first state from which no end can be reached, although somebody knows the job.
    fn endless(&self) -> Option<usize> {
        let mut back: Vec<Vec<u32>> = vec![Vec::new(); self.worlds.len()];
        for (from, to) in &self.ways {
            back[*to].push(u32::try_from(*from).expect("fewer"));
        }
        let is_end = |world: &World| world.ends() > 0 || world.is_forgotten();
        let mut ends: Vec<bool> = self.worlds.iter().map(is_end).collect();
        let mut next: VecDeque<usize> = (0..ends.len()).filter(|at| ends[*at]).collect();
        while let Some(at) = next.pop_front() {
            for from in back[at].iter().map(|from| *from as usize) {
                if !std::mem::replace(&mut ends[from], true) {
                    next.push_back(from);
                }
            }
        }
        ends.iter().position(|ends| !ends)
    }

    fn told(&self, state: usize, what: &str) -> Found {
        let mut lines = vec![format!("{what}: {:?}", self.worlds[state])];
        let mut at = state;
        while let Some((from, deed)) = self.from[at] {
            lines.push(format!("{deed:?}"));
            at = from as usize;
        }
        lines.push("each step that led there:".to_owned());
        lines.reverse();
        Found { states: self.worlds.len(), broken: Some(lines.join("\n")) }
    }
}

/// Searches, prints the number of states, and panics with the steps to a broken invariant.
#[expect(clippy::print_stdout, reason = "how far it looked is part of the result")]
fn holds(what: &str, search: &Search) {
    let found = search.run();
    println!("{what}: {} states", found.states);
    if let Some(broken) = found.broken {
        panic!("{what}\n{broken}");
    }
}

/// Agents are cut off. Without shutdowns: an agent that gives back a delivery that went to another while
/// it was cut off gives away the other's lease, and both may run for a while.
const CUTS: Budget = Budget { cuts: 2, ..Budget::NONE };

/// Agents are asked to shut down.
const HANDOVERS: Budget = Budget { shutdowns: 2, ..Budget::NONE };

/// `JetStream` is away for longer than an ack wait, and an agent is cut off.
const OUTAGES: Budget = Budget { cuts: 1, outages: 1, ..Budget::NONE };

/// The job is delivered to agents that can't run it, while those that can are cut off.
const SMALL: Budget = Budget { cuts: 3, misfits: 3, ..Budget::NONE };

/// Agents can't begin a job that they have accepted, although another may have it by then. Without cuts,
/// for the same reason as in [`CUTS`]: the delivery that is given back may be another's lease.
const UNABLE: Budget = Budget { unable: 2, outages: 1, ..Budget::NONE };

/// Processes and hosts crash, and an agent is cut off.
const CRASHES: Budget = Budget { crashes: 2, cuts: 1, ..Budget::NONE };

/// An administrator edits the ack wait or recreates the consumer; one side of a split cluster has no
/// leader; a process or host crashes.
const EDITS: Budget = Budget { crashes: 1, edits: 1, recounts: 1, splits: 1, ..Budget::NONE };

/// The bucket or the queue is purged, with a crash and a cut.
const PURGES: Budget = Budget { crashes: 1, cuts: 1, purges: 1, drains: 1, ..Budget::NONE };

#[test]
fn outages_run_a_job_once_and_never_make_it_poison() {
    holds("two agents, cuts", &Search::of(2, 1, CUTS));
    holds("three agents, cuts", &Search::of(3, 1, CUTS));
    holds("three agents, handovers", &Search::of(3, 1, HANDOVERS));
    holds("two agents, outages", &Search::of(2, 1, OUTAGES));
    holds("three agents, outages", &Search::of(3, 1, OUTAGES));
    holds("two agents, cuts and misfits", &Search::of(2, 1, SMALL));
    holds("two agents, outages and failed starts", &Search::of(2, 1, UNABLE));
    holds("three agents, outages and failed starts", &Search::of(3, 1, UNABLE));
}

#[test]
fn whoever_dies_a_job_has_one_end_and_can_reach_it() {
    let one_death = Budget { crashes: 1, ..Budget::NONE };
    holds("two agents, crashes", &Search::of(2, 1, Budget { cuts: 0, ..CRASHES }));
    holds("three agents, crashes", &Search::of(3, 1, Budget { cuts: 0, ..CRASHES }));
    holds("two agents, two messages, a crash", &Search::of(2, 2, one_death));
}

#[test]
fn whatever_an_administrator_edits_a_job_has_one_end_and_can_reach_it() {
    holds("two agents, edits", &Search::of(2, 1, Budget { splits: 0, ..EDITS }));
    holds("two agents, a split", &Search::of(2, 1, Budget { recounts: 0, ..EDITS }));
    let all_at_once = Budget { shutdowns: 1, edits: 1, ..OUTAGES };
    holds("two agents, an outage and a shutdown", &Search::of(2, 1, all_at_once));
}

#[test]
fn a_purge_leaves_one_end_that_can_be_reached() {
    holds("two agents, purges", &Search::of(2, 1, PURGES));
}

/// The planted mistakes, each with the faults that bring it to light.
const PLANTED: [(Defect, Budget); 14] = {
    let death = Budget { crashes: 1, cuts: 1, ..Budget::NONE };
    [
        (Defect::AnyDelivery, death),
        (Defect::DoneTaken, death),
        (Defect::TakenBack, Budget { edits: 1, ..death }),
        (Defect::NotRefunded, Budget { shutdowns: 4, ..Budget::NONE }),
        (Defect::NotAsked, Budget { outages: 1, ..Budget::NONE }),
        (Defect::TakenUnseen, OUTAGES),
        (Defect::ComesAtOnce, OUTAGES),
        (Defect::RunsOn, CUTS),
        (Defect::GivenBackLate, CUTS),
        (Defect::EndRenewed, death),
        (Defect::NotConcluded, death),
        (Defect::NotReconciled, Budget { cuts: 1, drains: 1, ..Budget::NONE }),
        (Defect::StartErased, SMALL),
        (Defect::GivenBackUnasked, UNABLE),
    ]
};

/// Tests the search itself: it finds a planted mistake, and nothing without it.
fn finds(planted: impl Iterator<Item = (Defect, Budget)>) {
    for (defect, budget) in planted {
        let sound = Search::of(2, 1, budget);
        assert_eq!(sound.run().broken, None, "without {defect:?}");
        let broken = Search { defect, ..sound }.run().broken;
        assert!(broken.is_some(), "nobody noticed {defect:?}");
    }
}

/// Every third one, to keep the suite short; `long` plants all of them.
#[test]
fn a_planted_defect_is_found() {
    finds(PLANTED.into_iter().step_by(3));
}

mod long {
    use super::*;

    #[test]
    fn every_planted_defect_is_found() {
        finds(PLANTED.into_iter());
    }

    #[test]
    fn three_agents_and_every_kind_of_fault_leave_one_end_that_can_be_reached() {
        holds("two agents, crashes and cuts", &Search::of(2, 1, CRASHES));
        holds("two agents, edits and a split", &Search::of(2, 1, EDITS));
        holds(
            "two agents, two messages, crashes",
            &Search::of(2, 2, Budget { cuts: 0, ..CRASHES }),
        );
        holds("three agents, crashes and cuts", &Search::of(3, 1, CRASHES));
    }
}

/// Whether an agent has a job of this stage in hand, and so renews its lease.
const fn is_in_hand(stage: Stage) -> bool {
    !matches!(stage, Stage::Unknown | Stage::Waiting | Stage::Settled | Stage::Elsewhere)
}
