//! An engine in memory, for the simulated demo and for tests.
//!
//! A job is not executed but simulated: `start` copies the job's input to its output below a first line that
//! says so, the log has a few lines, and the job exits with 0 after a while. Tests change a container's
//! course with [`Fake::script`], and the engine's answers with [`Fake::fail`].
//!
//! Must hold: what the real engine refuses is refused here with the same variants of [`Error`]. Clones share
//! one engine, so an agent can end while its containers go on.

mod containers;
mod files;
mod script;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::image::Reference;
use super::{
    CachedImage, ContainerId, ContainerRuntime, ContainerSpec, EndedBy, Error, Exit, Found,
    FoundState, Gone, Image, Launched, LogChunk, LogSink, LogStream, Network,
};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::ids::Address;
use crate::job::status::PullProgress;
use crate::node::GpuUuid;

pub use script::{Call, Script};

use containers::{Container, End, Run};
use files::{CopyError, blocking, copy_tree, hex, host_path, output_path, simulate};

/// The first line of every output of a simulated job.
pub const SIMULATED: &str = "simulated: no container ran, this is a copy of the job's input";

/// How long to wait for a reader that takes nothing more, as for the real engine.
const DRAIN_STALL: Duration = Duration::from_secs(5);
/// Exit code of a process that SIGTERM ended.
const TERMINATED: i32 = 128 + 15;
/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// A container engine in memory; clones share one.
#[derive(Debug, Clone)]
pub struct Fake(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    script: Script,
    gpus: Vec<GpuUuid>,
    /// The engine's clock: the host's time at the start, advanced by tokio's clock, which tests can pause.
    since: (Timestamp, Instant),
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    images: HashMap<String, Image>,
    containers: BTreeMap<String, Container>,
    scripts: HashMap<String, Script>,
    failures: HashMap<Call, VecDeque<Error>>,
    created: u64,
}

impl Fake {
    /// An engine with these GPUs, whose jobs run for `run_for` and succeed.
    pub fn new(run_for: Duration, gpus: Vec<GpuUuid>) -> Self {
        Self(Arc::new(Shared {
            script: Script::succeeds_after(run_for),
            gpus,
            since: (SystemClock.now(), Instant::now()),
            state: Mutex::default(),
        }))
    }

    /// Sets the course of the container of this name; takes effect when the container is created.
    pub fn script(&self, container_name: &str, script: Script) {
        self.state().scripts.insert(container_name.to_owned(), script);
    }

    /// Makes the next such call fail with `error`; several errors are used in the order of their setting.
    pub fn fail(&self, call: Call, error: Error) {
        self.state().failures.entry(call).or_default().push_back(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decided(&self, call: Call) -> Result<(), Error> {
        let mut state = self.state();
        state.failures.get_mut(&call).and_then(VecDeque::pop_front).map_or(Ok(()), Err)
    }

    fn time(&self, at: Instant) -> Timestamp {
        let (then, instant) = self.0.since;
        then.plus(at.saturating_duration_since(instant))
    }

    /// Refuses what the real engine would refuse about a new container.
    fn admit(state: &State, spec: &ContainerSpec) -> Result<(), Error> {
        if !state.images.values().any(|image| image.id == spec.image_id) {
            let reason = format!("No such image: {}", spec.image_id);
            return Err(Error::Pull { reference: spec.image_id.clone(), reason });
        }
        if let Some(mount) = spec.mounts.iter().find(|mount| !mount.host.exists()) {
            let reason = format!("bind source path does not exist: {}", mount.host.display());
            return Err(Error::Engine { reason });
        }
        Ok(())
    }
}

impl State {
    fn by_id(&self, id: &ContainerId) -> Result<&Container, Error> {
        let mut containers = self.containers.values();
        containers.find(|container| container.is(id)).ok_or_else(|| Error::Gone(id.clone()))
    }

    fn by_id_mut(&mut self, id: &ContainerId) -> Result<&mut Container, Error> {
        let mut containers = self.containers.values_mut();
        containers.find(|container| container.is(id)).ok_or_else(|| Error::Gone(id.clone()))
    }
}

impl ContainerRuntime for Fake {
    async fn image(&self, text: &str) -> Result<Image, Error> {
        self.decided(Call::Image)?;
        let reference: Reference = text.parse().map_err(|reason| Error::ImageRefused {
            reference: text.chars().take(300).collect(),
            reason: format!("{reason}"),
        })?;
        let name = reference.local_name();
        let digest = |text: &str| format!("sha256:{}", hex(&Sha256::digest(text)));
        let pulled = Image {
            id: digest(&format!("image {name}")),
            digest: name
                .split_once('@')
                .map_or_else(|| digest(&name), |(_, digest)| digest.to_owned()),
            size_bytes: 0,
            pulled: true,
            unconfirmed: false,
        };
        let mut state = self.state();
        let known = state.images.insert(name, Image { pulled: false, ..pulled.clone() });
        Ok(known.unwrap_or(pulled))
    }

    /// Its images are here at once.
    fn pull_progress(&self, _: &str) -> Option<PullProgress> {
        None
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerId, Error> {
        self.decided(Call::Create)?;
        let mut state = self.state();
        if let Some(there) = state.containers.get(&spec.name) {
            if there.spec.node != spec.node {
                let reason = format!("the name {} is taken by somebody else", spec.name);
                return Err(Error::Engine { reason });
            }
            if there.run.is_some() || there.spec.gpus == spec.gpus {
                return Ok(there.id.clone());
            }
        }
        Self::admit(&state, spec)?;
        let script = state.scripts.get(&spec.name).unwrap_or(&self.0.script).clone();
        state.created += 1;
        let id = ContainerId(hex(&Sha256::digest(format!("{} {}", state.created, spec.name))));
        let container = Container {
            id: id.clone(),
            spec: spec.clone(),
            script,
            created: Instant::now(),
            run: None,
        };
        state.containers.insert(spec.name.clone(), container);
        Ok(id)
    }

    async fn download_size(&self, _reference: &str) -> Result<Option<u64>, Error> {
        Ok(None)
    }

    async fn layer_folder(&self, id: &ContainerId) -> Result<Option<PathBuf>, Error> {
        self.state().by_id(id).map(|_| None)
    }

    async fn holds_layers(&self, _node: Address) -> bool {
        false
    }

    async fn cached(&self) -> Result<Vec<CachedImage>, Error> {
        Ok(Vec::new())
    }

    async fn evict(&self, _id: &str, _unless_after: Timestamp) -> Result<bool, Error> {
        Ok(false)
    }

    async fn root_folder(&self) -> Result<Option<PathBuf>, Error> {
        Ok(None)
    }

    async fn first_process(&self, id: &ContainerId) -> Result<Option<u32>, Error> {
        self.state().by_id(id).map(|_| None)
    }

    async fn written(&self, id: &ContainerId) -> Result<Option<u64>, Error> {
        self.decided(Call::Written)?;
        // Nothing runs, so nothing is written.
        self.state().by_id_mut(id).map(|_| Some(0))
    }

    async fn start(&self, id: &ContainerId) -> Result<Launched, Error> {
        self.decided(Call::Start)?;
        let (spec, writes_output) = {
            let mut state = self.state();
            let started = Instant::now();
            let container = state.by_id_mut(id)?;
            if let Some(run) = &container.run {
                let started_at = Some(self.time(run.started));
                return Ok(Launched { id: id.clone(), started_now: false, started_at });
            }
            let unknown = container.spec.gpus.iter().find(|gpu| !self.0.gpus.contains(gpu));
            if let Some(gpu) = unknown {
                let reason = format!("device error: {gpu}: unknown device");
                return Err(Error::Gpu { reason });
            }
            let Script { code, run_for, writes_output, .. } = container.script;
            let end = End { code, at: started + run_for, by: EndedBy::Itself };
            container.run = Some(Run { started, end: watch::Sender::new(end) });
            (container.spec.clone(), writes_output)
        };
        if writes_output {
            let (input, output) =
                (host_path(&spec, "/input/input"), host_path(&spec, output_path(&spec)));
            blocking(move || simulate(input.as_deref(), output.as_deref())).await?;
        }
        Ok(Launched { id: id.clone(), started_now: true, started_at: None })
    }

    async fn follow(&self, id: &ContainerId, sink: LogSink, gone: Gone<'_>) -> Result<Exit, Error> {
        self.decided(Call::Follow)?;
        let (log, mut end) = {
            let state = self.state();
            let container = state.by_id(id)?;
            (container.log(), container.run()?.end.subscribe())
        };
        let output = async {
            for chunk in log {
                if sink.send(chunk).await.is_err() {
                    return;
                }
            }
        };
        let exit = async {
            loop {
                let at = end.borrow_and_update().at;
                tokio::select! {
                    () = sleep_until(at) => return Ok(()),
                    moved = end.changed() => moved.map_err(|_| Error::Gone(id.clone()))?,
                }
            }
        };
        let mut output = std::pin::pin!(output);
        let mut exit = std::pin::pin!(exit);
        tokio::select! {
            ended = &mut exit => {
                ended?;
                gone();
                timeout(DRAIN_STALL, output).await.ok();
            }
            () = &mut output => {
                exit.await?;
                gone();
            }
        }
        let state = self.state();
        let container = state.by_id(id)?;
        let run = container.run()?;
        let End { code, at, by } = *run.end.borrow();
        Ok(Exit {
            code,
            oom: container.script.oom,
            started_at: self.time(run.started),
            finished_at: self.time(at),
            ended_by: by,
        })
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), Error> {
        self.decided(Call::Stop)?;
        let ended_at = {
            let state = self.state();
            let Ok(container) = state.by_id(id) else { return Ok(()) };
            let Ok(run) = container.run() else { return Ok(()) };
            let asked = Instant::now();
            run.end.send_if_modified(|end| {
                let (code, at) = if container.script.ignores_stop {
                    (KILLED, asked + grace)
                } else {
                    (TERMINATED, asked)
                };
                let sooner = at < end.at;
                if sooner {
                    *end = End { code, at, by: EndedBy::Engine };
                }
                sooner
            });
            run.end.borrow().at
        };
        sleep_until(ended_at).await;
        Ok(())
    }

    async fn copy_out(
        &self,
        id: &ContainerId,
        path: &str,
        dest: &Path,
        bytes_max: u64,
    ) -> Result<(), Error> {
        self.decided(Call::CopyOut)?;
        let source = host_path(&self.state().by_id(id)?.spec, path);
        let source = source.filter(|source| source.symlink_metadata().is_ok());
        let source = source.ok_or_else(|| Error::NoSuchPath { path: path.to_owned() })?;
        let dest = source.file_name().map_or_else(|| dest.to_owned(), |name| dest.join(name));
        let mut left = bytes_max;
        let copied = blocking(move || Ok(copy_tree(&source, &dest, &mut left))).await?;
        copied.map_err(|refusal| match refusal {
            CopyError::Io(err) => Error::Io(err),
            CopyError::TooLarge => Error::TooLarge { path: path.to_owned(), bytes_max },
            CopyError::Refused(reason) => Error::CopyOut { path: path.to_owned(), reason },
        })
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), Error> {
        self.decided(Call::Remove)?;
        self.state().containers.retain(|_, container| !container.is(id));
        Ok(())
    }

    async fn withdraw(&self, id: &ContainerId) -> Result<bool, Error> {
        self.decided(Call::Remove)?;
        let containers = &mut self.state().containers;
        containers.retain(|_, one| !one.is(id) || one.state() != FoundState::Created);
        Ok(!containers.values().any(|one| one.is(id)))
    }

    async fn list(&self, node: Address) -> Result<Vec<Found>, Error> {
        self.decided(Call::List)?;
        let state = self.state();
        let ours = state.containers.values().filter(|container| container.spec.node == node);
        let found = ours.map(|container| Found {
            id: container.id.clone(),
            job_id: Some(container.spec.job_id.clone()),
            attempt: container.spec.attempt,
            state: container.state(),
            created_at: self.time(container.created),
        });
        Ok(found.collect())
    }

    async fn open_folders(&self, _: Address, top: &Path, folders: &[PathBuf]) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        for folder in folders {
            let open = std::fs::Permissions::from_mode(0o777);
            std::fs::set_permissions(top.join(folder), open).map_err(Error::Io)?;
        }
        Ok(())
    }

    async fn limits(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn keep_networks(&self, _: Address, _: &[Network], _: usize) {
        std::future::pending::<()>().await;
    }

    async fn drop_networks(&self) {}

    async fn read_back(&self, _: Address, file: &Path) -> Result<Option<Vec<u8>>, Error> {
        Ok(std::fs::read(file).ok())
    }

    async fn gpu_ready(&self, _: Address, _: &GpuUuid) -> Result<(), Error> {
        Ok(())
    }
}
