//! The node at work: takes jobs, runs each to its one terminal status, keeps the chain informed.

pub mod settings;

pub use settings::{JobAuth, Settings};
