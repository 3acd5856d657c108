//! People who may log in, and their sessions.
//!
//! Invariants: of a password only its argon2id hash is kept, of a session only the SHA-256 of its token; a person
//! who is removed has no session any more.

use super::{Error, Store};
use crate::clock::Timestamp;
use crate::sql::{OptionalExtension as _, params};

/// Most sessions of a person at a time; a further login ends the oldest.
pub const SESSIONS_MAX: u32 = 20;

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Look at everything.
    Reader,
    /// Also silence alerts, rename and remove nodes.
    Admin,
}

impl Role {
    /// The role as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Admin => "admin",
        }
    }

    /// The role that this names.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Reader, Self::Admin].into_iter().find(|role| role.as_str() == text)
    }
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

impl Store {
    /// Whether anybody may log in at all.
    pub async fn has_people(&self) -> Result<bool, Error> {
        self.writer
            .call(false, |db| {
                let exists = "SELECT EXISTS (SELECT 1 FROM people)";
                Ok(db.query_row(exists, [], |row| row.get(0))?)
            })
            .await
    }

    /// The hash of a person's password.
    pub async fn password(&self, name: String) -> Result<Option<String>, Error> {
        self.writer
            .call(false, move |db| {
                let select = "SELECT password FROM people WHERE name = ?1";
                Ok(db.query_row(select, [name], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// Begins a session with the token of this hash.
    pub async fn log_in(
        &self,
        name: String,
        token: [u8; 32],
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.writer
            .call(true, move |db| {
                db.execute("DELETE FROM sessions WHERE until_ms <= ?1", [at(now)])?;
                let add = "INSERT INTO sessions (token, person, until_ms) VALUES (?1, ?2, ?3)";
                db.execute(add, params![token, name, at(until)])?;
                let oldest = "DELETE FROM sessions WHERE person = ?1 AND token NOT IN (
                    SELECT token FROM sessions WHERE person = ?1 ORDER BY until_ms DESC LIMIT ?2)";
                db.execute(oldest, params![name, SESSIONS_MAX])?;
                Ok(())
            })
            .await
    }

    /// Who has a session with the token of this hash.
    pub async fn session(&self, token: [u8; 32], now: Timestamp) -> Result<Option<Person>, Error> {
        self.writer
            .call(false, move |db| {
                let select = "SELECT people.name, people.role FROM sessions
                              JOIN people ON people.name = sessions.person
                              WHERE sessions.token = ?1 AND sessions.until_ms > ?2";
                let row = |row: &crate::sql::Row<'_>| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
                };
                let found = db.prepare_cached(select)?.query_row(params![token, at(now)], row);
                Ok(found.optional()?.map(|(name, role)| Person {
                    name,
                    role: Role::parse(&role).unwrap_or(Role::Reader),
                }))
            })
            .await
    }

    /// Ends the session with the token of this hash.
    pub async fn log_out(&self, token: [u8; 32]) -> Result<(), Error> {
        self.writer
            .call(true, move |db| {
                db.execute("DELETE FROM sessions WHERE token = ?1", [token])?;
                Ok(())
            })
            .await
    }
}

fn at(moment: Timestamp) -> i64 {
    i64::try_from(moment.unix_ms()).unwrap_or(i64::MAX)
}
