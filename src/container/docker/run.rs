//! Creates and starts a container exactly once (docs/adr/0015-created-before-started.md).
//!
//! The fixed name makes repeated creates yield one container. A start first checks that the container was
//! never started, and an exited container is never started again.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status,
    ContainerSummary, ContainerSummaryStateEnum as Listed,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions, StopContainerOptionsBuilder,
};

use super::super::{
    ContainerId, ContainerRuntime as _, ContainerSpec, Error, Found, FoundState, Launched, policy,
};
use super::fault::{self, EngineError};
use super::inspect::inspect;
use super::{Docker, groups, holders, images, platform, within};
use crate::clock::Timestamp;
use policy::Brought;

/// Attempts to create while the name is taken by a container that is gone a moment later.
const CREATE_TRIES_MAX: u32 = 3;

/// Most images whose facts are remembered: about one day's different images.
const FACTS_MAX: usize = 256;
/// Most variables and labels of an image; real images have some dozens, and each goes into every create call.
const NAMES_MAX: usize = 4096;

/// Most volumes of an image: each becomes a mount.
const VOLUMES_MAX: usize = 64;

/// Facts about images by image id. They never change, since the id is a hash of them.
#[derive(Default)]
pub(super) struct Facts(Mutex<HashMap<String, Arc<Fact>>>);

/// What is known about an image.
struct Fact {
    brought: Brought,
    /// As Go names it, such as `amd64`; empty if the image does not say.
    architecture: String,
}

/// Refuses an image for another processor architecture than this node's: a registry gives it regardless if
/// the name means a single image and not a list of them.
pub(super) async fn runs_here(docker: &Docker, name: &str, image_id: &str) -> Result<(), Error> {
    let fact = facts(docker, image_id).await?;
    let client = docker.client().await?;
    let engine = docker.call(client.version()).await?.arch.unwrap_or_default();
    if platform::runs(&engine, &fact.architecture).await {
        return Ok(());
    }
    let reason = format!("it is for {}, and this node is {engine}", one_word(&fact.architecture));
    Err(Error::ImageRefused { reference: name.to_owned(), reason })
}

/// An image's own word, reduced to 16 letters and digits.
fn one_word(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}

/// The facts about this image, from memory or from the engine.
async fn facts(docker: &Docker, image_id: &str) -> Result<Arc<Fact>, Error> {
    let known = |facts: &Facts| {
        facts.0.lock().unwrap_or_else(PoisonError::into_inner).get(image_id).cloned()
    };
    if let Some(known) = known(&docker.facts) {
        return Ok(known);
    }
    let found = images::inspect(docker, image_id).await?;
    let found = found.ok_or_else(|| fault::image_is_gone(image_id))?;
    let (config, architecture) = (found.config.unwrap_or_default(), found.architecture);
    let (env, labels) = (config.env.unwrap_or_default(), config.labels.unwrap_or_default());
    if env.len() + labels.len() > NAMES_MAX {
        let reason = format!("the image has more than {NAMES_MAX} variables and labels");
        return Err(Error::Start { reason });
    }
    let volumes = config.volumes.unwrap_or_default();
    if volumes.len() > VOLUMES_MAX {
        let reason = format!("the image declares more than {VOLUMES_MAX} volumes");
        return Err(Error::Start { reason });
    }
    if volumes.iter().any(|path| policy::hides_the_kernels(path)) {
        let reason = "the image declares a volume in /dev, /proc or /sys".to_owned();
        return Err(Error::Start { reason });
    }
    let brought = Brought::new(env, labels.into_keys()).with_volumes(volumes.into_iter());
    let fact = Arc::new(Fact { brought, architecture: architecture.unwrap_or_default() });
    let mut facts = docker.facts.0.lock().unwrap_or_else(PoisonError::into_inner);
    if facts.len() >= FACTS_MAX {
        facts.clear();
    }
    facts.insert(image_id.to_owned(), Arc::clone(&fact));
    Ok(fact)
}

/// Creates the container, or returns this node's container of that name.
pub(super) async fn create(docker: &Docker, spec: &ContainerSpec) -> Result<ContainerId, Error> {
    let client = docker.client().await?;
    let fact = facts(docker, &spec.image_id).await?;
    let image = &fact.brought;
    make_folders(policy::volumes(spec, image)).await?;
    let cards = docker.handed(&spec.gpus).await?;
    let holder = holders::lend(docker, spec).await?;
    let mut body = policy::create_body(spec, image, holder.id(), cards);
    if docker.holds_layers(spec.node).await {
        policy::hold_layer(&mut body, &spec.limits);
    }
    if let Some(runtime) = &docker.config.runtime {
        policy::run_by(&mut body, runtime);
    }
    if groups::makes(docker).await
        && let Some(path) = groups::path(docker, &spec.name)
    {
        policy::in_group(&mut body, path);
    }
    for _ in 0..CREATE_TRIES_MAX {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let create = client.create_container(Some(options), body.clone());
        match within(docker.config.call_timeout, Box::pin(create)).await {
            Ok(created) => return Ok(ContainerId(created.id)),
            Err(err) if fault::status(&err) != Some(409) => {
                if fault::status(&err).is_some() {
                    holder.put_back();
                }
                return Err(fault::of_create(&docker.config.host, &spec.image_id, err));
            }
            Err(_) => {}
        }
        if let Some(there) = inspect(docker, &spec.name).await? {
            if !has_other_cards(&body, &there) {
                holder.put_back();
                return own(spec, there);
            }
            withdraw(docker, &own(spec, there)?).await?;
        }
    }
    Err(Error::Engine { reason: format!("the name {} keeps being taken and freed", spec.name) })
}

/// Creates the folders for the image's volumes. Any user may write there, as in a volume whose mode the image
/// does not set; if the image sets one, the engine applies it.
async fn make_folders(folders: Vec<(PathBuf, String)>) -> Result<(), Error> {
    let make = move || {
        for (folder, _) in folders {
            std::fs::create_dir_all(&folder)?;
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
        }
        Ok(())
    };
    let done = tokio::task::spawn_blocking(make).await;
    done.unwrap_or_else(|err| Err(std::io::Error::other(err))).map_err(Error::Io)
}

/// Whether it was created for other GPUs, which failed, and was never started.
fn has_other_cards(body: &ContainerCreateBody, there: &ContainerInspectResponse) -> bool {
    let is_new = there.state.as_ref().and_then(|state| state.status) == Some(Status::CREATED);
    let theirs = policy::cards_of(there.host_config.as_ref());
    is_new && theirs != policy::cards_of(body.host_config.as_ref())
}

/// The id of the container under the name, if it is this node's.
fn own(spec: &ContainerSpec, there: ContainerInspectResponse) -> Result<ContainerId, Error> {
    let labels = there.config.as_ref().and_then(|config| config.labels.as_ref());
    let owner = labels.and_then(|labels| labels.get(policy::LABEL_NODE));
    if owner.is_some_and(|owner| *owner == spec.node.to_string()) {
        Ok(ContainerId(there.id.unwrap_or_default()))
    } else {
        let reason = format!("the name {} is taken by a container of somebody else", spec.name);
        Err(Error::Engine { reason })
    }
}

/// Removes the container if it never ran. Not by force: a start call of a node that has died is carried out
/// all the same, even between the check and the removal.
pub(super) async fn withdraw(docker: &Docker, id: &ContainerId) -> Result<bool, Error> {
    let _alone = docker.names.lock(&id.0).await;
    let is_new = |there: &ContainerInspectResponse| {
        there.state.as_ref().and_then(|state| state.status) == Some(Status::CREATED)
    };
    match inspect(docker, &id.0).await? {
        None => return Ok(true),
        Some(there) if !is_new(&there) => return Ok(false),
        Some(_) => {}
    }
    let client = docker.client().await?;
    let options = RemoveContainerOptionsBuilder::default().v(true).build();
    let remove = client.remove_container(&id.0, Some(options));
    match within(docker.config.call_timeout, remove).await {
        // 409: it has been started meanwhile, or another call is removing it.
        Err(err) if fault::status(&err) == Some(409) => Ok(inspect(docker, &id.0).await?.is_none()),
        Err(err) if fault::status(&err) == Some(404) => Ok(true),
        removed => removed.map(|()| true).map_err(|err| docker.fault(err)),
    }
}

/// Starts the container if it never ran; else returns when it was started.
pub(super) async fn start(docker: &Docker, id: &ContainerId) -> Result<Launched, Error> {
    // Without the lock, another caller's start could run and end between this call's inspect and start.
    let _alone = docker.names.lock(&id.0).await;
    let there = inspect(docker, &id.0).await?.ok_or_else(|| Error::Gone(id.clone()))?;
    if there.state.as_ref().and_then(|state| state.status) != Some(Status::CREATED) {
        let started_at = there.state.and_then(|state| state.started_at);
        let started_at = started_at.and_then(|at| at.parse().ok());
        return Ok(Launched { id: id.clone(), started_now: false, started_at });
    }
    let client = docker.client().await?;
    let call = || client.start_container(&id.0, None::<StartContainerOptions>);
    let mut started = within(docker.config.start_timeout, call()).await;
    if started.as_ref().is_err_and(|err| fault::status(err).is_some()) {
        match holders::mend(docker, &there).await? {
            holders::Mended::No => {}
            holders::Mended::Yes => {
                started = within(docker.config.start_timeout, call()).await;
            }
            holders::Mended::Never => {
                docker.remove(id).await?;
                return Err(Error::Gone(id.clone()));
            }
        }
    }
    let Err(err) = started else {
        return Ok(Launched { id: id.clone(), started_now: true, started_at: None });
    };
    // If the engine went away during the call, nobody knows whether the job runs: the next call looks. A
    // start that hangs is ended by removal, or it could succeed unobserved.
    if matches!(err, EngineError::RequestTimeoutError)
        && let Err(err) = docker.remove(id).await
    {
        tracing::warn!(container = %id, "a container that did not start can't be removed: {err}");
    }
    let words = fault::one_line(&err.to_string());
    tracing::debug!(container = %id, "the engine did not start a container: {words}");
    Err(fault::of_start(&docker.config.host, err))
}

/// Asks the container to end, and lets the engine kill it after `grace`.
pub(super) async fn stop(docker: &Docker, id: &ContainerId, grace: Duration) -> Result<(), Error> {
    let client = docker.client().await?;
    // The engine counts whole seconds; round up, so that a grace is never shortened.
    let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    let options = StopContainerOptionsBuilder::default().t(seconds).build();
    let limit = grace.saturating_add(docker.config.call_timeout);
    match within(limit, client.stop_container(&id.0, Some(options))).await {
        Err(err) if fault::status(&err) == Some(404) => Ok(()),
        other => other.map_err(|err| docker.fault(err)),
    }
}

/// The number of its first process as the engine knows it, while it runs and is one of the host's.
pub(super) async fn first_process(docker: &Docker, id: &ContainerId) -> Result<Option<u32>, Error> {
    let there = inspect(docker, &id.0).await?;
    let runtime = there.as_ref().and_then(|there| there.host_config.as_ref()?.runtime.as_deref());
    if !runtime.is_some_and(|runtime| groups::NATIVE.contains(&runtime)) {
        return Ok(None);
    }
    let state = there.and_then(|there| there.state);
    let pid = state.filter(|state| state.running == Some(true)).and_then(|state| state.pid);
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0))
}

/// Bytes in the container's own layer; the engine walks through the layer to count them, and says -1 if it
/// can't.
pub(super) async fn written(docker: &Docker, id: &ContainerId) -> Result<Option<u64>, Error> {
    let client = docker.client().await?;
    let options = InspectContainerOptionsBuilder::default().size(true).build();
    let call = client.inspect_container(&id.0, Some(options));
    match within(docker.config.call_timeout, call).await {
        Ok(found) => Ok(found.size_rw.and_then(|bytes| u64::try_from(bytes).ok())),
        Err(err) if fault::status(&err) == Some(404) => Err(Error::Gone(id.clone())),
        Err(err) => Err(docker.fault(err)),
    }
}

/// The folder of the container's own layer, as the `overlay2` driver names it. Other drivers name none, or
/// one that holds the image too.
pub(super) async fn layer_folder(
    docker: &Docker,
    id: &ContainerId,
) -> Result<Option<PathBuf>, Error> {
    let there = inspect(docker, &id.0).await?.ok_or_else(|| Error::Gone(id.clone()))?;
    let data = there.graph_driver.map(|driver| driver.data).unwrap_or_default();
    Ok(data.get("UpperDir").map(PathBuf::from).filter(|folder| folder.is_absolute()))
}

/// Converts an entry of the engine's list; `None` if it has no id or state, or is being removed, or is a holder
/// of a network: those are looked after in `holders`.
pub(super) fn found(listed: ContainerSummary) -> Option<Found> {
    let labels = listed.labels.unwrap_or_default();
    if labels.contains_key(policy::LABEL_HOLDER) {
        return None;
    }
    let state = match listed.state? {
        Listed::CREATED => FoundState::Created,
        Listed::RUNNING | Listed::PAUSED | Listed::RESTARTING | Listed::STOPPING => {
            FoundState::Running
        }
        Listed::EXITED | Listed::DEAD => FoundState::Exited,
        Listed::REMOVING | Listed::EMPTY => return None,
    };
    let created_s = u64::try_from(listed.created.unwrap_or_default()).unwrap_or_default();
    Some(Found {
        id: ContainerId(listed.id?),
        job_id: labels.get(policy::LABEL_JOB).and_then(|id| id.parse().ok()),
        attempt: labels.get(policy::LABEL_ATTEMPT).and_then(|n| n.parse().ok()).unwrap_or(0),
        state,
        created_at: Timestamp::from_unix_ms(created_s.saturating_mul(1000)),
    })
}
