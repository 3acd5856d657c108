//! Wakes a reader when its files change, where the kernel tells; elsewhere it looks at intervals.
//!
//! Must hold: it only makes a look come earlier. File systems of other machines, and some of containers, tell nothing.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::family::watched_folders;
use super::follow::Follower;
use super::open::Id;

/// The most events that are taken between two looks.
const EVENTS_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Wake {
    /// `None` where there is none, or too many are open.
    inotify: Option<AsyncFd<OwnedFd>>,
    /// Names in the watched folders that matter.
    name: Option<OsString>,
    files: Vec<(Id, i32)>,
}

impl Wake {
    /// Watches the folders of a log. Must be called within a runtime.
    pub(super) fn new(path: &Path, is_wanted: bool) -> Self {
        let inotify = if is_wanted { watch(path).ok() } else { None };
        Self { inotify, name: path.file_name().map(OsString::from), files: Vec::new() }
    }

    /// Watches the files that are read now, and no others; says whether one is new.
    pub(super) fn follow(&mut self, follower: &Follower) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let mut is_new = false;
        let mut files = Vec::new();
        for source in follower.sources() {
            let id = source.id();
            if let Some(known) = self.files.iter().find(|(known, _)| *known == id) {
                files.push(*known);
                continue;
            }
            let path = format!("/proc/self/fd/{}", source.file().as_raw_fd());
            if let Ok(wd) = inotify::add_watch(inotify.get_ref(), path, WatchFlags::MODIFY) {
                files.push((id, wd));
                is_new = true;
            }
        }
        for (_, wd) in self.files.iter().filter(|old| !files.contains(old)) {
            // It is gone already if its file was removed.
            inotify::remove_watch(inotify.get_ref(), *wd).ok();
        }
        self.files = files;
        is_new
    }

    /// Waits until a file changes, at most so long.
    pub(super) async fn wait(&mut self, at_most: Duration) {
        let Some(inotify) = &mut self.inotify else { return tokio::time::sleep(at_most).await };
        let changed = async {
            loop {
                let name = self.name.as_ref();
                match inotify.async_io_mut(Interest::READABLE, |fd| drain(fd, name)).await {
                    Ok(false) => {}
                    Ok(true) | Err(_) => break,
                }
            }
        };
        // Over or not, the files are looked at.
        tokio::time::timeout(at_most, changed).await.ok();
    }
}

fn watch(path: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let what =
        WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
    for folder in watched_folders(path) {
        // Without it, the intervals have to do.
        inotify::add_watch(&inotify, &folder, what | WatchFlags::ONLYDIR).ok();
    }
    #[expect(deprecated, reason = "an OwnedFd keeps what its unsafe successor asks the caller for")]
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

/// Takes all events; says whether one matters.
fn drain(fd: &OwnedFd, name: Option<&OsString>) -> std::io::Result<bool> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let (mut matters, mut any) = (false, false);
    for _ in 0..EVENTS_MAX {
        match reader.next() {
            Ok(event) => {
                any = true;
                let is_it =
                    |it: &std::ffi::CStr| name.is_some_and(|n| n.as_bytes() == it.to_bytes());
                matters |= event.file_name().is_none_or(is_it);
            }
            Err(rustix::io::Errno::AGAIN) if any => break,
            Err(err) => return Err(err.into()),
        }
    }
    Ok(matters)
}
