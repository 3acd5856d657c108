//! Asks a registry directly for data that the engine does not give: a manifest's bytes, and small blobs.
//!
//! Must hold: only registries that the owner allows are asked, which the caller has checked; answers are
//! bounded, and checked against their digest if they have one; an account goes to its registry, to the token
//! server that the registry names over TLS, and nowhere else; no redirect gets an account.

use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::super::image::{Reference, canonical_registry, familiar};
use crate::http::{self, Client, RequestBuilder, Response, StatusCode, Url, header};
use crate::report::BoxError;
use crate::secret::Secret;

/// Most bytes of a manifest, as the distribution specification limits it.
const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a token server's answer.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Redirects of a blob that are followed.
const REDIRECTS_MAX: usize = 3;
/// The media types of manifests that are accepted.
const FORMS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// Why a registry did not give a manifest or a blob.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    /// It does not have it, or not for this account.
    #[error("the registry does not give it ({0})")]
    Refused(StatusCode),
    /// It wants an account, and this node has only a token there, which only the engine can use.
    #[error(
        "JOB_COSIGN_KEY needs an account with a name and a password, and JOB_REGISTRY_AUTH_FILE has an identity \
         token for this registry"
    )]
    TokenOnly,
    /// It did not answer, broke off, or gave a wrong answer.
    #[error("the registry did not answer as registries do")]
    Away(#[source] BoxError),
}

/// One repository at its registry.
#[derive(Debug)]
pub(super) struct Repository {
    client: Client,
    base: Url,
    path: String,
    account: Option<DockerCredentials>,
    idle: Duration,
    /// The `Authorization` that the registry asked for.
    authorization: Option<Secret>,
}

/// A manifest as the registry gave it.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Its digest, computed here.
    pub digest: String,
    /// The bytes that the digest covers.
    pub bytes: Vec<u8>,
}

/// A token server's answer.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Repository {
    /// The repository of this image. `idle`: the time limit for an answer, and for each piece of one.
    pub(super) fn of(
        reference: &Reference,
        account: Option<DockerCredentials>,
        idle: Duration,
    ) -> Result<Self, RegistryError> {
        let away = |err: BoxError| RegistryError::Away(err);
        let registry = canonical_registry(reference.registry());
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry.as_str() };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let base = http::url(&format!("{scheme}://{host}/")).map_err(|err| away(err.into()))?;
        let client = http::client().timeout(idle.saturating_mul(2)).build();
        let client = client.map_err(|err| away(http::boxed(err)))?;
        let path = path_of(reference, &registry);
        Ok(Self { client, base, path, account, idle, authorization: None })
    }

    /// The manifest of this tag or digest.
    pub(super) async fn manifest(&mut self, version: &str) -> Result<Manifest, RegistryError> {
        let url = self.url(&format!("manifests/{version}"))?;
        let answer = self.get(&url).await?;
        let bytes = read(answer, MANIFEST_BYTES_MAX, self.idle).await?;
        let digest = digest_of(&bytes);
        if version.starts_with("sha256:") && version != digest {
            return Err(RegistryError::Away("it gave other bytes than those of the digest".into()));
        }
        Ok(Manifest { digest, bytes })
    }

    /// The blob with this digest, of at most `bytes_max`.
    pub(super) async fn blob(
        &mut self,
        digest: &str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, RegistryError> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.get(&url).await?;
        let bytes = read(answer, bytes_max, self.idle).await?;
        if digest_of(&bytes) != digest {
            return Err(RegistryError::Away("it gave other bytes than those of the digest".into()));
        }
        Ok(bytes)
    }

    fn url(&self, rest: &str) -> Result<Url, RegistryError> {
        let joined = self.base.join(&format!("v2/{}/{rest}", self.path));
        joined.map_err(|err| RegistryError::Away(err.into()))
    }

    /// Asks; logs in if the registry requires it; follows redirects, without the account.
    async fn get(&mut self, url: &Url) -> Result<Response, RegistryError> {
        let mut answer = self.ask(url).await?;
        if answer.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            self.log_in(&answer).await?;
            answer = self.ask(url).await?;
        }
        for _ in 0..REDIRECTS_MAX {
            if !answer.status().is_redirection() {
                break;
            }
            let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| url.join(to).ok()).filter(|to| self.may_lead_to(to));
            let to = to.ok_or_else(|| RegistryError::Away("it leads to no place".into()))?;
            answer = self.send(self.client.get(to)).await?;
        }
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(RegistryError::Refused(status))
            }
            status => Err(RegistryError::Away(status.to_string().into())),
        }
    }

    async fn ask(&self, url: &Url) -> Result<Response, RegistryError> {
        let mut request = self.client.get(url.clone()).header(header::ACCEPT, FORMS);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.expose());
        }
        self.send(request).await
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        http::within(self.idle, request.send()).await.map_err(RegistryError::Away)
    }

    /// Logs in as `WWW-Authenticate` asks: with a token from the server that it names, or with the account
    /// itself.
    async fn log_in(&mut self, refusal: &Response) -> Result<(), RegistryError> {
        let challenge = refusal.headers().get(header::WWW_AUTHENTICATE);
        let challenge = challenge.and_then(|text| text.to_str().ok()).unwrap_or_default();
        let (kind, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if kind.eq_ignore_ascii_case("basic") {
            self.authorization = self.basic()?;
            return Ok(());
        }
        let realm = parameter(rest, "realm").and_then(|realm| http::url(realm).ok());
        let realm = realm.filter(|realm| self.may_lead_to(realm));
        let Some(mut realm) = realm.filter(|_| kind.eq_ignore_ascii_case("bearer")) else {
            return Err(RegistryError::Refused(StatusCode::UNAUTHORIZED));
        };
        for name in ["service", "scope"] {
            if let Some(value) = parameter(rest, name) {
                realm.query_pairs_mut().append_pair(name, value);
            }
        }
        let mut request = self.client.get(realm);
        if let Some(basic) = self.basic()? {
            request = request.header(header::AUTHORIZATION, basic.expose());
        }
        let answer = self.send(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(RegistryError::Refused(answer.status()));
        }
        let body = read(answer, TOKEN_BYTES_MAX, self.idle).await?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        self.authorization = token.map(|token| Secret::new(format!("Bearer {token}")));
        Ok(())
    }

    /// The account as `Authorization`, if there is one; an error if there is only a token.
    fn basic(&self) -> Result<Option<Secret>, RegistryError> {
        let Some(account) = self.account.as_ref() else { return Ok(None) };
        let (Some(name), Some(word)) = (account.username.as_deref(), account.password.as_deref())
        else {
            let is_token = account.identitytoken.is_some();
            return if is_token { Err(RegistryError::TokenOnly) } else { Ok(None) };
        };
        let pair = data_encoding::BASE64.encode(format!("{name}:{word}").as_bytes());
        Ok(Some(Secret::new(format!("Basic {pair}"))))
    }

    /// Whether a redirect or a token server may have this URL: TLS, unless the registry itself speaks plain
    /// HTTP.
    fn may_lead_to(&self, url: &Url) -> bool {
        url.scheme() == "https"
            || (self.base.scheme() == "http" && url.host_str().is_some_and(is_loopback))
    }
}

/// The repository's path at its registry.
fn path_of(reference: &Reference, registry: &str) -> String {
    if registry == "docker.io" {
        let short = familiar(reference.name());
        return if short.contains('/') { short.to_owned() } else { format!("library/{short}") };
    }
    let name = reference.name();
    name.split_once('/').map_or(name, |(_, path)| path).to_owned()
}

/// Whether engines speak plain HTTP to this host.
fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A parameter of `WWW-Authenticate`, in quotes.
fn parameter<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, next) = after.split_once('"')?;
        if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = next;
    }
    None
}

async fn read(
    mut answer: Response,
    bytes_max: usize,
    idle: Duration,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(piece) = http::within(idle, answer.chunk()).await.map_err(RegistryError::Away)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > bytes_max {
            return Err(RegistryError::Away(format!("more than {bytes_max} bytes").into()));
        }
    }
    Ok(bytes)
}

/// `sha256:` and the hash of these bytes.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_asked_where_its_engine_asks() {
        for (text, url) in [
            ("busybox", "https://registry-1.docker.io/v2/library/busybox/manifests/x"),
            ("me/app:1", "https://registry-1.docker.io/v2/me/app/manifests/x"),
            ("GHCR.io/me/app", "https://ghcr.io/v2/me/app/manifests/x"),
            ("127.0.0.1:5000/a/b", "http://127.0.0.1:5000/v2/a/b/manifests/x"),
            ("[::1]:5000/a", "http://[::1]:5000/v2/a/manifests/x"),
        ] {
            let reference: Reference = text.parse().unwrap();
            let repository = Repository::of(&reference, None, Duration::from_secs(1)).unwrap();
            assert_eq!(repository.url("manifests/x").unwrap().as_str(), url, "{text}");
        }
    }

    #[test]
    fn an_account_that_is_only_a_token_is_never_left_out_silently() {
        let basic = |account: Option<DockerCredentials>| {
            let reference = "ghcr.io/a".parse().unwrap();
            Repository::of(&reference, account, Duration::from_secs(1)).unwrap().basic()
        };
        let text = |text: &str| Some(text.to_owned());
        let pair = DockerCredentials {
            username: text("me"),
            password: text("word"),
            ..DockerCredentials::default()
        };
        assert_eq!(basic(Some(pair)).unwrap().unwrap().expose(), "Basic bWU6d29yZA==");
        assert!(basic(None).unwrap().is_none());
        let token = DockerCredentials {
            username: text("me"),
            identitytoken: text("t0ken"),
            ..DockerCredentials::default()
        };
        let told = basic(Some(token)).unwrap_err().to_string();
        assert!(told.contains("JOB_COSIGN_KEY") && !told.contains("t0ken"), "{told}");
    }

    #[test]
    fn an_account_goes_to_a_token_server_over_tls_alone() {
        let repository = |text: &str| {
            Repository::of(&text.parse().unwrap(), None, Duration::from_secs(1)).unwrap()
        };
        let may = |text: &str, to: &str| repository(text).may_lead_to(&http::url(to).unwrap());
        assert!(may("ghcr.io/a", "https://auth.example/token"));
        assert!(!may("ghcr.io/a", "http://auth.example/token"));
        assert!(!may("ghcr.io/a", "http://127.0.0.1/token"));
        assert!(may("localhost:5000/a", "http://127.0.0.1:6000/token"));
        assert!(!may("localhost:5000/a", "http://169.254.169.254/latest"));
    }

    #[test]
    fn a_challenge_is_read_as_registries_write_it() {
        let text = r#"realm="https://auth.docker.io/token",service="registry.docker.io", scope="repository:a/b:pull,push""#;
        assert_eq!(parameter(text, "realm"), Some("https://auth.docker.io/token"));
        assert_eq!(parameter(text, "Scope"), Some("repository:a/b:pull,push"));
        assert_eq!(parameter(text, "error"), None);
        assert_eq!(parameter("realm=\"x", "realm"), None);
    }
}
