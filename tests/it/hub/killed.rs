//! The hub is killed at every point between the decision that a node is down and the note that somebody was told.

use std::time::Duration;

use super::process::{Hub, PATIENCE};
use crate::support::receiver::{CHAT, Receiver, TOKEN};
use crate::support::tools::eventually;

/// Every place at which the hub may die on the way from a beat to a message, and how often the message may come: a
/// channel that can't tell a repeat gets at most the one twice that was on its way.
const PLACES: [(&str, usize); 10] = [
    ("hub.beat.after:2", 1),
    ("hub.stand.before", 1),
    ("hub.stand.after", 1),
    ("alerts.decided.before", 1),
    ("alerts.decided.after", 1),
    ("notice_begin.before", 1),
    ("notice_begin.after", 1),
    ("notice_send.after", 2),
    ("notice_sent.before", 2),
    ("notice_sent.after", 1),
];

#[test]
fn wherever_the_hub_is_killed_somebody_is_told_and_hardly_ever_twice() {
    for (place, most) in PLACES {
        let receiver = Receiver::telegram([]);
        let mut hub = Hub::with(&[
            ("TELEGRAM_API_URL", &receiver.url()),
            ("TELEGRAM_BOT_TOKEN", TOKEN),
            ("TELEGRAM_CHAT_ID", CHAT),
            ("LAMDA_FAILPOINT", place),
        ]);
        hub.begin();
        hub.beat("rack-1", "UP");
        // It may die before it can answer this one; the agent would say it again.
        hub.try_beat("rack-1", "DOWN");
        eventually(&format!("it dies at {place}"), PATIENCE, || {
            hub.child().try_wait().expect("a process")
        });
        hub.program.set("LAMDA_FAILPOINT", "");
        hub.begin();
        hub.beat("rack-1", "DOWN");
        let downs = |receiver: &Receiver| {
            let texts = receiver.taken();
            let texts = texts.iter().filter_map(|body| body["text"].as_str().map(str::to_owned));
            texts.filter(|text| text.contains("DOWN")).collect::<Vec<_>>()
        };
        eventually(&format!("{place}: somebody is told"), PATIENCE, || {
            (!downs(&receiver).is_empty()).then_some(())
        });
        // Told once more after this, it would come before the message that it is up again.
        hub.beat("rack-1", "UP");
        let up =
            |body: &serde_json::Value| body["text"].as_str().is_some_and(|it| it.contains("UP"));
        eventually(&format!("{place}: the recovery is told"), PATIENCE, || {
            receiver.taken().iter().any(up).then_some(())
        });
        let downs = downs(&receiver);
        assert!(downs.len() <= most, "{place}: {downs:?}");
        if let [_, again] = downs.as_slice() {
            assert!(again.contains("repetition"), "{place}: a repeat is marked as one: {again}");
        }
    }
}

#[test]
fn a_thousand_nodes_that_die_at_once_are_one_message_and_one_recovery() {
    let receiver = Receiver::telegram([]);
    let hub = Hub::start(&[
        ("TELEGRAM_API_URL", &receiver.url()),
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_CHAT_ID", CHAT),
        ("DOWN_THRESHOLD_SEC", "20"),
    ]);
    let all = |status| {
        for number in 0..1_000 {
            hub.beat(&format!("node-{number:04}"), status);
        }
    };
    all("UP");
    let texts = || -> Vec<String> {
        let texts = receiver.taken();
        texts.iter().filter_map(|body| body["text"].as_str().map(str::to_owned)).collect()
    };
    // They fall silent one after the other, as their beats came.
    eventually("all are down", Duration::from_secs(90), || {
        let down = hub.nodes().iter().filter(|node| node["computed"] == "DOWN").count();
        (down == 1_000).then_some(())
    });
    eventually("somebody is told", PATIENCE, || (!texts().is_empty()).then_some(()));
    all("UP");
    eventually("the recovery is told", Duration::from_secs(90), || {
        texts().last().is_some_and(|text| text.contains("well again")).then_some(())
    });
    let texts = texts();
    assert!(texts.len() <= 4, "{texts:?}");
    // The first look may have seen a single one of them.
    assert!(texts[0].to_lowercase().contains("down"), "{texts:?}");
}
