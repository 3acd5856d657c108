use super::*;
use crate::fleet::clocks::Standing;

const OLD: &str = "CREATE TABLE nodes (node_id TEXT PRIMARY KEY, ip TEXT, last_seen INTEGER, \
    last_state TEXT, last_computed TEXT, meta TEXT);
    INSERT INTO nodes VALUES ('b', '1.2.3.4', 1800000000, 'UP', 'UP', 'hetzner');
    INSERT INTO nodes VALUES ('a', NULL, 1700000000, 'DOWN', 'DOWN', NULL);
    INSERT INTO nodes VALUES (' ', '', 1, 'UP', 'UP', '');";

const NEW: &str = "ALTER TABLE nodes ADD COLUMN last_reported TEXT DEFAULT 'UP';
    ALTER TABLE nodes ADD COLUMN gswarm_eoa TEXT;
    ALTER TABLE nodes ADD COLUMN gswarm_tgid TEXT;
    ALTER TABLE nodes ADD COLUMN gswarm_peer_ids TEXT;
    ALTER TABLE nodes ADD COLUMN gswarm_stats TEXT;
    ALTER TABLE nodes ADD COLUMN gswarm_updated INTEGER;
    ALTER TABLE nodes ADD COLUMN gswarm_alert INTEGER DEFAULT 1;
    UPDATE nodes SET last_reported = 'DOWN', gswarm_eoa = '0xAb', gswarm_peer_ids = '[\"p\"]', \
    gswarm_stats = '{\"totals\": {\"wins\": 3}}', gswarm_updated = 1799999999, gswarm_alert = 0 \
    WHERE node_id = 'b';";

fn file(sql: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("monitor.db");
    let db = Connection::open(&path).unwrap();
    for sql in sql {
        db.execute_batch(sql).unwrap();
    }
    (dir, path)
}

const NOW: Timestamp = Timestamp::from_unix_ms(1_900_000_000_000);

#[tokio::test]
async fn a_file_of_the_first_version_is_taken_over_with_its_times_in_seconds() {
    let (_dir, path) = file(&[OLD]);
    let (nodes, unusable) = read(&path).unwrap();
    assert_eq!((nodes.len(), unusable), (2, 1));
    let store = Store::in_memory().unwrap();
    store.import(nodes, NOW).await.unwrap();
    let nodes = store.load_all().await.unwrap();
    let seen = Timestamp::from_unix_ms(1_700_000_000_000);
    assert_eq!((nodes[0].name.as_str(), nodes[0].heard.own), ("a", Some(seen)));
    assert_eq!((nodes[0].standing, nodes[1].standing), (Standing::Down, Standing::Up));
    assert_eq!((nodes[1].ip.as_str(), nodes[1].meta.as_str()), ("1.2.3.4", "hetzner"));
}

#[tokio::test]
async fn a_file_of_the_last_version_is_taken_over_with_its_newer_keys() {
    let (_dir, path) = file(&[OLD, NEW]);
    let store = Store::in_memory().unwrap();
    store.import(read(&path).unwrap().0, NOW).await.unwrap();
    let node = store.load_all().await.unwrap().remove(1);
    assert!(node.heard.says_down);
    let gswarm = serde_json::json!({"eoa": "0xAb", "peer_ids": ["p"], "alert": false,
        "stats": {"totals": {"wins": 3}}, "updated": 1_799_999_999});
    assert_eq!(node.gswarm.map(Value::Object), Some(gswarm));
}

#[tokio::test]
async fn what_the_hub_has_heard_since_is_kept() {
    let (_dir, path) = file(&[OLD]);
    let store = Store::in_memory().unwrap();
    let beat = Beat::parse(br#"{"node_id":"b","meta":"now"}"#).unwrap();
    store.beat(beat, NOW, |_| ()).await.unwrap();
    let done = store.import(read(&path).unwrap().0, NOW).await.unwrap();
    assert_eq!((done.taken, done.kept), (1, 1));
    assert_eq!(store.load_all().await.unwrap()[1].meta, "now");
    let again = store.import(read(&path).unwrap().0, NOW).await.unwrap();
    assert_eq!((again.taken, again.kept), (0, 2));
}

#[test]
fn another_file_is_refused_and_an_original_one_is_opened_by_no_hub() {
    let (_dir, path) = file(&["CREATE TABLE nodes (x)"]);
    assert!(matches!(read(&path), Err(Error::NotOriginal { .. })));
    let (_dir, path) = file(&[OLD]);
    let before = std::fs::read(&path).unwrap();
    let told = Store::open(&path).unwrap_err().to_string();
    assert!(told.contains(&format!("lamda-node hub import {}", path.display())), "{told}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "nothing was written to it");
    std::fs::write(&path, "no database").unwrap();
    assert!(read(&path).is_err());
}
