//! Making an image present: looked up first, pulled where it is missing.
//!
//! What must hold: an image is pulled once at a time, however many jobs wait for it, and the pull
//! goes on as long as one of them does. An error inside the answer's stream is an error.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{BollardRequest, Docker as Client};
use futures_util::future::{BoxFuture, Shared, WeakShared};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use super::super::image::Reference;
use super::super::{Error, Image};
use super::fault::{self, EngineError};
use super::{Docker, RegistryAuth, within};

type Pull = BoxFuture<'static, Result<(), Arc<Failure>>>;

/// The pulls that somebody waits for, by reference.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<Reference, WeakShared<Pull>>>);

/// Why a pull ended without the image.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Engine(EngineError),
    #[error("nothing moved for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("not done in {} s", .0.as_secs())]
    TooLong(Duration),
}

/// The image of this name, pulled where it is not here.
pub(super) async fn image(docker: &Docker, text: &str) -> Result<Image, Error> {
    let reference: Reference = text.parse().map_err(|reason| Error::ImageRefused {
        reference: fault::one_line(text),
        reason: format!("{reason}"),
    })?;
    if let Some(found) = inspect(docker, &reference).await? {
        return Ok(told(&reference, found, false));
    }
    let client = docker.client().await?;
    let pulled = docker.pulls.join(&reference, || pull(docker, client, &reference)).await;
    pulled.map_err(|failure| in_our_words(docker, &reference, &failure))?;
    let found = inspect(docker, &reference).await?;
    found.map(|found| told(&reference, found, true)).ok_or_else(|| Error::Pull {
        reference: reference.to_string(),
        reason: "the engine pulled it and does not have it".to_owned(),
    })
}

async fn inspect(docker: &Docker, reference: &Reference) -> Result<Option<ImageInspect>, Error> {
    let client = docker.client().await?;
    let name = reference.local_name();
    match within(docker.config.call_timeout, client.inspect_image(&name)).await {
        Ok(found) => Ok(Some(found)),
        Err(err) if fault::status(&err) == Some(404) => Ok(None),
        Err(err) => Err(docker.fault(err)),
    }
}

fn told(reference: &Reference, found: ImageInspect, pulled: bool) -> Image {
    let id = found.id.unwrap_or_default();
    Image {
        digest: reference.receipt_digest(&found.repo_digests.unwrap_or_default(), &id),
        id,
        size_bytes: u64::try_from(found.size.unwrap_or_default()).unwrap_or_default(),
        pulled,
    }
}

impl Pulls {
    /// The pull of this reference that is under way, or a new one. It is dropped, and with it the
    /// engine's work, when the last of those who wait is.
    fn join(&self, reference: &Reference, new: impl FnOnce() -> Pull) -> Shared<Pull> {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended can't be joined any more, even while somebody still holds it.
        pulls.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(under_way) = pulls.get(reference).and_then(WeakShared::upgrade) {
            return under_way;
        }
        let pull = new().shared();
        pulls.extend(pull.downgrade().map(|weak| (reference.clone(), weak)));
        pull
    }
}

fn pull(docker: &Docker, client: &Client, reference: &Reference) -> Pull {
    let options = CreateImageOptionsBuilder::default()
        .from_image(reference.name())
        .tag(reference.version())
        .build();
    let mut accounts = docker.config.registry_auth.iter();
    let account = accounts.find(|account| account.server == reference.registry());
    let stream = client.clone().create_image(Some(options), None, account.map(credentials));
    let (stall, limit) = (docker.config.pull_stall_timeout, docker.config.pull_timeout);
    let pull = async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            match timeout(stall, stream.next()).await {
                Ok(Some(Ok(_progress))) => {}
                Ok(None) => return Ok(()),
                Ok(Some(Err(err))) => return Err(Failure::Engine(err)),
                Err(_) => return Err(Failure::Stalled(stall)),
            }
        }
    };
    let pull = timeout(limit, pull)
        .map(move |ended| ended.unwrap_or(Err(Failure::TooLong(limit))).map_err(Arc::new));
    pull.boxed()
}

fn in_our_words(docker: &Docker, reference: &Reference, failure: &Arc<Failure>) -> Error {
    let host = &docker.config.host;
    let reference = reference.to_string();
    match &**failure {
        Failure::Engine(err) => fault::of_pull(host, &reference, err).unwrap_or_else(|| {
            Error::Unreachable { host: host.clone(), source: Box::new(Arc::clone(failure)) }
        }),
        slow => Error::Pull { reference, reason: slow.to_string() },
    }
}

fn credentials(account: &RegistryAuth) -> DockerCredentials {
    DockerCredentials {
        username: Some(account.username.clone()),
        password: Some(account.password.expose().to_owned()),
        serveraddress: Some(account.server.clone()),
        ..DockerCredentials::default()
    }
}

/// The engine reads `X-Registry-Auth` as URL-safe base64 and takes anything else for no account at
/// all; the client writes the plain alphabet, which differs for passwords with `>`, `?` or `~`.
pub(super) fn url_safe_auth(mut request: BollardRequest) -> BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("X-Registry-Auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
            value.set_sensitive(true);
        }
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_an_image_that_is_being_pulled_joins_in() {
        let pulls = Pulls::default();
        let reference: Reference = "busybox".parse().unwrap();
        let never = || futures_util::future::pending().boxed();
        let first = pulls.join(&reference, never);
        let second = pulls.join(&reference, || panic!("a second pull of the same image"));
        drop((first, second));
        let broken = pulls.join(&reference, || {
            futures_util::future::ready(Err(Arc::new(Failure::Stalled(Duration::ZERO)))).boxed()
        });
        assert!(broken.clone().now_or_never().is_some_and(|ended| ended.is_err()));
        // Whoever comes after a failure tries anew, though the failure is still held.
        assert!(pulls.join(&reference, never).now_or_never().is_none());
    }
}
