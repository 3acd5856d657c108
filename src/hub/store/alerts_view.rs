//! Alerts as the pages show them: what is open, what ended, who was told, what the channels answered.
//!
//! Must hold: nothing is written here; every list is bounded, and says how many there are.

use serde::Serialize;
use serde_json::Value;

use super::Error;
use super::view::{Eyes, all, json, ms, signed};
use crate::clock::Timestamp;
use crate::sql::{Connection, Params, Row, SqliteError, params};

/// The most incidents of each list.
const INCIDENTS_MAX: u32 = 100;

/// The most members of an incident.
const MEMBERS_MAX: u32 = 50;

/// The most notices of an incident.
const NOTICES_MAX: u32 = 20;

/// The most silences and channels.
const OTHERS_MAX: u32 = 50;

/// What counts as recent, in milliseconds.
const RECENT_MS: u64 = 86_400_000;

/// All that is known of alerts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alerts {
    /// Incidents that are not over, the newest first.
    pub open: Vec<Incident>,
    /// How many there are.
    pub open_total: u64,
    /// Incidents that ended within a day, the newest first.
    pub recent: Vec<Incident>,
    /// What nobody is told for now.
    pub silences: Vec<Silence>,
    /// How the channels do.
    pub channels: Vec<Channel>,
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Incident {
    /// Its number.
    pub id: i64,
    /// The rule that opened it.
    pub rule: String,
    /// When it opened.
    pub opened: u64,
    /// When it ended.
    pub closed: Option<u64>,
    /// What is the matter.
    pub head: Value,
    /// How many nodes it has.
    pub members_total: u64,
    /// The first of them.
    pub members: Vec<Member>,
    /// What was told of it, the newest first.
    pub notices: Vec<Told>,
}

/// A node of an incident.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Member {
    /// The node.
    pub name: String,
    /// Why it is in it.
    pub body: Value,
}

/// A notice, and what its channel made of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// Its number.
    pub id: i64,
    /// Its channel.
    pub channel: String,
    /// When it was decided.
    pub decided: u64,
    /// `queued`, `sending`, `sent`, `folded` or `refused`.
    pub state: String,
    /// How often it was tried.
    pub tries: i64,
    /// When it is tried next.
    pub next: u64,
    /// When the channel answered.
    pub answered: Option<u64>,
    /// What it said.
    pub answer: Option<String>,
    /// The notice.
    pub body: Value,
}

/// A silence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Silence {
    /// Its number.
    pub id: i64,
    /// What it is about.
    pub body: Value,
    /// Until when.
    pub until: u64,
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// How many notices wait for it.
    pub waiting: i64,
    /// How many it took within a day.
    pub sent: i64,
    /// How many it refused within a day.
    pub refused: i64,
    /// When it answered last.
    pub answered: Option<u64>,
    /// What it said.
    pub answer: Option<String>,
}

impl Eyes {
    /// All that is known of alerts.
    pub async fn alerts(&self, now: Timestamp) -> Result<Alerts, Error> {
        let since = signed(now.unix_ms().saturating_sub(RECENT_MS));
        let now = signed(now.unix_ms());
        self.look(move |db| {
            let open = "SELECT id, rule, opened_ms, closed_ms, head FROM incidents
                WHERE closed_ms IS NULL ORDER BY id DESC LIMIT ?";
            let recent = "SELECT id, rule, opened_ms, closed_ms, head FROM incidents
                WHERE closed_ms >= ? ORDER BY closed_ms DESC, id DESC LIMIT ?";
            let silences = "SELECT id, body, until_ms FROM silences WHERE until_ms > ?
                ORDER BY until_ms LIMIT ?";
            let silence = |row: &Row<'_>| {
                let body = json(&row.get::<_, String>(1)?);
                Ok(Silence { id: row.get(0)?, body, until: ms(row, 2)? })
            };
            Ok(Alerts {
                open: incidents(db, open, params![INCIDENTS_MAX])?,
                open_total: open_total(db)?,
                recent: incidents(db, recent, params![since, INCIDENTS_MAX])?,
                silences: all(db, silences, params![now, OTHERS_MAX], silence)?,
                channels: channels(db, since)?,
            })
        })
        .await
    }

    /// How many incidents are open.
    pub async fn open_alerts(&self) -> Result<u64, Error> {
        self.look(open_total).await
    }
}

fn open_total(db: &Connection) -> Result<u64, Error> {
    let sql = "SELECT COUNT(*) FROM incidents WHERE closed_ms IS NULL";
    Ok(db.query_row(sql, [], |row| ms(row, 0))?)
}

fn incidents(db: &Connection, sql: &str, with: impl Params) -> Result<Vec<Incident>, Error> {
    let heads = all(db, sql, with, |row| {
        let head = json(&row.get::<_, String>(4)?);
        let closed = row.get::<_, Option<i64>>(3)?.and_then(|at| u64::try_from(at).ok());
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, ms(row, 2)?, closed, head))
    })?;
    let whole = |(id, rule, opened, closed, head)| {
        let members = "SELECT name, body FROM members WHERE incident = ? ORDER BY name LIMIT ?";
        let member =
            |row: &Row<'_>| Ok(Member { name: row.get(0)?, body: json(&row.get::<_, String>(1)?) });
        let total = "SELECT COUNT(*) FROM members WHERE incident = ?";
        let notices =
            "SELECT id, channel, decided_ms, state, tries, next_ms, answered_ms, answer, body
            FROM notices WHERE incident = ? ORDER BY id DESC LIMIT ?";
        Ok(Incident {
            id,
            rule,
            opened,
            closed,
            head,
            members_total: db.query_row(total, [id], |row| ms(row, 0))?,
            members: all(db, members, params![id, MEMBERS_MAX], member)?,
            notices: all(db, notices, params![id, NOTICES_MAX], told)?,
        })
    };
    heads.into_iter().map(whole).collect()
}

fn told(row: &Row<'_>) -> Result<Told, SqliteError> {
    Ok(Told {
        id: row.get(0)?,
        channel: row.get(1)?,
        decided: ms(row, 2)?,
        state: row.get(3)?,
        tries: row.get(4)?,
        next: ms(row, 5)?,
        answered: row.get::<_, Option<i64>>(6)?.and_then(|at| u64::try_from(at).ok()),
        answer: row.get(7)?,
        body: json(&row.get::<_, String>(8)?),
    })
}

fn channels(db: &Connection, since: i64) -> Result<Vec<Channel>, Error> {
    // A bare column beside MAX() is of the row that has the maximum (SQLite's documented rule).
    let sql = "SELECT channel, SUM(state IN ('queued', 'sending')),
            SUM(state IN ('sent', 'folded') AND answered_ms >= ?1),
            SUM(state = 'refused' AND answered_ms >= ?1), MAX(answered_ms), answer
        FROM (SELECT channel, state, answered_ms, answer FROM notices
            WHERE decided_ms >= ?1 OR state IN ('queued', 'sending'))
        GROUP BY channel ORDER BY channel LIMIT ?2";
    all(db, sql, params![since, OTHERS_MAX], |row| {
        let count = |column| Ok::<_, SqliteError>(row.get::<_, Option<i64>>(column)?.unwrap_or(0));
        Ok(Channel {
            name: row.get(0)?,
            waiting: count(1)?,
            sent: count(2)?,
            refused: count(3)?,
            answered: row.get::<_, Option<i64>>(4)?.and_then(|at| u64::try_from(at).ok()),
            answer: row.get(5)?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[tokio::test]
    async fn alerts_come_with_their_nodes_and_with_what_the_channels_said() {
        let store = Store::in_memory().unwrap();
        let fill = |db: &Connection| -> Result<(), Error> {
            let sql = "INSERT INTO incidents VALUES (1, 'down', 10, 90000000, '{}'),
                    (2, 'down', 90000010, NULL, '{\"title\":\"<i>\"}'), (3, 'old', 1, 2, '{}');
                INSERT INTO members VALUES (2, 'a', '{\"why\":\"w\"}'), (2, 'b', 'no JSON');
                INSERT INTO notices (id, incident, channel, decided_ms, body, state, tries, next_ms,
                    answered_ms, answer) VALUES
                    (1, 2, 'telegram', 90000020, '{}', 'sent', 1, 0, 90000030, '200'),
                    (2, 2, 'webhook', 90000020, '{}', 'queued', 9, 5, 90000040, '500');
                INSERT INTO silences VALUES (1, '{}', 95000000), (2, '{}', 5);";
            db.execute_batch(sql)?;
            Ok(())
        };
        store.writer.call(true, fill).await.unwrap();
        let eyes = Eyes::of(store);
        let alerts = eyes.alerts(Timestamp::from_unix_ms(90_100_000)).await.unwrap();
        let ids = |list: &[Incident]| list.iter().map(|it| it.id).collect::<Vec<_>>();
        assert_eq!((ids(&alerts.open), ids(&alerts.recent)), (vec![2], vec![1]));
        let open = &alerts.open[0];
        assert_eq!((&open.head["title"], open.members_total), (&Value::from("<i>"), 2));
        assert_eq!(open.members[1].body, Value::from("no JSON"));
        let told: Vec<_> = open.notices.iter().map(|it| (&*it.channel, it.tries)).collect();
        assert_eq!(told, [("webhook", 9), ("telegram", 1)]);
        assert_eq!(alerts.silences.len(), 1);
        let channels: Vec<_> = alerts
            .channels
            .iter()
            .map(|it| (&*it.name, it.waiting, it.sent, it.answer.as_deref()))
            .collect();
        assert_eq!(channels, [("telegram", 0, 1, Some("200")), ("webhook", 1, 0, Some("500"))]);
        assert_eq!(eyes.open_alerts().await.unwrap(), 1);
    }
}
