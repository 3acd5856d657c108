//! The journal of a simulation: the same schema and the same statements, on a disk in memory that
//! can be killed, cut off from its power or filled up at every write.
//!
//! What must hold: no thread and no clock, so that a run is the same each time; a write that was
//! answered survives a kill, and one that was also synced survives a power cut, as on a real disk.

use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, MAIN_DB};

use super::writer::{self, Request, Writer};
use super::{Error, Journal};

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
    pub fn new() -> Result<Self, Error> {
        let mut db = Connection::open_in_memory()?;
        writer::prepare(&mut db, Path::new(":memory:"))?;
        let synced = db.serialize(MAIN_DB)?.to_vec();
        Ok(Self(Arc::new(Mutex::new(Platter { db, synced, behind: false }))))
    }

    /// An empty disk like this one: cheaper than a new one, of which a simulation needs thousands.
    pub fn another(&self) -> Result<Self, Error> {
        let synced = self.platter().synced.clone();
        Ok(Self(Arc::new(Mutex::new(Platter { db: open(&synced)?, synced, behind: false }))))
    }

    /// Everything that was not synced is gone.
    pub fn lose_power(&self) -> Result<(), Error> {
        let mut platter = self.platter();
        platter.db = open(&platter.synced)?;
        Ok(())
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(image: &[u8]) -> Result<Connection, Error> {
    let mut db = Connection::open_in_memory()?;
    db.deserialize_read_exact(MAIN_DB, image, image.len(), false)?;
    writer::prepare(&mut db, Path::new(":memory:"))?;
    Ok(db)
}

impl Journal {
    /// The journal on a simulated disk. Unlike a real one it can be opened again while an earlier
    /// handle lives: that one belongs to a process that was killed.
    pub fn simulated(disk: &Disk, gate: Arc<dyn Gate>) -> Self {
        let simulated = Simulated { disk: disk.clone(), gate, turn: tokio::sync::Mutex::default() };
        Self { writer: Writer::Simulated(Arc::new(simulated)) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::{Address, Hash, JobId};
    use crate::job::spec::Refused;
    use crate::job::{Reason, Status};

    #[derive(Debug)]
    struct Always(Fate);

    impl Gate for Always {
        fn fate(&self, _: &'static str) -> Fate {
            self.0
        }
    }

    async fn refuse(disk: &Disk, fate: Fate, id: &str) -> Result<(), Error> {
        let id: JobId = id.parse().unwrap();
        let body_hash = Hash([1; 32]);
        let refused = Refused { id, body_hash, reason: Reason::NoGpu, error: String::new() };
        let status = Status::rejected(Address::new([1; 20]), &refused, Timestamp::default());
        Journal::simulated(disk, Arc::new(Always(fate))).refuse(&refused, status, true).await
    }

    async fn knows(disk: &Disk, id: &str) -> bool {
        let journal = Journal::simulated(disk, Arc::new(Always(Fate::Written)));
        journal.lookup(&id.parse().unwrap()).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn what_was_synced_survives_a_power_cut_and_what_was_not_answered_may_too() {
        use futures_util::FutureExt as _;
        let disk = Disk::new().unwrap();
        refuse(&disk, Fate::Written, "a").await.unwrap();
        assert!(refuse(&disk, Fate::DiesAfter, "b").now_or_never().is_none());
        assert!(refuse(&disk, Fate::DiesBefore, "c").now_or_never().is_none());
        refuse(&disk, Fate::Forgotten, "d").await.unwrap();
        assert!(matches!(refuse(&disk, Fate::Refused, "e").await, Err(Error::Full)));
        disk.lose_power().unwrap();
        let known = [("a", true), ("b", true), ("c", false), ("d", false), ("e", false)];
        for (id, expected) in known {
            assert_eq!(knows(&disk, id).await, expected, "{id}");
        }
    }

    #[tokio::test]
    async fn what_was_not_synced_is_lost_by_a_power_cut_alone() {
        let disk = Disk::new().unwrap();
        refuse(&disk, Fate::Written, "a").await.unwrap();
        let journal = Journal::simulated(&disk, Arc::new(Always(Fate::Written)));
        let delivery =
            || async { journal.lookup(&"a".parse().unwrap()).await.unwrap().unwrap().delivery };
        journal
            .redelivered(&"a".parse().unwrap(), Some("x".to_owned()), Timestamp::default())
            .await
            .unwrap();
        assert_eq!(delivery().await.as_deref(), Some("x"));
        disk.lose_power().unwrap();
        assert_eq!(delivery().await, None);
    }
}
