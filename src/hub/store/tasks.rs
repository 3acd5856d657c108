//! The list of jobs: those that nodes told of, and those that the hub has sent itself.
//!
//! Must hold: a job that the hub has sent stays as it was asked for; what another node tells of a job that was sent to
//! one counts nowhere; a question reads no more of the tables than lies before the end of the part that it asks for.

use serde_json::Value;

use super::nodes::ms as at_ms;
use super::proplets::Span;
use super::view::{Eyes, all, json, ms, signed};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};

/// The most jobs that the hub has sent and still knows.
pub const TASKS_MAX: u32 = 10_000;

/// How far into the list of jobs one can look.
pub const OFFSET_MAX: u64 = 10_000;

/// The most jobs that are looked at to see how long their kind takes.
const SENT_MAX: u32 = 500;

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
    /// It has sent a job of this id, which was taken out of the queue again.
    Stopped,
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
    /// Where it is, if the hub has sent it.
    pub queue: Queue,
}

/// Where a job is, as far as the hub knows that has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// It is being sent, or NATS gave no answer.
    Unknown,
    /// The queue took it, or somebody else has sent it.
    Sent,
    /// It was taken out of the queue before a node had it.
    Withdrawn,
}

impl Store {
    /// Forgets a job that the queue did not take, unless it took the same job from somebody else.
    pub async fn forget_task(&self, id: String) -> Result<(), Error> {
        self.writer
            .change("hub.task", true, move |db| {
                db.execute("DELETE FROM tasks WHERE id = ?1 AND queue = 0", [&id])?;
                Ok(())
            })
            .await
    }

    /// Notes that the queue took a job, also where somebody who sent the same has forgotten it meanwhile.
    pub async fn sent_task(&self, id: String, asked: Value, now: Timestamp) -> Result<(), Error> {
        self.writer
            .change("hub.task", true, move |db| {
                let put = "INSERT INTO tasks (id, made_ms, body, queue) VALUES (?1, ?2, ?3, 1)
                           ON CONFLICT (id) DO UPDATE SET queue = 1";
                db.execute(put, params![id, at_ms(now), asked.to_string()])?;
                Ok(())
            })
            .await
    }

    /// Notes that a job was taken out of the queue again.
    pub async fn withdrawn_task(&self, id: String) -> Result<(), Error> {
        self.writer
            .change("hub.task", true, move |db| {
                db.execute("UPDATE tasks SET queue = 2 WHERE id = ?1", [&id])?;
                Ok(())
            })
            .await
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
                let before = "SELECT body, queue = 2 FROM tasks WHERE id = ?1";
                let before = db.query_row(before, [&id], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?))
                });
                match before.optional()? {
                    Some((_, true)) => return Ok(Sends::Stopped),
                    Some((body, false)) => return Ok(Sends::Again(json(&body))),
                    None => {}
                }
                if db.prepare_cached("SELECT 1 FROM jobs WHERE job_id = ?1")?.exists([&id])? {
                    return Ok(Sends::Another);
                }
                let put = "INSERT INTO tasks (id, made_ms, body, queue) VALUES (?1, ?2, ?3, 0)
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

impl Eyes {
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
            let count = format!(
                "SELECT (SELECT COUNT(*) FROM jobs) + (SELECT COUNT(*) FROM tasks WHERE {UNTOLD})
                - (SELECT COUNT(*) FROM tasks JOIN jobs ON job_id = id WHERE {OF_ANOTHER})"
            );
            let total = db.query_row(&count, [], |row| ms(row, 0))?;
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

    /// The jobs that the hub sent and of which a node told, the newest first, at most `SENT_MAX`.
    pub async fn sent(&self) -> Result<Vec<Sent>, Error> {
        self.look(|db| {
            let sql = format!(
                "SELECT id, node, body, statuses, is_over FROM tasks
                JOIN jobs ON job_id = id WHERE NOT {OF_ANOTHER} ORDER BY made_ms DESC LIMIT ?"
            );
            all(db, &sql, [SENT_MAX], sent)
        })
        .await
    }

    /// The job of this id: on the node that it was sent to, or else on the one that told of it last.
    pub async fn task(&self, id: String) -> Result<Option<Task>, Error> {
        self.look(move |db| {
            let sql = format!(
                "SELECT job_id, node, first_ms, last_ms, statuses, body, queue
                FROM jobs LEFT JOIN tasks ON id = job_id
                WHERE job_id = ?1 AND NOT {OF_ANOTHER} ORDER BY last_ms DESC LIMIT 1"
            );
            let known = db.query_row(&sql, [&id], task).optional()?;
            if known.is_some() {
                return Ok(known);
            }
            Ok(db.query_row(SENT, [&id], task).optional()?)
        })
        .await
    }
}

/// Of a row of `tasks` and one of `jobs`: whether the job was sent to another node than the one that tells of it.
macro_rules! of_another {
    () => {
        "COALESCE(json_extract(tasks.body, '$.target') LIKE 'dispatch.%'
        AND LOWER(SUBSTR(json_extract(tasks.body, '$.target'), 10)) <> LOWER(jobs.node), 0)"
    };
}

const OF_ANOTHER: &str = of_another!();

/// Of a row of `tasks`: whether no node that it was sent to has told of it.
const UNTOLD: &str =
    concat!("NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = tasks.id AND NOT ", of_another!(), ")");

/// When a job was heard of last, its id, and the node that told of it.
type Place = (u64, String, Option<String>);

/// Which jobs are in this part of the list. Reads no more rows of an index than lie before its end, and no body.
fn places(db: &Connection, span: Span) -> Result<Vec<Place>, SqliteError> {
    let end = signed(span.offset.min(OFFSET_MAX).saturating_add(span.limit));
    let mut places = Vec::new();
    for sql in [
        format!(
            "SELECT last_ms, job_id, node FROM jobs LEFT JOIN tasks ON id = job_id
            WHERE NOT {OF_ANOTHER} ORDER BY last_ms DESC, node DESC, job_id DESC LIMIT ?1"
        ),
        format!(
            "SELECT made_ms, id, NULL FROM tasks WHERE {UNTOLD} ORDER BY made_ms DESC, id DESC LIMIT ?1"
        ),
    ] {
        let mut rows = db.prepare_cached(&sql)?;
        let rows = rows.query_map([end], |row| Ok((ms(row, 0)?, row.get(1)?, row.get(2)?)))?;
        for row in rows {
            places.push(row?);
        }
    }
    places.sort_by_key(|place: &Place| std::cmp::Reverse(place.0));
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
const OF_NODE: &str = "SELECT job_id, node, first_ms, last_ms, statuses, body, queue
    FROM jobs LEFT JOIN tasks ON id = job_id WHERE node = ?1 AND job_id = ?2";
const SENT: &str = "SELECT id, NULL, made_ms, made_ms, '[]', body, queue FROM tasks WHERE id = ?1";

fn task(row: &Row<'_>) -> Result<Task, SqliteError> {
    let asked: Option<String> = row.get(5)?;
    Ok(Task {
        id: row.get(0)?,
        node: row.get(1)?,
        first: ms(row, 2)?,
        last: ms(row, 3)?,
        statuses: json(&row.get::<_, String>(4)?),
        asked: asked.as_deref().map(json),
        queue: match row.get(6)? {
            Some(0) => Queue::Unknown,
            Some(2) => Queue::Withdrawn,
            _ => Queue::Sent,
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FIRST: Span = Span { offset: 0, limit: 10 };

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
    async fn a_job_that_was_not_sent_is_forgotten_unless_somebody_else_sent_it() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let is_known = async || eyes.task("a".to_owned()).await.unwrap().is_some();
        let now = Timestamp::from_unix_ms(5);
        store.keep_task("a".to_owned(), json!({}), now).await.unwrap();
        store.forget_task("a".to_owned()).await.unwrap();
        assert!(!is_known().await);
        // Another request has sent it meanwhile.
        store.sent_task("a".to_owned(), json!({}), now).await.unwrap();
        store.forget_task("a".to_owned()).await.unwrap();
        assert!(is_known().await);
        store.withdrawn_task("a".to_owned()).await.unwrap();
        assert_eq!(eyes.task("a".to_owned()).await.unwrap().unwrap().queue, Queue::Withdrawn);
        let again = store.keep_task("a".to_owned(), json!({}), now).await.unwrap();
        assert_eq!(again, Sends::Stopped, "the queue may still call the same job a duplicate");
    }

    #[tokio::test]
    async fn what_another_node_says_of_a_job_that_was_sent_to_one_does_not_count() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        let asked = json!({"target": "dispatch.0xAb"});
        store.keep_task("a".to_owned(), asked, Timestamp::from_unix_ms(5)).await.unwrap();
        let fill = |row: &'static str| {
            move |db: &Connection| -> Result<(), Error> {
                Ok(db.execute_batch(&format!("INSERT INTO jobs VALUES {row}"))?)
            }
        };
        let forged = fill("('0xff', 'a', 6, 9, 'completed', 1, '[2]')");
        store.writer.call(true, forged).await.unwrap();
        let task = eyes.task("a".to_owned()).await.unwrap().unwrap();
        assert_eq!((&task.node, &task.statuses), (&None, &json!([])));
        assert_eq!(eyes.tasks(FIRST).await.unwrap(), (vec![task], 1));
        assert_eq!(eyes.sent().await.unwrap(), []);
        let own = fill("('0xab', 'a', 6, 7, 'processing', 0, '[1]')");
        store.writer.call(true, own).await.unwrap();
        let task = eyes.task("a".to_owned()).await.unwrap().unwrap();
        assert_eq!((task.node.as_deref(), &task.statuses), (Some("0xab"), &json!([1])));
        assert_eq!(eyes.tasks(FIRST).await.unwrap(), (vec![task], 1));
        let sent = eyes.sent().await.unwrap();
        assert_eq!((sent.len(), &*sent[0].node), (1, "0xab"));
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
