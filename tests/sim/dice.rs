//! The chance of one day: everything that is left to chance comes from one seed.

use fastrand::Rng;

/// How bad the day is: one in so many; 0 never.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// A process is killed at a write or an effect.
    pub(crate) kill: u32,
    /// Of those, the whole host loses its power.
    pub(crate) power: u32,
    /// A call to the bus is lost, or its answer.
    pub(crate) bus: u32,
    /// A call to the engine fails, or its answer is lost.
    pub(crate) engine: u32,
    /// A fetch or an upload fails.
    pub(crate) store: u32,
    /// A write finds the disk full.
    pub(crate) disk: u32,
    /// A delivery comes twice.
    pub(crate) twice: u32,
    /// A container is removed by somebody else, each half minute.
    pub(crate) theft: u32,
    /// A host's clock is set, each half minute.
    pub(crate) clocks: u32,
    /// A node is asked to end, each half minute.
    pub(crate) restart: u32,
    /// The bus or an engine is away for a while, each half minute.
    pub(crate) outage: u32,
    /// What the day has beside: seldom more than one of these.
    pub(crate) unsure: u32,
    pub(crate) slow: u32,
    pub(crate) late: u32,
    pub(crate) split: u32,
    pub(crate) freeze: u32,
    pub(crate) absent: u32,
    pub(crate) skew: u32,
    pub(crate) age: u32,
    pub(crate) claims: u32,
    pub(crate) queue: u32,
    pub(crate) edit: u32,
    pub(crate) cards: u32,
    pub(crate) dead: u32,
    pub(crate) leaderless: u32,
    pub(crate) refusal: u32,
}

/// What a day may have beside its weather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adversary {
    /// The journal answers with an error though it has written.
    Unsure,
    /// The journal takes its time.
    Slow,
    /// A call takes effect long after it was given up, or after its process died.
    Late,
    /// One host is cut off from the bus: wholly, or in one direction.
    Split,
    /// A host stands still for minutes.
    Freeze,
    /// A host that went down stays away for days.
    Absent,
    /// The hosts' clocks never agree.
    Skew,
    /// A message leaves the queue before anybody has answered for it.
    Age,
    /// An operator purges the bucket of claims, or restores an older one.
    Claims,
    /// An operator makes the queue anew, or restores an older one.
    Queue,
    /// An operator edits the consumers' ack wait.
    Edit,
    /// A card can't be handed to a container.
    Cards,
    /// An engine is away for an hour.
    Dead,
    /// The server says that nobody leads `JetStream`.
    Leaderless,
    /// The store refuses the nodes.
    Refusal,
}

/// All of them.
const ADVERSARIES: [Adversary; 15] = [
    Adversary::Unsure,
    Adversary::Slow,
    Adversary::Late,
    Adversary::Split,
    Adversary::Freeze,
    Adversary::Absent,
    Adversary::Skew,
    Adversary::Age,
    Adversary::Claims,
    Adversary::Queue,
    Adversary::Edit,
    Adversary::Cards,
    Adversary::Dead,
    Adversary::Leaderless,
    Adversary::Refusal,
];

impl Weather {
    /// No fault at all.
    pub(crate) fn calm() -> Self {
        Self::default()
    }

    /// The weather of a seed: each kind of fault may be absent, seldom or frequent.
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let mut one_in = |choices: [u32; 4]| choices[rng.usize(..4)];
        let mut weather = Self {
            kill: one_in([0, 150, 60, 25]),
            power: one_in([0, 0, 4, 2]),
            bus: one_in([0, 40, 12, 4]),
            engine: one_in([0, 40, 12, 4]),
            store: one_in([0, 20, 6, 2]),
            disk: one_in([0, 0, 60, 20]),
            twice: one_in([0, 10, 4, 2]),
            theft: one_in([0, 0, 10, 3]),
            clocks: one_in([0, 0, 0, 4]),
            restart: one_in([0, 0, 10, 4]),
            outage: one_in([0, 0, 8, 3]),
            ..Self::default()
        };
        // None, one, or two of the others: more would leave nothing of the day.
        for _ in 0..rng.usize(..3) {
            let adversary = ADVERSARIES[rng.usize(..ADVERSARIES.len())];
            let strong = rng.bool();
            weather.invite(adversary, strong);
        }
        weather
    }

    fn invite(&mut self, adversary: Adversary, strong: bool) {
        let one_in = |weak: u32, often: u32| if strong { often } else { weak };
        match adversary {
            Adversary::Unsure => self.unsure = one_in(40, 8),
            Adversary::Slow => self.slow = one_in(6, 2),
            Adversary::Late => self.late = one_in(40, 10),
            Adversary::Split => self.split = one_in(4, 2),
            Adversary::Freeze => self.freeze = one_in(6, 2),
            Adversary::Absent => self.absent = one_in(4, 2),
            Adversary::Skew => self.skew = 1,
            Adversary::Age => self.age = one_in(6, 2),
            Adversary::Claims => self.claims = one_in(6, 2),
            Adversary::Queue => self.queue = one_in(8, 4),
            Adversary::Edit => self.edit = one_in(6, 2),
            Adversary::Cards => self.cards = one_in(6, 2),
            Adversary::Dead => self.dead = one_in(8, 4),
            Adversary::Leaderless => self.leaderless = one_in(6, 2),
            Adversary::Refusal => self.refusal = one_in(6, 2),
        }
    }
}
