//! NVIDIA's management library (NVML), opened by its name at run time.
//!
//! Invariants: its calls go into a kernel driver that can hang forever, so each round of them runs on a
//! thread of its own that nobody joins, and there is at most one such thread. While one hangs, later callers
//! wait for it up to their own deadline, outside the driver. Another thread waits for events, so that neither
//! delays the other. A card that has fallen off the bus is left out and reported as such; the others are
//! still listed. A card without memory of its own is listed with the host's.

mod devices;
mod events;
mod library;
mod list;
mod sample;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::Nvml as Library;
use nvml_wrapper::error::NvmlError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use self::library::{LIBRARIES, driver, open};
use super::toolkit::Toolkit;
use super::{EVENTS_MAX, Error, GpuProbe};
use crate::node::card::{Happened, Reading, Round};
use crate::node::toolkit::Verdict;
use crate::node::{GpuInventory, GpuUuid};

/// A healthy driver answers in milliseconds, a card that wakes up in a few seconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks NVIDIA's driver.
#[derive(Debug, Clone)]
pub struct Nvml {
    candidates: Vec<OsString>,
    deadline: Duration,
    desk: Arc<Mutex<Desk>>,
    /// The lock that the thread that waits for events holds.
    watch: events::Turn,
}

/// What is asked in one round.
trait Ask<T>:
    FnOnce(&Library, &mut sample::Remembered) -> Result<T, NvmlError> + Send + 'static
{
}

impl<T, F> Ask<T> for F where
    F: FnOnce(&Library, &mut sample::Remembered) -> Result<T, NvmlError> + Send + 'static
{
}

/// The state that the rounds share; only the holder of its lock asks the driver.
#[derive(Debug, Default)]
struct Desk {
    /// Opened by the first successful call and kept: opening it wakes up idle cards.
    library: Option<Library>,
    remembered: sample::Remembered,
}

impl Nvml {
    /// Uses the library at `lib_path`, or the host's own without one. Opens nothing yet.
    pub fn new(lib_path: Option<PathBuf>) -> Self {
        let candidates = lib_path
            .map_or_else(|| LIBRARIES.map(OsString::from).to_vec(), |path| vec![path.into()]);
        Self {
            candidates,
            deadline: DEADLINE,
            desk: Arc::default(),
            watch: events::Turn::default(),
        }
    }

    /// Sets the deadline for an answer; the default is 10 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Asks the driver on a thread of its own, after any round that is still under way.
    async fn round<T: Send + 'static>(&self, ask: impl Ask<T>) -> Result<T, Error> {
        let round = async {
            let mut desk = Arc::clone(&self.desk).lock_owned().await;
            let candidates = self.candidates.clone();
            let (tell, told) = oneshot::channel();
            let thread = std::thread::Builder::new().name("nvml".to_owned());
            thread
                .spawn(move || tell.send(desk.ask(&candidates, ask)))
                .map_err(|err| Error::Driver { reason: format!("no thread for it: {err}") })?;
            told.await.map_err(|_| Error::Driver { reason: "the library panicked".to_owned() })?
        };
        let answer = timeout(self.deadline, round).await;
        answer.unwrap_or(Err(Error::Hung { seconds: self.deadline.as_secs() }))
    }
}

impl Desk {
    fn ask<T>(&mut self, candidates: &[OsString], ask: impl Ask<T>) -> Result<T, Error> {
        let opened = match self.library.take() {
            Some(opened) => opened,
            None => open(candidates)?,
        };
        // If the library as a whole fails, it is reopened next time: the driver may have been replaced.
        let answer = ask(&opened, &mut self.remembered).map_err(|err| driver(&err))?;
        self.library = Some(opened);
        Ok(answer)
    }
}

impl GpuProbe for Nvml {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        self.round(|library, _| list::read(library)).await
    }

    async fn sample(&self) -> Result<Round, Error> {
        self.round(sample::read).await
    }

    async fn energy(&self, cards: &[GpuUuid]) -> Result<BTreeMap<GpuUuid, Reading<u64>>, Error> {
        let cards = cards.to_vec();
        self.round(move |library, _| sample::energy(library, &cards)).await
    }

    fn events(&self) -> mpsc::Receiver<Happened> {
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        self.watch.begin(self.candidates.clone(), tell);
        told
    }

    /// The library knows nothing of it.
    async fn toolkit(&self) -> Verdict {
        Toolkit::default().look().await
    }
}
