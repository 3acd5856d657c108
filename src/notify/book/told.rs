//! What was told and what waits, for the pages and the metrics. Reads only.

use super::outbox::{body, signed, time, unsigned};
use super::{Book, Error};
use crate::clock::Timestamp;
use crate::fleet::notice::Notice;
use crate::notify::NoticeId;
use crate::sql::{self, Connection, Row, SqliteError, params};

/// A notice of the outbox, for the pages.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its number.
    pub id: NoticeId,
    /// Over which channel.
    pub channel: String,
    /// What it says.
    pub notice: Notice,
    /// How far it came.
    pub state: State,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried next, if it waits.
    pub next: Timestamp,
    /// When the channel answered last.
    pub answered: Option<Timestamp>,
    /// What the channel said last.
    pub answer: Option<String>,
    /// Of a folded one: the notice that told it.
    pub told_in: Option<NoticeId>,
    /// Whether it may have arrived more than once.
    pub may_be_repeat: bool,
}

/// How far a notice came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It waits.
    Queued,
    /// It is on its way.
    Sending,
    /// The channel took it.
    Sent,
    /// It was told within a newer one of its incident.
    Folded,
    /// The channel will never take it.
    Refused,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Sending, Self::Sent, Self::Folded, Self::Refused];

    /// The state as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Folded => "folded",
            Self::Refused => "refused",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// How many notices of a channel are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The channel.
    pub channel: String,
    /// The state.
    pub state: State,
    /// How many.
    pub notices: u64,
    /// When the oldest of them was decided.
    pub oldest: Timestamp,
}

impl Book {
    /// How many notices of each channel are in each state.
    pub async fn count_notices(&self) -> Result<Vec<Count>, Error> {
        let sql = "SELECT channel, state, COUNT(*), MIN(decided_ms) FROM notices
             GROUP BY channel, state";
        let work = move |db: &Connection| {
            let mut query = db.prepare_cached(sql)?;
            let rows = query.query_map([], |row| {
                Ok(Count {
                    channel: row.get(0)?,
                    state: state(row, 1)?,
                    notices: unsigned(row.get(2)?),
                    oldest: time(row.get(3)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        self.writer.call(false, work).await
    }

    /// What was told of an incident or waits, the newest first; `limit` at most.
    pub async fn notices_of(&self, incident: u64, limit: u32) -> Result<Vec<Told>, Error> {
        let sql = "WHERE incident = ? ORDER BY id DESC LIMIT ?";
        self.writer.call(false, move |db| told(db, sql, params![signed(incident), limit])).await
    }

    /// What was told last or waits, the newest first; `limit` at most.
    pub async fn recent_notices(&self, limit: u32) -> Result<Vec<Told>, Error> {
        self.writer.call(false, move |db| told(db, "ORDER BY id DESC LIMIT ?", [limit])).await
    }
}

fn told(db: &Connection, of: &str, params: impl sql::Params) -> Result<Vec<Told>, Error> {
    let sql = format!(
        "SELECT id, channel, body, state, tries, next_ms, answered_ms, answer, told_in, maybe_repeat
         FROM notices {of}"
    );
    let mut query = db.prepare_cached(&sql)?;
    let rows = query.query_map(params, |row| {
        let (answered, told_in): (Option<i64>, Option<i64>) = (row.get(6)?, row.get(8)?);
        Ok(Told {
            id: NoticeId(row.get(0)?),
            channel: row.get(1)?,
            notice: body(row, 2)?,
            state: state(row, 3)?,
            tries: row.get(4)?,
            next: time(row.get(5)?),
            answered: answered.map(time),
            answer: row.get(7)?,
            told_in: told_in.map(NoticeId),
            may_be_repeat: row.get(9)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn state(row: &Row<'_>, at: usize) -> Result<State, SqliteError> {
    let text: String = row.get(at)?;
    State::parse(&text).ok_or(SqliteError::InvalidQuery)
}
