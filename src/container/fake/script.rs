//! What a simulated job does, and which calls can be made to fail.

use std::time::Duration;

use crate::container::LogChunk;

/// The course of a simulated job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// How long it runs unless it is stopped.
    pub run_for: Duration,
    /// Exit code unless it is stopped.
    pub code: i32,
    /// Whether its exit reports that the kernel killed it for lack of memory.
    pub oom: bool,
    /// Whether it ignores the stop signal and has to be killed.
    pub ignores_stop: bool,
    /// What it writes; `None` for a few lines about the simulation.
    pub log: Option<Vec<LogChunk>>,
    /// Whether the input is copied to the output.
    pub writes_output: bool,
}

impl Script {
    /// A job that runs for this long and succeeds.
    pub const fn succeeds_after(run_for: Duration) -> Self {
        Self { run_for, code: 0, oom: false, ignores_stop: false, log: None, writes_output: true }
    }
}

/// A call that [`Fake::fail`](super::Fake::fail) can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// [`crate::container::ContainerRuntime::image`]
    Image,
    /// [`crate::container::ContainerRuntime::create`]
    Create,
    /// [`crate::container::ContainerRuntime::start`]
    Start,
    /// [`crate::container::ContainerRuntime::follow`]
    Follow,
    /// [`crate::container::ContainerRuntime::stop`]
    Stop,
    /// [`crate::container::ContainerRuntime::copy_out`]
    CopyOut,
    /// [`crate::container::ContainerRuntime::written`]
    Written,
    /// [`crate::container::ContainerRuntime::remove`]
    Remove,
    /// [`crate::container::ContainerRuntime::list`]
    List,
}
