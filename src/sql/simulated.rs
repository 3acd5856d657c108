//! The journal of a simulation: the same schema and the same statements, on a disk in memory that
//! can be killed, cut off from its power or filled up at every write.
//!
//! What must hold: no thread and no clock, so that a run is the same each time; a write that was
//! answered survives a kill, and one that was also synced survives a power cut, as on a real disk.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::MAIN_DB;

use super::writer::{self, Request, To, Writer};
use super::{Connection, Error, Schema};

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is carried out and answered.
    Written,
    /// It is refused: the disk is full.
    Refused,
    /// The process dies before it is carried out: it is never answered.
    DiesBefore,
    /// The process dies after it was carried out: it is never answered.
    DiesAfter,
    /// It is carried out, and answered with an error all the same.
    Unsure,
    /// It is answered but was never carried out: a defect, planted to see that it is found.
    Forgotten,
}

/// Decides what becomes of each named write.
pub trait Gate: fmt::Debug + Send + Sync {
    /// The fate of the write of this name.
    fn fate(&self, write: &'static str) -> Fate;

    /// What a request waits for before its turn is over; nothing where the disk is quick.
    fn slowness(&self) -> Option<Slowness> {
        None
    }

    /// Whether what is to survive a power cut is synced, of a write (by its name) or of a read.
    /// Where not, that is a defect, planted to see that it is found.
    fn syncs(&self, _write: Option<&'static str>) -> bool {
        true
    }
}

/// Ends when a slow disk is done.
pub type Slowness = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A disk in memory with a journal on it. Clones share it; it outlives the journals opened on it.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    schema: Schema,
    db: Connection,
    /// What a power cut leaves.
    synced: Vec<u8>,
    /// Whether there is something that it would not leave.
    behind: bool,
}

impl fmt::Debug for Platter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platter").field("synced_bytes", &self.synced.len()).finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(schema: &Schema) -> Result<Self, Error> {
        let mut db = Connection::open_in_memory()?;
        writer::prepare(&mut db, schema, Path::new(":memory:"))?;
        let synced = db.serialize(MAIN_DB)?.to_vec();
        Ok(Self(Arc::new(Mutex::new(Platter { schema: *schema, db, synced, behind: false }))))
    }

    /// An empty disk like this one: cheaper than a new one, of which a simulation needs thousands.
    pub fn another(&self) -> Result<Self, Error> {
        let (schema, synced) = {
            let platter = self.platter();
            (platter.schema, platter.synced.clone())
        };
        let db = open(&schema, &synced)?;
        Ok(Self(Arc::new(Mutex::new(Platter { schema, db, synced, behind: false }))))
    }

    /// Everything that was not synced is gone.
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
    writer::prepare(&mut db, schema, Path::new(":memory:"))?;
    Ok(db)
}

impl Writer {
    /// A writer on a simulated disk. Unlike on a real one it can be started again while an earlier handle
    /// lives: that one belongs to a process that was killed.
    pub fn simulated(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        let simulated = Simulated { disk: disk.clone(), gate, turn: tokio::sync::Mutex::default() };
        Self(To::Simulated(Arc::new(simulated)))
    }
}

/// Carries requests out, one after the other.
#[derive(Debug)]
pub(super) struct Simulated {
    disk: Disk,
    gate: Arc<dyn Gate>,
    /// Held by the request that the disk is busy with: they go in the order in which they came.
    turn: tokio::sync::Mutex<()>,
}

impl Simulated {
    /// Never returns where the process dies meanwhile.
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
            // A copy that can't be made would make a power cut look worse than it is.
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
