//! The host's GPUs.
//!
//! [`GpuProbe`] is the interface. [`nvml`] asks NVIDIA's management library, which is opened at run
//! time so that the program starts without it; [`fake`] is a list.
//!
//! Invariant: a driver call that hangs never blocks the agent; every call has a deadline.

pub mod fake;
pub mod nvml;

use std::fmt;
use std::future::Future;

use crate::node::GpuInventory;

/// A source of the host's GPU inventory.
pub trait GpuProbe: fmt::Debug + Send + Sync + 'static {
    /// Lists all cards that the driver knows.
    fn inventory(&self) -> impl Future<Output = Result<GpuInventory, Error>> + Send;
}

/// Why the GPUs can't be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not on this host: no driver, or a container without it.
    #[error(
        "NVIDIA's management library {library} can't be opened; is the NVIDIA driver installed?"
    )]
    NoLibrary {
        /// The path or name that was tried.
        library: String,
        /// The error of the dynamic loader.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library is present but reports an error: driver not loaded, mismatched versions.
    #[error("the NVIDIA driver does not answer: {reason}")]
    Driver {
        /// The library's error message.
        reason: String,
    },
    /// The driver gave no answer before the deadline.
    #[error("the NVIDIA driver gave no answer in {seconds} s")]
    Hung {
        /// The deadline in seconds.
        seconds: u64,
    },
}
