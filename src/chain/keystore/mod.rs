//! The node's key on disk, in Web3 Secret Storage version 3, as geth, cast and eth-account use it.
//!
//! Must hold: a file written here is readable by its owner only and never replaces an existing file. A
//! file read here is limited in size, and its parameters are checked before they cost memory or time.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::key::Key;
use crate::ids::Address;
use crate::secret::Secret;
use crate::text::utf8;

mod format;

use format::{Cost, FILE_BYTES_MAX, Sealed};

/// Why a keystore could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file exists; a keystore is never overwritten.
    #[error("{} exists and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The permissions let others than the owner access the file.
    #[error(
        "{} is open to others (mode {mode:04o}): run `chmod 600` on it",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Reading or writing the file failed.
    #[error("the keystore {} can't be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The file is not a keystore that this program supports.
    #[error("{} is not a keystore that can be read: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The defect, in words.
        reason: String,
    },
    /// The passphrase does not open the keystore.
    #[error("the passphrase does not open {}", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
}

/// Generates a key and stores it at `path`. scrypt takes about a second of one core.
pub fn create(path: &Path, passphrase: &Secret) -> Result<Key, Error> {
    let key = Key::random();
    import(path, &key, passphrase)?;
    Ok(key)
}

/// Stores `key` at `path` with mode 0600, atomically, and never over an existing file.
pub fn import(path: &Path, key: &Key, passphrase: &Secret) -> Result<(), Error> {
    // Saves the cost of sealing; `write_new` is what rules out overwriting.
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::Exists { path: path.to_owned() });
    }
    let text = Sealed::seal(key, passphrase, Cost::STANDARD).to_json();
    write_new(path, text.as_bytes())
}

/// Opens the key at `path`. The file's own cost parameters determine the time, within limits.
pub fn load(path: &Path, passphrase: &Secret) -> Result<Key, Error> {
    let sealed = read(path)?;
    sealed.open(passphrase).map_err(|refusal| match refusal {
        format::BadKeystore::WrongPassphrase => Error::WrongPassphrase { path: path.to_owned() },
        format::BadKeystore::Malformed(reason) => {
            Error::Malformed { path: path.to_owned(), reason }
        }
    })
}

/// The address in the keystore at `path`, without its passphrase. An error if the file does not
/// contain one, as some writers (cast) omit it.
pub fn address(path: &Path) -> Result<Address, Error> {
    read(path)?.address.ok_or_else(|| Error::Malformed {
        path: path.to_owned(),
        reason: "it does not tell its address; the passphrase is needed".into(),
    })
}

fn read(path: &Path) -> Result<Sealed, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    // Checked before opening, since opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(io)?.is_file() {
        return Err(malformed("it is not a file".into()));
    }
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    utf8(&bytes).map_err(str::to_owned).and_then(Sealed::parse).map_err(malformed)
}

/// Writes a new file through a hidden temporary one beside it, and fsyncs the file and its folder.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // tempfile creates files with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist_noclobber(path).map_err(|refused| match refused.error.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
        _ => io(refused.error),
    })?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase() -> Secret {
        Secret::new("correct horse")
    }

    #[test]
    fn a_new_key_is_private_to_its_owner_and_opens_with_its_passphrase_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let key = create(&path, &passphrase()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
        assert_eq!(address(&path).unwrap(), key.address());
        assert_eq!(load(&path, &passphrase()).unwrap().to_bytes(), key.to_bytes());
        let refused = load(&path, &Secret::new("another")).unwrap_err();
        assert!(matches!(refused, Error::WrongPassphrase { .. }), "{refused}");
        let marked = ["\u{feff}".as_bytes(), &fs::read(&path).unwrap()].concat();
        fs::write(&path, marked).unwrap();
        assert_eq!(
            load(&path, &passphrase()).unwrap().address(),
            key.address(),
            "as an editor saves it"
        );
    }

    #[test]
    fn an_existing_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        fs::write(&path, "something").unwrap();
        assert!(matches!(create(&path, &passphrase()), Err(Error::Exists { .. })));
        assert!(matches!(write_new(&path, b"x"), Err(Error::Exists { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "something");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_by_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        fs::write(&path, "{}").unwrap();
        for mode in [0o644, 0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = load(&path, &passphrase()).unwrap_err().to_string();
            assert!(refused.contains(&format!("mode {mode:04o}")), "{refused}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(load(dir.path(), &passphrase()), Err(Error::Malformed { .. })));
        let missing = dir.path().join("missing");
        assert!(matches!(load(&missing, &passphrase()), Err(Error::Io { .. })));
    }
}
