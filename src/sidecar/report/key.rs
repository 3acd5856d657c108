//! The watcher's own key, with which it signs what it saw: who it is, for a hub and on NATS.
//!
//! Must hold: the key is in a file that its owner alone can read, and nowhere else; one that is there is never
//! replaced.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::chain::Key;
use crate::report::BoxError;
use crate::secret::Secret;

/// The longest line of the file: `0x` and 64 digits, and what an editor puts around them.
const LINE_BYTES_MAX: usize = 128;

/// How often random bytes may be no key: once in 2^127.
const TRIES_MAX: usize = 4;

/// The key in this file; a new one is made if there is no file. The caller is the only one who makes it: it holds the
/// database beside the file.
pub fn load_or_make(path: &Path) -> Result<Key, BoxError> {
    let named =
        |err: BoxError| BoxError::from(format!("the watcher's key {}: {err}", path.display()));
    match File::open(path) {
        Ok(file) => {
            if let Err(open) = is_private(&file) {
                // On a volume that shows modes of its own no key can be better kept than this one.
                if keeps_modes(path) {
                    return Err(named(open));
                }
                tracing::warn!("{}; its volume keeps no modes, so it is taken", named(open));
            }
            let text = Secret::read_line(file, LINE_BYTES_MAX).map_err(|err| named(err.into()))?;
            Key::from_hex(&text).map_err(|err| named(err.into()))
        }
        Err(err) if err.kind() == ErrorKind::NotFound => make(path).map_err(named),
        Err(err) => Err(named(err.into())),
    }
}

/// `Err` if others than its owner can read or change the file.
fn is_private(file: &File) -> Result<(), BoxError> {
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(format!("it is open to others (mode {mode:04o}): run `chmod 600` on it").into());
    }
    Ok(())
}

/// Whether a new file beside this one is its owner's alone if that is asked for. If that can't be tried, it is.
fn keeps_modes(path: &Path) -> bool {
    let new = path.with_extension("key.mode");
    std::fs::remove_file(&new).ok();
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let is_open = made.is_ok_and(|file| is_private(&file).is_err());
    std::fs::remove_file(&new).ok();
    !is_open
}

/// Makes a key, and the file for it.
fn make(path: &Path) -> Result<Key, BoxError> {
    for _ in 0..TRIES_MAX {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        getrandom::fill(bytes.as_mut_slice())?;
        let text = Secret::new(HEXLOWER.encode(bytes.as_slice()));
        let Ok(key) = Key::from_hex(&text) else { continue };
        // As a whole or not at all: a half of a key would stay for ever.
        let new = path.with_extension("key.new");
        std::fs::remove_file(&new).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.expose().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        return Ok(key);
    }
    Err("the system's random bytes are no key".into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_read_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar.key");
        let made = load_or_make(&path).unwrap();
        let rights = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(rights & 0o777, 0o600);
        assert_eq!(load_or_make(&path).unwrap().address(), made.address());
        let names = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else stays");
    }

    #[test]
    fn what_is_no_key_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sidecar.key");
        std::fs::write(&path, "hunter2\n").unwrap();
        let open = load_or_make(&path).unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "others can read it: {open}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = load_or_make(&path).unwrap_err().to_string();
        assert!(refused.contains("sidecar.key") && !refused.contains("hunter2"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2\n");
        assert!(load_or_make(&folder.path().join("none/sidecar.key")).is_err());
    }
}
