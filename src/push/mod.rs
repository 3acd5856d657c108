//! Pushes events to where others read them, without making who tells them wait.
//!
//! [`ring`] is the queue before each sink, [`redis`] writes to a Redis server,
//! [`dashboard`] is a list of running nodes.
//!
//! Must hold: what is pushed is sent, still queued, or counted as dropped; nobody who pushes waits.

pub mod dashboard;
pub mod redis;
pub mod ring;

pub use ring::{Batch, Counts, Fate, Ring};
