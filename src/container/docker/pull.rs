//! Makes an image present: looked up first, pulled if it is missing (docs/adr/0016-strangers-images.md).
//!
//! Must hold: strangers never get an image merely because it is on this host; a pull never moves a tag of the
//! owner's; a requester never sees the engine's own words; an image is pulled once at a time, however many
//! jobs wait for it, and the pull goes on while one of them waits; an error inside the answer's stream is an
//! error.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{BollardRequest, Docker as Client};
use futures_util::future::{BoxFuture, Shared, WeakShared};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use super::super::image::{Reference, canonical_registry, is_digest};
use super::super::{Error, Image, NotAllowed};
use super::cosign::{self, SigningKey, Unsigned};
use super::fault::{self, EngineError};
use super::images::{self, inspect};
use super::layers::Layers;
use super::pulled::{Asked, Known};
use super::registry::{RegistryError, Repository};
use super::{Docker, WhenToPull, accounts};
use crate::job::status::PullProgress;
use crate::report::causes;

type Pull = BoxFuture<'static, Result<Pulled, Arc<PullError>>>;

/// The result of a pull.
#[derive(Debug, Clone)]
struct Pulled {
    /// The name under which the engine has the image.
    name: String,
    /// Whether the engine was told to pull it.
    downloaded: bool,
}

/// The pulls that somebody waits for, by image reference.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<Reference, UnderWay>>);

/// A pull that somebody waits for.
struct UnderWay {
    pull: WeakShared<Pull>,
    layers: Arc<Layers>,
}

/// Why a pull ended without the image.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Engine(EngineError),
    #[error("nothing moved for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("not done in {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("the registry names no digest")]
    NoDigest,
    #[error(transparent)]
    Accounts(accounts::Unreadable),
    #[error("it is not signed as JOB_COSIGN_KEY wants it")]
    Unsigned(#[source] Unsigned),
}

/// The image of this name: the owner's if strangers may have it, else what its registry gives now. An image
/// that an earlier job pulled is used without a pull if its registry confirmed the name less than
/// `tag_good_for` ago, and also if its registry does not answer; a digest always means the same image.
pub(super) async fn image(docker: &Docker, text: &str) -> Result<Image, Error> {
    let policy = &docker.config.images;
    policy.check(text).map_err(|reason| not_allowed(text, reason))?;
    let reference: Reference =
        text.parse().map_err(|reason| not_allowed(text, NotAllowed::Invalid(reason)))?;
    let there = inspect(docker, &reference.local_name()).await?;
    if let Some(found) = there.clone().filter(|_| policy.allows_local(&reference)) {
        return Ok(told(&reference, found, false));
    }
    if !policy.allows_pull(&reference) {
        let reason = "this node does not have it and does not pull from its registry".to_owned();
        return Err(Error::ImageRefused { reference: reference.to_string(), reason });
    }
    // What was pulled before its signature was checked, or by another key's, is pulled again.
    let key = docker.config.cosign_key.as_ref().map(SigningKey::fingerprint);
    let known = docker.pulled.known(&reference.local_name());
    let known = known.filter(|known| key.is_none() || known.signed_by == key);
    let before = match &known {
        Some(known) => inspect(docker, &known.id).await?,
        None => None,
    };
    let good_for = docker.config.tag_good_for;
    if let Some(found) = before.clone()
        && let Some(asked) = is_good(docker, &reference, good_for)
    {
        let unconfirmed = asked == Asked::Away;
        return Ok(Image { unconfirmed, ..told(&reference, found, false) });
    }
    let ours = known.is_some_and(|known| {
        known.is_tag_ours && there.as_ref().and_then(|there| there.id.as_ref()) == Some(&known.id)
    });
    // Any other image of this name is the owner's: its registry decides whether a stranger may have it, and a
    // pull by tag would take the tag away from the owner's image.
    match fetch(docker, &reference, there.is_some() && !ours, before.as_ref()).await {
        Err(Error::Pull { reason, .. })
            if before.is_some()
                && reason != fault::DISK_FULL
                && docker.config.pull != WhenToPull::Always =>
        {
            docker.pulled.asked(reference.local_name(), Asked::Away);
            let found = before.unwrap_or_default();
            Ok(Image { unconfirmed: true, ..told(&reference, found, false) })
        }
        other => other,
    }
}

/// What is known of the tag without asking; `None` if its registry has to be asked.
fn is_good(docker: &Docker, reference: &Reference, good_for: Duration) -> Option<Asked> {
    match docker.config.pull {
        _ if reference.has_digest() => return Some(Asked::Confirmed),
        WhenToPull::Missing => return Some(Asked::Confirmed),
        WhenToPull::Always => return None,
        WhenToPull::Newer => {}
    }
    docker.pulled.last_asked(&reference.local_name(), good_for)
}

/// Fetches what the registry gives now. `owners`: the tag is the owner's and must not move. `before`: the
/// image that an earlier job pulled.
async fn fetch(
    docker: &Docker,
    reference: &Reference,
    owners: bool,
    before: Option<&ImageInspect>,
) -> Result<Image, Error> {
    let client = docker.client().await?;
    // Without that list nothing is recorded: then the image counts as the owner's.
    let here = images::all(docker).await.ok();
    let pulled =
        docker.pulls.join(reference, |layers| pull(docker, client, reference, owners, layers));
    let pulled = pulled.await;
    let pulled = pulled.map_err(|failure| in_our_words(docker, reference, &failure))?;
    let found = inspect(docker, &pulled.name).await?.ok_or_else(|| Error::Pull {
        reference: reference.to_string(),
        reason: "the engine pulled it and does not have it".to_owned(),
    })?;
    let id = found.id.clone().unwrap_or_default();
    let is_new = before.is_none_or(|before| before.id.as_ref() != Some(&id));
    if is_new && before.is_some() {
        tracing::info!(
            image = %reference,
            "the registry gives another image for {reference} than before"
        );
    }
    if pulled.downloaded {
        let was_here = here.is_none_or(|here| here.contains_key(&id));
        docker.cache.pulled(&id, pulled.name.clone(), was_here).await;
    }
    docker.pulled.asked(reference.local_name(), Asked::Confirmed);
    docker.pulled.remember(reference.local_name(), known(docker, id, owners)).await;
    Ok(told(reference, found, is_new && pulled.downloaded))
}

/// What is recorded of an image that was pulled just now.
fn known(docker: &Docker, id: String, owners: bool) -> Known {
    let signed_by = docker.config.cosign_key.as_ref().map(SigningKey::fingerprint);
    // A signed image is pulled by its digest, which moves no tag.
    Known { id, is_tag_ours: !owners && signed_by.is_none(), signed_by }
}

fn not_allowed(text: &str, reason: NotAllowed) -> Error {
    Error::ImageNotAllowed { reference: fault::one_line(text), reason }
}

fn told(reference: &Reference, found: ImageInspect, pulled: bool) -> Image {
    let id = found.id.unwrap_or_default();
    Image {
        digest: reference.receipt_digest(&found.repo_digests.unwrap_or_default(), &id),
        id,
        size_bytes: u64::try_from(found.size.unwrap_or_default()).unwrap_or_default(),
        pulled,
        unconfirmed: false,
    }
}

impl Pulls {
    /// The pull of this reference in progress, or a new one. It is dropped, and the engine's work with it,
    /// when the last of those who wait is dropped.
    fn join(&self, reference: &Reference, new: impl FnOnce(Arc<Layers>) -> Pull) -> Shared<Pull> {
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A pull that has ended can't be joined, even while somebody still holds it.
        pulls.retain(|_, one| one.pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(under_way) = pulls.get(reference).and_then(|one| one.pull.upgrade()) {
            return under_way;
        }
        let layers = Arc::<Layers>::default();
        let pull = new(Arc::clone(&layers)).shared();
        let under_way = pull.downgrade().map(|pull| UnderWay { pull, layers });
        pulls.extend(under_way.map(|one| (reference.clone(), one)));
        pull
    }

    /// How far the pull of this reference is.
    pub(super) fn progress(&self, reference: &Reference) -> Option<PullProgress> {
        let pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_waited_for = |one: &&UnderWay| one.pull.upgrade().is_some();
        pulls.get(reference).filter(is_waited_for)?.layers.progress()
    }
}

fn pull(
    docker: &Docker,
    client: &Client,
    reference: &Reference,
    owners: bool,
    layers: Arc<Layers>,
) -> Pull {
    let (client, reference) = (client.clone(), reference.clone());
    let (of_settings, file) =
        (account(docker, &reference), docker.config.registry_auth_file.clone());
    let (stall, limit) = (docker.config.pull_stall_timeout, docker.config.pull_timeout);
    let (key, hidden) = (docker.config.cosign_key.clone(), docker.config.hidden);
    let pull = async move {
        let account = account_of(of_settings, file, hidden, &reference).await?;
        if let Some(key) = key {
            let digest = signed(&reference, account.clone(), &key, stall).await;
            let name = reference.at(&digest.map_err(PullError::Unsigned)?);
            let (_, digest) = name.split_once('@').unwrap_or_default();
            let downloaded = client.inspect_image(&name).await.is_err();
            if downloaded {
                download(&client, (reference.name(), digest), account, stall, &layers).await?;
            }
            return Ok(Pulled { name, downloaded });
        }
        if !owners {
            let version = reference.version();
            download(&client, (reference.name(), version), account, stall, &layers).await?;
            return Ok(Pulled { name: reference.local_name(), downloaded: true });
        }
        let digest = ask_registry(&client, &reference, account.clone(), stall).await?;
        let name = reference.at(&digest);
        let downloaded = client.inspect_image(&name).await.is_err();
        if downloaded {
            download(&client, (reference.name(), &digest), account, stall, &layers).await?;
        }
        Ok(Pulled { name, downloaded })
    };
    let pull = timeout(limit, pull)
        .map(move |ended| ended.unwrap_or(Err(PullError::TooLong(limit))).map_err(Arc::new));
    pull.boxed()
}

/// The digest that the registry gives for this name, once it is sure that the key signed the image with it.
async fn signed(
    reference: &Reference,
    account: Option<DockerCredentials>,
    key: &SigningKey,
    idle: Duration,
) -> Result<String, Unsigned> {
    let mut repository = Repository::of(reference, account, idle).map_err(Unsigned::Registry)?;
    let manifest = repository.manifest(reference.version()).await;
    let digest = manifest.map_err(Unsigned::Registry)?.digest;
    cosign::check(&mut repository, &digest, key).await?;
    Ok(digest)
}

/// The account at the image's registry, of the settings or of the account file.
async fn account_of(
    of_settings: Option<DockerCredentials>,
    file: Option<PathBuf>,
    hidden: &[&str],
    reference: &Reference,
) -> Result<Option<DockerCredentials>, PullError> {
    match (of_settings, file) {
        (None, Some(file)) => {
            let found = accounts::at(file, reference.registry().to_owned(), hidden).await;
            found.map_err(PullError::Accounts)
        }
        (account, _) => Ok(account),
    }
}

/// The same for whoever asks a registry without pulling; `Err` if the file can't be used, which a pull tells.
pub(super) async fn account_at(
    docker: &Docker,
    reference: &Reference,
) -> Result<Option<DockerCredentials>, ()> {
    let (file, hidden) = (docker.config.registry_auth_file.clone(), docker.config.hidden);
    account_of(account(docker, reference), file, hidden, reference).await.map_err(drop)
}

/// The settings' account at the image's registry.
fn account(docker: &Docker, reference: &Reference) -> Option<DockerCredentials> {
    let registry = canonical_registry(reference.registry());
    let mut all = docker.config.registry_auth.iter();
    let account = all.find(|account| canonical_registry(&account.server) == registry);
    account.map(accounts::of_settings)
}

/// Has the engine pull the image; returns at the end of the engine's answer.
async fn download(
    client: &Client,
    (name, version): (&str, &str),
    account: Option<DockerCredentials>,
    stall: Duration,
    layers: &Layers,
) -> Result<(), PullError> {
    let options = CreateImageOptionsBuilder::default().from_image(name).tag(version).build();
    let mut stream = std::pin::pin!(client.create_image(Some(options), None, account));
    let mut unpacks = false;
    loop {
        let next = if unpacks {
            stream.next().await
        } else {
            timeout(stall, stream.next()).await.map_err(|_| PullError::Stalled(stall))?
        };
        match next {
            Some(Ok(said)) => {
                layers.take(&said);
                unpacks = said.status.is_some_and(|said| is_unpacking(&said));
            }
            Some(Err(err)) => return Err(PullError::Engine(err)),
            None => return Ok(()),
        }
    }
}

/// Whether the engine's last message says that it unpacks a layer. It may then be silent for minutes, so only
/// the pull's overall deadline applies; a later download is held to the stall timeout again.
fn is_unpacking(said: &str) -> bool {
    said.starts_with("Extracting")
}

/// The digest that the image's registry gives to this node's account, or to anybody without one.
async fn ask_registry(
    client: &Client,
    reference: &Reference,
    account: Option<DockerCredentials>,
    stall: Duration,
) -> Result<String, PullError> {
    let name = reference.local_name();
    let answer = timeout(stall, client.inspect_registry_image(&name, account)).await;
    let answer = answer.map_err(|_| PullError::Stalled(stall))?.map_err(PullError::Engine)?;
    let digest = answer.descriptor.digest.filter(|digest| is_digest(digest));
    digest.ok_or(PullError::NoDigest)
}

/// Translates a failure. Only the owner learns its cause, from the log.
fn in_our_words(docker: &Docker, reference: &Reference, failure: &Arc<PullError>) -> Error {
    let (host, name) = (&docker.config.host, reference.to_string());
    tracing::warn!(
        image = name,
        "image {name} was not pulled: {}",
        fault::one_line(&causes(&**failure))
    );
    match &**failure {
        PullError::Engine(err) => fault::of_pull(&name, err).unwrap_or_else(|| {
            Error::Unreachable { host: host.clone(), source: Box::new(Arc::clone(failure)) }
        }),
        PullError::Stalled(_)
        | PullError::TooLong(_)
        | PullError::NoDigest
        | PullError::Unsigned(Unsigned::Registry(RegistryError::Away(_))) => {
            Error::Pull { reference: name, reason: fault::NOT_GIVEN.to_owned() }
        }
        PullError::Unsigned(Unsigned::Registry(RegistryError::Refused(_))) => {
            Error::ImageRefused { reference: name, reason: fault::NOT_HAD.to_owned() }
        }
        PullError::Accounts(_)
        | PullError::Unsigned(Unsigned::Registry(RegistryError::TokenOnly)) => {
            let reason = "this node can't use its accounts at registries".to_owned();
            Error::Pull { reference: name, reason }
        }
        PullError::Unsigned(why) => not_allowed(&name, NotAllowed::Unsigned(why.to_string())),
    }
}

/// The engine reads `X-Registry-Auth` as URL-safe base64 and treats anything else as no account. The client
/// writes the standard alphabet, which differs for passwords with `>`, `?` or `~`.
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
        let never = |_| futures_util::future::pending().boxed();
        let first = pulls.join(&reference, never);
        let second = pulls.join(&reference, |_| panic!("a second pull of the same image"));
        drop((first, second));
        let broken = pulls.join(&reference, |_| {
            futures_util::future::ready(Err(Arc::new(PullError::Stalled(Duration::ZERO)))).boxed()
        });
        assert!(broken.clone().now_or_never().is_some_and(|ended| ended.is_err()));
        // A later call starts a new pull, though the failed one is still held.
        assert!(pulls.join(&reference, never).now_or_never().is_none());
    }
}
