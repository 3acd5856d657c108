//! What another process may do to the hub's file while the hub holds it: copy it, give a node a secret, enroll one, let
//! people log in, read how nodes stood.
//!
//! Invariant: all of it leaves a running hub undisturbed; it sees a new secret or key within a second.

use std::path::Path;
use std::time::Duration;

use super::identity::{put_key, put_secret};
use super::nodes::{Hash, ms};
use super::people::Role;
use super::{Error, SCHEMA};
use crate::clock::Timestamp;
use crate::fleet::alerts::Change;
use crate::fleet::clocks::Standing;
use crate::ids::Address;
use crate::sql::{self, Connection, OpenFlags, OptionalExtension as _, params};

/// How long to wait for the hub's own commit.
const BUSY: Duration = Duration::from_secs(10);

/// How long a code of enrolment is good.
pub const CODE_LASTS: Duration = Duration::from_mins(10);

/// A node that a key speaks for from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// The key that spoke for it before.
    pub instead_of: Option<Address>,
}

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
    Ok(put_secret(&db, name, hash, now)?)
}

/// Makes a code good, by its hash, for [`CODE_LASTS`]: for the node of this name, or for any that has no secret and no
/// key of its own and was not heard yet. Blocks.
pub fn put_code(path: &Path, code: &Hash, name: Option<&str>, now: Timestamp) -> Result<(), Error> {
    let db = open(path)?;
    let put = "INSERT OR REPLACE INTO codes (code, until_ms, name) VALUES (?1, ?2, ?3)";
    db.execute(put, params![code, ms(now.plus(CODE_LASTS)), name])?;
    Ok(())
}

/// Has a key speak for a node, and nobody else: for the one of this name, which need not be known yet, or for the one
/// that the hub knows the key by, or for one with the key's address as name. Blocks.
pub fn bind(path: &Path, key: Address, name: Option<&str>, now: Timestamp) -> Result<Bound, Error> {
    let mut db = open(path)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let change = db.transaction_with_behavior(sql::TransactionBehavior::Immediate)?;
    let known =
        "SELECT name FROM nodes WHERE key = ?1 OR address = ?1 ORDER BY key IS NULL LIMIT 1";
    let known: Option<String> =
        change.query_row(known, [key.lower_hex()], |row| row.get(0)).optional()?;
    let name = match (known, name) {
        (Some(known), Some(name)) if known != name => return Err(Error::KnownAs(known)),
        (Some(known), _) => known,
        (None, Some(name)) => name.to_owned(),
        (None, None) => key.lower_hex(),
    };
    let before = "SELECT key FROM nodes WHERE name = ?1";
    let before = change.query_row(before, [&name], |row| row.get::<_, Option<String>>(0));
    let before = before.optional()?.flatten().and_then(|before| before.parse().ok());
    let put = "INSERT INTO nodes (name, first_ms, standing, standing_ms)
               VALUES (?1, ?2, 'not_watched', ?2) ON CONFLICT (name) DO NOTHING";
    change.execute(put, params![name, ms(now)])?;
    put_key(&change, &name, key)?;
    change.commit()?;
    Ok(Bound { name, instead_of: before.filter(|before| *before != key) })
}

/// Adds a person with this password's hash, or gives them another password and role, which ends their sessions.
/// Blocks.
pub fn put_person(
    path: &Path,
    name: &str,
    role: Role,
    password: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let mut db = open(path)?;
    let change = db.transaction()?;
    let put = "INSERT INTO people (name, password, role, made_ms) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (name) DO UPDATE SET password = ?2, role = ?3";
    change.execute(put, params![name, password, role.as_str(), ms(now)])?;
    change.execute("DELETE FROM sessions WHERE person = ?1", [name])?;
    change.commit()?;
    Ok(())
}

/// Removes a person and their sessions. Whether there was one. Blocks.
pub fn remove_person(path: &Path, name: &str) -> Result<bool, Error> {
    let db = open(path)?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db.execute("DELETE FROM people WHERE name = ?1", [name])? > 0)
}

/// How nodes stood from then on, in order; each node begins with how it stood then. Blocks.
pub fn standings_since(path: &Path, since: Timestamp) -> Result<Vec<Change>, Error> {
    let db = open(path)?;
    let select = "SELECT at_ms, name, standing, why FROM standings WHERE at_ms >= ?1
        UNION ALL
        SELECT MAX(at_ms), name, standing, why FROM standings WHERE at_ms < ?1 GROUP BY name
        ORDER BY 1";
    let mut select = db.prepare(select)?;
    let rows = select.query_map([ms(since)], |row| {
        let at = u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default();
        let standing = Standing::parse(&row.get::<_, String>(2)?).unwrap_or(Standing::NotWatched);
        let at = Timestamp::from_unix_ms(at).max(since);
        Ok(Change { at, node: row.get(1)?, standing, why: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
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
