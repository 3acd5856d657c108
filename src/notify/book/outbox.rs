//! The outbox: what is to be told, one row for each channel.
//!
//! A row is queued in the commit that decided it ([`queue`]), `sending` while it is on its way, and then `sent`,
//! `folded` into a newer one of its incident, or `refused` for ever. `told` reads them for the pages.
//!
//! Invariants: a row leaves only by [`Book::notice_sent`] or [`Book::notice_refused`]; one that was on its way
//! when its sender ended is queued again and marked, since it may have arrived.

use std::time::Duration;

use super::{Book, Error};
use crate::clock::Timestamp;
use crate::fleet::notice::{Notice, NoticeKind, Severity};
use crate::notify::{Earlier, NoticeId, Telling};
use crate::sql::{self, Connection, OptionalExtension as _, Row, SqliteError, params};

/// The longest that a notice is put off. One that is put off for longer was so by a clock that has been set back
/// since, and is due.
pub const PUT_OFF_MAX: Duration = Duration::from_hours(1);

/// Earlier notices that one message carries; the rest is counted in it.
const EARLIER_MAX: usize = 50;

/// How long what was told is kept, for the pages.
const KEPT: Duration = Duration::from_hours(90 * 24);

/// What a channel's sender does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// This message is due.
    Due(Box<Due>),
    /// A notice is due at this time.
    At(Timestamp),
    /// Nothing waits.
    Nothing,
}

/// A message that is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// What to send.
    pub telling: Telling,
    /// The notices that are told within it.
    pub folded: Vec<NoticeId>,
    /// How often it was tried.
    pub tries: u32,
}

/// Queues a notice for each of its channels, within the caller's transaction. `set` are the channels that are
/// set; a notice that names none of them goes to all of them, rather than to nobody. Returns the number of rows.
pub fn queue(db: &Connection, notice: &Notice, set: &[&str]) -> Result<usize, Error> {
    let body = serde_json::to_string(notice).map_err(|err| sql::Error::Failed(err.into()))?;
    let is_named = |channel: &&&str| notice.channels.iter().any(|named| named == **channel);
    let named: Vec<&&str> = set.iter().filter(is_named).collect();
    let channels = if named.is_empty() { set.iter().collect() } else { named };
    let incident = (notice.incident > 0).then(|| signed(notice.incident));
    let at = signed(notice.decided.unix_ms());
    let insert = "INSERT INTO notices (incident, channel, decided_ms, body, next_ms)
         VALUES (?1, ?2, ?3, ?4, ?3)";
    for channel in &channels {
        db.prepare_cached(insert)?.execute(params![incident, **channel, at, body])?;
    }
    Ok(channels.len())
}

impl Book {
    /// Queues a notice of no transaction, such as a test of the channels.
    pub async fn queue_notice(&self, notice: Notice, set: Vec<&'static str>) -> Result<(), Error> {
        let work = move |db: &Connection| queue(db, &notice, &set).map(drop);
        self.writer.change("notice_queue", true, work).await
    }

    /// Queues again what was on its way when an earlier sender of this channel ended, and marks it. Returns how
    /// many notices that were.
    pub async fn resume_notices(&self, channel: &'static str) -> Result<usize, Error> {
        let sql = "UPDATE notices SET state = 'queued', maybe_repeat = 1
             WHERE channel = ? AND state = 'sending'";
        self.writer.call(true, move |db| Ok(db.execute(sql, [channel])?)).await
    }

    /// The newest notice of a channel that is due, with the older ones of its incident that wait.
    pub async fn next_notice(&self, channel: &'static str, now: Timestamp) -> Result<Next, Error> {
        self.next_before(channel, now, NoticeId(i64::MAX)).await
    }

    /// As [`Book::next_notice`], of those that are older than this one.
    pub async fn next_before(
        &self,
        channel: &'static str,
        now: Timestamp,
        before: NoticeId,
    ) -> Result<Next, Error> {
        self.writer.call(false, move |db| next(db, channel, now, before)).await
    }

    /// Marks a message as told although this hub did not send it now, with all that would have been told within it.
    pub async fn notice_told(&self, due: &Due, answer: &str, now: Timestamp) -> Result<(), Error> {
        let (id, folded, answer) = (due.telling.id, due.folded.clone(), answer.to_owned());
        let work = move |db: &Connection| {
            let sql = "UPDATE notices SET state = 'folded', answer = ?2, answered_ms = ?3
                 WHERE id = ?1 AND state = 'queued'";
            for of in folded.into_iter().chain([id]) {
                let at = signed(now.unix_ms());
                db.prepare_cached(sql)?.execute(params![of.0, answer, at])?;
            }
            forget(db, id, now)
        };
        self.writer.change("notice_told", true, work).await
    }

    /// Marks a message as on its way. Durable.
    pub async fn notice_begin(&self, due: &Due) -> Result<(), Error> {
        let (id, folded) = (due.telling.id, due.folded.clone());
        let work = move |db: &Connection| {
            let sql = "UPDATE notices SET state = 'sending', tries = tries + 1
                 WHERE id = ? AND state = 'queued'";
            each(db, sql, &folded)?;
            each(db, sql, &[id])
        };
        self.writer.change("notice_begin", true, work).await
    }

    /// Marks a message as taken, and forgets what was told long ago.
    pub async fn notice_sent(&self, due: &Due, answer: &str, now: Timestamp) -> Result<(), Error> {
        let (id, folded, answer) = (due.telling.id, due.folded.clone(), answer.to_owned());
        let work = move |db: &Connection| {
            let now_ms = signed(now.unix_ms());
            let sql =
                "UPDATE notices SET state = 'sent', answer = ?2, answered_ms = ?3 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![id.0, answer, now_ms])?;
            let sql = "UPDATE notices SET state = 'folded', told_in = ?2, answered_ms = ?3
                 WHERE id = ?1 AND state = 'sending'";
            for of in folded {
                db.prepare_cached(sql)?.execute(params![of.0, id.0, now_ms])?;
            }
            forget(db, id, now)
        };
        self.writer.change("notice_sent", true, work).await
    }

    /// Puts a message off until `next`. `may_have_arrived`: whether it isn't known that the channel did not take
    /// it.
    pub async fn notice_later(
        &self,
        due: &Due,
        next: Timestamp,
        answer: &str,
        may_have_arrived: bool,
    ) -> Result<(), Error> {
        let (id, folded, answer) = (due.telling.id, due.folded.clone(), answer.to_owned());
        let work = move |db: &Connection| {
            let sql = "UPDATE notices SET state = 'queued', next_ms = ?2, answer = ?3,
                 maybe_repeat = maybe_repeat OR ?4 WHERE id = ?1 AND state = 'sending'";
            for of in folded.into_iter().chain([id]) {
                let next = signed(next.unix_ms());
                db.prepare_cached(sql)?.execute(params![of.0, next, answer, may_have_arrived])?;
            }
            Ok(())
        };
        self.writer.change("notice_later", true, work).await
    }

    /// Marks a message as one that the channel will never take; what was folded into it waits again.
    pub async fn notice_refused(
        &self,
        due: &Due,
        answer: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (id, folded, answer) = (due.telling.id, due.folded.clone(), answer.to_owned());
        let work = move |db: &Connection| {
            let sql =
                "UPDATE notices SET state = 'refused', answer = ?, answered_ms = ? WHERE id = ?";
            let at = signed(now.unix_ms());
            db.prepare_cached(sql)?.execute(params![answer, at, id.0])?;
            let sql = "UPDATE notices SET state = 'queued' WHERE id = ? AND state = 'sending'";
            each(db, sql, &folded)
        };
        self.writer.change("notice_refused", true, work).await
    }
}

fn next(db: &Connection, channel: &str, now: Timestamp, before: NoticeId) -> Result<Next, Error> {
    let (now_ms, far_ms) = (signed(now.unix_ms()), signed(now.plus(PUT_OFF_MAX).unix_ms()));
    let sql = "SELECT id, incident, body, tries, maybe_repeat FROM notices
         WHERE channel = ? AND state = 'queued' AND (next_ms <= ? OR next_ms > ?) AND id < ?
         ORDER BY id DESC LIMIT 1";
    let which = params![channel, now_ms, far_ms, before.0];
    let newest = db.prepare_cached(sql)?.query_row(which, |row| {
        let incident: Option<i64> = row.get(1)?;
        Ok((NoticeId(row.get(0)?), incident, body(row, 2)?, row.get(3)?, row.get(4)?))
    });
    let Some((id, incident, notice, tries, may_be_repeat)) = newest.optional()? else {
        let sql = "SELECT MIN(next_ms) FROM notices WHERE channel = ? AND state = 'queued'";
        let at: Option<i64> = db.prepare_cached(sql)?.query_row([channel], |row| row.get(0))?;
        return Ok(at.map_or(Next::Nothing, |at| Next::At(time(at))));
    };
    let (folded, earlier) = match incident {
        Some(incident) => older(db, channel, incident, id)?,
        None => (Vec::new(), Vec::new()),
    };
    let left_out = folded.len() - earlier.len();
    let telling = Telling { id, notice, earlier, left_out, may_be_repeat };
    Ok(Next::Due(Box::new(Due { telling, folded, tries })))
}

/// The notices of an incident that wait and are older than this one: all their numbers, and the last of them in
/// full, the oldest first.
fn older(
    db: &Connection,
    channel: &str,
    incident: i64,
    than: NoticeId,
) -> Result<(Vec<NoticeId>, Vec<Earlier>), SqliteError> {
    let sql = "SELECT id, body, maybe_repeat FROM notices
         WHERE channel = ? AND incident = ? AND state = 'queued' AND id < ? ORDER BY id DESC";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![channel, incident, than.0])?;
    let (mut folded, mut earlier) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        folded.push(NoticeId(row.get(0)?));
        if earlier.len() < EARLIER_MAX {
            earlier.push(Earlier { notice: body(row, 1)?, may_be_repeat: row.get(2)? });
        }
    }
    earlier.reverse();
    Ok((folded, earlier))
}

fn each(db: &Connection, sql: &str, ids: &[NoticeId]) -> Result<(), Error> {
    for id in ids {
        db.prepare_cached(sql)?.execute([id.0])?;
    }
    Ok(())
}

/// Forgets what was told long ago over the channel of this notice.
fn forget(db: &Connection, of: NoticeId, now: Timestamp) -> Result<(), Error> {
    let before = now.unix_ms().saturating_sub(Timestamp::default().plus(KEPT).unix_ms());
    let sql = "DELETE FROM notices WHERE channel = (SELECT channel FROM notices WHERE id = ?)
         AND state IN ('sent', 'folded', 'refused') AND next_ms < ?";
    db.prepare_cached(sql)?.execute(params![of.0, signed(before)])?;
    Ok(())
}

pub(super) fn body(row: &Row<'_>, at: usize) -> Result<Notice, SqliteError> {
    let text: String = row.get(at)?;
    Ok(serde_json::from_str(&text).unwrap_or_else(|_| unread(&text)))
}

/// What is told in place of a notice that another version wrote in another form: as much of it as can be read.
fn unread(text: &str) -> Notice {
    let body: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let title = body["title"].as_str().unwrap_or("a notice that this version can't read");
    let time = |key: &str| body[key].as_str().and_then(|it| it.parse().ok()).unwrap_or_default();
    Notice {
        incident: body["incident"].as_u64().unwrap_or_default(),
        kind: NoticeKind::Updated,
        rule: body["rule"].as_str().unwrap_or_default().to_owned(),
        severity: Severity::Critical,
        title: title.to_owned(),
        opened: time("opened"),
        decided: time("decided"),
        nodes: Vec::new(),
        more: 0,
        lines: Vec::new(),
        remedy: String::new(),
        is_node_down: false,
        channels: Vec::new(),
    }
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_unix_ms(unsigned(ms))
}
