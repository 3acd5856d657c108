//! Integration tests against the real parts: nats-server, dockerd, anvil, a registry, the store. A missing
//! part fails the test by name; no test is skipped.

mod artifact;
mod bus;
mod chain;
mod cli;
mod container;
mod contract;
mod coordinator;
mod deploy;
#[cfg(feature = "p2p")]
mod dht;
mod events;
mod gpu;
mod hostile;
mod hub;
mod jobs;
mod journal;
mod keys;
mod ledger;
mod long;
mod matrix;
mod metrics;
mod odd;
mod pools;
mod power_cut;
mod protocol;
mod readme;
mod receipts;
mod rpc;
mod sidecar;
mod soak;
mod support;
mod tail;
mod usage;
mod weather;
