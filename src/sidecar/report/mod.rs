//! What the sidecar tells others by itself: a hub ([`hub`], signed: [`seen`], by its own [`key`]), NATS ([`nats`]), the
//! original's service ([`original`]), and the dashboards of llama.cpp's users ([`llama`]).
//!
//! Invariant: who can't be reached holds nothing up; the loss of what waited too long is counted and told.

pub mod hardware;
pub mod hub;
pub mod key;
pub mod llama;
pub mod nats;
pub mod original;
pub mod seen;
