//! The life of a job on this node, from its delivery to its acknowledgement.
//!
//! ```text
//!  intake ──► journal ──► attempt (one task per job) ──► effects (the agent's one seam)
//!     ▲          │             │    ▲
//!  recover ◄─────┘             │    └── board: slots and GPUs
//!                outbox ◄──────┘
//! ```
//!
//! Invariants: a decision is journaled before anything acts on it. A job has at most one task. No
//! module here knows NATS, Docker or IPFS except through [`effects::Effects`].

pub mod attempt;
pub mod board;
pub mod desk;
pub mod effects;
#[cfg(test)]
pub(super) mod fakes;
pub mod folders;
pub mod hand;
pub(super) mod holds;
pub mod intake;
pub mod leases;
pub(super) mod messages;
pub mod notary;
pub mod orphans;
pub mod outbox;
pub(super) mod pool_claim;
pub mod reconcile;
pub mod recover;
pub mod reserve;
pub mod results;
pub mod shutdown;
pub mod terms;
pub mod trash;
