//! The sidecar: watches programs that somebody else wrote, from three sides, without touching them.
//!
//! [`follow`] reads their logs, [`probe`] asks their host, their ports, the chain and the DHT; each thing seen is an
//! observation that a [`program`] takes in. What programs use is sampled beside that ([`used`]). [`watcher`] judges by [`crate::watch::verdict`] and decides who is told;
//! [`api`] answers, [`report`] tells others, [`restart`] starts a program again if its owner wants that.
//!
//! Invariants: what was seen is written down before anything follows from it; nothing that was not scrubbed is
//! written down or logged; a source that fails holds no other one up; no message is told that was not decided and
//! queued in one commit.

pub mod api;
mod error;
mod events;
pub mod follow;
pub mod probe;
pub mod program;
pub mod record;
pub mod report;
pub mod restart;
pub mod run;
pub mod settings;
pub mod store;
pub mod used;
pub mod watcher;

pub use error::Error;
pub use run::run;
pub use settings::{HubLink, Links, RedisLink, Restart, RestartBy, Sampling, Settings, Watching};
