//! What two watchers said of a made-up node: the second disagrees, and has hostile words.

use lamda_node::chain::Key;
use lamda_node::clock::Timestamp;
use lamda_node::fleet::seen::Said;
use lamda_node::ids::Signature;
use lamda_node::sql::ToSql;
use serde_json::{Value, json};

type Put<'a> = dyn Fn(&str, &[&dyn ToSql]) + 'a;

/// Writes it down, as the hub does.
pub(super) fn seen(put: &Put<'_>, program: &str, now: u64) {
    for (training, why) in [("yes", "its log says so"), ("no", "<img src=x onerror=alert(3)>")] {
        let key = Key::random();
        let body = body(&key, program, now, (training, why)).to_string();
        let said = Said::parse(body.as_bytes()).expect("an observation");
        let signature = Signature(key.sign_digest(&said.digest(body.as_bytes()).0)).to_string();
        let (watcher, at) = (key.address().lower_hex(), i64::try_from(now).expect("a time"));
        let gist = serde_json::to_string(&said.gist()).expect("JSON");
        let row: [&dyn ToSql; 7] = [&program, &watcher, &at, &at, &gist, &body, &signature];
        put("INSERT INTO seen VALUES (?, ?, ?, ?, ?, ?, ?)", &row);
        let row: [&dyn ToSql; 5] = [&program, &watcher, &at, &gist, &why];
        let change = "INSERT INTO seen_changes (name, watcher, at_ms, gist, says)
                      VALUES (?, ?, ?, ?, ?)";
        put(change, &row);
    }
}

fn body(key: &Key, program: &str, now: u64, (training, why): (&str, &str)) -> Value {
    let at = Timestamp::from_unix_ms(now);
    let evidence = json!([{"source": "log swarm", "at": at, "what": "Joining <b>round</b> 7"}]);
    let answer = |answer: &str| json!({"answer": answer, "why": why, "evidence": evidence});
    let answers = json!({
        "alive": answer("yes"), "training": answer(training), "published": answer("waiting"),
        "earning": answer("unknown"), "swarm": answer("not_expected"),
    });
    json!({
        "watcher": key.address(), "program": program, "at": at, "since": at, "version": "0.1.0",
        "profile": "rl-swarm-hydra", "peer": "QmPeer", "answers": answers, "troubles": [],
        "says": why,
    })
}
