//! What another process may do to the hub's file while the hub holds it: copy it, and give a node a secret.
//!
//! Invariant: both leave a running hub undisturbed; it sees a new secret within a second.

use std::path::Path;
use std::time::Duration;

use super::nodes::{Hash, ms};
use super::{Error, SCHEMA};
use crate::clock::Timestamp;
use crate::sql::{self, Connection, OpenFlags, params};

/// How long to wait for the hub's own commit.
const BUSY: Duration = Duration::from_secs(10);

/// Copies the hub's database into a new file. Blocks.
pub fn back_up(from: &Path, to: &Path) -> Result<(), Error> {
    open(from)?;
    Ok(sql::back_up(from, to)?)
}

/// Gives a node its own secret, by its hash; from then on no other is taken for it. The node need not be known yet.
/// Blocks.
pub fn set_secret(path: &Path, name: &str, hash: &Hash, now: Timestamp) -> Result<(), Error> {
    let db = open(path)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let sql = "INSERT INTO nodes (name, first_ms, standing, standing_ms, secret) \
               VALUES (?1, ?2, 'not_watched', ?2, ?3) \
               ON CONFLICT (name) DO UPDATE SET secret = excluded.secret";
    db.execute(sql, params![name, ms(now), hash])?;
    Ok(())
}

/// Opens the file of a hub of this version.
fn open(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let unusable =
        |err: sql::SqliteError| sql::Error::Unusable { path: path.to_owned(), source: err.into() };
    let db = Connection::open_with_flags(path, flags).map_err(unusable)?;
    db.busy_timeout(BUSY)?;
    let version = db.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
    let tables =
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('nodes', 'standings', 'notices')";
    let tables = db.query_row(tables, [], |row| row.get::<_, i64>(0)).map_err(unusable)?;
    if version.map_err(unusable)? != SCHEMA.version() || tables != 3 {
        return Err(Error::Foreign(path.to_owned()));
    }
    Ok(db)
}
