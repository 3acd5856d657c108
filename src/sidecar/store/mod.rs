//! The sidecar's database, behind one thread (see [`crate::sql`]).
//!
//! Invariants: what was observed, the state that follows from it and the place up to which the source was read are
//! one commit ([`Store::take`]), so that a kill at any time neither loses nor doubles anything; one process holds the
//! file.

mod expects;
mod past;
mod reports;
mod restarts;
mod usage;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::clock::Timestamp;
use crate::notify::Book;
use crate::sql::{self, Connection, OptionalExtension as _, Schema, SqliteError, Writer, params};
use crate::watch::observation::Observation;
use crate::watch::state::Watched;
use crate::watch::verdict::Verdict;

pub use expects::Expected;
pub use past::Judged;
pub use reports::Report;
pub use usage::{KEPT, Rolled, word};

/// The sidecar's tables and the migrations that create them.
pub const SCHEMA: Schema = Schema {
    name: "sidecar",
    migrations: &[
        concat!(
            include_str!("../../../migrations/alerts.sql"),
            include_str!("../../../migrations/sidecar/0001_sidecar.sql")
        ),
        include_str!("../../../migrations/sidecar/0002_usage.sql"),
    ],
};

/// Why a call to the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open. Ends the program.
    #[error("another sidecar uses {0}; stop it, or set another SIDECAR_DB")]
    InUse(PathBuf),
    /// The file is no sidecar's, or one of another version.
    #[error("{0} is no database of a sidecar: set SIDECAR_DB to a file of its own")]
    Foreign(PathBuf),
    /// The file is no database, or a broken one. Ends the program.
    #[error(
        "{0} is no database, or a broken one: move it away, and the sidecar begins anew with the ends of the logs"
    )]
    Broken(PathBuf),
    /// The database failed.
    #[error(transparent)]
    Sql(#[from] sql::Error),
}

impl From<SqliteError> for Error {
    fn from(err: SqliteError) -> Self {
        Self::Sql(err.into())
    }
}

/// What one commit takes in.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What was observed, in order.
    pub observations: Vec<Observation>,
    /// Up to where sources were read: each source's name and place.
    pub marks: Vec<(String, String)>,
    /// What is to be reported of it: the receiver and a report.
    pub reports: Vec<(&'static str, String)>,
}

/// What is known of a program, as it was written down.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The sum of what was observed.
    pub state: Watched,
    /// The number of its last observation; 0 for none.
    pub last: i64,
}

/// A handle to the database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    /// How many reports went untaken since that was told last.
    dropped: Arc<AtomicU64>,
}

impl Store {
    /// Opens or creates the database, locks it and migrates its schema. Blocks.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let (db, lock) = sql::take(path).map_err(|err| match err {
            sql::Taken::InUse(path) => Error::InUse(path),
            sql::Taken::Unusable(err) => Error::Sql(err),
        })?;
        if is_foreign(&db).map_err(|_| Error::Broken(path.to_owned()))? {
            return Err(Error::Foreign(path.to_owned()));
        }
        Ok(Self::of(Writer::start(db, &SCHEMA, Some(lock), path)?))
    }

    /// A store in memory, for tests. It is gone when the last handle is dropped.
    pub fn in_memory() -> Result<Self, Error> {
        let db = Connection::open_in_memory()?;
        Ok(Self::of(Writer::start(db, &SCHEMA, None, Path::new(":memory:"))?))
    }

    fn of(writer: Writer) -> Self {
        Self { writer, dropped: Arc::default() }
    }

    /// What was decided and what is to be told of it.
    pub fn book(&self) -> Book {
        Book::of(self.writer.clone())
    }

    /// What is known of a program.
    pub async fn known(&self, name: &str) -> Result<Known, Error> {
        let name = name.to_owned();
        self.writer
            .call(false, move |db| {
                let mut known = Known::default();
                let mut select = db.prepare("SELECT state FROM programs WHERE name = ?1")?;
                let mut rows = select.query([&name])?;
                if let Some(row) = rows.next()? {
                    let state: String = row.get(0)?;
                    // A state of another version is learnt anew.
                    known.state = serde_json::from_str(&state).unwrap_or_default();
                }
                let last = "SELECT COALESCE(MAX(id), 0) FROM observations WHERE name = ?1";
                known.last = db.query_row(last, [&name], |row| row.get(0))?;
                Ok(known)
            })
            .await
    }

    /// Up to where a source of a program was read, as it was written down.
    pub async fn mark(&self, name: &str, source: &str) -> Result<Option<String>, Error> {
        let (name, source) = (name.to_owned(), source.to_owned());
        let select = "SELECT body FROM marks WHERE name = ?1 AND source = ?2";
        let work = move |db: &Connection| {
            Ok(db.query_row(select, params![name, source], |row| row.get(0)).optional()?)
        };
        self.writer.call(false, work).await
    }

    /// Takes in what was observed, with the state that follows from it. Returns the number of the last observation
    /// of the program.
    pub async fn take(&self, name: &str, batch: Batch, state: &Watched) -> Result<i64, Error> {
        let state = json(state)?;
        let name = name.to_owned();
        let (last, dropped) = self
            .writer
            .change("sidecar.take", false, move |db| {
                let add = "INSERT INTO observations (name, at_ms, body) VALUES (?1, ?2, ?3)";
                let mut add = db.prepare_cached(add)?;
                for observation in &batch.observations {
                    let row = params![name, ms(observation.at), json(observation)?];
                    add.execute(row)?;
                }
                let put = "INSERT INTO programs (name, state) VALUES (?1, ?2)
                           ON CONFLICT (name) DO UPDATE SET state = ?2";
                db.prepare_cached(put)?.execute(params![name, state])?;
                let put = "INSERT INTO marks (name, source, body) VALUES (?1, ?2, ?3)
                           ON CONFLICT (name, source) DO UPDATE SET body = ?3";
                let mut put = db.prepare_cached(put)?;
                for (source, body) in &batch.marks {
                    put.execute(params![name, source, body])?;
                }
                let dropped = reports::queue(db, &batch)?;
                let last = "SELECT COALESCE(MAX(id), 0) FROM observations WHERE name = ?1";
                let last = db.prepare_cached(last)?.query_row([&name], |row| row.get(0))?;
                Ok::<_, Error>((last, dropped))
            })
            .await?;
        self.count_dropped(dropped);
        Ok(last)
    }

    /// Writes a verdict down that differs from the one before, and queues what is to be reported of it.
    pub async fn judged(
        &self,
        name: &str,
        after: i64,
        at: Timestamp,
        verdict: &Verdict,
        reports: Vec<(&'static str, String)>,
    ) -> Result<(), Error> {
        let (name, body) = (name.to_owned(), json(verdict)?);
        let add = "INSERT INTO verdicts (name, after, at_ms, body) VALUES (?1, ?2, ?3, ?4)";
        let work = move |db: &Connection| {
            db.prepare_cached(add)?.execute(params![name, after, ms(at), body])?;
            Ok::<_, Error>(reports::queue_at(db, ms(at), &reports)?)
        };
        let dropped = self.writer.change("sidecar.judged", false, work).await?;
        self.count_dropped(dropped);
        Ok(())
    }

    /// Returns once the database takes what is written down: on a full disk it still answers.
    pub async fn answers(&self) -> Result<(), Error> {
        let put = "INSERT INTO marks (name, source, body) VALUES ('', '', randomblob(2048))
                   ON CONFLICT (name, source) DO UPDATE SET body = randomblob(2048)";
        self.writer.call(false, move |db| Ok(db.execute(put, []).map(drop)?)).await
    }
}

/// Whether another program's tables are in the file.
fn is_foreign(db: &Connection) -> Result<bool, SqliteError> {
    let tables: i64 = db.query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let ours = "SELECT COUNT(*) FROM sqlite_schema WHERE name IN ('programs', 'marks', 'notices')";
    let ours: i64 = db.query_row(ours, [], |row| row.get(0))?;
    Ok(tables > 0 && ours != 3)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, SqliteError> {
    serde_json::to_string(value).map_err(|err| SqliteError::ToSqlConversionFailure(err.into()))
}

fn ms(at: Timestamp) -> i64 {
    i64::try_from(at.unix_ms()).unwrap_or(i64::MAX)
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or_default())
}
