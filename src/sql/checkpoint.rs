//! Carries the write-ahead log over to the database, on a thread and a connection of its own.
//!
//! What must hold: whoever waits for a commit does not wait for a checkpoint, unless the log has
//! outgrown [`PAGES_MAX`]; a page leaves the log only once the database's file is synced with it
//! (SQLite's own order, which `synchronous = FULL` of this connection asks for); no checkpoint
//! outlives [`Carrier::end`], so that the writer's connection is the last to be closed.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use tokio::sync::watch;

use super::{Connection, Error};

/// The log is carried over from so many pages on: 4 MiB.
const PAGES: i32 = 1_000;

/// From here on (16 MiB) the writer carries over itself, with whoever waits for it: what is written
/// faster than the disk takes it must not fill the disk.
const PAGES_MAX: i32 = 4_000;

/// The thread that carries over, and how far it is.
#[derive(Debug)]
pub(super) struct Carrier {
    thread: std::thread::JoinHandle<()>,
    wake: SyncSender<()>,
    long: watch::Sender<bool>,
    /// Held while the thread carries over.
    carrying: Arc<Mutex<()>>,
}

impl Carrier {
    /// Starts the thread for the database at this path.
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

    /// Has the thread woken by the commits of this connection.
    pub(super) fn watch(&self, writer: &mut Connection) -> Result<(), Error> {
        let (wake, long) = (self.wake.clone(), self.long.clone());
        let carrying = Arc::clone(&self.carrying);
        writer.wal_hook(Some(move |wal: &mut Wal, pages: std::ffi::c_int| {
            if pages >= PAGES_MAX {
                let held = carrying.lock().unwrap_or_else(PoisonError::into_inner);
                // What can't be carried over stays in the log, and is tried again at the next commit.
                wal.checkpoint_v2(CheckpointMode::PASSIVE).ok();
                drop(held);
            } else if pages >= PAGES {
                long.send_replace(true);
                // Where it was woken already, it will see this commit as well.
                wake.try_send(()).ok();
            }
            Ok(())
        }))?;
        Ok(())
    }

    /// Whether the log is long enough to be carried over just now.
    pub(super) fn is_long(&self) -> watch::Receiver<bool> {
        self.long.subscribe()
    }

    /// Ends the thread and closes its connection. The writer's no longer wakes it.
    pub(super) fn end(self, writer: &mut Connection) {
        // What is left is carried over when the writer's connection is closed.
        writer.wal_hook(None::<fn(&mut Wal, std::ffi::c_int) -> rusqlite::Result<()>>).ok();
        drop(self.wake);
        self.thread.join().ok();
    }
}

fn carry(db: &Connection, woken: &Receiver<()>, long: &watch::Sender<bool>, held: &Mutex<()>) {
    while woken.recv().is_ok() {
        let carrying = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(err) = db.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE) {
            tracing::debug!("the journal's log stays as it is for now: {err}");
        }
        drop(carrying);
        long.send_replace(false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::super::room::log_of;
    use super::super::writer::prepare;
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
            prepare(&mut db, &Schema { name: "test", migrations: &[] }, &path).unwrap();
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
        // A checkpoint that does not come to its end.
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
        // Woken by what was committed, it carries over and says so.
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
        // Four times what the log may hold.
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
