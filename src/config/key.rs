//! The key that signs: in an encrypted keystore, or, as the seeds have it, in plain text.

use std::path::PathBuf;

use super::env::{Env, Variable};
use crate::chain::{Key, keystore};
use crate::node::Address;
use crate::secret::Secret;

const AGENT_PRIVATE_KEY: Variable = Variable::new("AGENT_PRIVATE_KEY", "0x<64 hex digits>");
const AGENT_KEYSTORE: Variable = Variable::new("AGENT_KEYSTORE", "/etc/lamda-node/node.json");
const AGENT_KEYSTORE_PASSPHRASE_FILE: Variable =
    Variable::new("AGENT_KEYSTORE_PASSPHRASE_FILE", "/etc/lamda-node/passphrase");

/// Where a key comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// `AGENT_PRIVATE_KEY`.
    Raw(Key),
    /// `AGENT_KEYSTORE` with `AGENT_KEYSTORE_PASSPHRASE_FILE`.
    Keystore {
        /// The file, in Web3 Secret Storage.
        path: PathBuf,
        /// What opens it.
        passphrase: Secret,
    },
}

/// Why a keystore gave no key: a wrong setting.
#[derive(Debug, thiserror::Error)]
#[error("the key can't be loaded")]
pub struct KeyError(#[from] keystore::Error);

impl KeySource {
    /// The key. A keystore takes about a second of one core: scrypt's cost.
    pub fn load(&self) -> Result<Key, KeyError> {
        match self {
            Self::Raw(key) => Ok(key.clone()),
            Self::Keystore { path, passphrase } => Ok(keystore::load(path, passphrase)?),
        }
    }

    /// Whose key it is, as cheaply as it can be told.
    pub fn address(&self) -> Result<Address, KeyError> {
        match self {
            Self::Raw(key) => Ok(key.address()),
            Self::Keystore { path, .. } => match keystore::address(path) {
                Ok(address) => Ok(address),
                // Some writers leave the address out.
                Err(keystore::Error::Malformed { .. }) => self.load().map(|key| key.address()),
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

/// The key where one is set.
pub(super) fn optional(env: &mut Env<'_>) -> Option<KeySource> {
    let raw_set = env.is_set(AGENT_PRIVATE_KEY);
    let raw = env.secret(AGENT_PRIVATE_KEY);
    let path = env.path(AGENT_KEYSTORE);
    let passphrase_set = env.is_set(AGENT_KEYSTORE_PASSPHRASE_FILE);
    let passphrase = env.secret_file(AGENT_KEYSTORE_PASSPHRASE_FILE);
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
            if !passphrase_set {
                env.problem(AGENT_KEYSTORE_PASSPHRASE_FILE, "it is not set, but AGENT_KEYSTORE is");
            }
            Some(KeySource::Keystore { path, passphrase: passphrase? })
        }
        (None, None) => None,
    }
}
