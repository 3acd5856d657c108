//! Names and digests that every floor shares: accounts, jobs, content, hashes, signatures.
//!
//! Invariant: each type is checked when it is parsed, so that a value of it can stand in a path, a NATS
//! subject, a container label or a signed message.

pub mod address;
pub mod cid;
pub mod eip712;
pub mod hash;
pub mod job_id;

pub use address::Address;
pub use cid::Cid;
pub use eip712::Domain;
pub use hash::{Hash, Signature};
pub use job_id::JobId;
