//! A container's output on its way from the engine to the agent.
//!
//! Invariant: nothing is cut, joined or decoded on the way.

use serde::{Deserialize, Serialize};

/// Takes a container's output. Bounded: reading waits while it is full.
pub type LogSink = tokio::sync::mpsc::Sender<LogChunk>;

/// What is done the moment at which no process of a container is left.
pub type Gone<'a> = &'a (dyn Fn() + Send + Sync);

/// A piece of a container's output as it came: at most 64 KiB, not cut at line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The stream that it was written to.
    pub stream: LogStream,
    /// The job's raw bytes, not necessarily text.
    pub bytes: bytes::Bytes,
}

/// A container's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// The container's standard output.
    Stdout,
    /// The container's standard error.
    Stderr,
}
