//! The whole life of a job as data: the request ([`spec`]), its phase ([`phase`]), its next step
//! ([`plan`]), which agent of a pool has it ([`claim`]), what is published about it ([`status`]) and what
//! the node signs ([`receipt`], [`signed`]).
//!
//! Invariants: no I/O, no clock, no async. Time is an argument, decisions are return values, and `agent`
//! carries them out.

pub mod claim;
pub mod hint;
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
pub mod task;
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
