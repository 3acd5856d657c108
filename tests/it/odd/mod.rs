//! The other programs as they are found in the field, row by row: what each does, and what must result.

mod card;
mod engine;
mod gateway;
mod nats;
mod pinning;
pub(crate) mod registry;
mod rpc;
mod strangers;
mod typed;
