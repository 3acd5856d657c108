//! Logs that are rotated by logrotate itself, and by nobody's rules while the reader is killed again and again.

mod logrotate;
pub(crate) mod storm;

use std::path::Path;

use lamda_node::host::tail::{Config, Start};

/// Reads this log from its first byte on.
fn config(path: &Path) -> Config {
    Config { start: Start::Beginning, ..Config::new(path.to_owned()) }
}
