//! The real parts, each started for one test or one process and ended on drop.

pub(crate) mod anvil;
pub(crate) mod nats;
pub(crate) mod tools;
