//! Registry accounts from a file as `docker login` writes it (`config.json`), or from a credential helper that it
//! names.
//!
//! Must hold: the file is read anew at each pull, so that a new password needs no restart; no message
//! contains anything of it except its path, nor anything that a helper says.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bollard::auth::DockerCredentials;
use serde::Deserialize;

use super::super::image::canonical_registry;
use super::RegistryAuth;
use super::helper::{self, Helper};
use crate::text::utf8;

/// Most bytes of the file that are read: enough for hundreds of accounts.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It can't be opened or read.
    #[error("the registry accounts in {0} can't be read")]
    File(String, #[source] std::io::Error),
    /// It is text in another encoding than UTF-8.
    #[error("the registry accounts in {0} can't be read: {1}")]
    Text(String, &'static str),
    /// It is not JSON of this form. The parser's message is left out, since it could quote a secret.
    #[error("the registry accounts in {0} are no JSON as `docker login` writes it")]
    Form(String),
    /// The credential helper that it names for the registry gave no answer that can be used.
    #[error(transparent)]
    Helper(helper::Failed),
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    /// The helper of each of these registries.
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    /// The helper of all registries that `docker login` entered in `auths` without an account.
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

/// Where the account at a registry is.
enum Found {
    Account(Box<DockerCredentials>),
    /// This helper has it, under the name of this server.
    With(Helper, String),
    /// Nowhere.
    No,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The account at this registry; `None` if neither the file nor the helper that it names has one. The helper gets
/// the environment of this process without `hidden`.
pub(super) async fn at(
    path: PathBuf,
    registry: String,
    hidden: &[&str],
) -> Result<Option<DockerCredentials>, Unreadable> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || of_file(&path, &registry)).await;
    match read.map_err(|err| Unreadable::File(shown, err.into()))?? {
        Found::Account(account) => Ok(Some(*account)),
        Found::With(helper, server) => {
            helper.get(&server, hidden).await.map_err(Unreadable::Helper)
        }
        Found::No => Ok(None),
    }
}

/// What the file says of this registry.
fn of_file(path: &Path, registry: &str) -> Result<Found, Unreadable> {
    let shown = || path.display().to_string();
    let mut text = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|err| Unreadable::File(shown(), err))?;
    let text = utf8(&text).map_err(|what| Unreadable::Text(shown(), what))?;
    let file: File = serde_json::from_str(text).map_err(|_| Unreadable::Form(shown()))?;
    let wanted = canonical_registry(registry);
    let helper = |name: String| Helper::named(name).map_err(Unreadable::Helper);
    if let Some((server, name)) = file.helpers.into_iter().find(|it| server_of(&it.0) == wanted)
        && !name.is_empty()
    {
        return Ok(Found::With(helper(name)?, server));
    }
    let found = file.auths.into_iter().find(|(key, _)| server_of(key) == wanted);
    let Some((server, entry)) = found else { return Ok(Found::No) };
    let of_pair = entry.auth.as_deref().and_then(decode);
    let (username, password) = match of_pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((name, word)) => (Some(name.to_owned()), Some(word.to_owned())),
        None => (entry.username, entry.password),
    };
    // An identity token takes the place of the password.
    let identitytoken = entry.identitytoken.filter(|token| !token.is_empty());
    let password = password.filter(|_| identitytoken.is_none());
    if password.is_none() && identitytoken.is_none() {
        // Docker takes an empty name for none.
        let store = file.store.filter(|name| !name.is_empty());
        return store.map_or(Ok(Found::No), |name| Ok(Found::With(helper(name)?, server)));
    }
    let serveraddress = Some(server);
    Ok(Found::Account(Box::new(DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress,
        ..DockerCredentials::default()
    })))
}

/// Converts an account to the form that the engine's API takes.
pub(super) fn of_settings(account: &RegistryAuth) -> DockerCredentials {
    DockerCredentials {
        username: Some(account.username.clone()),
        password: Some(account.password.expose().to_owned()),
        serveraddress: Some(account.server.clone()),
        ..DockerCredentials::default()
    }
}

/// The registry that a key of `auths` names, such as `ghcr.io` or `https://index.docker.io/v1/`.
fn server_of(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = canonical_registry(rest.split('/').next().unwrap_or_default());
    if host == "registry-1.docker.io" { "docker.io".to_owned() } else { host }
}

/// Decodes base64 of a UTF-8 text, in the standard or the URL-safe alphabet (RFC 4648).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        (bits, held) = ((bits << 6 | u32::from(six)) & 0xffff, held + 6);
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, registry: &str) -> Option<(String, String)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        match of_file(file.path(), registry).unwrap() {
            Found::Account(found) => {
                Some((found.username?, found.password.or(found.identitytoken)?))
            }
            Found::With(helper, server) => Some((format!("{helper:?}"), server)),
            Found::No => None,
        }
    }

    #[test]
    fn accounts_are_found_under_every_name_that_docker_writes() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "bWU6cDpAcw=="},
            "GHCR.io": {"username": "me", "password": "p"},
            "127.0.0.1:5000": {"auth": "d29ya2VyOnB3Pj9+"},
            "token.example": {"auth": "bWU6", "identitytoken": "t"},
            "stored.example": {}
        }, "credsStore": "desktop", "credHelpers": {"own.example": "pass", "GHCR.io:1": "x"}}"#;
        let pair = |name: &str, word: &str| Some((name.to_owned(), word.to_owned()));
        for (registry, account) in [
            ("docker.io", pair("me", "p:@s")),
            ("ghcr.io", pair("me", "p")),
            ("127.0.0.1:5000", pair("worker", "pw>?~")),
            ("token.example", pair("me", "t")),
            ("stored.example", pair("Helper(\"desktop\")", "stored.example")),
            ("own.example", pair("Helper(\"pass\")", "own.example")),
            ("ghcr.io:1", pair("Helper(\"x\")", "GHCR.io:1")),
            ("other.example", None),
        ] {
            assert_eq!(told(text, registry), account, "{registry}");
            assert_eq!(told(&format!("\u{feff}{text}"), registry), account, "{registry}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_is_named_and_nothing_of_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"auths": {"ghcr.io": "c2VjcmV0"}}"#).unwrap();
        let told = format!("{:?}", of_file(file.path(), "ghcr.io").map(drop));
        assert!(told.contains(&*file.path().to_string_lossy()) && !told.contains("c2V"), "{told}");
        std::fs::write(file.path(), b"\xff\xfe{\0}\0").unwrap();
        let refused = of_file(file.path(), "ghcr.io").map(drop).unwrap_err().to_string();
        assert!(refused.contains("UTF-16"), "{refused}");
        assert!(matches!(
            of_file(Path::new("/nonexistent/config.json"), "ghcr.io"),
            Err(Unreadable::File(..))
        ));
    }
}
