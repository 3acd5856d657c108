//! The weather of one day: which faults happen, and how often. Must hold: it depends on the seed alone.

use fastrand::Rng;

/// How often each fault happens: with probability 1/n, never if n is 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// A process is killed at a write or an effect.
    pub(crate) kill: u32,
    /// Such a kill is a power cut of the whole host.
    pub(crate) power: u32,
    /// A call to the bus or its answer is lost.
    pub(crate) bus: u32,
    /// A call to the engine fails, or its answer is lost.
    pub(crate) engine: u32,
    /// A fetch or an upload fails.
    pub(crate) store: u32,
    /// A write finds the disk full.
    pub(crate) disk: u32,
    /// A message is delivered twice.
    pub(crate) twice: u32,
    /// Somebody else removes a container, drawn each half minute.
    pub(crate) theft: u32,
    /// A host's clock is set, drawn each half minute.
    pub(crate) clocks: u32,
    /// A node is asked to stop, drawn each half minute.
    pub(crate) restart: u32,
    /// The bus or an engine goes down for a while, drawn each half minute.
    pub(crate) outage: u32,
    /// The faults from here on are those of [`Adversary`]; a day has at most two.
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

/// The rarer faults, of which a day has none, one or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adversary {
    /// The journal reports an error although it has written.
    Unsure,
    /// The journal is slow for up to a minute.
    Slow,
    /// A call takes effect long after its caller gave up or died.
    Late,
    /// One host is cut off from the bus in one direction or both.
    Split,
    /// A host is frozen for minutes.
    Freeze,
    /// A host that went down stays away for up to a day and a half.
    Absent,
    /// The hosts' clocks never agree.
    Skew,
    /// A message leaves the queue without an ack.
    Age,
    /// An operator purges the bucket of claims, or restores an older one.
    Claims,
    /// An operator recreates the queue empty, or restores an older one.
    Queue,
    /// An operator edits the ack wait of the pools' consumers.
    Edit,
    /// A card can't be handed to a container.
    Cards,
    /// An engine is away for an hour.
    Dead,
    /// The server reports that `JetStream` has no leader.
    Leaderless,
    /// The store refuses all uploads.
    Refusal,
}

/// All adversaries, to draw from.
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

    /// Draws a day's weather: each fault is absent, rare or frequent.
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
        // At most two adversaries: with more, hardly any job would get far.
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
