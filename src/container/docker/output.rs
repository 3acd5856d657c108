//! Reads a container's output from the engine's log.
//!
//! Must hold: each frame is passed on once and in its stream's order, whatever the engine's follower leaves
//! out. Docker Engine before 23 lets a container's end overtake its last lines now and then, and a connection
//! can break off: what was left is read again after the end, by the frames' times. Three things can still hide
//! some of it: more than [`TAIL`] frames that were overtaken, a host clock that was set back, and an endless line
//! of which the engine has dropped the beginning.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{ContainerId, LogChunk, LogSink, LogStream};
use super::Docker;
use crate::clock::Timestamp;

/// Longest chunk that is passed on; the engine's chunks have 16 KiB.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// After the exit, output that stalls for this long is abandoned.
const DRAIN_STALL: Duration = Duration::from_secs(5);
/// After the exit, output is read for at most this long, even if it makes progress: the time to read the two
/// full log files that the policy allows.
const DRAIN_MAX: Duration = Duration::from_mins(1);
/// Frames at the end of a log that are read again after a follower that came to its end.
const TAIL: &str = "1000";
/// Containers of which the rest of the output is read at the same time.
pub(super) const DRAINS_MAX: usize = 4;
/// How far before its place a stream is read again, in seconds: the engine counts in whole ones.
const SKEW: u64 = 1;

/// A frame's time, such as `2006-01-02T15:04:05.000000000Z`, which the engine puts before it with a space.
type Time = [u8; 30];

/// The last frame of a stream that was passed on.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Time,
    /// Frames with that time, this one included: the parts of a long line have one time.
    count: u32,
}

/// The output of one container, to be read once.
#[derive(Debug)]
pub(super) struct Output<'a> {
    docker: &'a Docker,
    id: &'a ContainerId,
    sink: LogSink,
    /// Of stdout and stderr.
    places: Mutex<[Option<Place>; 2]>,
    moved: AtomicU64,
    /// Whether the connection broke off before the log's end.
    broke_off: AtomicBool,
}

impl<'a> Output<'a> {
    pub(super) fn new(docker: &'a Docker, id: &'a ContainerId, sink: LogSink) -> Self {
        let (places, moved) = (Mutex::default(), AtomicU64::new(0));
        Self { docker, id, sink, places, moved, broke_off: AtomicBool::new(false) }
    }

    /// Passes the log on until it ends, breaks off, or nobody reads it any more.
    pub(super) async fn follow(&self) {
        self.read(None, "all").await;
    }

    /// Passes on the rest after the container's exit, for at most [`DRAIN_MAX`]. `followed`: the unfinished
    /// [`follow`](Self::follow), which has to make progress.
    pub(super) async fn finish(&self, followed: Option<impl Future<Output = ()> + Unpin>) {
        // Jobs that flood the log one after the other must not have the engine read all their logs at once.
        let _turn = self.docker.drains.acquire().await;
        let until = Instant::now() + DRAIN_MAX;
        let is_read = match followed {
            Some(followed) => self.drain(followed, until).await,
            None => true,
        };
        // To find frames by their time, the engine looks through all of the log: seconds for one that was flooded.
        let tail = if self.broke_off.load(Ordering::Relaxed) { "all" } else { TAIL };
        let places = *self.places();
        if !is_read || timeout_at(until, self.read(Some(places), tail)).await.is_err() {
            tracing::warn!(container = %self.id, "the end of the container's output was not read");
        }
    }

    fn places(&self) -> MutexGuard<'_, [Option<Place>; 2]> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the frames after these places; or follows the log from its first frame.
    async fn read(&self, mut after: Option<[Option<Place>; 2]>, tail: &str) {
        let Ok(client) = self.docker.client().await else { return };
        let options = LogsOptionsBuilder::default()
            .follow(after.is_none())
            .since(after.as_ref().map_or(0, since))
            .tail(tail)
            .timestamps(true)
            .stdout(true)
            .stderr(true)
            .build();
        let mut log = client.logs(&self.id.0, Some(options));
        while let Some(item) = log.next().await {
            let (stream, frame) = match item {
                Ok(LogOutput::StdErr { message }) => (LogStream::Stderr, message),
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    (LogStream::Stdout, message)
                }
                Ok(LogOutput::StdIn { .. }) => continue,
                Err(err) => {
                    tracing::warn!(container = %self.id, "the container's output broke off: {err}");
                    self.broke_off.store(true, Ordering::Relaxed);
                    return;
                }
            };
            let (at, bytes) = parted(frame);
            if after.as_mut().is_some_and(|places| !is_new(&mut places[place_of(stream)], at)) {
                continue;
            }
            if !self.pass(stream, bytes).await {
                return;
            }
            note(&mut self.places()[place_of(stream)], at);
        }
    }

    /// Passes a frame on. Returns whether somebody still reads.
    async fn pass(&self, stream: LogStream, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(CHUNK_BYTES_MAX));
            if self.sink.send(LogChunk { stream, bytes: piece }).await.is_err() {
                return false;
            }
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Returns whether the reading came to its end.
    async fn drain(&self, mut reading: impl Future<Output = ()> + Unpin, until: Instant) -> bool {
        loop {
            let before = self.moved.load(Ordering::Relaxed);
            if timeout(DRAIN_STALL, &mut reading).await.is_ok() {
                return true;
            }
            if self.moved.load(Ordering::Relaxed) == before || Instant::now() > until {
                return false;
            }
        }
    }
}

const fn place_of(stream: LogStream) -> usize {
    match stream {
        LogStream::Stdout => 0,
        LogStream::Stderr => 1,
    }
}

/// The Unix time in seconds from which the frames after these places have to be read.
fn since(places: &[Option<Place>; 2]) -> i32 {
    // Parts of one endless line have its first part's time, so one stream's place can be hours old.
    let last = places.iter().flatten().map(|place| place.at).min();
    let last = last.and_then(|at| str::from_utf8(&at).ok()?.parse::<Timestamp>().ok());
    let seconds = last.map_or(0, |at| (at.unix_ms() / 1000).saturating_sub(SKEW));
    // 0 is the beginning of the log.
    i32::try_from(seconds).unwrap_or(0)
}

/// Takes a frame's time from its front. A frame without such a time stays as it is.
fn parted(mut frame: Bytes) -> (Option<Time>, Bytes) {
    const FORM: &[u8; 31] = b"dddd-dd-ddTdd:dd:dd.dddddddddZ ";
    let fits = |(form, byte): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        form => form == byte,
    };
    let is_time = frame.len() >= FORM.len() && FORM.iter().zip(&frame).all(fits);
    if !is_time {
        return (None, frame);
    }
    let front = frame.split_to(FORM.len());
    (front.first_chunk().copied(), frame)
}

/// Whether a frame with this time comes after the place. Counts down the frames with the place's own time.
fn is_new(place: &mut Option<Place>, at: Option<Time>) -> bool {
    // Without times nobody can tell, and the follower's frames have to do.
    let Some(at) = at else { return false };
    match place {
        Some(place) if at == place.at => {
            let is_new = place.count == 0;
            place.count = place.count.saturating_sub(1);
            is_new
        }
        Some(place) => at > place.at,
        None => true,
    }
}

fn note(place: &mut Option<Place>, at: Option<Time>) {
    *place = match (*place, at) {
        (Some(place), Some(at)) if at == place.at => Some(Place { at, count: place.count + 1 }),
        // The clock was set back.
        (Some(place), Some(at)) if at < place.at => Some(place),
        (_, Some(at)) => Some(Place { at, count: 1 }),
        (place, None) => place,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of frames with these times, in units of a second, after those that were seen.
    fn left(seen: &[u32], log: &[u32]) -> Vec<u32> {
        let at = |second: &u32| {
            let text = format!("2026-11-27T10:00:{second:02}.000000000Z x");
            parted(Bytes::from(text)).0
        };
        let mut place = None;
        for second in seen {
            note(&mut place, at(second));
        }
        log.iter().copied().filter(|second| is_new(&mut place, at(second))).collect()
    }

    #[test]
    fn what_a_follower_left_is_passed_on_once() {
        for (seen, log, rest) in [
            (&[][..], &[1, 2][..], &[1, 2][..]),
            (&[1, 2], &[1, 2], &[]),
            (&[1], &[1, 2, 3], &[2, 3]),
            // The parts of a long line have one time.
            (&[1, 2, 2], &[1, 2, 2, 2, 2], &[2, 2]),
            // The clock was set back.
            (&[10, 20, 5], &[10, 20, 5], &[]),
            // The log's older file is gone.
            (&[1, 2], &[2, 3], &[3]),
        ] {
            assert_eq!(left(seen, log), rest, "{seen:?} {log:?}");
        }
    }

    #[test]
    fn only_the_engines_own_time_is_taken_from_a_frame() {
        let frame = |text: &'static str| Bytes::from_static(text.as_bytes());
        let (at, bytes) = parted(frame("2026-11-27T10:00:01.123456789Z 2026-11-27T10:00"));
        assert_eq!(
            (&at.unwrap()[..], &bytes[..]),
            (&b"2026-11-27T10:00:01.123456789Z"[..], &b"2026-11-27T10:00"[..])
        );
        assert_eq!(since(&[None, Some(Place { at: at.unwrap(), count: 1 })]), 1_795_773_600);
        for odd in ["", "x", "2026-11-27T10:00:01Z x", "2026-11-27T10:00:01.123456789+01:00 x"] {
            assert_eq!(parted(frame(odd)), (None, frame(odd)));
        }
        assert_eq!(since(&[None, None]), 0);
    }
}
