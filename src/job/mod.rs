//! The whole life of a job as data: what was asked ([`spec`]), where it stands ([`phase`]), what
//! comes next ([`plan`]), what the world is told ([`status`]) and what the node signs
//! ([`receipt`]).
//!
//! What must hold: no I/O, no clock, no async. Time comes in as an argument, decisions go out as
//! values, and `agent` carries them out.

pub mod cid;
pub mod id;

pub use cid::Cid;
pub use id::JobId;
