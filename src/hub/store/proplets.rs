//! What nodes and jobs tell live.
//!
//! Must hold: of each node and job the newest [`KEPT`] messages are kept, of at most [`NODES_MAX`] nodes and
//! [`JOBS_MAX`] jobs, those that were heard last; who asks gets at most a page.

use serde_json::Value;

use super::nodes::{SLOT_MS, ms as at_ms};
use super::view::{Eyes, all, json, ms, signed};
use super::{Error, Store};
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};
use crate::usage::heard::{Heard, Kind};

/// How many messages of each are kept.
pub const KEPT: i64 = 100;

/// The most nodes of which messages are kept.
pub const NODES_MAX: u32 = 2_000;

/// The most jobs of which messages are kept.
pub const JOBS_MAX: u32 = 2_000;

/// Who tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// A node.
    Node,
    /// A job.
    Job,
}

impl Teller {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Job => "job",
        }
    }

    const fn most(self) -> u32 {
        match self {
            Self::Node => NODES_MAX,
            Self::Job => JOBS_MAX,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How many are left out at its beginning.
    pub offset: u64,
    /// The most that are wanted.
    pub limit: u64,
}

impl Store {
    /// Keeps what was told, and returns that. `knows_jobs`: whether the hub hears what becomes of jobs; then what a node of
    /// ours is said to have told of a job counts only while the node has that job.
    pub async fn keep_told(
        &self,
        heard: Vec<Heard>,
        knows_jobs: bool,
    ) -> Result<Vec<Heard>, Error> {
        self.writer
            .change("hub.told", false, move |db| {
                let mut kept = Vec::with_capacity(heard.len());
                for one in &heard {
                    if !knows_jobs || is_running(db, one)? {
                        keep(db, one)?;
                        kept.push(one.clone());
                    }
                }
                Ok(kept)
            })
            .await
    }
}

/// Whether the node has the job that it tells of, as far as that can be known: only nodes of ours tell statuses, and of
/// their jobs nobody else tells anything.
fn is_running(db: &Connection, heard: &Heard) -> Result<bool, SqliteError> {
    let Some((node, job)) = heard.of_ours() else {
        let Some(job) = &heard.job else { return Ok(true) };
        let sql = "SELECT 1 FROM jobs WHERE job_id = ?1
                   UNION ALL SELECT 1 FROM tasks WHERE id = ?1";
        return Ok(!db.prepare_cached(sql)?.exists([job])?);
    };
    let sql = "SELECT 1 FROM jobs WHERE node = ?1 AND job_id = ?2 AND NOT is_over";
    db.prepare_cached(sql)?.exists([node, job])
}

fn keep(db: &Connection, heard: &Heard) -> Result<(), SqliteError> {
    let at = at_ms(heard.at);
    if heard.kind == Kind::Alive {
        meet(db, Teller::Node, &heard.node, at, 0)?;
        let put = "INSERT INTO alive (id, slot) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        let slot = at / SLOT_MS.cast_signed();
        return db.prepare_cached(put)?.execute(params![heard.node, slot]).map(drop);
    }
    let (teller, id) = match &heard.job {
        Some(job) => (Teller::Job, job),
        None => (Teller::Node, &heard.node),
    };
    let number = meet(db, teller, id, at, 1)?;
    let put = "INSERT INTO told (kind, id, place, number, body) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (kind, id, place) DO UPDATE SET number = ?4, body = ?5";
    let row = params![teller.as_str(), id, number % KEPT, number, heard.body.to_string()];
    db.prepare_cached(put)?.execute(row).map(drop)
}

/// Notes that somebody was heard, and counts the message, if `by` is 1. Its number. Makes room for one that is new.
fn meet(db: &Connection, teller: Teller, id: &str, at: i64, by: i64) -> Result<i64, SqliteError> {
    let kind = teller.as_str();
    let known = "SELECT 1 FROM tellers WHERE kind = ?1 AND id = ?2";
    let is_known =
        db.prepare_cached(known)?.query_row([kind, id], |_| Ok(())).optional()?.is_some();
    if !is_known {
        make_room(db, teller)?;
    }
    let put = "INSERT INTO tellers (kind, id, number, last_ms) VALUES (?1, ?2, ?4 - 1, ?3)
               ON CONFLICT (kind, id) DO UPDATE SET number = number + ?4, last_ms = MAX(last_ms, ?3)
               RETURNING number";
    db.prepare_cached(put)?.query_row(params![kind, id, at, by], |row| row.get(0))
}

/// Forgets those that were not heard for longest, so that there is a place.
fn make_room(db: &Connection, teller: Teller) -> Result<(), SqliteError> {
    let kind = teller.as_str();
    let over = "SELECT id FROM tellers WHERE kind = ?1 ORDER BY last_ms DESC LIMIT -1 OFFSET ?2";
    let mut over = db.prepare_cached(over)?;
    let most = teller.most().saturating_sub(1);
    let ids = over.query_map(params![kind, most], |row| row.get::<_, String>(0))?;
    for id in ids.collect::<Result<Vec<_>, _>>()? {
        forget(db, teller, &id)?;
    }
    Ok(())
}

fn forget(db: &Connection, teller: Teller, id: &str) -> Result<(), SqliteError> {
    let kind = teller.as_str();
    db.prepare_cached("DELETE FROM told WHERE kind = ?1 AND id = ?2")?.execute([kind, id])?;
    db.prepare_cached("DELETE FROM tellers WHERE kind = ?1 AND id = ?2")?.execute([kind, id])?;
    if teller == Teller::Node {
        db.prepare_cached("DELETE FROM alive WHERE id = ?1")?.execute([id])?;
    }
    Ok(())
}

impl Eyes {
    /// What this node or job has told, the newest first, and how much there is.
    pub async fn told(
        &self,
        teller: Teller,
        id: String,
        span: Span,
    ) -> Result<(Vec<Value>, u64), Error> {
        self.look(move |db| {
            let key = [teller.as_str(), id.as_str()];
            let count = "SELECT COUNT(*) FROM told WHERE kind = ? AND id = ?";
            let total = db.query_row(count, key, |row| ms(row, 0))?;
            let sql = "SELECT body FROM told WHERE kind = ? AND id = ?
                ORDER BY number DESC LIMIT ? OFFSET ?";
            let with = params![key[0], key[1], signed(span.limit), signed(span.offset)];
            let rows = all(db, sql, with, |row| Ok(json(&row.get::<_, String>(0)?)))?;
            Ok((rows, total))
        })
        .await
    }

    /// When a node was there, by its own beats under its name and by what it says on NATS under its id: the beginning
    /// of each five minutes, in milliseconds since 1970, the oldest first; and how many there are.
    pub async fn alive_at(
        &self,
        name: String,
        id: String,
        span: Span,
    ) -> Result<(Vec<u64>, u64), Error> {
        self.look(move |db| {
            let both =
                "SELECT slot FROM slots WHERE name = ?1 UNION SELECT slot FROM alive WHERE id = ?2";
            let count = format!("SELECT COUNT(*) FROM ({both})");
            let total = db.query_row(&count, [&name, &id], |row| ms(row, 0))?;
            let sql = format!("SELECT slot FROM ({both}) ORDER BY slot LIMIT ?3 OFFSET ?4");
            let with = params![name, id, signed(span.limit), signed(span.offset)];
            let at = |row: &Row<'_>| Ok(ms(row, 0)?.saturating_mul(SLOT_MS));
            Ok((all(db, &sql, with, at)?, total))
        })
        .await
    }

    /// The nodes that have told something, and when they were heard last.
    pub async fn tellers(&self) -> Result<Vec<(String, u64)>, Error> {
        self.look(|db| {
            let sql = "SELECT id, last_ms FROM tellers WHERE kind = 'node' ORDER BY id";
            all(db, sql, [], |row| Ok((row.get(0)?, ms(row, 1)?)))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;

    const FIRST: Span = Span { offset: 0, limit: 10 };

    fn heard(kind: Kind, node: &str, job: Option<&str>, at: u64) -> Heard {
        let at = Timestamp::from_unix_ms(at);
        let body = json!({"at": at.unix_ms()});
        Heard { kind, node: node.to_owned(), job: job.map(str::to_owned), at, body }
    }

    #[tokio::test]
    async fn the_newest_hundred_messages_of_each_are_kept_and_read_in_pages() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let told = (0..250).map(|at| heard(Kind::Job, "n", Some("j"), at));
        store.keep_told(told.collect(), true).await.unwrap();
        store.keep_told(vec![heard(Kind::Node, "n", None, 7)], true).await.unwrap();
        let span = Span { offset: 98, limit: 10 };
        let (rows, total) = eyes.told(Teller::Job, "j".to_owned(), span).await.unwrap();
        assert_eq!((total, rows), (100, vec![json!({"at": 151}), json!({"at": 150})]));
        let (rows, total) = eyes.told(Teller::Node, "n".to_owned(), FIRST).await.unwrap();
        assert_eq!((total, &rows[0]["at"]), (1, &7.into()));
    }

    #[tokio::test]
    async fn what_a_node_of_ours_tells_of_a_job_counts_while_it_has_that_job() {
        let store = Store::in_memory().unwrap();
        let node = "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed";
        let fill = move |db: &Connection| -> Result<(), Error> {
            let sql = "INSERT INTO jobs VALUES (?1, 'runs', 1, 2, 'x', 0, '[]'),
                (?1, 'over', 1, 2, 'x', 1, '[]'), ('0xb', 'others', 1, 2, 'x', 0, '[]')";
            db.execute(sql, [node])?;
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let told =
            ["runs", "over", "others", "none"].map(|job| heard(Kind::Job, node, Some(job), 5));
        let foreign = heard(Kind::Job, "550e8400-e29b", Some("t"), 5);
        let told = [told.to_vec(), vec![foreign]].concat();
        let jobs = |kept: Vec<Heard>| kept.into_iter().filter_map(|it| it.job).collect::<Vec<_>>();
        let kept = store.keep_told(told.clone(), true).await.unwrap();
        assert_eq!(jobs(kept), ["runs", "t"]);
        assert_eq!(store.keep_told(told, false).await.unwrap().len(), 5, "nobody knows of jobs");
    }

    #[tokio::test]
    async fn whoever_invents_nodes_and_jobs_pushes_out_the_oldest_and_no_more_are_kept() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        store.keep_told(vec![heard(Kind::Alive, "first", None, 1)], true).await.unwrap();
        let all = (0..u64::from(NODES_MAX))
            .map(|it| heard(Kind::Alive, &format!("n{it}"), None, SLOT_MS + it));
        store.keep_told(all.collect(), true).await.unwrap();
        let tellers = eyes.tellers().await.unwrap();
        assert_eq!(tellers.len(), NODES_MAX as usize);
        assert!(!tellers.iter().any(|(id, _)| id == "first"));
        let (at, _) = eyes.alive_at(String::new(), "first".to_owned(), FIRST).await.unwrap();
        assert_eq!(at, [] as [u64; 0]);
    }

    #[tokio::test]
    async fn a_node_was_there_in_each_five_minutes_in_which_it_beat_or_said_so() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let fill = |db: &Connection| -> Result<(), Error> {
            Ok(db.execute_batch("INSERT INTO slots VALUES ('name', 1), ('name', 2)")?)
        };
        store.writer.call(true, fill).await.unwrap();
        let told = [2 * SLOT_MS + 5, 2 * SLOT_MS + 9, 4 * SLOT_MS];
        let told = told.map(|at| heard(Kind::Alive, "0xa", None, at));
        store.keep_told(told.to_vec(), true).await.unwrap();
        let span = Span { offset: 1, limit: 10 };
        let (at, total) = eyes.alive_at("name".to_owned(), "0xa".to_owned(), span).await.unwrap();
        assert_eq!((total, at), (3, vec![2 * SLOT_MS, 4 * SLOT_MS]));
    }
}
