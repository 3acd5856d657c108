//! What a node may remove of the engine's images.

use crate::clock::Timestamp;

/// An image that this node pulled for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// The engine's own id.
    pub id: String,
    /// The names that this node's pulls gave it.
    pub names: Vec<String>,
    /// Its size in bytes as the engine reports it: layers that it shares with other images count too.
    pub bytes: u64,
    /// When a job last asked for it.
    pub used: Timestamp,
}
