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
    /// The hosts' clocks are set, each half minute.
    pub(crate) clocks: u32,
    /// A node is asked to end, each half minute.
    pub(crate) restart: u32,
    /// The bus or an engine is away for a while, each half minute.
    pub(crate) outage: u32,
}

impl Weather {
    /// No fault at all.
    pub(crate) const CALM: Self = Self {
        kill: 0,
        power: 0,
        bus: 0,
        engine: 0,
        store: 0,
        disk: 0,
        twice: 0,
        theft: 0,
        clocks: 0,
        restart: 0,
        outage: 0,
    };

    /// The weather of a seed: each kind of fault may be absent, seldom or frequent.
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let mut one_in = |choices: [u32; 4]| choices[rng.usize(..4)];
        Self {
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
        }
    }
}
