//! The node's signing key: in an encrypted keystore, or in plain text.

use std::path::PathBuf;

use super::env::{Env, Variable, read_secret};
use super::terminal::Terminal;
use crate::chain::{Key, keystore};
use crate::ids::Address;
use crate::secret::Secret;

const AGENT_PRIVATE_KEY: Variable = Variable::new("AGENT_PRIVATE_KEY", "0x<64 hex digits>");
const AGENT_KEYSTORE: Variable = Variable::new("AGENT_KEYSTORE", "/etc/lamda-node/node.json");
const AGENT_KEYSTORE_PASSPHRASE_FILE: Variable =
    Variable::new("AGENT_KEYSTORE_PASSPHRASE_FILE", "/etc/lamda-node/passphrase");
/// Set by systemd for a unit that has credentials.
const CREDENTIALS_DIRECTORY: Variable =
    Variable::new("CREDENTIALS_DIRECTORY", "/run/credentials/lamda-node.service");

/// The name of the credential that holds the passphrase: `LoadCredential=lamda-node-passphrase:…`.
const CREDENTIAL: &str = "lamda-node-passphrase";

/// Where a key comes from. It holds the key or its passphrase: drop it once the key is loaded.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// The key itself, from `AGENT_PRIVATE_KEY`.
    Raw(Key),
    /// The encrypted file that `AGENT_KEYSTORE` names.
    Keystore {
        /// The file, in the Web3 Secret Storage format.
        path: PathBuf,
        /// Where its passphrase comes from.
        passphrase: Passphrase,
    },
}

/// Where a keystore's passphrase comes from.
#[derive(Debug, Clone)]
pub enum Passphrase {
    /// `AGENT_KEYSTORE_PASSPHRASE_FILE`, else systemd's credential `lamda-node-passphrase`.
    Given(Secret),
    /// Neither is set: somebody at the terminal is asked.
    Asked,
}

/// Why the key can't be loaded: a wrong setting.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The keystore can't be read or decrypted.
    #[error("the key can't be loaded")]
    Keystore(#[from] keystore::Error),
    /// The terminal gave no passphrase.
    #[error("no passphrase was given at the terminal; AGENT_KEYSTORE_PASSPHRASE_FILE names a file")]
    Unanswered(#[source] std::io::Error),
}

impl KeySource {
    /// Loads the key. Decrypting a keystore takes about a second of one core, the cost of scrypt.
    pub fn load(&self) -> Result<Key, KeyError> {
        match self {
            Self::Raw(key) => Ok(key.clone()),
            Self::Keystore { path, passphrase: Passphrase::Given(passphrase) } => {
                Ok(keystore::load(path, passphrase)?)
            }
            Self::Keystore { path, passphrase: Passphrase::Asked } => {
                let question = format!("Passphrase of {}: ", path.display());
                let answer = Terminal::open().and_then(|mut terminal| terminal.ask(&question));
                Ok(keystore::load(path, &answer.map_err(KeyError::Unanswered)?)?)
            }
        }
    }

    /// Whether [`KeySource::load`] asks for a passphrase at the terminal.
    pub fn asks(&self) -> bool {
        matches!(self, Self::Keystore { passphrase: Passphrase::Asked, .. })
    }

    /// The key's address. Decrypts a keystore only if the file does not contain the address, and asks nobody.
    pub fn address(&self) -> Result<Address, KeyError> {
        match self {
            Self::Raw(key) => Ok(key.address()),
            Self::Keystore { path, .. } => match keystore::address(path) {
                Ok(address) => Ok(address),
                // Some programs leave the address out of a keystore.
                Err(keystore::Error::Malformed { .. }) if !self.asks() => {
                    self.load().map(|key| key.address())
                }
                Err(err) => Err(err.into()),
            },
        }
    }
}

/// The node's key, which must be set.
pub(super) fn required(env: &mut Env<'_>) -> Option<KeySource> {
    if !env.is_set(AGENT_PRIVATE_KEY) && !env.is_set(AGENT_KEYSTORE) {
        let what = "no key is set. `lamda-node key new --keystore FILE` makes one: set \
                    AGENT_KEYSTORE to the file and AGENT_KEYSTORE_PASSPHRASE_FILE to a file with \
                    its passphrase (or set AGENT_PRIVATE_KEY, in plain text)";
        env.problem(AGENT_KEYSTORE, what);
    }
    optional(env)
}

/// The node's key, if one is set.
pub(super) fn optional(env: &mut Env<'_>) -> Option<KeySource> {
    let raw_set = env.is_set(AGENT_PRIVATE_KEY);
    let raw = env.secret(AGENT_PRIVATE_KEY);
    let path = env.path(AGENT_KEYSTORE);
    let passphrase = passphrase(env, path.is_some());
    match (raw, path) {
        (_, Some(_)) if raw_set => {
            let what = "it is set beside AGENT_KEYSTORE, and the two may hold different keys: \
                        remove this one";
            env.problem_with(AGENT_PRIVATE_KEY, what, "# AGENT_PRIVATE_KEY=");
            None
        }
        (Some(raw), _) => {
            env.warn(
                "AGENT_PRIVATE_KEY holds the key in plain text: `lamda-node key import \
                 --keystore FILE` keeps it encrypted",
            );
            let key = Key::from_hex(&raw).map(KeySource::Raw);
            env.keep(AGENT_PRIVATE_KEY, key.map_err(|err| format!("it is {err}")))
        }
        (None, Some(path)) => {
            if !path.is_file() {
                env.problem(AGENT_KEYSTORE, format!("there is no file {}", path.display()));
            }
            Some(KeySource::Keystore { path, passphrase: passphrase? })
        }
        (None, None) => None,
    }
}

/// The keystore's passphrase: from its file, else systemd's credential, else the terminal.
fn passphrase(env: &mut Env<'_>, wanted: bool) -> Option<Passphrase> {
    let file_set = env.is_set(AGENT_KEYSTORE_PASSPHRASE_FILE);
    let file = env.secret_file(AGENT_KEYSTORE_PASSPHRASE_FILE);
    let credential = env.path(CREDENTIALS_DIRECTORY).map(|dir| dir.join(CREDENTIAL));
    if file_set || !wanted {
        return file.map(Passphrase::Given);
    }
    if let Some(path) = credential.filter(|path| path.exists()) {
        return env.keep(CREDENTIALS_DIRECTORY, read_secret(&path)).map(Passphrase::Given);
    }
    if env.can_ask() {
        return Some(Passphrase::Asked);
    }
    let what = "it is not set, but AGENT_KEYSTORE is; there is no credential \
                lamda-node-passphrase of systemd and no terminal to ask at either";
    env.problem(AGENT_KEYSTORE_PASSPHRASE_FILE, what);
    None
}
