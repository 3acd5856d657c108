//! The reasons for which a node takes no job, for its owner and for strangers.

use super::Disk;

/// Why the node takes no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No container can be started.
    #[error("the container engine can't be used: {0}")]
    Engine(String),
    /// The driver does not answer, or no container gets a card.
    #[error("the GPUs can't be used: {0}")]
    Driver(String),
    /// Every card is gone, or was set aside.
    #[error("none of the {0} GPUs works")]
    NoCard(usize),
    /// Every card that works is held back; holds why the first of them is.
    #[error("no GPU is free for jobs: {0}")]
    HeldBack(String),
    /// Too little disk space is free.
    #[error("{} MiB of disk are free, {} must stay", .0.free_mib, .0.min_mib)]
    Disk(Disk),
    /// The store refuses the output of a job.
    #[error("the store refuses what was run")]
    Store,
    /// The store takes no upload at all; holds its words.
    #[error("the store takes no upload: {0}")]
    Upload(String),
    /// A trial has no result yet, and will have one in a moment; holds what is tried.
    #[error("it was not tried yet whether {0}")]
    Untried(&'static str),
    /// Too many results wait to be published; holds how many.
    #[error("{0} results wait to be published")]
    Unpublished(usize),
    /// Jobs failed in a row before they ran.
    #[error("{count} jobs in a row failed before they ran, the last one so: {last}")]
    Faults {
        /// Number of such jobs.
        count: u32,
        /// The error of the last one.
        last: String,
    },
}

impl Unfit {
    /// The words that [`Unfit::word`] gives.
    pub const WORDS: [&str; 10] = [
        "engine",
        "driver",
        "no_card",
        "held_back",
        "disk",
        "store",
        "upload",
        "untried",
        "unpublished",
        "faults",
    ];

    /// The kind of reason in one word, for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Engine(_) => "engine",
            Self::Driver(_) => "driver",
            Self::NoCard(_) => "no_card",
            Self::HeldBack(_) => "held_back",
            Self::Disk(_) => "disk",
            Self::Store => "store",
            Self::Upload(_) => "upload",
            Self::Untried(_) => "untried",
            Self::Unpublished(_) => "unpublished",
            Self::Faults { .. } => "faults",
        }
    }

    /// The reason for strangers: without the words of the engine, the driver or a service.
    pub fn told(&self) -> String {
        match self {
            Self::Engine(_) => "the container engine can't be used".to_owned(),
            Self::Driver(_) => "the GPUs can't be used".to_owned(),
            Self::HeldBack(_) => "no GPU is free for jobs".to_owned(),
            Self::Upload(_) => "the store takes no upload".to_owned(),
            Self::Faults { count, .. } => format!("{count} jobs in a row failed before they ran"),
            other => other.to_string(),
        }
    }

    /// Whether the two differ in kind, and not only in an engine's words or a number.
    pub fn is_other_than(&self, other: &Self) -> bool {
        std::mem::discriminant(self) != std::mem::discriminant(other)
    }
}
