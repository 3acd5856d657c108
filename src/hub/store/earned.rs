//! What each node's jobs came to, day by day (UTC), and how much of the day the node was there.
//!
//! Must hold: a job counts once, when it ends, under the day in which it ended; the time in which its container ran
//! counts under the days in which it ran. What is not known is counted as such and never as 0.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Error;
use super::nodes::ms as at;
use super::view::{Eyes, all, ms, signed};
use crate::clock::Timestamp;
use crate::fleet::clocks::Standing;
use crate::sql::{Connection, Row, SqliteError, params};

/// A day, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// The longest run that is counted, in milliseconds, and the most cards of a job.
const RUN_MS_MAX: u64 = 40 * DAY_MS.cast_unsigned();
const CARDS_MAX: usize = 64;

/// The most changes of standing that are read.
const STANDINGS_MAX: u32 = 400_000;

/// What jobs came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Earned {
    /// Jobs that were completed.
    pub completed: u64,
    /// Jobs that failed or ran out of time.
    pub failed: u64,
    /// Jobs that were cancelled or rejected.
    pub other: u64,
    /// Receipts that the node signed.
    pub receipts: u64,
    /// Time in which containers ran, in milliseconds.
    pub run_ms: u64,
    /// The same, times the cards that they held.
    pub card_ms: u64,
    /// How long those cards computed, as far as it is known.
    pub busy_ms: u64,
    /// The part of `card_ms` of which that is not known.
    pub busy_unknown: u64,
}

impl Earned {
    /// Adds another one.
    pub const fn add(&mut self, other: &Self) {
        self.completed = self.completed.saturating_add(other.completed);
        self.failed = self.failed.saturating_add(other.failed);
        self.other = self.other.saturating_add(other.other);
        self.receipts = self.receipts.saturating_add(other.receipts);
        self.run_ms = self.run_ms.saturating_add(other.run_ms);
        self.card_ms = self.card_ms.saturating_add(other.card_ms);
        self.busy_ms = self.busy_ms.saturating_add(other.busy_ms);
        self.busy_unknown = self.busy_unknown.saturating_add(other.busy_unknown);
    }
}

/// For how long a node was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct There {
    /// Time in which it stood as up or as a zombie, in milliseconds.
    pub up_ms: u64,
    /// Time in which the hub knows how it stood.
    pub known_ms: u64,
}

/// What the tables say of these days.
#[derive(Debug, Clone, Default)]
pub struct Days {
    /// By the node's address and the day.
    pub earned: BTreeMap<(String, u64), Earned>,
    /// By the node's name and the day.
    pub there: BTreeMap<(String, u64), There>,
}

/// Counts a job that ends with this status.
pub(super) fn add(
    db: &Connection,
    node: &str,
    word: &str,
    status: &Value,
    told: Timestamp,
) -> Result<(), SqliteError> {
    let end = at(told);
    let receipt = status.pointer("/receipt/message");
    let mut counted = Earned { receipts: u64::from(receipt.is_some()), ..Earned::default() };
    match word {
        "completed" => counted.completed = 1,
        "failed" | "timed_out" | "timeout" => counted.failed = 1,
        _ => counted.other = 1,
    }
    put(db, node, end / DAY_MS, &counted)?;
    let Some((from, until)) = ran(status, receipt, end) else { return Ok(()) };
    let cards = receipt
        .and_then(|it| it.get("gpuUuids")?.as_str())
        .map_or(0, |text| text.split(',').filter(|uuid| !uuid.is_empty()).take(CARDS_MAX).count());
    let (cards, whole) = (u64::try_from(cards).unwrap_or_default(), until - from);
    let busy = busy_ms(status).map(|busy| busy.min(cards.saturating_mul(whole)));
    let day = DAY_MS.cast_unsigned();
    let mut begin = from;
    while begin < until {
        let end = ((begin / day + 1) * day).min(until);
        let part = end - begin;
        let card_ms = cards.saturating_mul(part);
        let part_of = |busy: u64| u128::from(busy) * u128::from(part) / u128::from(whole.max(1));
        let counted = Earned {
            run_ms: part,
            card_ms,
            busy_ms: busy.map_or(0, |busy| u64::try_from(part_of(busy)).unwrap_or_default()),
            busy_unknown: if busy.is_none() { card_ms } else { 0 },
            ..Earned::default()
        };
        put(db, node, signed(begin / day), &counted)?;
        begin = end;
    }
    Ok(())
}

/// When the container ran: by the receipt, else by what the status says it took.
fn ran(status: &Value, receipt: Option<&Value>, end: i64) -> Option<(u64, u64)> {
    let end = end.cast_unsigned();
    let of = |key: &str| receipt.and_then(|it| it.get(key)?.as_u64());
    let (from, until) = match (of("startedAt"), of("finishedAt")) {
        // The engine's clock may run ahead of the server's.
        (Some(from), Some(until)) => (from.min(end), until.min(end)),
        _ => (end.saturating_sub(status.pointer("/duration_ms/run")?.as_u64()?), end),
    };
    (from < until && until - from <= RUN_MS_MAX).then_some((from, until))
}

/// How long the cards computed; bit 6 of `known` says whether it is known.
fn busy_ms(status: &Value) -> Option<u64> {
    let record = status.pointer("/usage/message")?;
    let is_known = record.get("known")?.as_u64()? >> 6 & 1 == 1;
    if is_known { record.get("gpuMs")?.as_u64() } else { None }
}

fn put(db: &Connection, node: &str, day: i64, earned: &Earned) -> Result<(), SqliteError> {
    let sql = "INSERT INTO earned (node, day, completed, failed, other, receipts, run_ms, card_ms, busy_ms, busy_unknown)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT (node, day) DO UPDATE SET completed = completed + ?3, failed = failed + ?4, other = other + ?5,
            receipts = receipts + ?6, run_ms = run_ms + ?7, card_ms = card_ms + ?8, busy_ms = busy_ms + ?9,
            busy_unknown = busy_unknown + ?10";
    let Earned { completed, failed, other, receipts, run_ms, card_ms, busy_ms, busy_unknown } =
        *earned;
    let row = params![
        node,
        day,
        signed(completed),
        signed(failed),
        signed(other),
        signed(receipts),
        signed(run_ms),
        signed(card_ms),
        signed(busy_ms),
        signed(busy_unknown)
    ];
    db.prepare_cached(sql)?.execute(row).map(drop)
}

impl Eyes {
    /// What is known of the days from `first` to that of `now`; of one node if its name and its key in the table of
    /// jobs are given.
    pub async fn days(
        &self,
        first: u64,
        now: Timestamp,
        node: Option<(String, String)>,
    ) -> Result<Days, Error> {
        self.look_long(move |db| {
            let (name, key) = node.unzip();
            let sql = "SELECT node, day, completed, failed, other, receipts, run_ms, card_ms, busy_ms, busy_unknown
                FROM earned WHERE day >= ?1 AND (?2 IS NULL OR node = ?2)";
            let earned = all(db, sql, params![signed(first), key], |row| {
                Ok(((row.get::<_, String>(0)?, ms(row, 1)?), earned(row)?))
            })?;
            let there = there(db, first, now, name)?;
            Ok(Days { earned: earned.into_iter().collect(), there })
        })
        .await
    }
}

fn earned(row: &Row<'_>) -> Result<Earned, SqliteError> {
    Ok(Earned {
        completed: ms(row, 2)?,
        failed: ms(row, 3)?,
        other: ms(row, 4)?,
        receipts: ms(row, 5)?,
        run_ms: ms(row, 6)?,
        card_ms: ms(row, 7)?,
        busy_ms: ms(row, 8)?,
        busy_unknown: ms(row, 9)?,
    })
}

/// For how long nodes stood how, day by day. Time in which the hub did not watch is not known.
fn there(
    db: &Connection,
    first: u64,
    now: Timestamp,
    name: Option<String>,
) -> Result<BTreeMap<(String, u64), There>, Error> {
    let from = first.saturating_mul(DAY_MS.cast_unsigned());
    let sql = format!(
        "SELECT name, at_ms, standing FROM standings WHERE at_ms >= ?1 AND (?2 IS NULL OR name = ?2)
         UNION ALL
         SELECT name, MAX(at_ms), standing FROM standings WHERE at_ms < ?1 AND (?2 IS NULL OR name = ?2) GROUP BY name
         ORDER BY 1, 2 LIMIT {STANDINGS_MAX}"
    );
    let changes: Vec<Stood> = all(db, &sql, params![signed(from), name], |row| {
        Ok((row.get(0)?, ms(row, 1)?, row.get(2)?))
    })?;
    let sql = "SELECT from_ms, to_ms FROM watches WHERE to_ms >= ?1 ORDER BY from_ms LIMIT 10000";
    let watched = all(db, sql, [signed(from)], |row| Ok((ms(row, 0)?, ms(row, 1)?)))?;
    let changes = begun(db, changes, name)?;
    let mut there = BTreeMap::new();
    for (place, (name, since, standing)) in changes.iter().enumerate() {
        let next = changes.get(place + 1).filter(|(other, ..)| other == name);
        let until = next.map_or(now.unix_ms(), |(_, at, _)| *at);
        let span = ((*since).max(from), until);
        for_each_day(span, &watched, |day, ms| {
            let of_day: &mut There = there.entry((name.clone(), day)).or_default();
            match Standing::parse(standing) {
                Some(Standing::Up | Standing::Zombie | Standing::Clash) => {
                    of_day.up_ms += ms;
                    of_day.known_ms += ms;
                }
                Some(Standing::Down) => of_day.known_ms += ms,
                _ => {}
            }
        });
    }
    Ok(there)
}

/// A node's name, since when it stood, and how.
type Stood = (String, u64, String);

/// These changes, with how each node stood before its first one: nobody writes that down, since a new node is up.
fn begun(db: &Connection, changes: Vec<Stood>, name: Option<String>) -> Result<Vec<Stood>, Error> {
    let sql = "SELECT name, first_ms, standing FROM nodes WHERE ?1 IS NULL OR name = ?1";
    let nodes = all(db, sql, [name], |row| {
        Ok((row.get::<_, String>(0)?, ms(row, 1)?, row.get::<_, String>(2)?))
    })?;
    let mut of_nodes: BTreeMap<String, Vec<Stood>> = BTreeMap::new();
    for change in changes {
        of_nodes.entry(change.0.clone()).or_default().push(change);
    }
    for (name, first, standing) in nodes {
        let own = of_nodes.entry(name.clone()).or_default();
        match own.first() {
            None => own.push((name, first, standing)),
            Some((_, at, next)) if next != Standing::Up.as_str() && first < *at => {
                own.insert(0, (name, first, Standing::Up.as_str().to_owned()));
            }
            Some(_) => {}
        }
    }
    Ok(of_nodes.into_values().flatten().collect())
}

/// Calls `f` with each day of a span and how much of it was watched.
fn for_each_day((from, until): (u64, u64), watched: &[(u64, u64)], mut f: impl FnMut(u64, u64)) {
    let day_ms = DAY_MS.cast_unsigned();
    for (since, to) in watched {
        let (mut begin, end) = ((*since).max(from), (*to).min(until));
        while begin < end {
            let next = ((begin / day_ms + 1) * day_ms).min(end);
            f(begin / day_ms, next - begin);
            begin = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Store;
    use super::*;

    const DAY: u64 = DAY_MS.cast_unsigned();

    fn status(from: u64, until: u64, known: u64) -> Value {
        json!({
            "receipt": {"message": {"gpuUuids": "GPU-1,GPU-2", "startedAt": from, "finishedAt": until}},
            "usage": {"message": {"known": known, "gpuMs": 60_000}},
        })
    }

    async fn days(store: &Store, now: u64) -> Days {
        let now = Timestamp::from_unix_ms(now);
        Eyes::of(store.clone()).days(10, now, None).await.unwrap()
    }

    async fn fill(
        store: &Store,
        fill: impl FnOnce(&Connection) -> Result<(), SqliteError> + Send + 'static,
    ) {
        store.writer.call(true, move |db| -> Result<(), Error> { Ok(fill(db)?) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_run_over_midnight_counts_on_both_days_and_the_job_on_the_second() {
        let store = Store::in_memory().unwrap();
        let end = 11 * DAY + 20_000;
        fill(&store, move |db| {
            let told = Timestamp::from_unix_ms(end);
            add(db, "0xa", "completed", &status(11 * DAY - 40_000, end, 1 << 6), told)?;
            add(db, "0xa", "failed", &status(11 * DAY, end, 0), told)?;
            add(db, "0xa", "rejected", &json!({}), told)
        })
        .await;
        let days = days(&store, end).await;
        let first = days.earned[&("0xa".to_owned(), 10)];
        assert_eq!((first.completed, first.run_ms, first.card_ms), (0, 40_000, 80_000));
        assert_eq!((first.busy_ms, first.busy_unknown), (40_000, 0));
        let second = days.earned[&("0xa".to_owned(), 11)];
        assert_eq!((second.completed, second.failed, second.other), (1, 1, 1));
        assert_eq!((second.receipts, second.run_ms, second.card_ms), (2, 40_000, 80_000));
        assert_eq!(
            (second.busy_ms, second.busy_unknown),
            (20_000, 40_000),
            "one of them is not known"
        );
    }

    #[tokio::test]
    async fn a_node_is_there_while_it_is_up_and_the_hub_watches() {
        let store = Store::in_memory().unwrap();
        fill(&store, |db| {
            db.execute_batch(&format!(
                "INSERT INTO standings VALUES ('a', 5, 'up', ''), ('a', {}, 'down', ''), ('a', {}, 'not_watched', ''),
                     ('c', {noon}, 'down', '');
                 INSERT INTO nodes (name, first_ms, standing, standing_ms)
                     VALUES ('b', {noon}, 'up', {noon}), ('c', {noon} - 60000, 'down', {noon});
                 INSERT INTO watches VALUES (0, {}), ({}, {});",
                10 * DAY + 1_000_000,
                10 * DAY + 2_000_000,
                10 * DAY + 500_000,
                10 * DAY + 600_000,
                12 * DAY,
                noon = 11 * DAY + DAY / 2,
            ))
        })
        .await;
        let there = days(&store, 12 * DAY).await.there;
        let first = there[&("a".to_owned(), 10)];
        assert_eq!((first.up_ms, first.known_ms), (900_000, 1_900_000), "100 s were not watched");
        assert_eq!(there[&("a".to_owned(), 11)], There::default());
        let of = |name: &str| there[&(name.to_owned(), 11)];
        let half = DAY / 2;
        assert_eq!(of("b"), There { up_ms: half, known_ms: half }, "it has never changed");
        assert_eq!(of("c"), There { up_ms: 60_000, known_ms: half + 60_000 }, "it was up before");
    }
}
