//! The key that signs a request, and the domain that the signature is bound to.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Misused;
use crate::chain::{Key, Reader, keystore};
use crate::config::{KeySource, Signing, Terminal, read_secret};
use crate::ids::{Address, Domain};
use crate::secret::Secret;

/// The key options of the command line. Never the key itself, because everybody can see a process's
/// arguments.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// The keystore whose key signs (default: the key of the settings, if they name one)
    #[arg(long, value_name = "FILE")]
    keystore: Option<PathBuf>,
    /// A file with the keystore's passphrase (default: it is asked for)
    #[arg(long, value_name = "FILE", requires = "keystore")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// Whether a key was named on the command line.
    pub(super) fn is_given(&self) -> bool {
        self.keystore.is_some()
    }

    /// The key named on the command line, else that of the settings, else none.
    pub(super) fn load(&self, set: Option<&KeySource>) -> anyhow::Result<Option<Key>> {
        let Some(path) = &self.keystore else {
            return Ok(set.map(KeySource::load).transpose()?);
        };
        let passphrase = passphrase(self.passphrase_file.as_deref(), Ask::Once)?;
        Ok(Some(keystore::load(path, &passphrase)?))
    }
}

/// How many times a passphrase is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// To open a keystore.
    Once,
    /// To create a keystore.
    Twice,
}

/// Reads a passphrase from its file, else from the terminal.
pub(super) fn passphrase(file: Option<&Path>, ask: Ask) -> anyhow::Result<Secret> {
    if let Some(path) = file {
        return Ok(read_secret(path).map_err(|what| Misused(format!("--passphrase-file: {what}")))?);
    }
    let passphrase = ask_for("Passphrase: ")?;
    if passphrase.expose().is_empty() {
        return Err(Misused("the passphrase is empty".to_owned()).into());
    }
    if ask == Ask::Twice && ask_for("Once more: ")?.expose() != passphrase.expose() {
        return Err(Misused("the two passphrases differ".to_owned()).into());
    }
    Ok(passphrase)
}

fn ask_for(question: &str) -> anyhow::Result<Secret> {
    let answer = Terminal::open().and_then(|mut terminal| terminal.ask(question));
    answer.context("no passphrase was given at the terminal; use --passphrase-file FILE")
}

/// The domain of signatures, if the settings contain it without asking the chain.
pub(super) fn known_domain(signing: &Signing) -> Option<Domain> {
    let (chain_id, contract) = signing.chain_id.zip(signing.contract)?;
    Some(Domain { chain_id, contract })
}

/// The domain of signatures; asks the chain for its id if necessary. `None` if the settings name no contract,
/// or neither the chain's id nor an endpoint.
pub(super) async fn domain(signing: &Signing) -> anyhow::Result<Option<Domain>> {
    let Some(contract) = signing.contract else { return Ok(None) };
    if let Some(known) = known_domain(signing) {
        return Ok(Some(known));
    }
    let Some(config) = signing.chain() else { return Ok(None) };
    let reader = Reader::new(config)?;
    let facts = reader.facts(Address::new([0; 20])).await;
    let facts = facts.context("the chain's id is needed to sign; set CHAIN_ID to go without")?;
    Ok(Some(Domain { chain_id: facts.chain_id, contract }))
}
