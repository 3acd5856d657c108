//! Whether the node's key is used by this process alone.
//!
//! Invariants: no queue is read and no transaction is sent before it is known that no other
//! instance answers; no transaction is sent while another user of the key was seen lately.

pub mod hello;
pub mod instance;
pub mod sole;
