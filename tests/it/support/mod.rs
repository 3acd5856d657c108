//! The real parts, each started for one test or one process and ended on drop.

pub(crate) mod ipfs;
pub(crate) mod tools;
