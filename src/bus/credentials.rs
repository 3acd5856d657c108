//! Authentication to the server. Credentials are read again at each connection, so that a file which is
//! replaced before it expires takes effect without a restart.
//!
//! Must hold: secrets leave this module only to the server; an error about a file names the file and
//! shows none of its content.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_nats::{Auth, AuthError};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::secret::Secret;
use crate::text::utf8;

/// A `.creds` file, a seed or a password takes a few hundred bytes, a JWT with many permissions a few
/// thousand.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Credentials that expire within this time cause a warning.
pub const WARN_BEFORE: Duration = Duration::from_hours(14 * 24);

/// How this program authenticates to the server.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// With the user or token in the URL, or not at all.
    None,
    /// With a `.creds` file: a user's JWT and nkey seed.
    File(PathBuf),
    /// With the seed of a user's nkey.
    Nkey(Kept),
    /// With a token shared with the server.
    Token(Kept),
    /// With a user name and its password.
    UserPassword(String, Kept),
}

/// Where a secret is kept.
#[derive(Debug, Clone)]
pub enum Kept {
    /// In memory, as it was given.
    Here(Secret),
    /// In the first line of this file.
    InFile(PathBuf),
}

/// When credentials expire, according to their own JWT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// From then on the server rejects them.
    pub at: Timestamp,
}

impl Credentials {
    /// The file that holds them, if any.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::File(path) => Some(path),
            Self::Nkey(kept) | Self::Token(kept) | Self::UserPassword(_, kept) => match kept {
                Kept::Here(_) => None,
                Kept::InFile(path) => Some(path),
            },
        }
    }

    /// When they expire; `None` if they don't or it is unknown. Reads their file.
    pub fn expiry(&self) -> Option<Expiry> {
        let Self::File(path) = self else { return None };
        let creds = Creds::read(path).ok()?;
        creds.expiry()
    }

    /// Which credentials a server rejected, and whether they expired, as the end of a sentence.
    pub(super) fn in_words(&self, now: Timestamp) -> String {
        let Some(path) = self.file() else { return String::new() };
        let path = path.display();
        match self.expiry() {
            Some(Expiry { at }) if at <= now => {
                format!(": the credentials of {path} expired at {at}")
            }
            _ => format!(", those of {path}"),
        }
    }

    /// A warning with a remedy if they have expired or will soon.
    pub fn warning(&self, now: Timestamp) -> Option<String> {
        let (path, Expiry { at }) = (self.file()?.display(), self.expiry()?);
        if at <= now {
            return Some(format!("the credentials of {path} expired at {at}: replace the file"));
        }
        let left = at.since(now);
        (left < WARN_BEFORE).then(|| {
            let days = left.as_secs() / (24 * 3600);
            format!("the credentials of {path} expire at {at}, in {days} days: replace the file")
        })
    }

    /// Answers a server's greeting; an nkey signs its `nonce`.
    fn answer(&self, nonce: &[u8]) -> Result<Auth, Unusable> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::File(path) => {
                let creds = Creds::read(path)?;
                let pair = pair(&creds.seed, path)?;
                auth.signature = Some(pair.sign(nonce).map_err(|_| Unusable::of(path, SEED))?);
                auth.jwt = Some(creds.jwt.to_string());
            }
            Self::Nkey(kept) => {
                let seed = kept.read()?;
                let place = self.file().unwrap_or(Path::new("the setting"));
                let pair = pair(seed.expose().trim(), place)?;
                auth.signature = Some(pair.sign(nonce).map_err(|_| Unusable::of(place, SEED))?);
                auth.nkey = Some(pair.public_key());
            }
            Self::Token(kept) => auth.token = Some(kept.read()?.expose().to_owned()),
            Self::UserPassword(user, kept) => {
                auth.username = Some(user.clone());
                auth.password = Some(kept.read()?.expose().to_owned());
            }
        }
        Ok(auth)
    }

    /// Fails if their file can't be used.
    pub(super) async fn check(&self) -> Result<(), super::Error> {
        let own = self.clone();
        let read = tokio::task::spawn_blocking(move || own.answer(b"")).await;
        match read {
            Ok(Err(Unusable { path, source })) => Err(super::Error::File { path, source }),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

/// The authentication callback that the client library calls at each connection.
pub(super) async fn answer(own: Arc<Credentials>, nonce: Vec<u8>) -> Result<Auth, AuthError> {
    let read = tokio::task::spawn_blocking(move || own.answer(&nonce)).await;
    read.map_err(AuthError::new)?.map_err(AuthError::new)
}

/// Why a file can't be used, without any of its content.
#[derive(Debug)]
struct Unusable {
    path: PathBuf,
    source: io::Error,
}

const SEED: &str = "it holds no seed of a user's nkey";

impl Unusable {
    fn of(path: &Path, what: &'static str) -> Self {
        Self { path: path.to_owned(), source: io::Error::new(io::ErrorKind::InvalidData, what) }
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can't be read: {}", self.path.display(), self.source)
    }
}

impl Kept {
    fn read(&self) -> Result<Secret, Unusable> {
        match self {
            Self::Here(secret) => Ok(secret.clone()),
            Self::InFile(path) => {
                let max = usize::try_from(FILE_BYTES_MAX).unwrap_or(usize::MAX);
                let read = std::fs::File::open(path).and_then(|file| Secret::read_line(file, max));
                read.map_err(|source| Unusable { path: path.clone(), source })
            }
        }
    }
}

fn pair(seed: &str, path: &Path) -> Result<KeyPair, Unusable> {
    KeyPair::from_seed(seed).map_err(|_| Unusable::of(path, SEED))
}

/// The content of a `.creds` file.
struct Creds {
    jwt: Zeroizing<String>,
    seed: Zeroizing<String>,
}

/// The part of a user's JWT that is read here.
#[derive(Deserialize)]
struct Claims {
    /// Unix seconds; 0 or absent means never.
    #[serde(default)]
    exp: u64,
}

impl Creds {
    fn read(path: &Path) -> Result<Self, Unusable> {
        use io::Read as _;
        let failed = |source| Unusable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        let text = utf8(&bytes).map_err(|what| Unusable::of(path, what))?;
        Self::parse(text)
            .ok_or_else(|| Unusable::of(path, "it is no .creds file: it has no JWT and seed"))
    }

    /// Reads the JWT and the seed, which stand between lines of dashes in that order.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let mut piece = || {
            lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
            let piece = lines.find(|line| !line.is_empty())?;
            (!piece.starts_with("---")).then(|| Zeroizing::new(piece.to_owned()))
        };
        Some(Self { jwt: piece()?, seed: piece()? })
    }

    fn expiry(&self) -> Option<Expiry> {
        let claims = self.jwt.split('.').nth(1)?;
        let claims = BASE64URL_NOPAD.decode(claims.trim_end_matches('=').as_bytes()).ok()?;
        let Claims { exp } = serde_json::from_slice(&claims).ok()?;
        (exp > 0).then(|| Expiry { at: Timestamp::from_unix_ms(exp.saturating_mul(1000)) })
    }
}

/// The current time, for messages about expiry.
pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as the NATS tools write it, with their example seed.
    fn creds(exp: &str) -> String {
        let claims = BASE64URL_NOPAD.encode(format!("{{\"sub\":\"U\"{exp}}}").as_bytes());
        format!(
            "-----BEGIN NATS USER JWT-----\r\nhead.{claims}.signed\r\n------END NATS USER JWT------\r\n\
             \r\n************************* IMPORTANT *************************\r\n\
             NKEY Seed printed below can be used to sign and prove identity.\r\n\r\n\
             -----BEGIN USER NKEY SEED-----\r\n{SEED}\r\n------END USER NKEY SEED------\r\n"
        )
    }

    const SEED: &str = "SUACH75SWCM5D2JMJM6EKLR2WDARVGZT4QC6LX3AGHSWOMVAKERABBBRWM";

    fn written(text: &str) -> (tempfile::NamedTempFile, Credentials) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let own = Credentials::File(file.path().to_owned());
        (file, own)
    }

    #[test]
    fn credentials_say_when_they_expire_and_are_warned_of_before() {
        let now: Timestamp = "2026-11-22T10:00:00.000Z".parse().unwrap();
        let day = 24 * 3600;
        let at = |days: u64| format!(",\"exp\":{}", now.unix_ms() / 1000 + days * day);
        for (exp, warned) in [
            (at(30), None),
            (at(3), Some("expire at 2026-11-25T10:00:00.000Z, in 3 days")),
            (
                format!(",\"exp\":{}", now.unix_ms() / 1000 - 60),
                Some("expired at 2026-11-22T09:59"),
            ),
            (String::new(), None),
            (",\"exp\":0".to_owned(), None),
            (",\"exp\":\"x\"".to_owned(), None),
        ] {
            let (file, own) = written(&creds(&exp));
            let told = own.warning(now);
            assert_eq!(told.is_some(), warned.is_some(), "{exp} {told:?}");
            let told = told.unwrap_or_default();
            assert!(told.contains(warned.unwrap_or_default()), "{told}");
            assert!(warned.is_none() || told.contains(file.path().to_str().unwrap()), "{told}");
        }
        let (_file, own) = written(&creds(",\"exp\":1"));
        assert!(
            own.in_words(now).contains(" expired at 1970-01-01T00:00:01"),
            "{}",
            own.in_words(now)
        );
    }

    #[test]
    fn what_is_no_file_of_credentials_is_told_by_its_name_alone() {
        let marked = format!("\u{feff}{}", creds(""));
        assert!(written(&marked).1.answer(b"nonce").is_ok(), "as an editor saves it");
        for text in ["", "hunter2", "-----BEGIN X-----\nhunter2\n-----END X-----\n"] {
            let (file, own) = written(text);
            let told = own.answer(b"nonce").map(drop).unwrap_err().to_string();
            assert!(told.contains(file.path().to_str().unwrap()), "{told}");
            assert!(!told.contains("hunter"), "{told}");
        }
        let wrong = creds("").replace(SEED, "SUhunter2");
        let told = written(&wrong).1.answer(b"nonce").map(drop).unwrap_err().to_string();
        assert!(told.contains("no seed") && !told.contains("hunter"), "{told}");
    }

    #[test]
    fn a_secret_is_read_from_its_file_each_time() {
        let (file, _) = written("first\n");
        let own = Credentials::Token(Kept::InFile(file.path().to_owned()));
        assert_eq!(own.answer(b"").unwrap().token.as_deref(), Some("first"));
        std::fs::write(file.path(), "second\n").unwrap();
        assert_eq!(own.answer(b"").unwrap().token.as_deref(), Some("second"));
    }
}
