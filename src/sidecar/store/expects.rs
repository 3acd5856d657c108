//! What is expected of each program, as of the verdicts that are written down: a recording is judged by it.
//!
//! Must hold: a verdict with evidence from the row's observation on was given by the row's expectation and version.

use serde::{Deserialize, Serialize};

use super::{Error, Store, json};
use crate::sql::{Connection, OptionalExtension as _, params};
use crate::watch::expect::Expect;
use crate::watch::state::Watched;

/// What verdicts rest on besides observations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The version of the sidecar that gave them.
    pub version: String,
    /// What was expected.
    pub expect: Expect,
}

impl Expected {
    /// By this version.
    pub fn now(expect: &Expect) -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), expect: expect.clone() }
    }
}

impl Store {
    /// Writes down what is expected of a program from the next observation on, if that is something else than before.
    /// To be called before anything of the program is observed.
    pub async fn expects(&self, name: &str, expected: &Expected) -> Result<(), Error> {
        let (name, body) = (name.to_owned(), json(expected)?);
        let work = move |db: &Connection| {
            let was = "SELECT body FROM expects WHERE name = ?1";
            let was: Option<String> = db.query_row(was, [&name], |row| row.get(0)).optional()?;
            if was.as_ref() != Some(&body) {
                // What follows is replayed from what is known now.
                let state = "SELECT state FROM programs WHERE name = ?1";
                let state: Option<String> =
                    db.query_row(state, [&name], |row| row.get(0)).optional()?;
                let state: Option<Watched> = state.and_then(|it| serde_json::from_str(&it).ok());
                let base = json(&state.unwrap_or_default())?;
                db.execute("UPDATE programs SET base = ?2 WHERE name = ?1", params![name, base])?;
                let put = "INSERT INTO expects (name, since_observation, body)
                           VALUES (?1, (SELECT COALESCE(MAX(id), 0) + 1 FROM observations), ?2)
                           ON CONFLICT (name) DO UPDATE SET
                           since_observation = excluded.since_observation, body = excluded.body";
                db.execute(put, params![name, body])?;
            }
            Ok(())
        };
        self.writer.change("sidecar.expects", false, work).await
    }
}
