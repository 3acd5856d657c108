//! A copy of a database file that is in use, also by another process.
//!
//! Invariant: the copy is the database of one moment, complete and synced, or there is none.

use std::path::Path;

use rusqlite::backup::{Backup, StepResult};

use super::{Connection, Error, OpenFlags};

/// Copies the database at `from` into the new file `to`, which only its owner can read. Those who write meanwhile
/// are not held up, since their commits go to the log. Blocks.
pub fn back_up(from: &Path, to: &Path) -> Result<(), Error> {
    let unusable =
        |err: std::io::Error| Error::Unusable { path: to.to_owned(), source: err.into() };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags)?;
    source.busy_timeout(std::time::Duration::from_secs(5))?;
    let folder = to.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = tempfile::NamedTempFile::new_in(folder).map_err(unusable)?;
    copy(&source, draft.path())?;
    draft.as_file().sync_all().map_err(unusable)?;
    draft.persist_noclobber(to).map_err(|err| unusable(err.error))?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)
}

fn copy(source: &Connection, to: &Path) -> Result<(), Error> {
    let mut copy = Connection::open(to)?;
    let backup = Backup::new(source, &mut copy)?;
    // All pages in one step: of one moment, whatever is committed meanwhile.
    if backup.step(-1)? != StepResult::Done {
        return Err(Error::Failed("the database is locked".into()));
    }
    drop(backup);
    // One file, without a log beside it.
    copy.pragma_update(None, "journal_mode", "DELETE")?;
    let sound: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound == "ok" { Ok(()) } else { Err(Error::Failed(sound.into())) }
}
