//! `key`: creates, imports and inspects keys. A private key is never shown and never an argument.

use std::fs::File;
use std::io::{IsTerminal as _, stdin};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

use super::logging::Audience;
use super::signer::{Ask, passphrase};
use super::{Misused, load, out};
use crate::chain::{Key, keystore};
use crate::config::{self, Terminal};
use crate::secret::Secret;

/// Upper bound on the input. A key has at most 66 characters.
const INPUT_BYTES_MAX: usize = 1024;

/// Arguments of `key`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new key and keep it encrypted; prints its address
    New(Place),
    /// Keep a key that you have, encrypted; it is read from standard input; prints its address
    Import(Place),
    /// Print a key's address
    Address {
        /// The keystore (default: the key of the settings)
        #[arg(long, value_name = "FILE")]
        keystore: Option<PathBuf>,
        /// A file with its passphrase, needed only if the keystore does not contain its address
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The file to make, in Web3 Secret Storage, readable by you alone; never overwritten
    #[arg(long, value_name = "FILE")]
    keystore: PathBuf,
    /// A file with the passphrase (default: it is asked for)
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    let address = match args.action {
        Action::New(place) => {
            let passphrase = place.passphrase()?;
            keystore::create(&place.keystore, &passphrase)?.address()
        }
        Action::Import(place) => {
            let text = read_key()?;
            let key = Key::from_hex(&text).map_err(|err| Misused(err.to_string()))?;
            let passphrase = place.passphrase()?;
            keystore::import(&place.keystore, &key, &passphrase)?;
            key.address()
        }
        Action::Address { keystore: Some(path), passphrase_file } => match keystore::address(&path)
        {
            Err(keystore::Error::Malformed { .. }) if passphrase_file.is_some() => {
                let passphrase = passphrase(passphrase_file.as_deref(), Ask::Once)?;
                keystore::load(&path, &passphrase)?.address()
            }
            address => address?,
        },
        Action::Address { keystore: None, .. } => load(Audience::Client, config::key)?.address()?,
    };
    out::line(&address.to_string())?;
    Ok(ExitCode::SUCCESS)
}

impl Place {
    fn passphrase(&self) -> anyhow::Result<Secret> {
        if self.keystore.symlink_metadata().is_ok() {
            let path = self.keystore.clone();
            return Err(keystore::Error::Exists { path }.into());
        }
        passphrase(self.passphrase_file.as_deref(), Ask::Twice)
    }
}

/// Reads the key's hex digits from a pipe, or from the terminal without echo.
fn read_key() -> anyhow::Result<Secret> {
    typed("Private key (64 hex digits): ").context("the key could not be read")
}

/// Reads a secret from the first line of a pipe, or from the terminal without echo.
pub(super) fn typed(question: &str) -> std::io::Result<Secret> {
    if stdin().is_terminal() {
        return Terminal::open()?.ask(question);
    }
    Secret::read_line(File::from(stdin().as_fd().try_clone_to_owned()?), INPUT_BYTES_MAX)
}
