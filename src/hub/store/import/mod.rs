//! Takes the nodes of an original monitor's file over.
//!
//! Invariants: the original's file is only read; all of its nodes are taken in one commit, or none; a node that the
//! hub has heard since keeps what it said later.

use std::path::Path;

use serde_json::{Map, Value};

use super::nodes::ms;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::fleet::beat::{self, Beat};
use crate::sql::{Connection, OpenFlags, Row, SqliteError, params};

/// The most nodes that are taken over.
const NODES_MAX: usize = 200_000;

/// A node of the original's.
#[derive(Debug, Clone, PartialEq)]
pub struct Original {
    beat: Beat,
    seen: Option<Timestamp>,
    was_up: bool,
}

/// What came of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The nodes that are new to the hub, or were heard later by the original.
    pub taken: usize,
    /// Those that the hub has heard since.
    pub kept: usize,
    /// The rows whose name can't be used.
    pub unusable: usize,
}

/// The nodes of an original file, and how many rows can't be used. Blocks.
pub fn read(path: &Path) -> Result<(Vec<Original>, usize), Error> {
    let not_original =
        |what: &str| Error::NotOriginal { path: path.to_owned(), what: what.to_owned() };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |err: SqliteError| not_original(&err.to_string());
    let db = Connection::open_with_flags(path, flags).map_err(failed)?;
    if !super::is_original(&db).map_err(failed)? {
        return Err(not_original("it has no table of its nodes"));
    }
    let columns = columns(&db)?;
    let mut rows = db.prepare("SELECT * FROM nodes ORDER BY node_id")?;
    let rows = rows.query_map([], |row| Ok(original(row, &columns)))?;
    let (mut nodes, mut unusable) = (Vec::new(), 0);
    for row in rows {
        match row? {
            Some(_) if nodes.len() == NODES_MAX => {
                return Err(not_original(&format!("it has more than {NODES_MAX} nodes")));
            }
            Some(node) => nodes.push(node),
            None => unusable += 1,
        }
    }
    Ok((nodes, unusable))
}

impl Store {
    /// Takes these nodes over, durably.
    pub async fn import(&self, nodes: Vec<Original>, now: Timestamp) -> Result<Imported, Error> {
        let work = move |db: &Connection| {
            let mut done = Imported { taken: 0, kept: 0, unusable: 0 };
            for node in &nodes {
                let count = if put(db, node, now)? { &mut done.taken } else { &mut done.kept };
                *count += 1;
            }
            Ok(done)
        };
        self.writer.change("hub.import", true, work).await
    }
}

fn columns(db: &Connection) -> Result<Vec<String>, SqliteError> {
    let mut rows = db.prepare("SELECT name FROM pragma_table_info('nodes')")?;
    rows.query_map([], |row| row.get(0))?.collect()
}

/// A row; `None` if its name can't be used. Older files lack some columns.
fn original(row: &Row<'_>, columns: &[String]) -> Option<Original> {
    let has = |name: &str| columns.iter().any(|column| column == name);
    // SQLite keeps any type in any column.
    let text = |name: &str| -> Option<String> {
        has(name).then(|| row.get::<_, Option<String>>(name).ok().flatten()).flatten()
    };
    let number = |name: &str| -> Option<i64> {
        has(name).then(|| row.get::<_, Option<i64>>(name).ok().flatten()).flatten()
    };
    let reported = text("last_reported").filter(|it| it == "DOWN");
    let gswarm = serde_json::json!({
        "node_id": text("node_id"), "ip": text("ip"), "meta": text("meta"), "status": reported,
        "gswarm_eoa": text("gswarm_eoa"), "gswarm_tgid": text("gswarm_tgid"),
        "gswarm_peer_ids": text("gswarm_peer_ids"),
    });
    let mut beat = Beat::parse(gswarm.to_string().as_bytes()).ok()?;
    let more = further(&text, &number);
    if !more.is_empty() {
        beat.gswarm.get_or_insert_default().extend(more);
    }
    let seen = number("last_seen").filter(|seconds| *seconds > 0);
    let seen = seen.and_then(|seconds| u64::try_from(seconds).ok());
    Some(Original {
        beat,
        seen: seen.map(|seconds| Timestamp::from_unix_ms(seconds.saturating_mul(1_000))),
        was_up: text("last_state").is_some_and(|it| it == "UP"),
    })
}

/// What the original itself noted of a node on the chain.
fn further(
    text: &impl Fn(&str) -> Option<String>,
    number: &impl Fn(&str) -> Option<i64>,
) -> Map<String, Value> {
    let mut more = Map::new();
    let stats = text("gswarm_stats").filter(|it| it.len() <= beat::BODY_BYTES_MAX);
    if let Some(stats) = stats.and_then(|it| serde_json::from_str::<Value>(&it).ok()) {
        more.insert("stats".to_owned(), stats);
    }
    if let Some(updated) = number("gswarm_updated") {
        more.insert("updated".to_owned(), updated.into());
    }
    if number("gswarm_alert") == Some(0) {
        more.insert("alert".to_owned(), false.into());
    }
    more
}

fn put(db: &Connection, node: &Original, now: Timestamp) -> Result<bool, SqliteError> {
    let Original { beat, seen, was_up } = node;
    let gswarm = beat.gswarm.clone().map(|map| Value::Object(map).to_string());
    let (reported, standing) =
        (if beat.is_down { "DOWN" } else { "UP" }, if *was_up { "up" } else { "down" });
    let seen = seen.map(ms);
    let first = seen.unwrap_or(ms(now));
    let sql = "INSERT INTO nodes (name, ip, meta, reported, beat_ms, gswarm, first_ms, standing, standing_ms) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7) \
               ON CONFLICT (name) DO UPDATE SET ip = excluded.ip, meta = excluded.meta, \
               reported = excluded.reported, beat_ms = excluded.beat_ms, gswarm = excluded.gswarm, \
               first_ms = min(first_ms, excluded.first_ms), standing = excluded.standing, \
               standing_ms = excluded.standing_ms \
               WHERE coalesce(excluded.beat_ms, 0) > coalesce(nodes.beat_ms, 0)";
    let row = params![beat.node_id, beat.ip, beat.meta, reported, seen, gswarm, first, standing];
    let is_taken = db.prepare_cached(sql)?.execute(row)? > 0;
    if is_taken {
        let sql = "INSERT INTO standings (name, at_ms, standing, why) \
                   VALUES (?1, ?2, ?3, 'as the original monitor left it')";
        db.prepare_cached(sql)?.execute(params![beat.node_id, first, standing])?;
    }
    Ok(is_taken)
}

#[cfg(test)]
mod tests;
