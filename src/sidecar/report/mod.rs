//! What the sidecar tells others by itself: a hub ([`hub`]), the original's service ([`original`]).
//!
//! Invariant: who can't be reached holds nothing up; the loss of what waited too long is counted and told.

pub mod hardware;
pub mod hub;
pub mod original;
