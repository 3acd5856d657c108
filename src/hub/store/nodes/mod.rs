//! The nodes: their beats, names, tags and secrets, and how they stood.
//!
//! Invariants: a beat that was acknowledged survives a power cut; a node that is heard for the first time is no
//! news; what a node's owner set (alerts, secret, tags) is not changed by its beats.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Error, Store};
use crate::clock::Timestamp;
use crate::fleet::beat::Beat;
use crate::fleet::clocks::{Heard, Standing};
use crate::hub::fleet::Node;
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};

/// The length of a slot of the history of beats.
pub const SLOT_MS: u64 = 300_000;

/// The SHA-256 of a secret.
pub type Hash = [u8; 32];

/// How a change of a name went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renamed {
    /// It has the new name.
    Done,
    /// No node has the old name.
    NoSuch,
    /// Another node has the new name.
    Taken,
}

impl Store {
    /// Takes a beat in, durably. Returns what is known of the node's newer keys with it. Here as below, `then` takes
    /// over into memory what was committed, in the order of the commits ([`crate::sql::Writer::change_then`]).
    pub async fn beat(
        &self,
        beat: Beat,
        at: Timestamp,
        then: impl FnOnce(&Option<Map<String, Value>>) + Send + 'static,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let work = move |db: &Connection| Ok(put_beat(db, &beat, at)?);
        self.writer.change_then("hub.beat", true, work, then).await
    }

    /// All nodes that were ever heard, by name.
    pub async fn load_all(&self) -> Result<Vec<Node>, Error> {
        self.writer.call(false, |db| Ok(load_all(db)?)).await
    }

    /// Gives a node another name. Incidents keep the old one.
    pub async fn rename(
        &self,
        old: String,
        new: String,
        then: impl FnOnce(&Renamed) + Send + 'static,
    ) -> Result<Renamed, Error> {
        let work = move |db: &Connection| Ok(rename(db, &old, &new)?);
        self.writer.change_then("hub.rename", true, work, then).await
    }

    /// Forgets a node, with its history and its secret. Whether there was one.
    pub async fn remove(
        &self,
        name: String,
        then: impl FnOnce(&bool) + Send + 'static,
    ) -> Result<bool, Error> {
        let work = move |db: &Connection| Ok(remove(db, &name)?);
        self.writer.change_then("hub.remove", true, work, then).await
    }

    /// Forgets the nodes that were last heard before this, by any clock, and returns their names.
    pub async fn prune(
        &self,
        before: Timestamp,
        then: impl FnOnce(&Vec<String>) + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let work = move |db: &Connection| Ok(prune(db, before)?);
        self.writer.change_then("hub.prune", true, work, then).await
    }

    /// Sets the tags of a node. Whether there is one of this name.
    pub async fn set_tags(&self, name: String, tags: Vec<String>) -> Result<bool, Error> {
        let work = move |db: &Connection| {
            let sql = "UPDATE nodes SET tags = ?2 WHERE name = ?1";
            Ok(db.execute(sql, params![name, tags.join(" ")])? > 0)
        };
        self.writer.change("hub.tags", true, work).await
    }

    /// Sets whether somebody wants to be told about a node's rank, as the original's page does, and returns all of
    /// the newer keys; `None`: there is no such node.
    pub async fn set_gswarm_alert(
        &self,
        name: String,
        enabled: bool,
        then: impl FnOnce(&Option<Map<String, Value>>) + Send + 'static,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let work = move |db: &Connection| Ok(set_gswarm_alert(db, &name, enabled)?);
        self.writer.change_then("hub.gswarm_alert", true, work, then).await
    }

    /// Notes that a node stands in another way now, and why. Durable.
    pub async fn standing(
        &self,
        name: String,
        standing: Standing,
        since: Timestamp,
        why: String,
    ) -> Result<(), Error> {
        let work = move |db: &Connection| Ok(put_standing(db, &name, standing, since, &why)?);
        self.writer.change("hub.standing", true, work).await
    }

    /// The hashes of the nodes' own secrets, by name.
    pub async fn secrets(
        &self,
        then: impl FnOnce(&HashMap<String, Hash>) + Send + 'static,
    ) -> Result<HashMap<String, Hash>, Error> {
        let sql = "SELECT name, secret FROM nodes WHERE length(secret) = 32";
        let read = move |db: &Connection| -> Result<_, SqliteError> {
            let mut rows = db.prepare_cached(sql)?;
            let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        self.writer.change_then("hub.secrets", false, move |db| Ok(read(db)?), then).await
    }
}

/// As [`Store::standing`], within the caller's transaction.
pub fn put_standing(
    db: &Connection,
    name: &str,
    standing: Standing,
    since: Timestamp,
    why: &str,
) -> Result<(), SqliteError> {
    let sql = "UPDATE nodes SET standing = ?2, standing_ms = ?3 WHERE name = ?1";
    db.prepare_cached(sql)?.execute(params![name, standing.as_str(), ms(since)])?;
    let sql = "INSERT INTO standings (name, at_ms, standing, why) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute(params![name, ms(since), standing.as_str(), why])?;
    Ok(())
}

/// A time as a column has it.
pub(super) fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.unix_ms()).unwrap_or(i64::MAX)
}

/// A time from a column; one before 1970 is 1970.
pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or(0))
}

/// What a beat finds of its node.
struct Before {
    beat_ms: Option<i64>,
    gswarm: Option<String>,
    is_heard: bool,
}

/// Notes a beat; returns what is known of the node's newer keys with it.
pub(super) fn put_beat(
    db: &Connection,
    beat: &Beat,
    at: Timestamp,
) -> Result<Option<Map<String, Value>>, SqliteError> {
    let sql = "SELECT beat_ms, gswarm, coalesce(beat_ms, nats_ms, chain_ms) IS NOT NULL FROM nodes \
               WHERE name = ?1";
    let before = |row: &Row<'_>| {
        Ok(Before { beat_ms: row.get(0)?, gswarm: row.get(1)?, is_heard: row.get(2)? })
    };
    let before = db.prepare_cached(sql)?.query_row([&beat.node_id], before).optional()?;
    let known = before.as_ref().and_then(|it| it.gswarm.as_deref());
    let gswarm = merged(known, beat.gswarm.as_ref());
    let text = gswarm.as_ref().map(|map| Value::Object(map.clone()).to_string());
    let reported = if beat.is_down { "DOWN" } else { "UP" };
    let said = params![beat.node_id, beat.ip, beat.meta, reported, ms(at), text];
    let sql = match &before {
        Some(Before { is_heard: true, .. }) => {
            "UPDATE nodes SET ip = ?2, meta = ?3, reported = ?4, beat_ms = ?5, gswarm = ?6 WHERE name = ?1"
        }
        // It has a secret already, and beats for the first time.
        Some(_) => {
            "UPDATE nodes SET ip = ?2, meta = ?3, reported = ?4, beat_ms = ?5, gswarm = ?6, \
             first_ms = ?5, standing = 'up', standing_ms = ?5 WHERE name = ?1"
        }
        None => {
            "INSERT INTO nodes (name, ip, meta, reported, beat_ms, gswarm, first_ms, standing, standing_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, 'up', ?5)"
        }
    };
    db.prepare_cached(sql)?.execute(said)?;
    let slot = slot(ms(at));
    if before.and_then(|it| it.beat_ms).is_none_or(|before| self::slot(before) != slot) {
        let sql = "INSERT OR IGNORE INTO slots (name, slot) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute(params![beat.node_id, slot])?;
    }
    Ok(gswarm)
}

fn slot(at_ms: i64) -> i64 {
    at_ms / SLOT_MS.cast_signed()
}

/// The newer keys after a beat: those that it has, and of the earlier ones those that no beat sends.
fn merged(known: Option<&str>, told: Option<&Map<String, Value>>) -> Option<Map<String, Value>> {
    let known: Option<Map<String, Value>> = known.and_then(|it| serde_json::from_str(it).ok());
    let mut merged = known.unwrap_or_default();
    merged.retain(|key, _| !["eoa", "peer_ids", "tgid"].contains(&key.as_str()));
    merged.extend(told.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    (!merged.is_empty()).then_some(merged)
}

fn load_all(db: &Connection) -> Result<Vec<Node>, SqliteError> {
    let sql = "SELECT name, address, ip, meta, reported, first_ms, beat_ms, nats_ms, nats_seq, chain_ms, \
               chain_block, standing, standing_ms, gswarm, presence, tags, \
               (SELECT why FROM standings s WHERE s.name = n.name ORDER BY at_ms DESC, rowid DESC LIMIT 1) \
               FROM nodes n WHERE coalesce(beat_ms, nats_ms, chain_ms) IS NOT NULL ORDER BY name";
    let mut rows = db.prepare(sql)?;
    let rows = rows.query_map([], node)?;
    rows.collect()
}

fn node(row: &Row<'_>) -> Result<Node, SqliteError> {
    let address: Option<String> = row.get(1)?;
    let at = |column| Ok::<_, SqliteError>(row.get::<_, Option<i64>>(column)?.map(time));
    let count =
        |column| Ok::<_, SqliteError>(row.get::<_, Option<i64>>(column)?.map(i64::cast_unsigned));
    let json = |column| row.get::<_, Option<String>>(column);
    let (gswarm, presence) = (json(13)?, json(14)?);
    let tags: String = row.get(15)?;
    Ok(Node {
        name: row.get(0)?,
        address: address.as_ref().and_then(|it| it.parse().ok()),
        ip: row.get(2)?,
        meta: row.get(3)?,
        first: time(row.get(5)?),
        heard: Heard {
            own: at(6)?,
            says_down: row.get::<_, String>(4)? == "DOWN",
            nats: at(7)?,
            chain: at(9)?,
            clash: None,
            // One whose key is enrolled may never have been on NATS.
            is_ours: at(7)?.is_some(),
        },
        nats_seq: count(8)?,
        chain_block: count(10)?,
        standing: Standing::parse(&row.get::<_, String>(11)?).unwrap_or(Standing::NotWatched),
        standing_since: time(row.get(12)?),
        why: row.get::<_, Option<String>>(16)?.unwrap_or_default(),
        gswarm: gswarm.and_then(|it| serde_json::from_str(&it).ok()),
        presence: presence.and_then(|it| serde_json::from_str(&it).ok()),
        tags: tags.split_whitespace().map(str::to_owned).collect(),
        scored: None,
    })
}

fn is_known(db: &Connection, name: &str) -> Result<bool, SqliteError> {
    db.prepare_cached("SELECT 1 FROM nodes WHERE name = ?1")?.exists([name])
}

fn rename(db: &Connection, old: &str, new: &str) -> Result<Renamed, SqliteError> {
    if !is_known(db, old)? {
        return Ok(Renamed::NoSuch);
    }
    if is_known(db, new)? {
        return Ok(Renamed::Taken);
    }
    // What is left of a name that is nobody's would be in the way.
    db.execute("DELETE FROM seen WHERE name = ?1", [new])?;
    for table in ["nodes", "standings", "slots", "seen", "seen_changes"] {
        db.execute(&format!("UPDATE {table} SET name = ?2 WHERE name = ?1"), [old, new])?;
    }
    Ok(Renamed::Done)
}

fn remove(db: &Connection, name: &str) -> Result<bool, SqliteError> {
    for table in ["standings", "slots", "seen", "seen_changes"] {
        db.execute(&format!("DELETE FROM {table} WHERE name = ?1"), [name])?;
    }
    Ok(db.execute("DELETE FROM nodes WHERE name = ?1", [name])? > 0)
}

fn prune(db: &Connection, before: Timestamp) -> Result<Vec<String>, SqliteError> {
    // A node that has a secret or a key of its own is awaited: without them anybody could come back in its name.
    let sql = "SELECT name FROM nodes WHERE key IS NULL AND secret IS NULL \
               AND coalesce(beat_ms, nats_ms, chain_ms) IS NOT NULL \
               AND max(coalesce(beat_ms, 0), coalesce(nats_ms, 0), coalesce(chain_ms, 0)) < ?1";
    let mut rows = db.prepare(sql)?;
    let names: Vec<String> =
        rows.query_map([ms(before)], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in &names {
        remove(db, name)?;
    }
    Ok(names)
}

fn set_gswarm_alert(
    db: &Connection,
    name: &str,
    enabled: bool,
) -> Result<Option<Map<String, Value>>, SqliteError> {
    let sql = "SELECT gswarm FROM nodes WHERE name = ?1";
    let found: Option<Option<String>> = db.query_row(sql, [name], |row| row.get(0)).optional()?;
    let Some(known) = found else { return Ok(None) };
    let known = known.and_then(|it| serde_json::from_str::<Map<String, Value>>(&it).ok());
    let mut known = known.unwrap_or_default();
    known.insert("alert".to_owned(), enabled.into());
    let text = Value::Object(known.clone()).to_string();
    db.execute("UPDATE nodes SET gswarm = ?2 WHERE name = ?1", [name, &text])?;
    Ok(Some(known))
}

#[cfg(test)]
mod tests;
