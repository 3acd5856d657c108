//! The parts of `lamda-node`, floor by floor. Imports go down only; `cargo xtask tidy` checks that.
//!
//! Floor 0, the base: [`backoff`], [`clock`], [`failpoint`], [`proxy`], [`report`], [`secret`], [`supervise`],
//! [`text`].
//!
//! Floor 1, the domain, pure: [`fleet`], [`ids`], [`job`], [`node`], [`reputation`], [`usage`],
//! [`watch`].
//!
//! Floor 2, instruments: [`http`], [`sql`], [`web`].
//!
//! Floor 3, adapters, one outside system each: [`artifact`], [`bus`], [`chain`], [`container`], `dht` (with the
//! feature `p2p`), [`gpu`], [`gswarm`], [`host`], [`journal`], [`notify`], [`push`], [`telemetry`].
//!
//! Floor 4, the services: [`agent`], [`hub`], [`monitor`], [`sidecar`].
//!
//! Floor 5, the edges: [`cli`], [`config`].

pub mod backoff;
pub mod clock;
pub mod failpoint;
pub mod proxy;
pub mod report;
pub mod secret;
pub mod seldom;
pub mod supervise;
pub mod text;

pub mod fleet;
pub mod ids;
pub mod job;
pub mod node;
pub mod reputation;
pub mod usage;
pub mod watch;

pub mod http;
pub mod sql;
pub mod web;

pub mod artifact;
pub mod bus;
pub mod chain;
pub mod container;
#[cfg(feature = "p2p")]
pub mod dht;
pub mod gpu;
pub mod gswarm;
pub mod host;
pub mod journal;
pub mod notify;
pub mod push;
pub mod telemetry;

pub mod agent;
pub mod hub;
pub mod monitor;
pub mod sidecar;

pub mod cli;
pub mod config;
