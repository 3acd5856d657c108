//! Integration tests against the real parts: nats-server, dockerd, anvil, a registry, the store.
//! A part that is missing fails the test by name; nothing is skipped.

mod artifact;
mod bus;
mod bus_auth;
mod chain;
mod cli;
mod cli_jobs;
mod container;
mod contract;
mod forgery;
mod gpu;
mod jobs;
mod journal;
mod keys;
mod ledger;
mod long;
mod matrix;
mod nats_rights;
mod odd;
mod pools;
mod power_cut;
mod protocol;
mod readme;
mod receipts;
mod rpc;
mod soak;
mod support;
mod weather;
