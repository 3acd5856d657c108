//! What watchers say of nodes, as they signed it: the newest of each watcher, and what changed.
//!
//! Invariants: of a watcher and a node, time never goes back, so that nothing old is taken twice; a node has at most
//! [`WATCHERS_MAX`] watchers and [`CHANGES_MAX`] changes.

use std::time::Duration;

use super::nodes::{ms, time};
use super::view::Eyes;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::fleet::seen::{Gist, Said};
use crate::ids::Signature;
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};

/// The most watchers of one node.
pub const WATCHERS_MAX: i64 = 16;

/// The most changes of one node that are kept.
pub const CHANGES_MAX: i64 = 500;

/// The most changes that are read at once.
const CHANGES_SHOWN: i64 = 50;

/// A watcher that was silent for so long gives its place to another one, if there is no other: it speaks every five
/// minutes.
const PLACE_KEPT: Duration = Duration::from_mins(15);

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is kept. An identical one that was kept before counts as well.
    Kept,
    /// The watcher said something of this node at this time or later.
    Stale,
    /// The node has too many watchers.
    Crowded,
    /// There is no such node, any more.
    NoNode,
}

/// The newest word of a watcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When the hub heard it.
    pub heard: Timestamp,
    /// What was signed, byte for byte.
    pub body: String,
    /// The signature, as text.
    pub signature: String,
}

/// A watcher said something else than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The watcher's address, in lower case.
    pub watcher: String,
    /// When the watcher signed it.
    pub at: Timestamp,
    /// The answers and troubles, as JSON of [`Gist`].
    pub gist: String,
    /// All of it in one sentence.
    pub says: String,
}

impl Store {
    /// Keeps an observation, whose signature was checked, durably.
    pub async fn saw(
        &self,
        said: Said,
        body: String,
        signature: Signature,
        now: Timestamp,
    ) -> Result<Taken, Error> {
        let work = move |db: &Connection| Ok(saw(db, &said, (&body, signature), now)?);
        self.writer.change("hub.saw", true, work).await
    }
}

impl Eyes {
    /// What all watchers of a node said last, and what changed, the newest first.
    pub async fn seen(&self, name: String) -> Result<(Vec<Seen>, Vec<Change>), Error> {
        self.look(move |db| Ok((newest(db, &name)?, changes(db, &name)?))).await
    }
}

fn saw(
    db: &Connection,
    said: &Said,
    (body, signature): (&str, Signature),
    now: Timestamp,
) -> Result<Taken, SqliteError> {
    let (name, watcher) = (said.program.as_str(), said.watcher.lower_hex());
    if !db.prepare_cached("SELECT 1 FROM nodes WHERE name = ?1")?.exists([name])? {
        return Ok(Taken::NoNode);
    }
    let before = "SELECT at_ms, body, gist FROM seen WHERE name = ?1 AND watcher = ?2";
    let before = db
        .prepare_cached(before)?
        .query_row([name, &watcher], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
        .optional()?;
    match &before {
        // Its answer was lost on the way, and it comes again.
        Some((_, known, _)) if known == body => return Ok(Taken::Kept),
        Some((at, _, _)) if *at >= ms(said.at) => return Ok(Taken::Stale),
        None if !has_place(db, name, now)? => return Ok(Taken::Crowded),
        Some(_) | None => {}
    }
    let gist = gist(&said.gist())?;
    let put = "INSERT INTO seen (name, watcher, at_ms, heard_ms, gist, body, signature)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               ON CONFLICT (name, watcher) DO UPDATE SET at_ms = ?3, heard_ms = ?4, gist = ?5,
                   body = ?6, signature = ?7";
    let row = params![name, watcher, ms(said.at), ms(now), gist, body, signature.to_string()];
    db.prepare_cached(put)?.execute(row)?;
    if before.is_none_or(|(_, _, known)| known != gist) {
        let add = "INSERT INTO seen_changes (name, watcher, at_ms, gist, says)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        db.prepare_cached(add)?.execute(params![name, watcher, ms(said.at), gist, said.says])?;
        let cut = "DELETE FROM seen_changes WHERE name = ?1 AND id <= (SELECT id FROM seen_changes
                   WHERE name = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
        db.prepare_cached(cut)?.execute(params![name, CHANGES_MAX])?;
    }
    Ok(Taken::Kept)
}

/// Whether one watcher more may speak of a node; of too many, the one goes for it that was silent for longest.
fn has_place(db: &Connection, name: &str, now: Timestamp) -> Result<bool, SqliteError> {
    let count = "SELECT COUNT(*) FROM seen WHERE name = ?1";
    let count: i64 = db.prepare_cached(count)?.query_row([name], |row| row.get(0))?;
    if count < WATCHERS_MAX {
        return Ok(true);
    }
    let kept = i64::try_from(PLACE_KEPT.as_millis()).unwrap_or(i64::MAX);
    let gone = "DELETE FROM seen WHERE name = ?1 AND watcher = (SELECT watcher FROM seen
                WHERE name = ?1 AND heard_ms < ?2 ORDER BY heard_ms LIMIT 1)";
    let gone = db.prepare_cached(gone)?.execute(params![name, ms(now).saturating_sub(kept)])?;
    Ok(gone > 0)
}

fn gist(gist: &Gist) -> Result<String, SqliteError> {
    serde_json::to_string(gist).map_err(|err| SqliteError::ToSqlConversionFailure(err.into()))
}

fn newest(db: &Connection, name: &str) -> Result<Vec<Seen>, SqliteError> {
    let select = "SELECT heard_ms, body, signature FROM seen WHERE name = ?1
                  ORDER BY watcher LIMIT ?2";
    let seen = |row: &Row<'_>| {
        Ok(Seen { heard: time(row.get(0)?), body: row.get(1)?, signature: row.get(2)? })
    };
    db.prepare_cached(select)?.query_map(params![name, WATCHERS_MAX], seen)?.collect()
}

fn changes(db: &Connection, name: &str) -> Result<Vec<Change>, SqliteError> {
    let select = "SELECT watcher, at_ms, gist, says FROM seen_changes WHERE name = ?1
                  ORDER BY id DESC LIMIT ?2";
    let change = |row: &Row<'_>| {
        Ok(Change {
            watcher: row.get(0)?,
            at: time(row.get(1)?),
            gist: row.get(2)?,
            says: row.get(3)?,
        })
    };
    db.prepare_cached(select)?.query_map(params![name, CHANGES_SHOWN], change)?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::seen::{Answer, tests::said};

    const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

    async fn put(store: &Store, watcher: u8, training: Answer, second: u64) -> Taken {
        let at = T0.plus(Duration::from_secs(second));
        let said = Said { at, ..said(watcher, training) };
        let node = said.program.clone();
        let add = move |db: &Connection| -> Result<(), Error> {
            let add = "INSERT OR IGNORE INTO nodes (name, first_ms, standing, standing_ms)
                       VALUES (?1, 0, 'up', 0)";
            Ok(db.execute(add, [node]).map(drop)?)
        };
        store.writer.call(false, add).await.unwrap();
        let body = serde_json::to_string(&said).unwrap();
        store.saw(said, body, Signature([7; 65]), at).await.unwrap()
    }

    #[tokio::test]
    async fn of_each_watcher_the_newest_is_kept_and_what_changed() {
        let store = Store::in_memory().unwrap();
        let eyes = Eyes::of(store.clone());
        for (watcher, training, second, taken) in [
            (1, Answer::Yes, 1, Taken::Kept),
            (1, Answer::Yes, 2, Taken::Kept),
            (2, Answer::No, 2, Taken::Kept),
            (1, Answer::No, 3, Taken::Kept),
            // The same once more, and another of the same time or of before.
            (1, Answer::No, 3, Taken::Kept),
            (1, Answer::Yes, 3, Taken::Stale),
            (1, Answer::Yes, 2, Taken::Stale),
        ] {
            assert_eq!(put(&store, watcher, training, second).await, taken, "{watcher} {second}");
        }
        let (seen, changes) = eyes.seen("one".to_owned()).await.unwrap();
        let last = |it: &Seen| Said::parse(it.body.as_bytes()).unwrap().answers.training.answer;
        assert_eq!(seen.iter().map(last).collect::<Vec<_>>(), [Answer::No, Answer::No]);
        let at: Vec<u64> = changes.iter().map(|it| it.at.since(T0).as_secs()).collect();
        assert_eq!(at, [3, 2, 1], "the newest first, and what stays the same is no change");
        assert_eq!(eyes.seen("two".to_owned()).await.unwrap(), (vec![], vec![]));
    }

    #[tokio::test]
    async fn watchers_and_changes_of_a_node_are_bounded_and_who_is_silent_gives_way() {
        let store = Store::in_memory().unwrap();
        for watcher in 1..=16 {
            assert_eq!(put(&store, watcher, Answer::Yes, 1).await, Taken::Kept);
        }
        assert_eq!(put(&store, 17, Answer::Yes, 2).await, Taken::Crowded);
        let later = 16 * 60;
        for watcher in 2..=16 {
            assert_eq!(put(&store, watcher, Answer::Yes, later).await, Taken::Kept);
        }
        assert_eq!(put(&store, 17, Answer::Yes, later).await, Taken::Kept, "the first is silent");
        assert_eq!(put(&store, 1, Answer::Yes, later).await, Taken::Crowded);
        for second in 0..600 {
            let training = if second % 2 == 0 { Answer::No } else { Answer::Yes };
            put(&store, 2, training, later + 100 + second).await;
        }
        let count = |db: &Connection| {
            Ok::<i64, Error>(db.query_row("SELECT COUNT(*) FROM seen_changes", [], |it| it.get(0))?)
        };
        assert_eq!(store.writer.call(false, count).await.unwrap(), CHANGES_MAX);
        let (seen, _) = Eyes::of(store.clone()).seen("one".to_owned()).await.unwrap();
        assert_eq!(seen.len(), 16);
        store.forget(T0.plus(Duration::from_hours(31 * 24))).await.unwrap();
        let (seen, _) = Eyes::of(store).seen("one".to_owned()).await.unwrap();
        assert_eq!(seen, [], "nobody spoke for a month");
    }

    #[tokio::test]
    async fn of_a_node_that_was_removed_nothing_is_kept_and_a_new_name_has_no_old_watchers() {
        let store = Store::in_memory().unwrap();
        let at = T0.plus(Duration::from_secs(1));
        let word = Said { at, ..said(1, Answer::Yes) };
        let body = serde_json::to_string(&word).unwrap();
        let taken = store.saw(word.clone(), body.clone(), Signature([7; 65]), at).await.unwrap();
        assert_eq!(taken, Taken::NoNode);
        assert_eq!(put(&store, 1, Answer::Yes, 1).await, Taken::Kept);
        // What a hub of before kept of a name that is nobody's.
        let left = |db: &Connection| -> Result<(), Error> {
            let add =
                "INSERT INTO seen SELECT 'new', watcher, at_ms, heard_ms, gist, body, signature
                       FROM seen";
            Ok(db.execute(add, []).map(drop)?)
        };
        store.writer.call(false, left).await.unwrap();
        store.rename("one".to_owned(), "new".to_owned(), |_| ()).await.unwrap();
        let (seen, changes) = Eyes::of(store).seen("new".to_owned()).await.unwrap();
        assert_eq!((seen.len(), changes.len()), (1, 1));
    }
}
