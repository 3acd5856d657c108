use std::time::Duration;

use serde_json::json;

use super::*;

const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

fn beat(body: &Value) -> Beat {
    Beat::parse(body.to_string().as_bytes()).unwrap()
}

fn named(name: &str) -> Beat {
    beat(&json!({"node_id": name}))
}

async fn slots(store: &Store, name: &'static str) -> i64 {
    let sql = "SELECT count(*) FROM slots WHERE name = ?1";
    let count = move |db: &Connection| -> Result<i64, Error> {
        Ok(db.query_row(sql, [name], |row| row.get(0))?)
    };
    store.writer.call(false, count).await.unwrap()
}

#[tokio::test]
async fn a_node_is_known_from_its_first_beat_on_and_stands_up() {
    let store = Store::in_memory().unwrap();
    let first = beat(&json!({"node_id": "b", "ip": "1.2.3.4", "meta": "m", "status": "DOWN"}));
    store.beat(first, T0, |_| ()).await.unwrap();
    store.beat(named("a"), T0, |_| ()).await.unwrap();
    let nodes = store.load_all().await.unwrap();
    assert_eq!(nodes.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let b = &nodes[1];
    assert!(b.ip == "1.2.3.4" && b.meta == "m" && b.heard.says_down && b.heard.own == Some(T0));
    assert_eq!((b.standing, b.standing_since, b.first), (Standing::Up, T0, T0));
}

#[tokio::test]
async fn a_slot_is_noted_once_in_five_minutes() {
    let store = Store::in_memory().unwrap();
    for seconds in [0, 1, 60, 299, 300, 301, 900] {
        store.beat(named("a"), T0.plus(Duration::from_secs(seconds)), |_| ()).await.unwrap();
    }
    assert_eq!(slots(&store, "a").await, 3);
}

#[tokio::test]
async fn a_beat_changes_its_own_keys_and_leaves_what_the_owner_set() {
    let store = Store::in_memory().unwrap();
    let with = json!({"node_id": "a", "gswarm_eoa": "0x1", "gswarm_peer_ids": "p,q"});
    store.beat(beat(&with), T0, |_| ()).await.unwrap();
    let set = store.set_gswarm_alert("a".into(), false, |_| ()).await.unwrap().unwrap();
    assert_eq!(Value::Object(set), json!({"eoa": "0x1", "peer_ids": ["p", "q"], "alert": false}));
    assert_eq!(store.set_gswarm_alert("x".into(), false, |_| ()).await.unwrap(), None);
    assert!(store.set_tags("a".into(), vec!["eu".into(), "h100".into()]).await.unwrap());
    let known = store.beat(named("a"), T0, |_| ()).await.unwrap();
    assert_eq!(known.map(Value::Object), Some(json!({"alert": false})));
    assert_eq!(store.load_all().await.unwrap()[0].tags, ["eu", "h100"]);
}

#[tokio::test]
async fn a_renamed_node_keeps_its_history_and_takes_nobody_elses_name() {
    let store = Store::in_memory().unwrap();
    store.beat(named("a"), T0, |_| ()).await.unwrap();
    store.beat(named("b"), T0, |_| ()).await.unwrap();
    let why = "its last beat is 3 min old".to_owned();
    store.standing("a".into(), Standing::Down, T0, why.clone()).await.unwrap();
    let rename = |old: &str, new: &str| store.rename(old.to_owned(), new.to_owned(), |_| ());
    assert_eq!(rename("a", "b").await.unwrap(), Renamed::Taken);
    assert_eq!(rename("x", "y").await.unwrap(), Renamed::NoSuch);
    assert_eq!(rename("a", "c").await.unwrap(), Renamed::Done);
    let nodes = store.load_all().await.unwrap();
    assert_eq!((nodes[1].name.as_str(), nodes[1].standing), ("c", Standing::Down));
    assert_eq!(nodes[1].why, why);
    assert_eq!(slots(&store, "c").await, 1);
}

#[tokio::test]
async fn pruning_takes_those_that_no_clock_has_heard_since() {
    let store = Store::in_memory().unwrap();
    let day = Duration::from_hours(24);
    store.beat(named("old"), T0, |_| ()).await.unwrap();
    store.beat(named("new"), T0.plus(day * 9), |_| ()).await.unwrap();
    assert_eq!(store.prune(T0.plus(day), |_| ()).await.unwrap(), ["old"]);
    assert_eq!(slots(&store, "old").await, 0);
    assert!(store.remove("new".into(), |_| ()).await.unwrap());
    assert!(!store.remove("new".into(), |_| ()).await.unwrap());
}

#[tokio::test]
async fn what_is_older_than_its_time_is_forgotten() {
    let store = Store::in_memory().unwrap();
    store.beat(named("a"), T0, |_| ()).await.unwrap();
    store.standing("a".into(), Standing::Down, T0, String::new()).await.unwrap();
    let later = T0.plus(Duration::from_hours(36 * 24));
    store.beat(named("a"), later, |_| ()).await.unwrap();
    assert!(!store.forget(later).await.unwrap());
    assert_eq!(slots(&store, "a").await, 1, "the new one");
    assert_eq!(store.load_all().await.unwrap()[0].standing, Standing::Down);
}

#[tokio::test]
async fn a_secret_that_came_before_the_first_beat_makes_no_node_and_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hub.db");
    let store = Store::open(&path).unwrap();
    let before = store.outside_version().await.unwrap();
    super::super::beside::set_secret(&path, "a", &[7; 32], T0).unwrap();
    assert_ne!(store.outside_version().await.unwrap(), before, "the hub sees it");
    assert_eq!(store.secrets(|_| ()).await.unwrap(), HashMap::from([("a".to_owned(), [7; 32])]));
    assert!(store.load_all().await.unwrap().is_empty());
    assert!(store.prune(Timestamp::MAX, |_| ()).await.unwrap().is_empty(), "it is awaited");
    let later = T0.plus(Duration::from_mins(15));
    store.beat(named("a"), later, |_| ()).await.unwrap();
    let node = &store.load_all().await.unwrap()[0];
    assert_eq!((node.standing, node.standing_since, node.first), (Standing::Up, later, later));
    assert_eq!(store.secrets(|_| ()).await.unwrap().len(), 1, "a beat leaves it");
    assert!(
        store.prune(Timestamp::MAX, |_| ()).await.unwrap().is_empty(),
        "its name stays its own"
    );
}
