//! Incidents and silences.
//!
//! Invariants: what a decision changes and the notices that follow from it are one commit; a member is never
//! removed from its incident, so that the past can be shown.

use std::collections::BTreeMap;

use super::{Book, Error, outbox};
use crate::clock::Timestamp;
use crate::fleet::alerts::{Alerts, Decision, Flaps, Head, Incident, Member, Policy, Silence};
use crate::sql::{Connection, SqliteError, params};

/// Most silences at a time.
pub const SILENCES_MAX: usize = 1_000;

impl Book {
    /// What decisions rest on, as it was written down.
    pub async fn alerts(&self, policy: &Policy, now: Timestamp) -> Result<Alerts, Error> {
        let since = now.unix_ms().saturating_sub(ms(policy.flapping.within));
        self.writer
            .call(false, move |db| {
                let newest =
                    db.query_row("SELECT COALESCE(MAX(id), 0) FROM incidents", [], |row| {
                        row.get::<_, i64>(0)
                    })?;
                let newest = u64::try_from(newest).unwrap_or_default();
                Ok(Alerts::new(open(db)?, newest, flaps(db, since)?, silences(db, now)?))
            })
            .await
    }

    /// Writes a decision down: incidents, members, and for each of these channels the notices. Durable: it comes
    /// before anybody is told.
    pub async fn decided(
        &self,
        decision: Decision,
        channels: Vec<&'static str>,
    ) -> Result<(), Error> {
        self.writer
            .change("alerts.decided", true, move |db| {
                for (incident, names) in &decision.incidents {
                    write(db, incident, names.iter().map(String::as_str))?;
                }
                for notice in &decision.notices {
                    outbox::queue(db, notice, &channels)?;
                }
                Ok(())
            })
            .await
    }

    /// The silences that last.
    pub async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, Error> {
        self.writer.call(false, move |db| Ok(silences(db, now)?)).await
    }

    /// Adds a silence, and returns all that last.
    pub async fn silence(
        &self,
        silence: Silence,
        now: Timestamp,
        then: impl FnOnce(&Vec<Silence>) + Send + 'static,
    ) -> Result<Vec<Silence>, Error> {
        let work = move |db: &Connection| {
            let body = json(&silence)?;
            let count: i64 = db.query_row(
                "SELECT COUNT(*) FROM silences WHERE until_ms > ?1",
                [at(now)],
                |row| row.get(0),
            )?;
            if usize::try_from(count).is_ok_and(|count| count < SILENCES_MAX) {
                let add = "INSERT INTO silences (body, until_ms) VALUES (?1, ?2)";
                db.execute(add, params![body, at(silence.until)])?;
            }
            Ok(silences(db, now)?)
        };
        self.writer.change_then("alerts.silence", true, work, then).await
    }

    /// Ends a silence, and returns all that last.
    pub async fn end_silence(
        &self,
        id: u64,
        now: Timestamp,
        then: impl FnOnce(&Vec<Silence>) + Send + 'static,
    ) -> Result<Vec<Silence>, Error> {
        let id = i64::try_from(id).unwrap_or(i64::MAX);
        let work = move |db: &Connection| {
            db.execute("DELETE FROM silences WHERE id = ?1", [id])?;
            Ok(silences(db, now)?)
        };
        self.writer.change_then("alerts.silence", true, work, then).await
    }
}

fn open(db: &Connection) -> Result<Vec<Incident>, SqliteError> {
    let mut select =
        db.prepare("SELECT id, rule, opened_ms, head FROM incidents WHERE closed_ms IS NULL")?;
    let rows = select.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, String>(3)?,
        ))
    })?;
    let mut all = Vec::new();
    for row in rows {
        let (id, rule, opened, head) = row?;
        let head: Head = parsed(&head)?;
        let members = members(db, id)?;
        let (id, opened) = (u64::try_from(id).unwrap_or_default(), moment(opened));
        all.push(Incident { id, rule, opened, closed: None, head, members });
    }
    Ok(all)
}

fn members(db: &Connection, incident: i64) -> Result<BTreeMap<String, Member>, SqliteError> {
    let mut select = db.prepare_cached("SELECT name, body FROM members WHERE incident = ?1")?;
    let rows = select
        .query_map([incident], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (name, body) = row?;
        Ok((name, parsed(&body)?))
    })
    .collect()
}

/// When nodes came into incidents since then.
fn flaps(db: &Connection, since_ms: u64) -> Result<Flaps, SqliteError> {
    let select = "SELECT incidents.rule, members.name, members.body FROM incidents
                  JOIN members ON members.incident = incidents.id
                  WHERE incidents.opened_ms >= ?1 OR incidents.closed_ms IS NULL
                  ORDER BY incidents.id";
    let mut select = db.prepare(select)?;
    let rows = select.query_map([i64::try_from(since_ms).unwrap_or(i64::MAX)], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut flaps = Flaps::default();
    for row in rows {
        let (rule, name, body) = row?;
        let member: Member = parsed(&body)?;
        if member.joined.unix_ms() >= since_ms {
            flaps.note(&rule, &name, member.joined);
        }
    }
    Ok(flaps)
}

fn silences(db: &Connection, now: Timestamp) -> Result<Vec<Silence>, SqliteError> {
    let mut select = db.prepare("SELECT id, body FROM silences WHERE until_ms > ?1 ORDER BY id")?;
    let rows =
        select.query_map([at(now)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    rows.map(|row| {
        let (id, body) = row?;
        let silence: Silence = parsed(&body)?;
        Ok(Silence { id: u64::try_from(id).unwrap_or_default(), ..silence })
    })
    .collect()
}

fn write<'a>(
    db: &Connection,
    incident: &Incident,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), SqliteError> {
    let id = i64::try_from(incident.id).unwrap_or(i64::MAX);
    let put =
        "INSERT INTO incidents (id, rule, opened_ms, closed_ms, head) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (id) DO UPDATE SET closed_ms = ?4, head = ?5";
    let closed = incident.closed.map(at);
    let row = params![id, incident.rule, at(incident.opened), closed, json(&incident.head)?];
    db.prepare_cached(put)?.execute(row)?;
    let put = "INSERT INTO members (incident, name, body) VALUES (?1, ?2, ?3)
               ON CONFLICT (incident, name) DO UPDATE SET body = ?3";
    let mut put = db.prepare_cached(put)?;
    for name in names {
        if let Some(member) = incident.members.get(name) {
            put.execute(params![id, name, json(member)?])?;
        }
    }
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, SqliteError> {
    serde_json::to_string(value).map_err(|err| SqliteError::ToSqlConversionFailure(err.into()))
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, SqliteError> {
    serde_json::from_str(text).map_err(|err| SqliteError::ToSqlConversionFailure(err.into()))
}

fn at(moment: Timestamp) -> i64 {
    i64::try_from(moment.unix_ms()).unwrap_or(i64::MAX)
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(u64::try_from(ms).unwrap_or_default())
}

fn ms(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
