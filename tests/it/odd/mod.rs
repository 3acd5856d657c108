//! Counterparts as they are met in the world, row by row: what each does, and what must come of it.

mod engine;
mod gateway;
mod nats;
mod pinning;
pub(crate) mod registry;
mod rpc;
mod typed;
