//! Logging, always to standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Format, Logging, SILENT};

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// The node's owner, who wants to know what the node does.
    Owner,
    /// A user at a terminal who runs one command: only warnings and errors, unless the settings ask for more.
    Client,
}

/// Starts logging. A second call has no effect.
pub(super) fn start(logging: &Logging, audience: Audience) {
    let quiet = audience == Audience::Client && logging.filter.ends_with("=info");
    let few = format!("warn,{SILENT}");
    let filter = if quiet { &few } else { &logging.filter };
    // The filter was validated when the settings were read.
    let filter = EnvFilter::try_new(filter).unwrap_or_default();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    // A log that can't be written (a full disk, a closed pipe) must not end the program: telling of it on standard
    // error would fail in the same way, and panic.
    let builder = builder.log_internal_errors(false);
    let started = match logging.format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.with_ansi(stderr().is_terminal()).with_target(false).try_init(),
    };
    started.ok();
}
