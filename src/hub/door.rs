//! Passwords and session tokens of people.
//!
//! Must hold: checking a password takes the same time whether or not its person exists; a few are checked at a
//! time, since each takes much memory; a token is random and known to its holder alone.

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use crate::secret::Secret;

/// The shortest password.
pub const PASSWORD_BYTES_MIN: usize = 10;

/// The longest password: a longer one is only work for us.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// How many passwords are checked at a time; each takes 19 MiB.
const AT_ONCE_MAX: usize = 2;

/// A hash of nobody's password, with the same parameters.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm9i$\
                      w4fBzZ0k5dJm1m3C7lq3o4gC0zFv6J6wq8y0m2sV1nE";

static CHECKS: Semaphore = Semaphore::const_new(AT_ONCE_MAX);

/// A password that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPassword {
    /// Too short or too long.
    #[error("a password has {PASSWORD_BYTES_MIN} to {PASSWORD_BYTES_MAX} bytes")]
    Length,
    /// The machine has no randomness or no memory.
    #[error("the password can't be hashed: {0}")]
    Unhashed(String),
}

/// The hash under which a new password is kept: argon2id with OWASP's second parameters (19 MiB, two passes).
/// Blocks for some 50 ms.
pub fn hash(password: &Secret) -> Result<String, InvalidPassword> {
    let bytes = password.expose().as_bytes();
    if !(PASSWORD_BYTES_MIN..=PASSWORD_BYTES_MAX).contains(&bytes.len()) {
        return Err(InvalidPassword::Length);
    }
    let unhashed = |err: &dyn std::fmt::Display| InvalidPassword::Unhashed(err.to_string());
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|err| unhashed(&err))?;
    let salt = SaltString::encode_b64(&salt).map_err(|err| unhashed(&err))?;
    let hash = hasher().and_then(|hasher| hasher.hash_password(bytes, &salt));
    hash.map(|hash| hash.to_string()).map_err(|err| unhashed(&err))
}

/// Whether this is the password with this hash; `None`: of nobody, which takes as long.
pub async fn is_right(password: Secret, hash: Option<String>) -> bool {
    // Never closed.
    let Ok(place) = CHECKS.acquire().await else { return false };
    let check = move || {
        // Held to the end of the work, also if nobody waits for it any more.
        let _place = place;
        let is_somebody = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let is_long = password.expose().len() > PASSWORD_BYTES_MAX;
        let known = PasswordHash::new(&hash);
        let matches = !is_long
            && known.is_ok_and(|known| {
                Argon2::default().verify_password(password.expose().as_bytes(), &known).is_ok()
            });
        matches && is_somebody
    };
    tokio::task::spawn_blocking(check).await.unwrap_or_default()
}

fn hasher() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(19_456, 2, 1, None).map_err(argon2::password_hash::Error::from)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// A new token: 32 random bytes in hex.
///
/// # Errors
/// If the machine has no randomness.
pub fn token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// What is kept of a token.
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash_alone() {
        let kept = hash(&Secret::new("correct horse battery")).unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !kept.contains("horse"));
        assert!(is_right(Secret::new("correct horse battery"), Some(kept.clone())).await);
        assert!(!is_right(Secret::new("correct horse batter"), Some(kept)).await);
        assert!(!is_right(Secret::new("correct horse battery"), None).await);
    }

    #[test]
    fn the_hash_of_nobody_takes_as_long_as_another() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let somebody = hash(&Secret::new("correct horse battery")).unwrap();
        let somebody = PasswordHash::new(&somebody).unwrap();
        assert_eq!((nobody.algorithm, nobody.version), (somebody.algorithm, somebody.version));
        assert_eq!(nobody.params.to_string(), somebody.params.to_string());
    }

    #[test]
    fn passwords_that_are_too_short_or_too_long_are_refused() {
        assert!(hash(&Secret::new("short")).is_err());
        assert!(hash(&Secret::new("x".repeat(257))).is_err());
    }
}
