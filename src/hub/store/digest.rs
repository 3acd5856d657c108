//! What happened in a day, for those who read about it in the morning.
//!
//! Invariant: a digest is queued in the same commit that notes that it was, so that none is sent twice.

use super::cursors::set_cursor;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::fleet::notice::{Notice, NoticeKind, Severity};
use crate::fleet::words;
use crate::notify::book::queue;
use crate::sql::{Connection, OptionalExtension as _, SqliteError, params};

/// The cursor of digests: up to when they tell.
const DIGEST: &str = "digest";

/// How many nodes a digest names.
const NAMED_MAX: usize = 10;

impl Store {
    /// Queues the digest of what happened until this moment, unless it was queued before. Returns whether it was
    /// queued now.
    pub async fn digest(
        &self,
        until: Timestamp,
        now: Timestamp,
        channels: Vec<&'static str>,
    ) -> Result<bool, Error> {
        self.writer
            .change("hub.digest", true, move |db| {
                let select = "SELECT value FROM cursors WHERE name = ?1";
                let before: Option<i64> =
                    db.query_row(select, [DIGEST], |row| row.get(0)).optional()?;
                let is_told = before.is_some_and(|before| before >= at(until));
                // A hub that is new has no day to tell of yet.
                let is_first = before.is_none();
                if is_told {
                    return Ok(false);
                }
                set_cursor(db, DIGEST, until.unix_ms())?;
                if is_first {
                    return Ok(false);
                }
                let day = std::time::Duration::from_hours(24);
                let since =
                    until.unix_ms().saturating_sub(u64::try_from(day.as_millis()).unwrap_or(0));
                let since = Timestamp::from_unix_ms(since);
                queue(db, &notice(db, since, until, now)?, &channels)?;
                Ok(true)
            })
            .await
    }
}

/// A notice that is about no incident.
pub fn plain(kind: NoticeKind, title: String, lines: Vec<String>, now: Timestamp) -> Notice {
    Notice {
        incident: 0,
        kind,
        rule: String::new(),
        severity: Severity::Info,
        title,
        opened: now,
        decided: now,
        nodes: Vec::new(),
        more: 0,
        lines,
        remedy: String::new(),
        is_node_down: false,
        channels: Vec::new(),
    }
}

fn notice(
    db: &Connection,
    since: Timestamp,
    until: Timestamp,
    now: Timestamp,
) -> Result<Notice, SqliteError> {
    let count = |sql: &str| -> Result<usize, SqliteError> {
        let count = db.query_row(sql, params![at(since), at(until)], |row| row.get::<_, i64>(0))?;
        Ok(usize::try_from(count).unwrap_or_default())
    };
    let nodes = count("SELECT COUNT(*) FROM nodes WHERE ?1 <= ?2")?;
    let up = count("SELECT COUNT(*) FROM nodes WHERE standing = 'up' AND ?1 <= ?2")?;
    let opened = count("SELECT COUNT(*) FROM incidents WHERE opened_ms > ?1 AND opened_ms <= ?2")?;
    let open = count("SELECT COUNT(*) FROM incidents WHERE closed_ms IS NULL AND ?1 <= ?2")?;
    let done = count(
        "SELECT COUNT(*) FROM jobs WHERE is_over AND status = 'completed' AND last_ms > ?1 AND last_ms <= ?2",
    )?;
    let failed = count(
        "SELECT COUNT(*) FROM jobs WHERE is_over AND status <> 'completed' AND last_ms > ?1 AND last_ms <= ?2",
    )?;
    let mut lines = vec![
        format!("{up} of {} are up now", words::nodes(nodes)),
        format!("{opened} incidents in 24 hours, {open} still open"),
    ];
    if done + failed > 0 {
        lines.push(format!("{done} jobs completed, {failed} ended in another way"));
    }
    lines.extend(troubled(db, since, until)?);
    let title =
        if open == 0 { "The day was quiet or is mended" } else { "There is something to do" };
    Ok(plain(NoticeKind::Digest, title.to_owned(), lines, now))
}

/// The nodes that left the standing `up` most often.
fn troubled(
    db: &Connection,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<String>, SqliteError> {
    let select = "SELECT name, COUNT(*) AS times FROM standings
                  WHERE at_ms > ?1 AND at_ms <= ?2 AND standing NOT IN ('up', 'not_watched')
                  GROUP BY name ORDER BY times DESC, name LIMIT ?3";
    let mut select = db.prepare(select)?;
    let most = i64::try_from(NAMED_MAX).unwrap_or_default();
    let rows = select.query_map(params![at(since), at(until), most], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    rows.map(|row| {
        let (name, times) = row?;
        let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        Ok(format!("{name} was in trouble {times}"))
    })
    .collect()
}

fn at(moment: Timestamp) -> i64 {
    i64::try_from(moment.unix_ms()).unwrap_or(i64::MAX)
}
