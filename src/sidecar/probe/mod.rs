//! Asks the sources that don't tell by themselves: the host, ports, the chain, the DHT; and samples what the programs
//! use. One service each.
//!
//! Invariants: a source that can't be asked is noted as such, and holds no other one up; what it doesn't tell is
//! unknown.

pub mod chain;
#[cfg(feature = "p2p")]
pub mod dht;
pub mod host;
pub mod ports;
pub mod usage;

use std::sync::Arc;

use super::program::Program;
use super::store::Error;
use crate::supervise::Failure;

const REMEDY: &str = "look at the disk under SIDECAR_DB; until then nothing is observed";

/// All programs.
pub type Programs = Arc<Vec<Arc<Program>>>;

fn again(err: Error) -> Failure {
    Failure::again(err, REMEDY)
}
