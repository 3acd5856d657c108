//! Pushes events to where others read them, without making who tells them wait.
//!
//! [`ring`] is the queue before each sink.
//!
//! Must hold: what is pushed is sent, still queued, or counted as dropped; nobody who pushes waits.

pub mod ring;

pub use ring::{Batch, Counts, Ring};
