//! Logging, always to standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Format, Logging, SILENT};

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The node's owner: what the node does is of interest.
    Owner,
    /// Somebody at a terminal who asked for one thing: only what goes wrong is, unless more was
    /// asked for.
    Client,
}

/// Begins to log. A second call changes nothing.
pub(super) fn start(logging: &Logging, audience: Audience) {
    let quiet = audience == Audience::Client && logging.filter.ends_with("=info");
    let few = format!("warn,{SILENT}");
    let filter = if quiet { &few } else { &logging.filter };
    // Checked when the settings were read.
    let filter = EnvFilter::try_new(filter).unwrap_or_default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = match logging.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.with_ansi(stderr().is_terminal()).with_target(false).try_init(),
    };
    started.ok();
}
