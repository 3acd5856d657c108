//! Why a sidecar can't run.

use std::io;
use std::net::SocketAddr;

use super::store;
use crate::report::BoxError;

/// Why the sidecar ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address can't be had. Waiting doesn't help.
    #[error(
        "SIDECAR_LISTEN={at} can't be listened on: set another one; a hub has the same default"
    )]
    Listen {
        /// The address.
        at: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store can't be opened or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The server failed.
    #[error("the sidecar's server failed")]
    Serve(#[source] io::Error),
    /// A link can't be set up as it is set. Waiting doesn't help.
    #[error("a link of the sidecar can't be set up")]
    Link(#[source] BoxError),
    /// A part failed for good.
    #[error("a part of the sidecar failed")]
    Part(#[source] BoxError),
}
