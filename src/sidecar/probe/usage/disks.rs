//! The free space on the disks of the programs' folders.
//!
//! Invariant: a disk that does not answer, as a network's whose server is gone, holds nobody up for longer than
//! [`WITHIN`], holds one thread, and is unknown meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};
use tokio::time::timeout;

use crate::host::machine;
use crate::sidecar::program::Program;
use crate::usage::{Reading, Unknown};
use crate::watch::profile::Filled;

/// How long a disk may take.
const WITHIN: Duration = Duration::from_secs(2);

/// The disks of the programs' folders.
#[derive(Debug)]
pub(super) struct Disks {
    /// The folder of each program.
    folders: Vec<Option<PathBuf>>,
    /// Each of them once, with the question that was not answered yet.
    asked: BTreeMap<PathBuf, Option<Receiver<Reading>>>,
}

impl Disks {
    /// Nothing is asked yet.
    pub(super) fn of<'a>(programs: impl Iterator<Item = &'a Program>) -> Self {
        Self::new(programs.map(|it| folder(&it.watching.profile)).collect())
    }

    fn new(folders: Vec<Option<PathBuf>>) -> Self {
        let asked = folders.iter().flatten().map(|it| (it.clone(), None)).collect();
        Self { folders, asked }
    }

    /// Bytes free on the disk of each program's folder, in the programs' order.
    pub(super) async fn ask(&mut self) -> Vec<Reading> {
        self.ask_by(machine::disk_free, WITHIN).await
    }

    async fn ask_by(
        &mut self,
        room: impl Fn(&Path) -> Reading + Clone + Send + 'static,
        within: Duration,
    ) -> Vec<Reading> {
        let each = self.asked.iter_mut().map(async |(folder, place)| {
            (folder.clone(), ask(folder, place, room.clone(), within).await)
        });
        let told: BTreeMap<PathBuf, Reading> = join_all(each).await.into_iter().collect();
        let of = |it: &Option<PathBuf>| match it {
            Some(folder) => told.get(folder).copied().unwrap_or(Err(Unknown::Failed)),
            None => Err(Unknown::NotSupported),
        };
        self.folders.iter().map(of).collect()
    }
}

async fn ask(
    folder: &Path,
    place: &mut Option<Receiver<Reading>>,
    room: impl Fn(&Path) -> Reading + Send + 'static,
    within: Duration,
) -> Reading {
    let waits = place.as_mut().map(Receiver::try_recv);
    if waits == Some(Err(TryRecvError::Empty)) {
        return Err(Unknown::Failed);
    }
    *place = None;
    let (tell, mut told) = oneshot::channel();
    let path = folder.to_owned();
    // A thread of its own: the runtime's would hold up the end of the program for as long as the disk hangs.
    let thread = std::thread::Builder::new().name("disk-room".to_owned());
    let spawned = thread.spawn(move || tell.send(room(&path)).is_ok());
    if spawned.is_err() {
        return Err(Unknown::Failed);
    }
    let Ok(answer) = timeout(within, &mut told).await else {
        *place = Some(told);
        return Err(Unknown::Failed);
    };
    answer.unwrap_or(Err(Unknown::Failed))
}

/// The folder of a program: that of its profile, or of its first log.
fn folder(profile: &Filled) -> Option<PathBuf> {
    let root = profile.variables.get("root").filter(|it| !it.is_empty()).map(PathBuf::from);
    root.or_else(|| {
        let log = PathBuf::from(&profile.logs.first()?.path);
        log.parent().filter(|it| !it.as_os_str().is_empty()).map(ToOwned::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_is_unknown_and_asked_by_one_thread_until_it_answers() {
        let (good, bad) = (PathBuf::from("/good"), PathBuf::from("/bad"));
        let folders = vec![Some(bad.clone()), None, Some(good), Some(bad)];
        let mut disks = Disks::new(folders);
        let (end, ends) = mpsc::channel::<()>();
        let (ends, asked) = (Arc::new(Mutex::new(ends)), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        let room = move |folder: &Path| {
            if folder == Path::new("/bad") {
                count.fetch_add(1, Ordering::SeqCst);
                ends.lock().unwrap().recv().ok();
            }
            Ok(7)
        };
        let unknown = Err(Unknown::Failed);
        let hangs = [unknown, Err(Unknown::NotSupported), Ok(7), unknown];
        let (short, mut seen) = (Duration::from_millis(50), 0);
        let begun = std::time::Instant::now();
        while seen < 3 {
            let told = disks.ask_by(room.clone(), short).await;
            // A thread of the good disk may begin late.
            seen += u32::from(told == hangs);
            assert_eq!((told[0], told[3]), (unknown, unknown));
            assert!(begun.elapsed() < Duration::from_secs(30), "the good disk answers: {told:?}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "none new while one is waited for");
        drop(end);
        let begun = std::time::Instant::now();
        while disks.ask_by(room.clone(), Duration::from_secs(10)).await[0] != Ok(7) {
            assert!(begun.elapsed() < Duration::from_secs(30), "it answers now");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_has_no_known_room() {
        let mut disks = Disks::new(vec![Some(PathBuf::from("/no/such/folder")), Some("/".into())]);
        let told = disks.ask().await;
        assert_eq!(told[0], Err(Unknown::Gone));
        assert!(told[1].unwrap() > 0);
    }
}
