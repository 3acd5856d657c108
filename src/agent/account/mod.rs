//! The node's account on the chain: registration, heartbeats, and the transactions that carry them.
//!
//! Invariants: one transaction is in flight at a time ([`ledger`]); a heartbeat is sent only by a node that
//! could run a job ([`super::health::readiness`]).

pub mod heartbeat;
pub mod ledger;
mod logged;
mod next_beat;
