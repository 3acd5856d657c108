//! The node's own secrets, created once and kept in the journal.
//!
//! Invariants: a secret never changes once it was used, and is never shown.

use std::fmt::Write as _;

use crate::sql::{Connection, OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Error, Journal};
use crate::secret::Secret;

/// Length of a secret in bytes.
const BYTES: usize = 32;

impl Journal {
    /// The secret of this name: 32 random bytes as hex, created at the first call. Durable.
    pub async fn secret(&self, name: &'static str) -> Result<Secret, Error> {
        self.writer.call(true, move |db| of(db, name)).await
    }
}

fn of(db: &Connection, name: &str) -> Result<Secret, Error> {
    let find = "SELECT secret FROM secrets WHERE name = ?";
    let known: Option<String> = db.query_row(find, [name], |row| row.get(0)).optional()?;
    if let Some(known) = known {
        return Ok(Secret::new(known));
    }
    let mut bytes = Zeroizing::new([0_u8; BYTES]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|err| Error::Failed(Box::new(err)))?;
    let mut text = Zeroizing::new(String::with_capacity(2 * BYTES));
    for byte in bytes.iter() {
        _ = write!(text, "{byte:02x}");
    }
    let keep = "INSERT INTO secrets (name, secret) VALUES (?, ?)";
    db.execute(keep, params![name, text.as_str()])?;
    Ok(Secret::new(text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_made_once_and_each_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for _ in 0..2 {
            let journal = Journal::open(dir.path()).unwrap();
            for name in ["one", "two"] {
                seen.push(journal.secret(name).await.unwrap().expose().to_owned());
            }
            drop(journal);
            // The database thread of the first journal may still hold the lock.
            while std::fs::File::open(dir.path().join("lock")).is_ok_and(|lock| {
                rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
                    .is_err()
            }) {
                std::thread::yield_now();
            }
        }
        assert_eq!((seen[0].len(), &seen[0], &seen[1]), (64, &seen[2], &seen[3]));
        assert_ne!(seen[0], seen[1]);
    }
}
