//! `hub person`: who may log in. Works while the hub runs.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::super::{Misused, key, out};
use crate::clock::{Clock as _, SystemClock};
use crate::hub::door;
use crate::hub::store::beside;
use crate::hub::store::people::Role;

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Action {
    /// Let a person log in, or give them another password; it is asked for, or read from the first line of the input
    Add {
        /// The person's name
        name: String,
        /// They may also silence alerts
        #[arg(long)]
        admin: bool,
    },
    /// Let a person log in no more, and end their sessions
    Remove {
        /// The person's name
        name: String,
    },
}

pub(super) fn execute(db: &Path, action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Add { name, admin } => {
            let name = checked(&name)?;
            let role = if admin { Role::Admin } else { Role::Reader };
            let password = key::typed("Password: ").context("the password could not be read")?;
            let hash = door::hash(&password).map_err(|err| Misused(err.to_string()))?;
            beside::put_person(db, name, role, &hash, SystemClock.now())?;
            out::line(&format!("{} may log in as {}", out::clean(name), role.as_str()))?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Remove { name } => {
            if beside::remove_person(db, name.trim())? {
                out::line(&format!("{} may log in no more", out::clean(name.trim())))?;
                return Ok(ExitCode::SUCCESS);
            }
            out::note(&format!("nobody has the name {}", out::clean(name.trim())));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn checked(name: &str) -> Result<&str, Misused> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Misused(format!("a name has 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(name)
}
