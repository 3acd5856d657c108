//! The sidecar of the real program, beside programs that write logs as others do.

mod broken;
mod killed;
mod original;
mod process;
mod recorded;
mod told;
mod usage;
