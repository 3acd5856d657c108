//! Reads a log that another program writes, as it grows, over rotations, truncations and restarts.
//!
//! Must hold: each byte that the program wrote is given out once, in order for each file, or a gap is told where it is
//! missing. The caller commits each [`Position`] together with what came with it; after a kill at any time it hands the
//! last one back, and nothing is lost or doubled. Memory is bounded, whatever is written. The file is only read.
//!
//! `follow` decides what is read next, `restore` finds the place again, `search` and `family` the rotated files.

mod family;
mod follow;
mod lines;
mod open;
mod position;
mod restore;
mod retired;
mod search;
mod source;
mod start;
#[cfg(test)]
mod tests;
mod wake;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use follow::{Follower, Step};
pub use lines::{LINE_BYTES_MAX, Line};
pub use position::Position;
use wake::Wake;

/// The most lines given out at once.
pub const LINES_MAX: usize = 1_000;

/// The shortest time between two looks at files that change all the time.
const PAUSE: Duration = Duration::from_millis(10);

/// What is read, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The log, or a link to it.
    pub path: PathBuf,
    /// Where it is begun if there is no position.
    pub start: Start,
    /// How often the files are looked at, at least.
    pub poll: Duration,
    /// How long a rotated file must have rested before it is left; until then it may still grow.
    pub grace: Duration,
    /// Whether the kernel is asked to tell of changes. Where it can't, the looks at intervals find them.
    pub inotify: bool,
}

impl Config {
    /// The log at this path from its end on, looked at each second, rotated files for a minute.
    pub const fn new(path: PathBuf) -> Self {
        Self {
            path,
            start: Start::End,
            poll: Duration::from_secs(1),
            grace: Duration::from_mins(1),
            inotify: true,
        }
    }
}

/// Where a log is begun of which nothing was read before. A file that appears later, where nothing was at the first
/// look, is read from its first byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is written from now on.
    End,
    /// With the first byte of the file that is there.
    Beginning,
    /// With so many last lines, or as many of them as begin in the last MiB.
    LastLines(usize),
}

/// What a reader tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// A file is read: the first one, one after a rotation, or the same one after trouble.
    Open {
        /// Where its reading begins.
        position: Position,
    },
    /// Lines that were written.
    Lines {
        /// At least one, at most [`LINES_MAX`], together at most about 512 KiB.
        lines: Vec<Line>,
        /// The place after them.
        position: Position,
    },
    /// Something that was written can't be had any more, or that can't be excluded.
    Gap {
        /// How many bytes at least: those that were seen in the file, or that a hole in it tells. What was written after
        /// the latest look is not among them. `None` if none was seen: 0 is possible.
        bytes: Option<u64>,
        /// Why.
        why: GapWhy,
        /// The place after it.
        position: Position,
    },
    /// Nothing can be read now; [`Read::Open`] or a gap tells that it is over.
    Trouble {
        /// Why, as a sentence with the path. It may hold a user's name.
        what: String,
    },
}

/// Why something that was written can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapWhy {
    /// The file was truncated, or copied and truncated: what came between two looks, or after the copy, is lost.
    Truncated,
    /// While nobody read it the file was removed.
    Gone,
    /// While nobody read it the file was compressed.
    Compressed,
}

/// A reader of one log.
#[derive(Debug)]
pub struct Tail {
    state: State,
    wake: Wake,
    /// When a step ended last.
    looked: Option<Instant>,
}

/// The follower is here, or on its thread.
#[derive(Debug)]
enum State {
    Here(Box<Follower>),
    Away(JoinHandle<(Box<Follower>, Step)>),
    /// Its thread panicked, which was not told yet.
    Panicked,
    /// There is none any more.
    Lost,
}

impl Tail {
    /// Reads on at the position, or begins where the configuration says. Must be called within a runtime with I/O and
    /// time.
    pub fn new(config: Config, position: Option<Position>) -> Self {
        let wake = Wake::new(&config.path, config.inotify);
        let follower = Box::new(Follower::new(config, position));
        Self { state: State::Here(follower), wake, looked: None }
    }

    /// Waits for something to tell. The future may be dropped at any time: nothing is lost, the next call goes on.
    pub async fn next(&mut self) -> Read {
        loop {
            if let State::Here(follower) = &mut self.state
                && let Some(read) = follower.ready()
            {
                return read;
            }
            match self.step().await {
                Some(Step::Told(read)) => return *read,
                Some(Step::Again) => {}
                Some(Step::Idle(at_most)) => self.idle(at_most).await,
                None => return self.lost().await,
            }
        }
    }

    /// One step of the follower, on a thread that may block; `None` if that thread panicked.
    async fn step(&mut self) -> Option<Step> {
        if matches!(self.state, State::Here(_))
            && let State::Here(mut follower) = std::mem::replace(&mut self.state, State::Lost)
        {
            self.state = State::Away(tokio::task::spawn_blocking(move || {
                let step = follower.step(Instant::now());
                (follower, step)
            }));
        }
        let State::Away(away) = &mut self.state else { return None };
        let Ok((follower, step)) = away.await else {
            self.state = State::Panicked;
            return None;
        };
        self.state = State::Here(follower);
        self.looked = Some(Instant::now());
        Some(step)
    }

    /// Waits until the files may have changed.
    async fn idle(&mut self, at_most: Duration) {
        let State::Here(follower) = &self.state else { return };
        if self.wake.follow(follower) {
            // It may have changed before it was watched.
            return;
        }
        self.wake.wait(at_most).await;
        let since = self.looked.map_or(PAUSE, |looked| looked.elapsed());
        tokio::time::sleep(PAUSE.saturating_sub(since)).await;
    }

    /// Tells once that nothing is read any more.
    async fn lost(&mut self) -> Read {
        if matches!(self.state, State::Lost) {
            return std::future::pending().await;
        }
        self.state = State::Lost;
        Read::Trouble { what: "the reader of a log has failed; restart the program".to_owned() }
    }
}
