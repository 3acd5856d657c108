//! Who speaks for a node: codes with which a node gets a secret of its own, and keys whose signature is believed.
//!
//! Invariants: a code is used once, and not after its time; a key speaks for one node, and for that node nobody else
//! does; a beat that was taken is known as taken after a restart.

use std::collections::HashMap;

use super::nodes::{Hash, ms, put_beat, time};
use super::view::Eyes;
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::fleet::beat::Beat;
use crate::fleet::instances::{Instances, KEPT, Run};
use crate::hub::identities::Keys;
use crate::ids::{self, Address};
use crate::sql::{Connection, OptionalExtension as _, Row, SqliteError, params};

/// How an enrolment went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolled {
    /// The node has its secret; the code is used up.
    Done,
    /// No such code, or not any more.
    NoSuch,
    /// The code is for a node of another name.
    OfAnother,
    /// The node has a secret or a key, or is heard already, and the code was not made for it by name.
    Taken,
}

/// How a signed beat went.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// It is on the disk; what is known of the node's newer keys with it.
    Done(Gswarm),
    /// Another key speaks for the node, or the key for another node: nothing was changed.
    OfAnother,
}

/// A signed beat, and which node it is of.
#[derive(Debug, Clone)]
pub struct Signed {
    /// What it says, under the name that the hub knows the node by.
    pub beat: Beat,
    /// Whose key signed it.
    pub key: Address,
    /// The run of the program that did.
    pub run: Run,
}

impl Eyes {
    /// Whether there is such a code, by its hash, and it is still good. Writes nothing, however many are tried.
    pub async fn has_code(&self, code: Hash, now: Timestamp) -> Result<bool, Error> {
        self.look(move |db| {
            let find = "SELECT 1 FROM codes WHERE code = ?1 AND until_ms >= ?2";
            Ok(db.prepare_cached(find)?.exists(params![code, ms(now)])?)
        })
        .await
    }
}

impl Store {
    /// Uses a code: gives a node a secret, by their hashes.
    pub async fn enroll(
        &self,
        (code, secret): (Hash, Hash),
        node: String,
        now: Timestamp,
        then: impl FnOnce(&Enrolled) + Send + 'static,
    ) -> Result<Enrolled, Error> {
        let work = move |db: &Connection| Ok(enroll(db, (&code, &secret), &node, now)?);
        self.writer.change_then("hub.enroll", true, work, then).await
    }

    /// Takes a signed beat in, durably, and that its key speaks for the node from now on. As [`Store::beat`]. Only its
    /// owner gives a node that has a key another one ([`super::beside::bind`]).
    pub async fn signed_beat(
        &self,
        signed: Signed,
        at: Timestamp,
        then: impl FnOnce(&Kept) + Send + 'static,
    ) -> Result<Kept, Error> {
        let work = move |db: &Connection| {
            if is_of_another(db, &signed.beat.node_id, signed.key)? {
                return Ok(Kept::OfAnother);
            }
            let gswarm = put_beat(db, &signed.beat, at)?;
            put_key(db, &signed.beat.node_id, signed.key)?;
            put_run(db, signed.key, &signed.run)?;
            Ok(Kept::Done(gswarm))
        };
        self.writer.change_then("hub.signed_beat", true, work, then).await
    }

    /// Which key speaks for which node.
    pub async fn keys(&self, then: impl FnOnce(&Keys) + Send + 'static) -> Result<Keys, Error> {
        let read = |db: &Connection| -> Result<Keys, SqliteError> {
            let mut rows =
                db.prepare_cached("SELECT key, name FROM nodes WHERE key IS NOT NULL")?;
            let rows = rows.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
            let mut keys = Keys::new();
            for row in rows {
                let (key, name) = row?;
                keys.extend(key.parse().ok().map(|key: Address| (key, name)));
            }
            Ok(keys)
        };
        self.writer.change_then("hub.keys", false, move |db| Ok(read(db)?), then).await
    }

    /// The runs that were heard lately, by key.
    pub async fn runs(&self) -> Result<HashMap<Address, Instances>, Error> {
        self.writer
            .call(false, |db| {
                let sql = "SELECT key, instance, signed_ms, heard_ms, place FROM runs";
                let mut rows = db.prepare(sql)?;
                let rows = rows.query_map([], run)?;
                let mut runs: HashMap<Address, Vec<Run>> = HashMap::new();
                for row in rows {
                    let (key, run) = row?;
                    if let Ok(key) = key.parse() {
                        runs.entry(key).or_default().push(run);
                    }
                }
                Ok(runs.into_iter().map(|(key, runs)| (key, Instances::of(runs))).collect())
            })
            .await
    }
}

/// The newer keys of a node.
pub type Gswarm = Option<serde_json::Map<String, serde_json::Value>>;

fn run(row: &Row<'_>) -> Result<(String, Run), SqliteError> {
    let run = Run {
        instance: ids::Hash(row.get(1)?),
        signed_ms: u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default(),
        heard: time(row.get(3)?),
        place: row.get(4)?,
    };
    Ok((row.get(0)?, run))
}

fn enroll(
    db: &Connection,
    (code, secret): (&Hash, &Hash),
    node: &str,
    now: Timestamp,
) -> Result<Enrolled, SqliteError> {
    let find = "SELECT name FROM codes WHERE code = ?1 AND until_ms >= ?2";
    let find = db.query_row(find, params![code, ms(now)], |row| row.get(0)).optional()?;
    let Some(meant) = find else { return Ok(Enrolled::NoSuch) };
    let meant: Option<String> = meant;
    // An address has several spellings.
    let is_address = || node.to_ascii_lowercase().parse::<Address>().is_ok();
    let is_meant =
        |meant: &String| meant == node || (meant.eq_ignore_ascii_case(node) && is_address());
    if !meant.as_ref().is_none_or(is_meant) {
        return Ok(Enrolled::OfAnother);
    }
    let proofs =
        "SELECT key IS NOT NULL, secret IS NOT NULL OR coalesce(beat_ms, nats_ms) IS NOT NULL
                  OR address IS NOT NULL FROM nodes WHERE name = ?1";
    let proofs = db.query_row(proofs, [node], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (has_key, is_there): (bool, bool) = proofs.unwrap_or_default();
    // A code for anybody makes no one another node, also not one that proves itself by the secret of all.
    if has_key || (is_there && meant.is_none()) {
        return Ok(Enrolled::Taken);
    }
    db.execute("DELETE FROM codes WHERE code = ?1", [code])?;
    put_secret(db, node, secret, now)?;
    Ok(Enrolled::Done)
}

/// Gives a node, which need not be known yet, its own secret.
pub(super) fn put_secret(
    db: &Connection,
    name: &str,
    secret: &Hash,
    now: Timestamp,
) -> Result<(), SqliteError> {
    let sql = "INSERT INTO nodes (name, first_ms, standing, standing_ms, secret) \
               VALUES (?1, ?2, 'not_watched', ?2, ?3) \
               ON CONFLICT (name) DO UPDATE SET secret = excluded.secret";
    db.execute(sql, params![name, ms(now), secret]).map(drop)
}

/// Whether another key speaks for the node of this name, or this one for another node.
fn is_of_another(db: &Connection, name: &str, key: Address) -> Result<bool, SqliteError> {
    let other = "SELECT 1 FROM nodes WHERE (name = ?1 AND key IS NOT NULL AND key <> ?2)
                 OR (key = ?2 AND name <> ?1)";
    db.prepare_cached(other)?.exists(params![name, key.lower_hex()])
}

/// From now on this key speaks for the node of this name, which is there, and for no other.
pub(super) fn put_key(db: &Connection, name: &str, key: Address) -> Result<(), SqliteError> {
    let is_set = "SELECT 1 FROM nodes WHERE name = ?1 AND key = ?2 AND address = ?2";
    let row = params![name, key.lower_hex()];
    if db.prepare_cached(is_set)?.exists(row)? {
        return Ok(());
    }
    for column in ["address", "key"] {
        let clear = format!("UPDATE nodes SET {column} = NULL WHERE {column} = ?2 AND name <> ?1");
        db.execute(&clear, row)?;
    }
    db.execute("UPDATE nodes SET address = ?2, key = ?2 WHERE name = ?1", row).map(drop)
}

fn put_run(db: &Connection, key: Address, run: &Run) -> Result<(), SqliteError> {
    let put =
        "INSERT INTO runs (key, instance, signed_ms, heard_ms, place) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (key, instance) DO UPDATE SET signed_ms = MAX(signed_ms, ?3),
                   heard_ms = MAX(heard_ms, ?4), place = ?5";
    let signed_ms = i64::try_from(run.signed_ms).unwrap_or(i64::MAX);
    let row = params![key.lower_hex(), run.instance.0, signed_ms, ms(run.heard), run.place];
    db.prepare_cached(put)?.execute(row).map(drop)
}

/// Forgets codes and runs that count no more. How many.
pub(super) fn forget(db: &Connection, now: Timestamp, most: u32) -> Result<usize, SqliteError> {
    db.execute("DELETE FROM codes WHERE until_ms < ?1", [ms(now)])?;
    let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
    let sql = "DELETE FROM runs WHERE (key, instance) IN
               (SELECT key, instance FROM runs WHERE heard_ms < ?1 LIMIT ?2)";
    db.execute(sql, params![ms(now).saturating_sub(kept), most])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::beside;
    use super::*;

    const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);
    const CODE: Hash = [1; 32];
    const ADDRESS: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    /// A store in a file, and the file.
    fn store(dir: &tempfile::TempDir) -> (Store, std::path::PathBuf) {
        let path = dir.path().join("hub.db");
        (Store::open(&path).unwrap(), path)
    }

    async fn enroll(store: &Store, node: &str, secret: u8, now: Timestamp) -> Enrolled {
        store.enroll((CODE, [secret; 32]), node.to_owned(), now, |_| ()).await.unwrap()
    }

    fn beat(name: &str) -> Beat {
        Beat::parse(format!("{{\"node_id\":\"{name}\"}}").as_bytes()).unwrap()
    }

    fn key(byte: u8) -> Address {
        Address::new([byte; 20])
    }

    #[tokio::test]
    async fn a_code_is_good_once_and_for_ten_minutes() {
        let dir = tempfile::tempdir().unwrap();
        let (store, path) = store(&dir);
        beside::put_code(&path, &CODE, None, T0).unwrap();
        let late = T0.plus(beside::CODE_LASTS + Duration::from_millis(1));
        assert_eq!(enroll(&store, "a", 7, late).await, Enrolled::NoSuch);
        let last = T0.plus(Duration::from_mins(10));
        assert_eq!(enroll(&store, "a", 7, last).await, Enrolled::Done);
        assert_eq!(enroll(&store, "b", 8, last).await, Enrolled::NoSuch, "it is used up");
        let secrets = store.secrets(|_| ()).await.unwrap();
        assert_eq!(secrets, HashMap::from([("a".to_owned(), [7; 32])]));
        assert!(store.load_all().await.unwrap().is_empty(), "it was not heard yet");
    }

    #[tokio::test]
    async fn a_code_for_anybody_makes_no_one_another_node() {
        let dir = tempfile::tempdir().unwrap();
        let (store, path) = store(&dir);
        beside::set_secret(&path, "a", &[3; 32], T0).unwrap();
        beside::bind(&path, key(9), Some("k"), T0).unwrap();
        beside::put_code(&path, &CODE, None, T0).unwrap();
        assert_eq!(enroll(&store, "a", 7, T0).await, Enrolled::Taken);
        assert_eq!(enroll(&store, "k", 7, T0).await, Enrolled::Taken);
        store.beat(beat("beats"), T0, |_| ()).await.unwrap();
        assert_eq!(enroll(&store, "beats", 7, T0).await, Enrolled::Taken, "it is heard already");
        assert_eq!(enroll(&store, "c", 7, T0).await, Enrolled::Done, "the code is still good");
        beside::put_code(&path, &CODE, Some("a"), T0).unwrap();
        assert_eq!(enroll(&store, "d", 8, T0).await, Enrolled::OfAnother);
        assert_eq!(enroll(&store, "a", 8, T0).await, Enrolled::Done, "its owner said so");
        assert_eq!(store.secrets(|_| ()).await.unwrap()["a"], [8; 32]);
        for (meant, node, is_it) in
            [("ABC", "abc", false), (ADDRESS, &ADDRESS.to_lowercase(), true)]
        {
            beside::put_code(&path, &CODE, Some(meant), T0).unwrap();
            assert_eq!(enroll(&store, node, 9, T0).await == Enrolled::Done, is_it, "{node}");
        }
    }

    #[tokio::test]
    async fn a_key_speaks_for_one_node_and_another_key_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let (store, path) = store(&dir);
        assert_eq!(beside::bind(&path, key(1), Some("rack-1"), T0).unwrap().name, "rack-1");
        let other = beside::bind(&path, key(1), Some("rack-2"), T0).unwrap_err();
        assert!(other.to_string().contains("rack-1"), "{other}");
        assert_eq!(beside::bind(&path, key(1), None, T0).unwrap().name, "rack-1");
        assert_eq!(beside::bind(&path, key(2), None, T0).unwrap().name, key(2).lower_hex());
        let bound = beside::bind(&path, key(3), Some("rack-1"), T0).unwrap();
        assert_eq!(bound.instead_of, Some(key(1)));
        let keys = store.keys(|_| ()).await.unwrap();
        let expected = [(key(3), "rack-1".to_owned()), (key(2), key(2).lower_hex())];
        assert_eq!(keys, Keys::from(expected));
    }

    #[tokio::test]
    async fn a_key_that_was_replaced_takes_no_node_back() {
        let dir = tempfile::tempdir().unwrap();
        let (store, path) = store(&dir);
        let beats = async |name: &str, byte: u8| {
            let run = Run {
                instance: ids::Hash([byte; 32]),
                signed_ms: 1,
                heard: T0,
                place: String::new(),
            };
            let signed = Signed { beat: beat(name), key: key(byte), run };
            store.signed_beat(signed, T0, |_| ()).await.unwrap()
        };
        beside::bind(&path, key(1), Some("rack-1"), T0).unwrap();
        assert_eq!(beats("rack-1", 1).await, Kept::Done(None));
        beside::bind(&path, key(2), Some("rack-1"), T0).unwrap();
        assert_eq!(beats("rack-1", 1).await, Kept::OfAnother);
        assert_eq!(beats("rack-2", 2).await, Kept::OfAnother, "it speaks for rack-1");
        assert_eq!(store.load_all().await.unwrap().len(), 1);
        assert_eq!(store.keys(|_| ()).await.unwrap(), Keys::from([(key(2), "rack-1".to_owned())]));
        assert_eq!(beats("rack-1", 2).await, Kept::Done(None));
    }

    #[tokio::test]
    async fn what_was_taken_is_known_as_taken_after_a_restart() {
        let store = Store::in_memory().unwrap();
        let run = |signed_ms| Run {
            instance: ids::Hash([5; 32]),
            signed_ms,
            heard: T0,
            place: "203.0.113.7".to_owned(),
        };
        for signed_ms in [20, 10] {
            let signed = Signed { beat: beat("n"), key: key(1), run: run(signed_ms) };
            store.signed_beat(signed, T0, |_| ()).await.unwrap();
        }
        let node = &store.load_all().await.unwrap()[0];
        assert_eq!((node.name.as_str(), node.address), ("n", Some(key(1))));
        assert!(!node.heard.is_ours, "it was not heard on NATS");
        let mut runs = store.runs().await.unwrap().remove(&key(1)).unwrap();
        let said = |at| (ids::Hash([5; 32]), Some(at));
        let patience = Duration::from_mins(3);
        assert!(runs.hears(said(20), "p", patience, T0).is_err());
        assert_eq!(runs.hears(said(21), "p", patience, T0), Ok(None));
        assert!(!store.forget(T0.plus(Duration::from_mins(11))).await.unwrap());
        assert!(store.runs().await.unwrap().is_empty());
    }
}
