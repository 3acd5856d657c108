//! `hub enroll`: a code for a node, or a key that speaks for it. Works while the hub runs.

use std::path::Path;
use std::process::ExitCode;

use super::super::{Misused, out};
use crate::clock::{Clock as _, SystemClock};
use crate::fleet::beat;
use crate::hub::api::auth;
use crate::hub::api::enroll::{new_code, plain};
use crate::hub::store::{Error, beside};
use crate::ids::Address;

/// Arguments of `hub enroll`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The node's name; without one a code is for any node that was not heard and has no secret yet, and a key for the node of its address
    name: Option<String>,
    /// Have this account's key speak for the node, and nobody else (a `lamda-node run` with `HUB_URL` signs its beats)
    #[arg(long, value_name = "ADDRESS")]
    key: Option<Address>,
}

pub(super) fn execute(db: &Path, args: &Args) -> anyhow::Result<ExitCode> {
    let name = args.name.as_deref().map(beat::name).transpose();
    let name = name.map_err(|err| Misused(err.to_string()))?;
    match args.key {
        Some(key) => bind(db, key, name.as_deref()),
        None => code(db, name.as_deref()),
    }
}

fn code(db: &Path, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let code = new_code()?;
    beside::put_code(db, &auth::hash(&plain(code.expose())), name, SystemClock.now())?;
    let whose = name.map_or_else(|| "a node".to_owned(), out::clean);
    let minutes = beside::CODE_LASTS.as_secs() / 60;
    out::note(&format!(
        "a code for {whose}, good once within {minutes} min: give it to its agent (--enroll CODE), or to POST /api/enroll"
    ));
    out::line(code.expose())?;
    Ok(ExitCode::SUCCESS)
}

fn bind(db: &Path, key: Address, name: Option<&str>) -> anyhow::Result<ExitCode> {
    let bound = beside::bind(db, key, name, SystemClock.now()).map_err(|err| match err {
        Error::KnownAs(_) => anyhow::Error::from(Misused(err.to_string())),
        err => err.into(),
    })?;
    let instead = bound.instead_of.map(|key| format!(", instead of {key}")).unwrap_or_default();
    out::line(&format!("{key} speaks for {}{instead}, and nobody else", out::clean(&bound.name)))?;
    Ok(ExitCode::SUCCESS)
}
