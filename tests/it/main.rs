//! Integration tests against the real parts: nats-server, dockerd, anvil, a registry, the store.
//! A part that is missing fails the test by name; nothing is skipped.

mod artifact;
mod bus;
mod chain;
mod cli;
mod container;
mod gpu;
mod jobs;
mod journal;
mod keys;
mod ledger;
mod protocol;
mod readme;
mod rpc;
mod support;
