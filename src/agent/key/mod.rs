//! Whether the node's key is used by this process alone.
//!
//! Invariant: no transaction is sent and no queue is read while another instance may use the same key.

pub mod hello;
pub mod sole;
