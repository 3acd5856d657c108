//! NVIDIA's management library (NVML), opened by its name at run time.
//!
//! Invariants: its calls go into a kernel driver that can hang forever, so each round of them runs
//! on a thread of its own that nobody joins, and there is at most one such thread. While one hangs,
//! later callers wait for it up to their own deadline, outside the driver. A card that has fallen
//! off the bus is left out and reported as such; the others are still listed. A card without memory
//! of its own is listed with the host's.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Nvml as Library, cuda_driver_version_major, cuda_driver_version_minor};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;

use super::{Error, GpuProbe};
use crate::node::{Gpu, GpuInventory, GpuUuid};

/// The library's name for the loader, then paths where distributions and container toolkits put it
/// without registering it with the loader.
const LIBRARIES: [&str; 4] = [
    "libnvidia-ml.so.1",
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
];
/// A healthy driver answers in milliseconds, a card that wakes up in a few seconds.
const DEADLINE: Duration = Duration::from_secs(10);
const MIB: u64 = 1024 * 1024;

/// Lists the GPUs that NVIDIA's driver knows.
#[derive(Debug, Clone)]
pub struct Nvml {
    candidates: Vec<OsString>,
    deadline: Duration,
    /// Opened by the first successful call and kept: opening it wakes up idle cards.
    library: Arc<Mutex<Option<Library>>>,
}

impl Nvml {
    /// Uses the library at `lib_path`, or the host's own without one. Opens nothing yet.
    pub fn new(lib_path: Option<PathBuf>) -> Self {
        let candidates = lib_path
            .map_or_else(|| LIBRARIES.map(OsString::from).to_vec(), |path| vec![path.into()]);
        Self { candidates, deadline: DEADLINE, library: Arc::default() }
    }

    /// Sets the deadline for an answer; the default is 10 s.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

impl GpuProbe for Nvml {
    async fn inventory(&self) -> Result<GpuInventory, Error> {
        let round = async {
            let library = Arc::clone(&self.library).lock_owned().await;
            let candidates = self.candidates.clone();
            let (tell, told) = oneshot::channel();
            let thread = std::thread::Builder::new().name("nvml".to_owned());
            thread
                .spawn(move || tell.send(ask(library, &candidates)))
                .map_err(|err| Error::Driver { reason: format!("no thread for it: {err}") })?;
            told.await.map_err(|_| Error::Driver { reason: "the library panicked".to_owned() })?
        };
        let answer = timeout(self.deadline, round).await;
        answer.unwrap_or(Err(Error::Hung { seconds: self.deadline.as_secs() }))
    }
}

fn ask(
    mut library: OwnedMutexGuard<Option<Library>>,
    candidates: &[OsString],
) -> Result<GpuInventory, Error> {
    let opened = match library.take() {
        Some(opened) => opened,
        None => open(candidates)?,
    };
    // If the library as a whole fails, it is reopened next time: the driver may have been replaced.
    let inventory = read(&opened).map_err(|err| driver(&err))?;
    *library = Some(opened);
    Ok(inventory)
}

/// Opens the first candidate that exists. A driver's error ends the search: another path to the
/// library leads to the same driver.
fn open(candidates: &[OsString]) -> Result<Library, Error> {
    let mut absent = None;
    for candidate in candidates {
        match Library::builder().lib_path(candidate).init() {
            Ok(library) => return Ok(library),
            Err(err @ NvmlError::LibloadingError(_)) => {
                let library = candidate.display().to_string();
                absent.get_or_insert(Error::NoLibrary { library, source: Box::new(err) });
            }
            Err(err) => return Err(driver(&err)),
        }
    }
    Err(absent.unwrap_or_else(|| Error::Driver { reason: "no library to ask".to_owned() }))
}

fn read(library: &Library) -> Result<GpuInventory, NvmlError> {
    let cuda = library.sys_cuda_driver_version()?;
    let mut inventory = GpuInventory {
        driver: library.sys_driver_version()?,
        cuda: format!("{}.{}", cuda_driver_version_major(cuda), cuda_driver_version_minor(cuda)),
        ..GpuInventory::default()
    };
    for index in 0..library.device_count()? {
        match gpu(library, index) {
            Ok((gpu, shares)) => {
                inventory.share_memory.extend(shares.then(|| gpu.uuid.clone()));
                inventory.gpus.push(gpu);
            }
            Err(reason) => {
                tracing::warn!(gpu.index = index, "GPU {index} is left out: {reason}");
                inventory.left_out.push(format!("GPU {index} is left out: {reason}"));
            }
        }
    }
    inventory.gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
    Ok(inventory)
}

/// The card, and whether it uses the host's memory instead of its own.
fn gpu(library: &Library, index: u32) -> Result<(Gpu, bool), String> {
    let device = library.device_by_index(index).map_err(in_words)?;
    let uuid = device.uuid().map_err(in_words)?;
    let uuid = GpuUuid::new(&uuid).ok_or_else(|| format!("its UUID is {uuid:?}"))?;
    let model = device.name().map_err(in_words)?;
    let (bytes, shares) = match device.memory_info() {
        Ok(memory) => (memory.total, false),
        // A chip with both CPU and GPU, such as GB10: they share one memory.
        Err(NvmlError::NotSupported) => (host_memory(), true),
        Err(err) => return Err(in_words(err)),
    };
    Ok((Gpu { uuid, model, vram_mib: bytes / MIB }, shares))
}

/// The host's memory in bytes.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

fn driver(err: &NvmlError) -> Error {
    Error::Driver { reason: err.to_string() }
}

fn in_words(err: NvmlError) -> String {
    match err {
        NvmlError::FailedToLoadSymbol(symbol) => format!("the driver is too old: {symbol}"),
        other => other.to_string(),
    }
}
