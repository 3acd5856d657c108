//! What the pages read from the tables: a node's history, alerts, events, jobs.
//!
//! Must hold: nothing is written here; every answer is bounded in rows, and every search in the rows that it
//! looks at.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::{
    Connection, OpenFlags, OptionalExtension as _, Params, Row, SqliteError, ToSql, params,
};

/// How long a read waits for a checkpoint.
const BUSY: Duration = Duration::from_secs(5);

/// The length of a slot, in milliseconds.
pub const SLOT_MS: u64 = 300_000;

/// How many slots of a node are shown: five hours.
const SLOTS: u64 = 60;

/// A hub that is there says so at least as often, in milliseconds: until then it counts as still there.
const WATCH_LAG_MS: u64 = 30_000;

/// The most changes of a node's standing.
const STANDINGS_MAX: u32 = 50;

/// The most events in an answer, and the most that are looked at for it.
const EVENTS_MAX: u32 = 200;
const EVENTS_SEEN_MAX: u32 = 20_000;

/// The most jobs of a node.
const JOBS_MAX: u32 = 50;

/// Who reads the tables. Clones share it.
#[derive(Debug, Clone)]
pub struct Eyes(From);

#[derive(Debug, Clone)]
enum From {
    /// Connections of its own, which only read: one for what takes milliseconds, and one for what may take seconds.
    File { quick: Arc<Mutex<Connection>>, long: Arc<Mutex<Connection>> },
    /// The writer's thread: of a store in memory there is no other connection.
    Writer(Store),
}

/// How a node stood from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stood {
    /// Since when, in milliseconds since 1970.
    pub at: u64,
    /// How.
    pub standing: String,
    /// Why.
    pub why: String,
}

/// Whether a node's own beat came in five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slot {
    /// It came.
    Seen,
    /// It did not, and the hub was there all the time.
    Missed,
    /// It did not, and the hub was not always there, or did not know the node.
    NotWatched,
    /// It did not yet.
    Open,
}

/// A node's past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Past {
    /// How it stood, the newest first.
    pub standings: Vec<Stood>,
    /// The number of the first slot: times 300,000, it is when that began.
    pub first_slot: u64,
    /// Its slots, the last one being that of now.
    pub slots: Vec<Slot>,
}

/// Which events are asked for.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Only those that the hub got before this one.
    pub before: Option<i64>,
    /// Only those of these levels; all, if it is empty.
    pub levels: Vec<String>,
    /// Only those of this node, by the name in the table.
    pub node: Option<String>,
}

/// Some events, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Events {
    /// The events.
    pub rows: Vec<EventRow>,
    /// What `before` is for those that follow; `None` at the end.
    pub next: Option<i64>,
}

/// An event as the hub keeps it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventRow {
    /// The hub's number of it.
    pub id: i64,
    /// Its sequence number in its stream.
    pub seq: Option<i64>,
    /// When it happened.
    pub at: u64,
    /// The node's address.
    pub node: String,
    /// The job that it is about.
    pub job: Option<String>,
    /// How much it matters.
    pub level: String,
    /// The event.
    pub body: Value,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JobRow {
    /// Its id.
    pub job: String,
    /// When the hub first heard of it.
    pub first: u64,
    /// When last.
    pub last: u64,
    /// Its last status.
    pub status: String,
    /// Whether no other status follows.
    pub is_over: bool,
}

/// A job and all that was told of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// The job.
    #[serde(flatten)]
    pub row: JobRow,
    /// Its statuses, in order.
    pub statuses: Value,
}

impl Eyes {
    /// Opens the database that the hub has created. Blocks.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let db = Connection::open_with_flags(path, flags)?;
            db.busy_timeout(BUSY)?;
            Ok::<_, Error>(Arc::new(Mutex::new(db)))
        };
        Ok(Self(From::File { quick: open()?, long: open()? }))
    }

    /// Reads by the store's own thread, for a store in memory.
    pub const fn of(store: Store) -> Self {
        Self(From::Writer(store))
    }

    /// The node's past, of which `first` is when the hub first heard of it.
    pub async fn past(
        &self,
        name: String,
        first: Timestamp,
        now: Timestamp,
    ) -> Result<Past, Error> {
        self.look(move |db| {
            let standings = "SELECT at_ms, standing, why FROM standings WHERE name = ?
                ORDER BY at_ms DESC LIMIT ?";
            let stood = |row: &Row<'_>| {
                Ok(Stood { at: ms(row, 0)?, standing: row.get(1)?, why: row.get(2)? })
            };
            let standings = all(db, standings, params![name, STANDINGS_MAX], stood)?;
            let (first_slot, slots) = slots(db, &name, first, now)?;
            Ok(Past { standings, first_slot, slots })
        })
        .await
    }

    /// Events, the newest first.
    pub async fn events(&self, query: EventQuery) -> Result<Events, Error> {
        self.look(move |db| events(db, &query)).await
    }

    /// The newest jobs of a node, by its address.
    pub async fn jobs(&self, node: String) -> Result<Vec<JobRow>, Error> {
        self.look(move |db| {
            let sql = "SELECT job_id, first_ms, last_ms, status, is_over FROM jobs
                WHERE node = ? ORDER BY last_ms DESC, job_id LIMIT ?";
            all(db, sql, params![node, JOBS_MAX], job_row)
        })
        .await
    }

    /// One job of a node.
    pub async fn job(&self, node: String, job: String) -> Result<Option<Told>, Error> {
        self.look(move |db| {
            let sql = "SELECT job_id, first_ms, last_ms, status, is_over, statuses FROM jobs
                WHERE node = ? AND job_id = ?";
            let told = |row: &Row<'_>| {
                Ok(Told { row: job_row(row)?, statuses: json(&row.get::<_, String>(5)?) })
            };
            Ok(db.query_row(sql, params![node, job], told).optional()?)
        })
        .await
    }

    /// Whether a job of a node is over; `None` if the hub has heard of no such job.
    pub async fn is_over(&self, node: String, job: String) -> Result<Option<bool>, Error> {
        self.look(move |db| {
            let sql = "SELECT is_over FROM jobs WHERE node = ? AND job_id = ?";
            Ok(db.query_row(sql, params![node, job], |row| row.get(0)).optional()?)
        })
        .await
    }

    /// Looks at the tables, for milliseconds.
    pub(super) async fn look<T, F>(&self, look: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        match &self.0 {
            From::Writer(store) => store.writer.call_aside(look).await,
            From::File { quick, .. } => read(quick, look).await,
        }
    }

    /// As [`Eyes::look`], where it may take seconds: the other questions don't wait for it.
    pub(super) async fn look_long<T, F>(&self, look: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        match &self.0 {
            From::Writer(store) => store.writer.call_aside(look).await,
            From::File { long, .. } => read(long, look).await,
        }
    }
}

/// Reads on a connection. Who waits for it holds no thread, and who has gone meanwhile holds the connection until the read
/// has ended.
async fn read<T, F>(db: &Arc<Mutex<Connection>>, look: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
{
    let db = Arc::clone(db).lock_owned().await;
    match tokio::task::spawn_blocking(move || look(&db)).await {
        Ok(read) => read,
        Err(err) => Err(Error::Sql(crate::sql::Error::Failed(err.into()))),
    }
}

/// The number of the first slot, and all of them.
fn slots(
    db: &Connection,
    name: &str,
    first: Timestamp,
    now: Timestamp,
) -> Result<(u64, Vec<Slot>), Error> {
    let now = now.unix_ms();
    let last = now / SLOT_MS;
    let begin = last.saturating_sub(SLOTS - 1);
    let seen = "SELECT slot FROM slots WHERE name = ? AND slot BETWEEN ? AND ?";
    let range = params![name, signed(begin), signed(last)];
    let seen: BTreeSet<u64> = all(db, seen, range, |row| ms(row, 0))?.into_iter().collect();
    let watched = "SELECT from_ms, to_ms FROM watches WHERE to_ms >= ? ORDER BY from_ms LIMIT 1000";
    let pair = |row: &Row<'_>| Ok((ms(row, 0)?, ms(row, 1)?));
    let watched = all(db, watched, [signed(begin * SLOT_MS)], pair)?;
    let is_watched = |from: u64, to: u64| {
        let holds = |&(since, until): &(u64, u64)| {
            let until = if until + WATCH_LAG_MS >= now { now } else { until };
            since <= from && to <= until
        };
        first.unix_ms() <= from && watched.iter().any(holds)
    };
    let slot = |number: u64| match () {
        () if seen.contains(&number) => Slot::Seen,
        () if number == last => Slot::Open,
        () if is_watched(number * SLOT_MS, (number + 1) * SLOT_MS) => Slot::Missed,
        () => Slot::NotWatched,
    };
    Ok((begin, (begin..=last).map(slot).collect()))
}

fn events(db: &Connection, query: &EventQuery) -> Result<Events, Error> {
    let before = query.before.unwrap_or(i64::MAX);
    let window = match query.node {
        Some(_) => "WHERE node = ? AND id < ?",
        None => "WHERE id < ?",
    };
    let sql = format!(
        "SELECT id, seq, at_ms, node, job_id, level, body FROM events {window}
         ORDER BY id DESC LIMIT {EVENTS_SEEN_MAX}"
    );
    let mut wanted: Vec<&dyn ToSql> = query.node.iter().map(|node| node as &dyn ToSql).collect();
    wanted.push(&before);
    let mut statement = db.prepare_cached(&sql)?;
    let mut found = statement.query(&*wanted)?;
    let (mut rows, mut looked_at) = (Vec::new(), 0);
    let mut next = None;
    while let Some(row) = found.next()? {
        looked_at += 1;
        let (id, level): (i64, String) = (row.get(0)?, row.get(5)?);
        if query.levels.is_empty() || query.levels.contains(&level) {
            rows.push(EventRow {
                id,
                seq: row.get(1)?,
                at: ms(row, 2)?,
                node: row.get(3)?,
                job: row.get(4)?,
                level,
                body: json(&row.get::<_, String>(6)?),
            });
        }
        if rows.len() >= EVENTS_MAX as usize || looked_at >= EVENTS_SEEN_MAX {
            next = Some(id);
            break;
        }
    }
    Ok(Events { rows, next })
}

fn job_row(row: &Row<'_>) -> Result<JobRow, SqliteError> {
    Ok(JobRow {
        job: row.get(0)?,
        first: ms(row, 1)?,
        last: ms(row, 2)?,
        status: row.get(3)?,
        is_over: row.get(4)?,
    })
}

/// The rows that this finds.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    with: impl Params,
    read: impl Fn(&Row<'_>) -> Result<T, SqliteError>,
) -> Result<Vec<T>, Error> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(with, |row| read(row))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A time or number that is not negative.
pub(super) fn ms(row: &Row<'_>, column: usize) -> Result<u64, SqliteError> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The JSON of a column; what is none is shown as the text that it is.
pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment within slot 100.
    const NOW: u64 = 100 * SLOT_MS + 60_000;

    async fn filled(sql: &'static str) -> (Store, Eyes) {
        let store = Store::in_memory().unwrap();
        let fill = move |db: &Connection| -> Result<(), Error> { Ok(db.execute_batch(sql)?) };
        store.writer.call(true, fill).await.unwrap();
        let eyes = Eyes::of(store.clone());
        (store, eyes)
    }

    #[tokio::test]
    async fn a_slot_is_missed_only_if_the_hub_was_there_all_the_time() {
        let (_store, eyes) = filled(
            // Away from 97.5 to 98.5; its last word is 20 s old.
            "INSERT INTO watches VALUES (0, 29250000), (29550000, 30040000);
             INSERT INTO slots VALUES ('a', 95), ('a', 98), ('b', 96);
             INSERT INTO standings VALUES ('a', 1, 'up', 'x'), ('a', 2, 'down', 'y'), ('b', 3, 'up', 'z');",
        )
        .await;
        let first = Timestamp::from_unix_ms(93 * SLOT_MS + 1);
        let past = eyes.past("a".to_owned(), first, Timestamp::from_unix_ms(NOW)).await.unwrap();
        assert_eq!((past.first_slot, past.slots.len()), (41, 60));
        let last: Vec<Slot> = past.slots[52..].to_vec();
        let expected = [
            // 93: it was not known from the start. 97, 98: the hub was away.
            Slot::NotWatched,
            Slot::Missed,
            Slot::Seen,
            Slot::Missed,
            Slot::NotWatched,
            Slot::Seen,
            Slot::Missed,
            Slot::Open,
        ];
        assert_eq!(last, expected);
        let stood: Vec<_> = past.standings.iter().map(|it| (it.at, &*it.standing)).collect();
        assert_eq!(stood, [(2, "down"), (1, "up")]);
    }

    #[tokio::test]
    async fn events_are_read_in_pages_by_level_and_node() {
        let (store, eyes) = filled("").await;
        let fill = |db: &Connection| -> Result<(), Error> {
            let sql = "INSERT INTO events (id, seq, at_ms, node, job_id, level, body)
                VALUES (?1, ?1 + 7000, ?1, ?2, NULL, ?3, '{\"message\":\"<b>\"}')";
            for id in 1..=450_i64 {
                let node = if id % 10 == 0 { "0xa" } else { "0xb" };
                db.execute(sql, params![id, node, if id % 2 == 0 { "info" } else { "error" }])?;
            }
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let first = eyes.events(EventQuery::default()).await.unwrap();
        assert_eq!((first.rows.len(), first.rows[0].id, first.next), (200, 450, Some(251)));
        assert_eq!(first.rows[0].body["message"], "<b>");
        let query = EventQuery { before: first.next, ..EventQuery::default() };
        let second = eyes.events(query).await.unwrap();
        assert_eq!((second.rows[0].id, second.next), (250, Some(51)));
        let query = EventQuery { levels: vec!["error".to_owned()], ..EventQuery::default() };
        let errors = eyes.events(query).await.unwrap();
        assert_eq!((errors.rows[0].id, errors.rows[1].id), (449, 447));
        let query = EventQuery { node: Some("0xa".to_owned()), ..EventQuery::default() };
        let of_a = eyes.events(query).await.unwrap();
        assert_eq!((of_a.rows.len(), of_a.rows[0].seq, of_a.next), (45, Some(7450), None));
    }

    #[tokio::test]
    async fn a_reader_of_its_own_sees_what_is_committed_and_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.db");
        let store = Store::open(&path).unwrap();
        let eyes = Eyes::open(&path).unwrap();
        let fill = |db: &Connection| -> Result<(), Error> {
            let sql =
                "INSERT INTO jobs VALUES ('0xa', 'j1', 1, 5, 'completed', 1, '[{\"seq\":1}]'),
                ('0xa', 'j2', 2, 9, 'processing', 0, 'no JSON')";
            db.execute_batch(sql)?;
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let jobs = eyes.jobs("0xa".to_owned()).await.unwrap();
        assert_eq!(jobs.iter().map(|job| &*job.job).collect::<Vec<_>>(), ["j2", "j1"]);
        let told = eyes.job("0xa".to_owned(), "j1".to_owned()).await.unwrap().unwrap();
        assert_eq!((told.row.is_over, &told.statuses[0]["seq"]), (true, &Value::from(1)));
        assert_eq!(eyes.job("0xb".to_owned(), "j1".to_owned()).await.unwrap(), None);
        let write = |db: &Connection| Ok(db.execute("DELETE FROM jobs", [])?);
        assert!(eyes.look(write).await.is_err());
    }
}
