//! Checkpoints: copies the write-ahead log into the database file, on a thread and a connection of its own.
//!
//! Invariants: a commit does not wait for a checkpoint unless the log has outgrown [`PAGES_MAX`]. A page
//! leaves the log only after the database file is synced with it (SQLite ensures this order under
//! `synchronous = FULL`, which this connection sets). No checkpoint outlives [`Carrier::end`], so that the
//! writer's connection is the last to be closed.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use tokio::sync::watch;

use super::{Connection, Error};

/// Length of the log, in pages, from which it is checkpointed: 4 MiB.
const PAGES: i32 = 1_000;

/// Length of the log, in pages, from which the writer itself checkpoints and its callers wait (16 MiB).
/// Otherwise a writer faster than the checkpoints would fill the disk.
const PAGES_MAX: i32 = 4_000;

/// A handle to the checkpoint thread.
#[derive(Debug)]
pub(super) struct Carrier {
    thread: std::thread::JoinHandle<()>,
    wake: SyncSender<()>,
    long: watch::Sender<bool>,
    /// Held during a checkpoint.
    carrying: Arc<Mutex<()>>,
}

impl Carrier {
    /// Opens a connection to the database at this path and starts the thread.
    pub(super) fn start(path: &Path) -> Result<Self, Error> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        let (wake, woken) = sync_channel(1);
        let (long, carrying) = (watch::Sender::new(false), Arc::default());
        let (told, held) = (long.clone(), Arc::clone(&carrying));
        let thread = std::thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || carry(&db, &woken, &told, &held))
            .map_err(|source| Error::Unusable { path: path.to_owned(), source: source.into() })?;
        Ok(Self { thread, wake, long, carrying })
    }

    /// Makes commits of this connection wake the thread once the log is long.
    pub(super) fn watch(&self, writer: &mut Connection) -> Result<(), Error> {
        let (wake, long) = (self.wake.clone(), self.long.clone());
        let carrying = Arc::clone(&self.carrying);
        writer.wal_hook(Some(move |wal: &mut Wal, pages: std::ffi::c_int| {
            if pages >= PAGES_MAX {
                let held = carrying.lock().unwrap_or_else(PoisonError::into_inner);
                // Pages that can't be copied stay in the log; the next commit tries again.
                wal.checkpoint_v2(CheckpointMode::PASSIVE).ok();
                drop(held);
            } else if pages >= PAGES {
                long.send_replace(true);
                // A full channel means that a wake-up is pending, which will cover this commit.
                wake.try_send(()).ok();
            }
            Ok(())
        }))?;
        Ok(())
    }

    /// Whether the log is long and its checkpoint is not done.
    pub(super) fn is_long(&self) -> watch::Receiver<bool> {
        self.long.subscribe()
    }

    /// Stops the thread, closes its connection and removes the writer's hook.
    pub(super) fn end(self, writer: &mut Connection) {
        // Closing the writer's connection checkpoints the rest of the log.
        writer.wal_hook(None::<fn(&mut Wal, std::ffi::c_int) -> rusqlite::Result<()>>).ok();
        drop(self.wake);
        self.thread.join().ok();
    }
}

fn carry(db: &Connection, woken: &Receiver<()>, long: &watch::Sender<bool>, held: &Mutex<()>) {
    while woken.recv().is_ok() {
        let carrying = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(err) = db.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE) {
            tracing::debug!("the write-ahead log can't be checkpointed for now: {err}");
        }
        drop(carrying);
        long.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::super::room::log_of;
    use super::*;

    struct Written {
        dir: tempfile::TempDir,
        db: Connection,
    }

    impl Written {
        fn new() -> (Self, Carrier) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal.db");
            let mut db = Connection::open(&path).unwrap();
            Schema { name: "test", migrations: &[] }.prepare(&mut db, &path).unwrap();
            db.pragma_update(None, "synchronous", "OFF").unwrap();
            db.execute_batch("CREATE TABLE filled (bytes BLOB)").unwrap();
            let carrier = Carrier::start(&path).unwrap();
            carrier.watch(&mut db).unwrap();
            (Self { dir, db }, carrier)
        }

        /// A commit of ten pages.
        fn commit(&self) {
            self.db.execute("INSERT INTO filled VALUES (randomblob(40000))", []).unwrap();
        }

        fn bytes(&self) -> u64 {
            std::fs::metadata(self.dir.path().join("journal.db")).unwrap().len()
        }

        fn bytes_of_log(&self) -> u64 {
            std::fs::metadata(log_of(&self.dir.path().join("journal.db"))).unwrap().len()
        }
    }

    #[tokio::test]
    async fn a_commit_does_not_wait_for_a_checkpoint() {
        let (mut written, carrier) = Written::new();
        let before = written.bytes();
        // Simulates a checkpoint that does not finish.
        let carrying = Arc::clone(&carrier.carrying);
        let held = carrying.lock().unwrap();
        while !*carrier.long.borrow() {
            written.commit();
        }
        for _ in 0..100 {
            written.commit();
        }
        assert_eq!(written.bytes(), before, "who commits carries nothing over");
        drop(held);
        // The commits have woken the thread; it checkpoints and reports that.
        let mut long = carrier.is_long();
        let short = long.wait_for(|long| !long);
        let told = tokio::time::timeout(std::time::Duration::from_mins(1), short).await;
        assert!(told.is_ok_and(|it| it.is_ok()));
        assert!(written.bytes() > before, "{} bytes", written.bytes());
        carrier.end(&mut written.db);
    }

    #[test]
    fn a_log_does_not_grow_without_end_however_fast_it_is_written() {
        let (mut written, carrier) = Written::new();
        // Four times the log's limit.
        for _ in 0..PAGES_MAX * 4 / 10 {
            written.commit();
            let pages = written.bytes_of_log() / 4096;
            assert!(pages < u64::from(PAGES_MAX.unsigned_abs()) + 200, "{pages} pages");
        }
        carrier.end(&mut written.db);
        let path = log_of(&written.dir.path().join("journal.db"));
        drop(written.db);
        assert!(!path.exists(), "the last connection that is closed takes the log away");
    }
}
