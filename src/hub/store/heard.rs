//! What our nodes say on NATS and on the chain, and how nodes stand.
//!
//! Invariants: what is read from a stream and the number up to which it was read are one commit, so that a hub that
//! is killed goes on where it was; a row is bounded, whoever sent what is in it.

use super::cursors::set_cursor;
use super::view::EventRow;
use super::{Error, Store};
use crate::bus::Recorded;
use crate::clock::Timestamp;
use crate::fleet::Event;
use crate::fleet::clocks::Standing;
use crate::ids::Address;
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

/// The cursor of the stream of statuses.
pub const STATUSES: &str = "statuses";
/// The cursor of the stream of events.
pub const EVENTS: &str = "events";

/// Most statuses that are kept of a job; its first and its last ones.
const STATUSES_MAX: usize = 64;

/// The longest list of statuses that is kept, in bytes.
const STATUSES_BYTES_MAX: usize = 64 * 1024;

/// The longest status that is kept, in bytes.
const STATUS_BYTES_MAX: usize = 16 * 1024;

/// How a node stands from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stands {
    /// The node.
    pub name: String,
    /// How.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub why: String,
}

/// One of our nodes was heard on NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnNats {
    /// Its address.
    pub node: Address,
    /// When.
    pub at: Timestamp,
    /// The number of its message, if its stream counts.
    pub seq: Option<u64>,
    /// What it told of itself, as JSON, if it did.
    pub presence: Option<String>,
}

impl Store {
    /// Notes how nodes stand. `then` takes it over into memory.
    pub async fn stand(
        &self,
        nodes: Vec<Stands>,
        then: impl FnOnce(&()) + Send + 'static,
    ) -> Result<(), Error> {
        let work = move |db: &Connection| {
            for stands in &nodes {
                stand(db, stands)?;
            }
            Ok(())
        };
        self.writer.change_then("hub.stand", false, work, then).await
    }

    /// Notes that nodes were heard on NATS. A node that is new is known from then on, by its address.
    /// `then` takes it over into memory.
    pub async fn heard_on_nats(
        &self,
        heard: Vec<OnNats>,
        then: impl FnOnce(&()) + Send + 'static,
    ) -> Result<(), Error> {
        let work = move |db: &Connection| {
            for one in &heard {
                on_nats(db, one)?;
            }
            Ok(())
        };
        self.writer.change_then("hub.nats", false, work, then).await
    }

    /// Keeps statuses, and that the stream was read up to the last of them.
    pub async fn keep_statuses(&self, statuses: Vec<Recorded>) -> Result<(), Error> {
        self.writer
            .change("hub.statuses", false, move |db| {
                for status in &statuses {
                    keep_status(db, status)?;
                }
                if let Some(last) = statuses.last() {
                    set_cursor(db, STATUSES, last.seq)?;
                }
                Ok(())
            })
            .await
    }

    /// Keeps events with their numbers in the stream, and that it was read up to the last of them.
    /// Returns those that are new.
    pub async fn keep_events(&self, events: Vec<(u64, Event)>) -> Result<Vec<EventRow>, Error> {
        self.writer
            .change("hub.events", false, move |db| {
                let mut rows = Vec::new();
                for (seq, event) in &events {
                    rows.extend(keep_event(db, *seq, event)?);
                }
                if let Some((last, _)) = events.last() {
                    set_cursor(db, EVENTS, *last)?;
                }
                Ok(rows)
            })
            .await
    }

    /// The stream of events was made anew: its numbers begin again.
    pub async fn events_anew(&self) -> Result<(), Error> {
        self.writer
            .call(false, |db| {
                db.execute("UPDATE events SET seq = NULL WHERE seq IS NOT NULL", [])?;
                set_cursor(db, EVENTS, 0)?;
                Ok(())
            })
            .await
    }

    /// The events since then, the oldest first, at most so many.
    pub async fn events_since(&self, since: Timestamp, most: u32) -> Result<Vec<Event>, Error> {
        self.writer
            .call(false, move |db| {
                let select = "SELECT body FROM (SELECT at_ms, body FROM events WHERE at_ms >= ?1
                              ORDER BY at_ms DESC LIMIT ?2) ORDER BY at_ms";
                let mut select = db.prepare_cached(select)?;
                let rows =
                    select.query_map(params![at(since), most], |row| row.get::<_, String>(0))?;
                let mut events = Vec::new();
                for row in rows {
                    events.extend(Event::parse(row?.as_bytes()).ok());
                }
                Ok(events)
            })
            .await
    }
}

fn stand(db: &Connection, stands: &Stands) -> Result<(), SqliteError> {
    let set = "UPDATE nodes SET standing = ?2, standing_ms = ?3 WHERE name = ?1";
    let row = params![stands.name, stands.standing.as_str(), at(stands.since)];
    if db.prepare_cached(set)?.execute(row)? == 0 {
        // Its owner has removed it meanwhile.
        return Ok(());
    }
    let add = "INSERT INTO standings (name, at_ms, standing, why) VALUES (?1, ?2, ?3, ?4)";
    let row = params![stands.name, at(stands.since), stands.standing.as_str(), stands.why];
    db.prepare_cached(add)?.execute(row).map(drop)
}

fn on_nats(db: &Connection, heard: &OnNats) -> Result<(), SqliteError> {
    let put = "INSERT INTO nodes (name, address, first_ms, nats_ms, nats_seq, presence, standing, standing_ms)
               VALUES (?1, ?1, ?2, ?2, ?3, ?4, 'up', ?2)
               ON CONFLICT (address) DO UPDATE SET nats_ms = MAX(COALESCE(nats_ms, 0), ?2),
                   nats_seq = COALESCE(?3, nats_seq), presence = COALESCE(?4, presence)
               -- It beats under its address too, or has a secret already.
               ON CONFLICT (name) DO UPDATE SET address = ?1,
                   nats_ms = MAX(COALESCE(nats_ms, 0), ?2), nats_seq = COALESCE(?3, nats_seq),
                   presence = COALESCE(?4, presence)";
    let seq = heard.seq.and_then(|seq| i64::try_from(seq).ok());
    let row = params![heard.node.lower_hex(), at(heard.at), seq, heard.presence];
    db.prepare_cached(put)?.execute(row).map(drop)
}

fn keep_status(db: &Connection, recorded: &Recorded) -> Result<(), SqliteError> {
    if recorded.body.len() > STATUS_BYTES_MAX {
        return Ok(());
    }
    let Ok(body) = serde_json::from_slice::<serde_json::Value>(&recorded.body) else {
        return Ok(());
    };
    let (node, job) = (recorded.agent.lower_hex(), recorded.job.to_string());
    let before = "SELECT statuses, is_over FROM jobs WHERE node = ?1 AND job_id = ?2";
    let before = db
        .prepare_cached(before)?
        .query_row([&node, &job], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))
        .optional()?;
    let was_over = before.as_ref().is_some_and(|(_, is_over)| *is_over);
    let mut statuses: Vec<serde_json::Value> =
        before.and_then(|(text, _)| serde_json::from_str(&text).ok()).unwrap_or_default();
    let (word, is_over) = word(&body);
    if is_over && !was_over {
        super::earned::add(db, &node, &word, &body, recorded.at)?;
    }
    statuses.push(serde_json::json!({ "seq": recorded.seq, "at": recorded.at, "status": body }));
    if statuses.len() > STATUSES_MAX {
        statuses.remove(STATUSES_MAX / 2);
    }
    let mut text = serde_json::Value::Array(statuses.clone()).to_string();
    while text.len() > STATUSES_BYTES_MAX && statuses.len() > 1 {
        statuses.remove(statuses.len() / 2);
        text = serde_json::Value::Array(statuses.clone()).to_string();
    }
    let put = "INSERT INTO jobs (node, job_id, first_ms, last_ms, status, is_over, statuses)
               VALUES (?1, ?2, ?3, ?3, ?4, ?5, ?6)
               ON CONFLICT (node, job_id) DO UPDATE SET last_ms = ?3, status = ?4,
                   is_over = MAX(is_over, ?5), statuses = ?6";
    let row = params![node, job, at(recorded.at), word, is_over, text];
    db.prepare_cached(put)?.execute(row).map(drop)
}

/// The status's word, and whether it is a job's last one.
fn word(body: &serde_json::Value) -> (String, bool) {
    let word = body.get("status").and_then(serde_json::Value::as_str).unwrap_or("unknown");
    let word = crate::report::one_line(word, 32);
    let is_over = matches!(
        word.as_str(),
        "completed" | "failed" | "cancelled" | "rejected" | "timed_out" | "timeout"
    );
    (word, is_over)
}

/// Keeps an event; `None` if it was kept before.
fn keep_event(db: &Connection, seq: u64, event: &Event) -> Result<Option<EventRow>, SqliteError> {
    let put = "INSERT INTO events (seq, at_ms, node, job_id, level, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (seq) DO NOTHING";
    let (job, level) = (event.job_id.as_ref().map(ToString::to_string), event.level.as_str());
    let (node, seq) = (event.node.lower_hex(), i64::try_from(seq).unwrap_or(i64::MAX));
    let text = event.to_json();
    let row = params![seq, at(event.timestamp), node, job, level, text];
    if db.prepare_cached(put)?.execute(row)? == 0 {
        return Ok(None);
    }
    Ok(Some(EventRow {
        id: db.last_insert_rowid(),
        seq: Some(seq),
        at: event.timestamp.unix_ms(),
        node,
        job,
        level: level.to_owned(),
        body: serde_json::from_str(&text).unwrap_or_default(),
    }))
}

fn at(moment: Timestamp) -> i64 {
    i64::try_from(moment.unix_ms()).unwrap_or(i64::MAX)
}
