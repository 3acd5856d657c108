//! The hub: a page that owners leave open, and a voice that wakes them exactly when it should.
//!
//! [`store`] is its database file, [`fleet`] the nodes in memory. It takes beats from agents, reads what our nodes say on NATS and what the
//! chain says, shows it, and tells people through [`crate::notify`].
//!
//! Invariants: what the hub tells is decided and queued in one commit before it is sent; what it did not watch
//! is never told as silence.

pub mod api;
pub mod apps;
pub mod chain;
pub mod daily;
pub mod door;
mod error;
pub mod figures;
pub mod fleet;
pub mod happened;
pub mod identities;
mod links;
pub mod listen;
pub mod logs;
pub mod odd;
pub mod page;
pub mod pair;
mod parts;
pub mod run;
pub mod settings;
pub mod store;
pub mod views;
pub mod watch;

pub use error::Error;
pub use links::Links;
pub use run::run;
pub use settings::{Public, Settings};
