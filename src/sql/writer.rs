//! The one thread that owns the database. Requests queue up, and those that wait at the same time share a
//! commit.
//!
//! Invariants: a request is answered only after the commit that holds it. A request that fails is rolled back
//! alone, without the others of its batch.

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use tokio::sync::{oneshot, watch};

use super::checkpoint::Carrier;
use super::request::{Answer, Request, Work};
use super::simulated::{Disk, Gate, Simulated};
use super::{Connection, Error, Schema, room};
use crate::failpoint;

/// Upper bound on the requests in one commit. It bounds the time until the first of them is answered.
const BATCH_MAX: usize = 64;

/// A handle to the thread that owns a database. Clones share it, and it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Writer(pub(super) To);

/// Where requests go.
#[derive(Debug, Clone)]
pub(super) enum To {
    /// To the thread that owns the database.
    Thread {
        /// The thread's queue of requests.
        requests: mpsc::Sender<Request>,
        /// Whether the log waits for a checkpoint; `None` in memory.
        long: Option<watch::Receiver<bool>>,
    },
    /// To a simulated disk, one after the other.
    Simulated(Arc<Simulated>),
}

impl Writer {
    /// A writer on a simulated disk. Unlike on a real disk, it can be started while an earlier handle exists:
    /// that one belongs to a process that was killed.
    pub fn simulated(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        Self(To::Simulated(Arc::new(Simulated::new(disk, gate))))
    }

    /// Prepares the database and starts the thread, which ends when the last handle is dropped and holds
    /// `lock` until then.
    pub fn start(
        db: Connection,
        schema: &Schema,
        lock: Option<std::fs::File>,
        path: &Path,
    ) -> Result<Self, Error> {
        Self::start_in_batches(db, schema, lock, path, BATCH_MAX)
    }

    /// As [`Writer::start`], with at most so many requests in one commit, for who has many small ones.
    pub fn start_in_batches(
        mut db: Connection,
        schema: &Schema,
        lock: Option<std::fs::File>,
        path: &Path,
        batch_max: usize,
    ) -> Result<Self, Error> {
        schema.prepare(&mut db, path)?;
        // Reserve disk space for later commits while there is some.
        room::take(path);
        let mut log = Log::of(path);
        let (requests, queue) = mpsc::channel();
        let is_file = db.path().is_some_and(|path| !path.is_empty());
        let carrier = if is_file { Some(Carrier::start(path)?) } else { None };
        let is_long = carrier.as_ref().map(Carrier::is_long);
        if let Some(carrier) = &carrier {
            carrier.watch(&mut db)?;
        }
        std::thread::Builder::new()
            .name(schema.name.to_owned())
            .spawn(move || {
                serve(&db, &queue, &mut log, batch_max);
                // The last connection to close checkpoints the rest and removes the log.
                if let Some(carrier) = carrier {
                    carrier.end(&mut db);
                }
                drop(db);
                drop(lock);
            })
            .map_err(|err| Error::Unusable { path: path.to_owned(), source: err.into() })?;
        Ok(Self(To::Thread { requests, long: is_long }))
    }

    /// As [`Writer::call`], for a named change: failpoints before and after it let tests kill the process.
    pub fn change<T, E, F>(
        &self,
        name: &'static str,
        durable: bool,
        work: F,
    ) -> impl Future<Output = Result<T, E>> + Send
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        // Not awaited here, which would hold the work twice.
        self.change_then(name, durable, work, |_| ())
    }

    /// As [`Writer::change`]; `then` is called with what was committed, on the writer's thread: in the order of the
    /// commits, and also if the caller is dropped meanwhile. It must be quick.
    pub async fn change_then<T, E, F, G>(
        &self,
        name: &'static str,
        durable: bool,
        work: F,
        then: G,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        failpoint::hit(name, ".before");
        let done = self.request(Some(name), durable, work, then).await;
        failpoint::hit(name, ".after");
        done
    }

    /// Runs `work` in a transaction and returns after its commit. With `durable`, everything that it wrote or
    /// read is synced to the disk first.
    pub async fn call<T, E, F>(&self, durable: bool, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.request(None, durable, work, |_| ()).await
    }

    /// As [`Writer::call`], for work that is not urgent: if the log waits for a checkpoint, waits for that
    /// first, so that the log does not grow faster than it is checkpointed. Not durable.
    pub async fn call_aside<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        if let To::Thread { long: Some(long), .. } = &self.0 {
            // Returns when the checkpoint is done or the thread has ended.
            long.clone().wait_for(|long| !long).await.ok();
        }
        self.call(false, work).await
    }

    async fn request<T, E, F, G>(
        &self,
        name: Option<&'static str>,
        durable: bool,
        work: F,
        then: G,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |db| {
            let result = in_savepoint(db, work);
            Box::new(move |committed: Result<(), Error>| {
                // A caller that was dropped does not want the answer; the commit stands.
                let committed = committed.map_err(E::from);
                let done = result.and_then(|value| committed.map(|()| value));
                if let Ok(value) = &done {
                    then(value);
                }
                reply.send(done).ok();
            })
        });
        let request = Request { durable, work };
        match &self.0 {
            To::Thread { requests, .. } => requests.send(request).map_err(|_| stopped())?,
            To::Simulated(simulated) => simulated.carry_out(name, request).await,
        }
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::Failed("the request was not carried out".into())
}

fn serve(db: &Connection, queue: &mpsc::Receiver<Request>, log: &mut Log, batch_max: usize) {
    while let Ok(first) = queue.recv() {
        let batch: Vec<Request> =
            std::iter::once(first).chain(queue.try_iter().take(batch_max - 1)).collect();
        commit(db, batch, log);
    }
}

/// Syncs the write-ahead log after commits that SQLite did not sync.
#[derive(Debug)]
struct Log {
    /// The open log; `None` in memory and until the log exists.
    file: Option<std::fs::File>,
    path: PathBuf,
    /// Whether the log holds commits that are not synced.
    behind: bool,
}

impl Log {
    fn of(database: &Path) -> Self {
        let path = room::log_of(database);
        // Commits of an earlier process may not be synced.
        Self { file: None, path, behind: true }
    }

    /// Syncs commits that were made without a sync.
    fn catch_up(&mut self) -> std::io::Result<()> {
        if !self.behind {
            return Ok(());
        }
        if self.file.is_none() {
            self.file = match std::fs::File::open(&self.path) {
                Ok(file) => Some(file),
                // In memory, or nothing is written yet.
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
                Err(err) => return Err(err),
            };
        }
        self.file.as_ref().map_or(Ok(()), std::fs::File::sync_data)?;
        self.behind = false;
        Ok(())
    }
}

fn commit(db: &Connection, batch: Vec<Request>, log: &mut Log) {
    // In WAL mode, FULL syncs the log at each commit that wrote something; NORMAL leaves that to checkpoints.
    let durable = batch.iter().any(|request| request.durable);
    let level = if durable { "FULL" } else { "NORMAL" };
    let before = db.total_changes();
    let begun = db
        .pragma_update(None, "synchronous", level)
        .and_then(|()| db.execute_batch("BEGIN IMMEDIATE"));
    if begun.is_err() {
        // No work may run outside a transaction. Dropping the requests makes their callers fail.
        return;
    }
    let mut answers: Vec<Answer> = Vec::with_capacity(batch.len());
    for request in batch {
        answers.push((request.work)(db));
        // A full disk makes SQLite roll the whole transaction back. Later work would then commit statement by
        // statement.
        if db.is_autocommit() {
            break;
        }
    }
    let committed = db.execute_batch("COMMIT").map_err(|err| err.to_string());
    // A synced commit also synced everything before it in the log.
    if db.total_changes() != before {
        log.behind = !durable || committed.is_err();
    }
    // A durable read is answered only after the commits it may have read are synced.
    let committed = if durable {
        committed.and_then(|()| log.catch_up().map_err(|err| err.to_string()))
    } else {
        committed
    };
    if committed.is_err() && !db.is_autocommit() {
        db.execute_batch("ROLLBACK").ok();
    }
    let full = committed.as_ref().is_err_and(|text| text.contains("full"));
    for answer in answers {
        answer(match &committed {
            Ok(()) => Ok(()),
            Err(_) if full => Err(Error::Full),
            Err(text) => Err(Error::Failed(text.clone().into())),
        });
    }
}

/// Runs `work` in a savepoint, so that a failure undoes only its own changes.
fn in_savepoint<T, E: From<Error>>(
    db: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let run = |sql| db.prepare_cached(sql).and_then(|mut it| it.execute([])).map_err(Error::from);
    run("SAVEPOINT request")?;
    let result = work(db);
    if result.is_err() {
        run("ROLLBACK TO request")?;
    }
    run("RELEASE request")?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema =
        Schema { name: "test", migrations: &["CREATE TABLE jobs (id TEXT PRIMARY KEY)"] };

    fn start(db: Connection) -> Result<Writer, Error> {
        Writer::start(db, &SCHEMA, None, Path::new("x"))
    }

    fn count(db: &Connection) -> Result<i64, Error> {
        Ok(db.query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))?)
    }

    fn insert(db: &Connection, id: &str) -> Result<(), Error> {
        let sql = "INSERT INTO jobs (id) VALUES (?)";
        db.execute(sql, [id])?;
        Ok(())
    }

    #[tokio::test]
    async fn what_follows_a_commit_comes_in_order_and_also_if_nobody_waits_for_it() {
        use std::sync::Mutex;
        let writer = start(Connection::open_in_memory().unwrap()).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |id: &'static str| {
            let seen = Arc::clone(&seen);
            move |(): &()| seen.lock().unwrap().push(id)
        };
        {
            // Asked for, and dropped before its answer.
            let left = writer.change_then("test", true, |db| insert(db, "a"), note("a"));
            let mut left = std::pin::pin!(left);
            assert!(futures_util::poll!(left.as_mut()).is_pending());
        }
        let again = writer.change_then("test", true, |db| insert(db, "a"), note("a again")).await;
        assert!(again.is_err(), "it is there already");
        writer.change_then("test", true, |db| insert(db, "b"), note("b")).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_request_that_fails_undoes_only_itself() {
        let writer = start(Connection::open_in_memory().unwrap()).unwrap();
        let good = writer.call(true, |db| insert(db, "a"));
        let bad = writer.call(false, |db| {
            insert(db, "b")?;
            insert(db, "a")
        });
        let also_good = writer.call(false, |db| insert(db, "c"));
        let (good, bad, also_good) = tokio::join!(good, bad, also_good);
        assert!(
            good.is_ok() && bad.is_err() && also_good.is_ok(),
            "{good:?} {bad:?} {also_good:?}"
        );
        assert_eq!(writer.call(false, count).await.unwrap(), 2);
    }

    #[test]
    fn a_journal_of_a_newer_version_is_refused() {
        let db = Connection::open_in_memory().unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        let err = start(db).unwrap_err();
        assert!(matches!(err, Error::TooNew { found: 99, .. }));
    }
}
