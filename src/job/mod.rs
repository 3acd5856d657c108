//! The whole life of a job as data: what was asked ([`spec`]), where it stands ([`phase`]), what
//! comes next ([`plan`]), whose it is in a pool ([`claim`]), what the world is told ([`status`]) and
//! what the node signs ([`receipt`], [`signed`]).
//!
//! What must hold: no I/O, no clock, no async. Time comes in as an argument, decisions go out as
//! values, and `agent` carries them out.

pub mod claim;
mod late;
mod notice;
mod patience;
pub mod phase;
pub mod plan;
pub mod reason;
pub mod receipt;
mod remedy;
pub mod signed;
pub mod spec;
pub mod status;
mod transition;
mod unable;
mod verdict;

pub use claim::Claim;
pub use late::LateResult;
pub use phase::Job;
pub use reason::Reason;
pub use receipt::Receipt;
pub use spec::JobSpec;
pub use status::Status;
