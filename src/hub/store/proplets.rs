//! What nodes and jobs tell live, and the jobs that the hub has sent itself.
//!
//! Must hold: of each node and job the newest [`KEPT`] messages are kept, of at most [`NODES_MAX`] nodes and
//! [`JOBS_MAX`] jobs, those that were heard last; who asks gets at most a page.

use serde_json::Value;

use super::nodes::{SLOT_MS, ms as at_ms};
use super::view::{Eyes, all, json, ms, signed};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};
use crate::usage::heard::{Heard, Kind};

/// How many messages of each are kept.
pub const KEPT: i64 = 100;

/// The most nodes of which messages are kept.
pub const NODES_MAX: u32 = 2_000;

/// The most jobs of which messages are kept.
pub const JOBS_MAX: u32 = 2_000;

/// The most jobs that the hub has sent and still knows.
pub const TASKS_MAX: u32 = 10_000;

/// How far into the list of jobs one can look.
pub const OFFSET_MAX: u64 = 10_000;

/// The most jobs that are looked at to see how long their kind takes.
const SENT_MAX: u32 = 500;

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

/// A job that the hub has sent, and how long it ran.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// Its node, by its address.
    pub node: String,
    /// What was asked for.
    pub asked: Value,
    /// When it began to run, in milliseconds since 1970.
    pub began: Option<u64>,
    /// When it completed.
    pub ended: Option<u64>,
    /// Whether no other status follows.
    pub is_over: bool,
}

/// What the hub knew of a job before it sends it.
#[derive(Debug, Clone, PartialEq)]
pub enum Sends {
    /// Nothing; it is kept now.
    New,
    /// It has sent a job of this id, which was asked for so. That stays.
    Again(Value),
    /// Somebody else has sent a job of this id.
    Another,
}

/// A part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// How many are left out at its beginning.
    pub offset: u64,
    /// The most that are wanted.
    pub limit: u64,
}

/// A job as the hub knows it: what its node told of it, and what it was asked for if the hub has sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The node that told of it last, by its address.
    pub node: Option<String>,
    /// When the hub first heard of it, in milliseconds since 1970.
    pub first: u64,
    /// When last.
    pub last: u64,
    /// Its statuses, in order.
    pub statuses: Value,
    /// What was asked for.
    pub asked: Option<Value>,
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

    /// Forgets a job that could not be sent.
    pub async fn forget_task(&self, id: String) -> Result<(), Error> {
        self.writer.change("hub.task", true, move |db| unsend(db, &id)).await
    }

    /// Keeps a job that the hub sends, unless it knows one of this id.
    pub async fn keep_task(
        &self,
        id: String,
        asked: Value,
        now: Timestamp,
    ) -> Result<Sends, Error> {
        self.writer
            .change("hub.task", true, move |db| {
                let before = "SELECT body FROM tasks WHERE id = ?1";
                let before = db.query_row(before, [&id], |row| row.get::<_, String>(0));
                if let Some(body) = before.optional()? {
                    return Ok(Sends::Again(json(&body)));
                }
                if db.prepare_cached("SELECT 1 FROM jobs WHERE job_id = ?1")?.exists([&id])? {
                    return Ok(Sends::Another);
                }
                let put = "INSERT INTO tasks (id, made_ms, body) VALUES (?1, ?2, ?3)
                           ON CONFLICT (id) DO NOTHING";
                db.execute(put, params![id, at_ms(now), asked.to_string()])?;
                let old = "DELETE FROM tasks WHERE id IN
                           (SELECT id FROM tasks ORDER BY made_ms DESC LIMIT -1 OFFSET ?1)";
                db.execute(old, [TASKS_MAX])?;
                Ok(Sends::New)
            })
            .await
    }
}

/// Forgets a job that could not be sent.
fn unsend(db: &Connection, id: &str) -> Result<(), Error> {
    db.execute("DELETE FROM tasks WHERE id = ?1", [id])?;
    Ok(())
}

/// Whether the node has the job that it tells of, as far as that can be known: only nodes of ours tell statuses.
fn is_running(db: &Connection, heard: &Heard) -> Result<bool, SqliteError> {
    let Some((node, job)) = heard.of_ours() else { return Ok(true) };
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

    /// How many jobs of this node, by its address, are not over.
    pub async fn running(&self, nodes: Vec<String>) -> Result<Vec<u64>, Error> {
        self.look(move |db| {
            let sql = "SELECT COUNT(*) FROM jobs WHERE node = ? AND NOT is_over";
            let mut count = db.prepare_cached(sql)?;
            let counts = nodes.iter().map(|node| count.query_row([node], |row| ms(row, 0)));
            Ok(counts.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// All jobs, those that were heard of last first, and how many there are.
    pub async fn tasks(&self, span: Span) -> Result<(Vec<Task>, u64), Error> {
        self.look(move |db| {
            let count = "SELECT (SELECT COUNT(*) FROM jobs) + (SELECT COUNT(*) FROM tasks
                WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = tasks.id))";
            let total = db.query_row(count, [], |row| ms(row, 0))?;
            let mut tasks = Vec::new();
            for (_, id, node) in places(db, span)? {
                tasks.extend(match node {
                    Some(node) => {
                        db.prepare_cached(OF_NODE)?.query_row([node, id], task).optional()?
                    }
                    None => db.prepare_cached(SENT)?.query_row([id], task).optional()?,
                });
            }
            Ok((tasks, total))
        })
        .await
    }

    /// The jobs that the hub sent and of which a node told, the newest first, at most [`SENT_MAX`].
    pub async fn sent(&self) -> Result<Vec<Sent>, Error> {
        self.look(|db| {
            let sql = "SELECT id, node, body, statuses, is_over FROM tasks
                JOIN jobs ON job_id = id ORDER BY made_ms DESC LIMIT ?";
            all(db, sql, [SENT_MAX], sent)
        })
        .await
    }

    /// The job of this id: on the node that told of it last.
    pub async fn task(&self, id: String) -> Result<Option<Task>, Error> {
        self.look(move |db| {
            let sql = "SELECT job_id, node, first_ms, last_ms, statuses,
                (SELECT body FROM tasks WHERE id = job_id) FROM jobs WHERE job_id = ?1
                ORDER BY last_ms DESC LIMIT 1";
            let known = db.query_row(sql, [&id], task).optional()?;
            if known.is_some() {
                return Ok(known);
            }
            Ok(db.query_row(SENT, [&id], task).optional()?)
        })
        .await
    }
}

/// When a job was heard of last, its id, and the node that told of it.
type Place = (u64, String, Option<String>);

/// Which jobs are in this part of the list. Reads no more rows of an index than lie before its end, and no body.
fn places(db: &Connection, span: Span) -> Result<Vec<Place>, SqliteError> {
    let end = signed(span.offset.min(OFFSET_MAX).saturating_add(span.limit));
    let mut places = Vec::new();
    for sql in [
        "SELECT last_ms, job_id, node FROM jobs
            ORDER BY last_ms DESC, node DESC, job_id DESC LIMIT ?1",
        "SELECT made_ms, id, NULL FROM tasks
            WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = tasks.id)
            ORDER BY made_ms DESC, id DESC LIMIT ?1",
    ] {
        let mut rows = db.prepare_cached(sql)?;
        let rows = rows.query_map([end], |row| Ok((ms(row, 0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            places.push(row?);
        }
    }
    places.sort_by(|one: &Place, other| other.0.cmp(&one.0));
    let skip = usize::try_from(span.offset).unwrap_or(usize::MAX);
    let take = usize::try_from(span.limit).unwrap_or(usize::MAX);
    Ok(places.into_iter().skip(skip).take(take).collect())
}

fn sent(row: &Row<'_>) -> Result<Sent, SqliteError> {
    let statuses = json(&row.get::<_, String>(3)?);
    let at = |stage: &str| {
        let mut all = statuses.as_array()?.iter().filter_map(|it| it.get("status"));
        let found = all.find(|it| it.get("stage").is_some_and(|it| it == stage))?;
        Some(found.get("timestamp")?.as_str()?.parse::<Timestamp>().ok()?.unix_ms())
    };
    Ok(Sent {
        id: row.get(0)?,
        node: row.get(1)?,
        asked: json(&row.get::<_, String>(2)?),
        began: at("running"),
        ended: at("completed"),
        is_over: row.get(4)?,
    })
}

/// A job that a node told of, and one that the hub has sent.
const OF_NODE: &str = "SELECT job_id, node, first_ms, last_ms, statuses,
    (SELECT body FROM tasks WHERE id = job_id) FROM jobs WHERE node = ?1 AND job_id = ?2";
const SENT: &str = "SELECT id, NULL, made_ms, made_ms, '[]', body FROM tasks WHERE id = ?1";

fn task(row: &Row<'_>) -> Result<Task, SqliteError> {
    let asked: Option<String> = row.get(5)?;
    Ok(Task {
        id: row.get(0)?,
        node: row.get(1)?,
        first: ms(row, 2)?,
        last: ms(row, 3)?,
        statuses: json(&row.get::<_, String>(4)?),
        asked: asked.as_deref().map(json),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
    async fn the_list_of_jobs_is_one_list_whoever_told_of_them() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let fill = |db: &Connection| -> Result<(), Error> {
            for at in (0..10).filter(|at| at % 3 != 0) {
                let row = params![format!("j{at}"), at];
                db.execute("INSERT INTO jobs VALUES ('0xa', ?1, 0, ?2, 'x', 0, '[]')", row)?;
            }
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        for at in (0..10).filter(|at| at % 3 == 0) {
            let now = Timestamp::from_unix_ms(at);
            store.keep_task(format!("j{at}"), json!({}), now).await.unwrap();
        }
        let mut ids = Vec::new();
        for offset in [0, 4, 8] {
            let (tasks, total) = eyes.tasks(Span { offset, limit: 4 }).await.unwrap();
            assert_eq!(total, 10);
            ids.extend(tasks.into_iter().map(|it| it.id));
        }
        assert_eq!(ids, (0..10).rev().map(|at| format!("j{at}")).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_job_that_is_sent_again_changes_nothing_and_anothers_is_not_taken_over() {
        let store = Store::in_memory().unwrap();
        let sends = async |id: &str, number: u64| {
            let now = Timestamp::from_unix_ms(number);
            store.keep_task(id.to_owned(), json!(number), now).await.unwrap()
        };
        assert_eq!(sends("a", 1).await, Sends::New);
        assert_eq!(sends("a", 2).await, Sends::Again(json!(1)));
        assert_eq!(sends("a", 3).await, Sends::Again(json!(1)));
        let fill = |db: &Connection| -> Result<(), Error> {
            Ok(db.execute_batch("INSERT INTO jobs VALUES ('0xa', 'b', 6, 7, 'x', 0, '[]')")?)
        };
        store.writer.call(true, fill).await.unwrap();
        assert_eq!(sends("b", 4).await, Sends::Another);
        assert_eq!(Eyes::of(store).task("b".to_owned()).await.unwrap().unwrap().asked, None);
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

    #[tokio::test]
    async fn a_job_that_the_hub_sent_is_there_before_a_node_tells_of_it_and_once_afterwards() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let now = Timestamp::from_unix_ms(5);
        store.keep_task("a".to_owned(), json!({"name": "n"}), now).await.unwrap();
        let task = eyes.task("a".to_owned()).await.unwrap().unwrap();
        assert_eq!((task.node, task.asked), (None, Some(json!({"name": "n"}))));
        let fill = |db: &Connection| -> Result<(), Error> {
            let sql = "INSERT INTO jobs VALUES ('0xa', 'a', 6, 7, 'processing', 0, '[1]'),
                ('0xa', 'b', 1, 2, 'completed', 1, '[]')";
            Ok(db.execute_batch(sql)?)
        };
        store.writer.call(true, fill).await.unwrap();
        let (tasks, total) = eyes.tasks(FIRST).await.unwrap();
        let ids: Vec<&str> = tasks.iter().map(|task| &*task.id).collect();
        assert_eq!((total, ids), (2, vec!["a", "b"]));
        assert_eq!((&tasks[0].node, &tasks[0].statuses), (&Some("0xa".to_owned()), &json!([1])));
        assert_eq!(eyes.running(vec!["0xa".to_owned()]).await.unwrap(), [1]);
        assert_eq!(eyes.task("c".to_owned()).await.unwrap(), None);
    }
}
