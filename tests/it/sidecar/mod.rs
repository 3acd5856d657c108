//! The sidecar of the real program, beside programs that write logs as others do.

mod broken;
mod generic;
pub(crate) mod hydra;
pub(crate) mod killed;
mod llama;
mod metrics;
mod nats;
mod original;
mod process;
mod recorded;
mod seen;
mod told;
mod usage;
