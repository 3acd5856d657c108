//! The forms of messages, with texts that strangers may write.

use serde_json::Value;

use super::form::{Limit, Markup, Message};
use super::*;
use crate::fleet::notice::{NODES_MAX, NoticeKind, NoticeNode, Severity};

const HOSTILE: [&str; 6] = [
    "<img src=x onerror=alert(1)>",
    "`code` *bold* _it_ [x](http://evil)",
    "a\nIP: 10.0.0.1\r\nSubject: forged",
    "</b></code>&lt;&amp;\"'",
    "\u{202e}gpj.exe\u{0}\u{1b}[2J",
    "{{ .Labels.alertname }} ${HOME} %s",
];

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn node(name: &str) -> NoticeNode {
    NoticeNode {
        name: name.to_owned(),
        ip: "203.0.113.7".to_owned(),
        why: "its last beat is 3 min old".to_owned(),
        since: at("2026-11-27T03:09:45Z"),
        heard: Some(at("2026-11-27T03:09:33Z")),
        ended: None,
    }
}

fn notice(kind: NoticeKind, nodes: Vec<NoticeNode>) -> Notice {
    Notice {
        incident: 7,
        kind,
        rule: "node-down".to_owned(),
        severity: Severity::Critical,
        title: "1 of 40 nodes is down".to_owned(),
        opened: at("2026-11-27T03:12:00Z"),
        decided: at("2026-11-27T03:12:45.5Z"),
        nodes,
        more: 0,
        lines: Vec::new(),
        remedy: "Look whether the machine has power.".to_owned(),
        is_node_down: true,
        channels: Vec::new(),
    }
}

fn telling(notice: Notice) -> Telling {
    Telling::of(NoticeId(12), notice)
}

fn html(telling: &Telling) -> String {
    Message::of(telling).text(Markup::Html, Limit::Units(4096))
}

/// What Telegram shows and counts: the text without its tags. Panics at a tag that is not ours, or unclosed.
fn shown(html: &str) -> String {
    let mut text = html.to_owned();
    for tag in ["b", "code"] {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        assert_eq!(text.matches(&open).count(), text.matches(&close).count(), "{html}");
        text = text.replace(&open, "").replace(&close, "");
    }
    assert!(!text.contains(['<', '>']), "a stranger's tag: {html}");
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
    text.replace("&amp;", "&")
}

#[test]
fn one_node_that_is_down_reads_as_the_original_monitors_message() {
    let down = telling(notice(NoticeKind::Opened, vec![node("rig-1")]));
    assert_eq!(
        html(&down),
        "❌ <b>Gensyn node DOWN</b>\nNode ID: <code>rig-1</code>\nIP: <code>203.0.113.7</code>\n\
         Age: <code>192s</code>\nTime: <code>2026-11-27 03:12:45 UTC</code>\n\
         Why: its last beat is 3 min old\nDo: Look whether the machine has power."
    );
    let well = NoticeNode { ended: Some(at("2026-11-27T03:12:45Z")), ..node("rig-1") };
    let up = html(&telling(notice(NoticeKind::Resolved, vec![well])));
    assert!(up.starts_with("✅ <b>Gensyn node UP</b>\nNode ID: <code>rig-1</code>\n"), "{up}");
    assert!(!up.contains("Do: "), "{up}");
}

#[test]
fn what_a_stranger_calls_a_node_is_text_on_one_line_in_each_form() {
    for name in HOSTILE {
        for nodes in [vec![node(name)], vec![node(name), node("b")]] {
            let count = nodes.len();
            let mut notice = notice(NoticeKind::Opened, nodes);
            notice.title = name.to_owned();
            notice.remedy = name.to_owned();
            for node in &mut notice.nodes {
                node.why = name.to_owned();
                node.ip = name.to_owned();
            }
            let telling = telling(notice);
            let shown = shown(&html(&telling));
            let lines = if count == 1 { 7 } else { 4 };
            assert_eq!(shown.lines().count(), lines, "{shown}");
            let is_obeyed = |c: char| c != '\n' && crate::report::is_obeyed(c);
            assert!(!shown.contains(is_obeyed), "{shown:?}");
            assert_eq!(shown, Message::of(&telling).text(Markup::Plain, Limit::Units(4096)));
            let first = name.lines().next().unwrap_or_default();
            let visible = first.trim_start_matches('\u{202e}').split('\u{0}').next().unwrap();
            assert!(shown.contains(visible), "{shown}");
        }
    }
}

#[test]
fn a_message_is_within_the_limit_however_long_its_texts_are_and_counts_what_it_leaves_out() {
    // Each of these characters takes two units.
    for letter in ["x", "<", "&", "😀"] {
        let long = letter.repeat(5_000);
        for count in [1, NODES_MAX] {
            let mut notice = notice(NoticeKind::Updated, vec![node(&long); count]);
            notice.more = if count == 1 { 0 } else { 980 };
            (notice.title, notice.remedy) = (long.clone(), long.clone());
            notice.lines = vec![long.clone(); 100];
            for node in &mut notice.nodes {
                (node.ip, node.why) = (long.clone(), long.clone());
            }
            let earlier = Earlier { notice: notice.clone(), may_be_repeat: true };
            let mut telling = telling(notice);
            telling.earlier = vec![earlier; 50];
            telling.left_out = 400;
            telling.may_be_repeat = true;
            let shown = shown(&html(&telling));
            let units = shown.encode_utf16().count();
            assert!(units <= 4096, "{letter} {count}: {units}");
            assert!(shown.contains("told late: 442 notices, and\n"), "{shown}");
            assert_eq!(shown.matches(" updated: ").count(), 8);
            assert!(shown.ends_with("whether it arrived before."), "{shown}");
            assert_eq!(shown.matches("and 1").count(), usize::from(count > 1), "{shown}");
            let bytes = Message::of(&telling).text(Markup::Plain, Limit::Bytes(4_000)).len();
            assert!(bytes <= 4_000, "{letter} {count}: {bytes} bytes");
        }
    }
}

#[test]
fn what_is_told_late_has_its_time_and_what_it_said() {
    let mut newest = telling(notice(NoticeKind::Resolved, vec![node("a")]));
    let mut opened = notice(NoticeKind::Opened, vec![node("a")]);
    opened.decided = at("2026-11-26T22:01:00Z");
    newest.earlier = vec![Earlier { notice: opened, may_be_repeat: false }];
    let late = "told late: 2026-11-26 22:01 UTC opened: 1 of 40 nodes is down";
    assert!(html(&newest).ends_with(late), "{}", html(&newest));
    let hook = webhook::body(&newest, "");
    let told = "2026-11-26 22:01:00 UTC opened: 1 of 40 nodes is down";
    assert_eq!(hook["commonAnnotations"]["told_late"], told);
}

#[test]
fn a_webhook_has_alertmanagers_form() {
    let well = NoticeNode { ended: Some(at("2026-11-27T03:12:40Z")), ..node("b") };
    let mut telling = telling(notice(NoticeKind::Updated, vec![node("a"), well]));
    telling.notice.more = 3;
    let body = webhook::body(&telling, "https://hub.example");
    let wanted = serde_json::json!({
        "version": "4",
        "groupKey": "{}:{alertname=\"node-down\", incident=\"7\"}",
        "truncatedAlerts": 3,
        "status": "firing",
        "receiver": "lamda-hub",
        "groupLabels": {"alertname": "node-down", "incident": "7"},
        "commonLabels": {"alertname": "node-down", "severity": "critical"},
        "commonAnnotations": {
            "summary": "1 of 40 nodes is down",
            "remedy": "Look whether the machine has power.",
        },
        "externalURL": "https://hub.example",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "node-down", "node": "a", "severity": "critical"},
                "annotations": {
                    "summary": "its last beat is 3 min old",
                    "ip": "203.0.113.7",
                    "remedy": "Look whether the machine has power.",
                },
                "startsAt": "2026-11-27T03:09:45.000Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "https://hub.example",
                "fingerprint": body["alerts"][0]["fingerprint"],
            },
            {
                "status": "resolved",
                "labels": {"alertname": "node-down", "node": "b", "severity": "critical"},
                "annotations": {"summary": "its last beat is 3 min old", "ip": "203.0.113.7"},
                "startsAt": "2026-11-27T03:09:45.000Z",
                "endsAt": "2026-11-27T03:12:40.000Z",
                "generatorURL": "https://hub.example",
                "fingerprint": body["alerts"][1]["fingerprint"],
            },
        ],
    });
    assert_eq!(body, wanted);
    telling.notice.kind = NoticeKind::Resolved;
    let resolved = webhook::body(&telling, "");
    assert_eq!(resolved["status"], "resolved");
    let prints = |body: &Value| body["alerts"][0]["fingerprint"].as_str().unwrap().to_owned();
    assert_eq!(prints(&body), prints(&resolved), "the same alert, resolved");
    assert_eq!(prints(&body).len(), 16);
    assert_ne!(body["alerts"][0]["fingerprint"], body["alerts"][1]["fingerprint"]);
}

#[test]
fn a_fingerprint_is_that_of_prometheus() {
    // As its library's own tests have them.
    assert_eq!(webhook::fingerprint(&[]), 14_695_981_039_346_656_037);
    let labels = [("fear", "love is not enough"), ("name", "garland, briggs")];
    assert_eq!(webhook::fingerprint(&labels), 5_799_056_148_416_392_346);
}

#[test]
fn a_notice_of_no_node_is_one_alert_and_a_plain_message() {
    let mut digest = notice(NoticeKind::Digest, Vec::new());
    (digest.incident, digest.rule) = (0, String::new());
    digest.lines = vec!["40 nodes were up all day".to_owned()];
    let telling = telling(digest);
    let body = webhook::body(&telling, "");
    assert_eq!(body["alerts"][0]["labels"]["alertname"], "digest");
    assert_eq!(body["status"], "resolved", "nothing fires");
    assert!(html(&telling).contains("\n40 nodes were up all day"), "{}", html(&telling));
}

#[test]
fn a_repetition_has_the_same_key_and_another_database_another() {
    let first = telling(notice(NoticeKind::Opened, vec![node("a")]));
    let again = Telling { may_be_repeat: true, ..first.clone() };
    assert_eq!(first.key(), again.key());
    let mut other = first.clone();
    other.notice.decided = at("2026-11-28T00:00:00Z");
    assert_ne!(first.key(), other.key());
    let ntfy = ntfy::body(&again, "topic");
    assert_eq!(ntfy["sequence_id"], first.key());
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    assert!(first.key().chars().all(allowed) && first.key().len() <= 64);
}
