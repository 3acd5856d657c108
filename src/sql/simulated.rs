//! A database for simulations: the same schema and statements as on a real disk, in memory. It can be killed,
//! lose power or fill up at any write.
//!
//! Invariants: no threads and no clock, so that every run is the same. A write that was answered survives a
//! kill; one that was also synced survives a power cut, as on a real disk.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::MAIN_DB;

use super::request::Request;
use super::{Connection, Error, Schema};

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Written,
    /// It fails: the disk is full.
    Refused,
    /// The process dies before the write is carried out, so it is never answered.
    DiesBefore,
    /// The process dies after the write is carried out, so it is never answered.
    DiesAfter,
    /// It is carried out, but answered with an error.
    Unsure,
    /// It is answered but not carried out: a planted defect that the simulation must find.
    Forgotten,
}

/// Decides the fate of each named write.
pub trait Gate: fmt::Debug + Send + Sync {
    /// The fate of the write of this name.
    fn fate(&self, write: &'static str) -> Fate;

    /// What a request waits for before it is carried out; `None` if the disk is fast.
    fn slowness(&self) -> Option<Slowness> {
        None
    }

    /// Whether a durable request is synced, given the name of a write or `None` for a read. `false` is a
    /// planted defect that the simulation must find.
    fn syncs(&self, _write: Option<&'static str>) -> bool {
        true
    }
}

/// Completes when a slow disk is ready.
pub type Slowness = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A disk in memory with a database on it. Clones share it. It outlives the writers on it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    schema: Schema,
    db: Connection,
    /// The database image that survives a power cut.
    synced: Vec<u8>,
    /// Whether `db` has changes that are not in `synced`.
    behind: bool,
}

impl fmt::Debug for Platter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platter").field("synced_bytes", &self.synced.len()).finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk with an empty database of this schema.
    pub fn new(schema: &Schema) -> Result<Self, Error> {
        let mut db = Connection::open_in_memory()?;
        schema.prepare(&mut db, Path::new(":memory:"))?;
        let synced = db.serialize(MAIN_DB)?.to_vec();
        Ok(Self(Arc::new(Mutex::new(Platter { schema: *schema, db, synced, behind: false }))))
    }

    /// A disk like this one at its last sync. Cheaper than `new`; a simulation needs thousands of disks.
    pub fn another(&self) -> Result<Self, Error> {
        let (schema, synced) = {
            let platter = self.platter();
            (platter.schema, platter.synced.clone())
        };
        let db = open(&schema, &synced)?;
        Ok(Self(Arc::new(Mutex::new(Platter { schema, db, synced, behind: false }))))
    }

    /// Simulates a power cut: everything that was not synced is lost.
    pub fn lose_power(&self) -> Result<(), Error> {
        let mut platter = self.platter();
        platter.db = open(&platter.schema, &platter.synced)?;
        Ok(())
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(schema: &Schema, image: &[u8]) -> Result<Connection, Error> {
    let mut db = Connection::open_in_memory()?;
    db.deserialize_read_exact(MAIN_DB, image, image.len(), false)?;
    schema.prepare(&mut db, Path::new(":memory:"))?;
    Ok(db)
}

/// Carries requests out one after the other.
#[derive(Debug)]
pub(super) struct Simulated {
    disk: Disk,
    gate: Arc<dyn Gate>,
    /// Held by the request being carried out, so that requests run in the order of arrival.
    turn: tokio::sync::Mutex<()>,
}

impl Simulated {
    /// Carries requests out on this disk.
    pub(super) fn new(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        Self { disk: disk.clone(), gate, turn: tokio::sync::Mutex::default() }
    }

    /// Carries one request out. Never returns if the process dies during it.
    pub(super) async fn carry_out(&self, name: Option<&'static str>, request: Request) {
        let turn = self.turn.lock().await;
        if let Some(slowness) = self.gate.slowness() {
            slowness.await;
        }
        match name.map_or(Fate::Written, |name| self.gate.fate(name)) {
            Fate::DiesBefore => std::future::pending::<()>().await,
            Fate::DiesAfter => {
                self.write(name, request, Fate::Written);
                std::future::pending::<()>().await;
            }
            fate => self.write(name, request, fate),
        }
        drop(turn);
    }

    fn write(&self, name: Option<&'static str>, request: Request, fate: Fate) {
        let is_kept = matches!(fate, Fate::Written | Fate::Unsure);
        let mut platter = self.disk.platter();
        let before = platter.db.total_changes();
        let begun = platter.db.execute_batch("BEGIN IMMEDIATE");
        let answer = (request.work)(&platter.db);
        let end = if is_kept { "COMMIT" } else { "ROLLBACK" };
        let ended = begun.and_then(|()| platter.db.execute_batch(end)).map_err(Error::from);
        platter.behind |= is_kept && platter.db.total_changes() != before;
        if request.durable && platter.behind && self.gate.syncs(name) {
            platter.behind = false;
            // If the copy fails, the previous image stays, and a power cut loses more than it should.
            if let Ok(image) = platter.db.serialize(MAIN_DB).map(|data| data.to_vec()) {
                platter.synced = image;
            }
        }
        drop(platter);
        answer(match fate {
            Fate::Refused => Err(Error::Full),
            Fate::Unsure => Err(Error::Failed("it is not known whether it was written".into())),
            _ => ended,
        });
    }
}
