//! Creating and starting a container exactly once.
//!
//! The name is what makes one container of many creates; that it was created and never started is
//! looked up before it is started, and an exited container is never started again.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    ContainerSummaryStateEnum as Listed,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};

use super::super::{
    ContainerId, ContainerRuntime as _, ContainerSpec, Error, Found, FoundState, Launched, policy,
};
use super::fault::{self, EngineError};
use super::{Docker, platform, pull, within};
use crate::clock::Timestamp;
use crate::node::GpuUuid;
use policy::Brought;

/// How often the name may turn out to be taken by a container that is gone a moment later.
const CREATE_TRIES_MAX: u32 = 3;

/// Of images whose variables and labels are remembered: one whole day's different ones.
const FACTS_MAX: usize = 256;
/// Of an image's variables and labels together; real ones have some dozens, and each goes into
/// every create call.
const NAMES_MAX: usize = 4096;

/// Of an image's volumes: each is a mount.
const VOLUMES_MAX: usize = 64;

/// What images bring along, by their ids, which are hashes of it.
#[derive(Default)]
pub(super) struct Facts(Mutex<HashMap<String, Arc<Fact>>>);

/// What is known of an image.
struct Fact {
    brought: Brought,
    /// As Go names it: `amd64`; empty where it does not say.
    architecture: String,
}

/// Refuses an image of one program for another processor than this node's: its registry gives it all
/// the same where the name means no list of images.
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

/// What an image says of itself, as far as a name goes.
fn one_word(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(16).collect()
}

/// What the image brings along.
async fn facts(docker: &Docker, image_id: &str) -> Result<Arc<Fact>, Error> {
    let known = |facts: &Facts| {
        facts.0.lock().unwrap_or_else(PoisonError::into_inner).get(image_id).cloned()
    };
    if let Some(known) = known(&docker.facts) {
        return Ok(known);
    }
    let found = pull::inspect(docker, image_id).await?;
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
    let brought = Brought::new(env, labels.into_keys()).with_volumes(volumes.into_iter());
    let fact = Arc::new(Fact { brought, architecture: architecture.unwrap_or_default() });
    let mut facts = docker.facts.0.lock().unwrap_or_else(PoisonError::into_inner);
    if facts.len() >= FACTS_MAX {
        facts.clear();
    }
    facts.insert(image_id.to_owned(), Arc::clone(&fact));
    Ok(fact)
}

/// Creates the container, or finds what has its name already.
pub(super) async fn create(docker: &Docker, spec: &ContainerSpec) -> Result<ContainerId, Error> {
    let client = docker.client().await?;
    let fact = facts(docker, &spec.image_id).await?;
    let image = &fact.brought;
    make_folders(policy::volumes(spec, image)).await?;
    for _ in 0..CREATE_TRIES_MAX {
        let options = CreateContainerOptionsBuilder::default().name(&spec.name).build();
        let create = client.create_container(Some(options), policy::create_body(spec, image));
        match within(docker.config.call_timeout, Box::pin(create)).await {
            Ok(created) => return Ok(ContainerId(created.id)),
            Err(err) if fault::status(&err) != Some(409) => {
                return Err(fault::of_create(&docker.config.host, &spec.image_id, err));
            }
            Err(_) => {}
        }
        if let Some(there) = inspect(docker, &spec.name).await? {
            if !has_other_cards(spec, &there) {
                return own(spec, there);
            }
            withdraw(docker, &own(spec, there)?).await?;
        }
    }
    Err(Error::Engine { reason: format!("the name {} is taken and free by turns", spec.name) })
}

/// Makes the folders of the image's volumes. Whatever user it runs as may write there, as in a volume
/// that the image says nothing more of; what it does say, the engine does.
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

/// Whether it was made for other cards, which failed, and was never started.
fn has_other_cards(spec: &ContainerSpec, there: &ContainerInspectResponse) -> bool {
    let is_new = there.state.as_ref().and_then(|state| state.status) == Some(Status::CREATED);
    let requests = there.host_config.as_ref().and_then(|host| host.device_requests.as_ref());
    let ids = requests.into_iter().flatten().filter_map(|request| request.device_ids.as_ref());
    let mut theirs: Vec<&str> = ids.flatten().map(String::as_str).collect();
    let mut ours: Vec<&str> = spec.gpus.iter().map(GpuUuid::as_str).collect();
    theirs.sort_unstable();
    ours.sort_unstable();
    is_new && theirs != ours
}

/// What is under the name, where it is this node's.
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

/// Removes the container where it never ran. Not by force: a start that is on its way when its node dies
/// is carried out all the same, between the look and the removal too.
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
        // 409: it runs by now, or another call is removing it.
        Err(err) if fault::status(&err) == Some(409) => Ok(inspect(docker, &id.0).await?.is_none()),
        Err(err) if fault::status(&err) == Some(404) => Ok(true),
        removed => removed.map(|()| true).map_err(|err| docker.fault(err)),
    }
}

/// Starts the container where it never ran; else says when it was started.
pub(super) async fn start(docker: &Docker, id: &ContainerId) -> Result<Launched, Error> {
    // Between one caller's inspect and start, another's container could run and exit.
    let _alone = docker.names.lock(&id.0).await;
    let there = inspect(docker, &id.0).await?.ok_or_else(|| Error::Gone(id.clone()))?;
    if there.state.as_ref().and_then(|state| state.status) != Some(Status::CREATED) {
        let started_at = there.state.and_then(|state| state.started_at);
        let started_at = started_at.and_then(|at| at.parse().ok());
        return Ok(Launched { id: id.clone(), started_now: false, started_at });
    }
    let client = docker.client().await?;
    let call = client.start_container(&id.0, None::<StartContainerOptions>);
    let Err(err) = within(docker.config.start_timeout, call).await else {
        return Ok(Launched { id: id.clone(), started_now: true, started_at: None });
    };
    // Where the engine went away in the middle, nobody knows whether the job runs: it is left for
    // the next call to look at. A start that hangs is ended, or it could succeed unobserved.
    if matches!(err, EngineError::RequestTimeoutError)
        && let Err(err) = docker.remove(id).await
    {
        tracing::warn!(container = %id, "a container that did not start can't be removed: {err}");
    }
    let words = fault::one_line(&err.to_string());
    tracing::debug!(container = %id, "the engine did not start a container: {words}");
    Err(fault::of_start(&docker.config.host, err))
}

/// The container as it stands; `None` where there is none.
pub(super) async fn inspect(
    docker: &Docker,
    name_or_id: &str,
) -> Result<Option<ContainerInspectResponse>, Error> {
    let client = docker.client().await?;
    let call = client.inspect_container(name_or_id, None::<InspectContainerOptions>);
    match within(docker.config.call_timeout, call).await {
        Ok(found) => Ok(Some(found)),
        Err(err) if fault::status(&err) == Some(404) => Ok(None),
        Err(err) => Err(docker.fault(err)),
    }
}

/// Bytes of the container's own layer, which the engine walks through for it.
pub(super) async fn written(docker: &Docker, id: &ContainerId) -> Result<u64, Error> {
    let client = docker.client().await?;
    let options = InspectContainerOptionsBuilder::default().size(true).build();
    let call = client.inspect_container(&id.0, Some(options));
    match within(docker.config.call_timeout, call).await {
        Ok(found) => Ok(found.size_rw.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)),
        Err(err) if fault::status(&err) == Some(404) => Err(Error::Gone(id.clone())),
        Err(err) => Err(docker.fault(err)),
    }
}

/// A line of the engine's list; `None` where it has no id or is being removed.
pub(super) fn found(listed: ContainerSummary) -> Option<Found> {
    let labels = listed.labels.unwrap_or_default();
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
