//! Whether this node could run a job now: its host, engine, GPUs, store and endpoints.
//!
//! Invariant: every finding here was tried, not read from settings.

pub mod cards;
pub mod containers;
pub mod lookout;
pub mod readiness;
pub mod sight;
pub mod toolkit;
pub mod trials;
