//! The host's GPUs.
//!
//! [`GpuProbe`] is the seam: [`nvml`] asks NVIDIA's management library, which is opened at run time
//! by its path so that the program starts without it; [`fake`] is a list.
//!
//! What must hold: a driver call that hangs never blocks the agent; every call has a deadline.

pub mod fake;
pub mod nvml;

use std::fmt;
use std::future::Future;

use crate::node::GpuInventory;

/// Where the GPUs are found out.
pub trait GpuProbe: fmt::Debug + Send + Sync + 'static {
    /// All cards that the driver knows.
    fn inventory(&self) -> impl Future<Output = Result<GpuInventory, Error>> + Send;
}

/// Why the GPUs can't be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not on this host: no driver, or a container without it.
    #[error(
        "NVIDIA's management library {library} can't be opened; is the NVIDIA driver installed?"
    )]
    NoLibrary {
        /// The path or name that was tried.
        library: String,
        /// What the loader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library is here and says no: driver not loaded, versions that don't match.
    #[error("the NVIDIA driver does not answer: {reason}")]
    Driver {
        /// The library's words.
        reason: String,
    },
    /// The driver hung.
    #[error("the NVIDIA driver gave no answer in {seconds} s")]
    Hung {
        /// How long it was waited for.
        seconds: u64,
    },
}
