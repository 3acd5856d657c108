//! Two hubs of one account that share their alerts: the real program twice, one NATS server, one Telegram.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::process::{Hub, PATIENCE};
use crate::support::nats::Nats;
use crate::support::prometheus::Page;
use crate::support::receiver::{CHAT, Receiver, TOKEN};
use crate::support::tcp_proxy::TcpProxy;
use crate::support::tools::eventually;

/// A hub of the pair, at this NATS server.
fn hub(name: &str, nats: &str, receiver: &Receiver) -> Hub {
    let mut hub = Hub::with(&[
        ("HUB_PAIR", name),
        ("NATS_URL", nats),
        ("TELEGRAM_API_URL", &receiver.url()),
        ("TELEGRAM_BOT_TOKEN", TOKEN),
        ("TELEGRAM_CHAT_ID", CHAT),
    ]);
    // Each node is an incident of its own, told at once.
    let rule = "[[rule]]\nname = \"node-down\"\nwhen = { standing = [\"down\"] }\nseverity = \"critical\"\ngroup_s = 0\n";
    let rules = hub.program.write("hub.toml", rule);
    hub.program.set("HUB_RULES", &rules);
    hub
}

/// Both hubs; the first one sends.
fn pair(nats: &str, receiver: &Receiver) -> [Hub; 2] {
    let mut hubs = [hub("one", nats, receiver), hub("two", nats, receiver)];
    for (at, hub) in hubs.iter_mut().enumerate() {
        hub.begin();
        waits_until_sender_is(hub, "one", if at == 0 { "this" } else { "other" });
    }
    hubs
}

/// Who sends over Telegram, as the hub's page says.
fn sender(hub: &Hub) -> Value {
    hub.ask("GET /api/alerts", &[], "").json()["pair"]["channels"][0].clone()
}

#[track_caller]
fn waits_until_sender_is(hub: &Hub, name: &str, which: &str) {
    eventually(&format!("{name} sends"), PATIENCE, || {
        let it = sender(hub);
        (it["hub"] == name && it["sends"] == which && it["since"].is_u64()).then_some(())
    });
}

/// What people read.
fn texts(receiver: &Receiver) -> Vec<String> {
    let text = |body: &Value| body["text"].as_str().map(str::to_owned);
    receiver.taken().iter().filter_map(text).collect()
}

fn about(receiver: &Receiver, node: &str, what: &str) -> Vec<String> {
    let is_it = |text: &String| text.contains(node) && text.contains(what);
    texts(receiver).into_iter().filter(is_it).collect()
}

/// All hubs hear it.
fn beat(hubs: &[Hub], node: &str, status: &str) {
    for hub in hubs {
        hub.beat(node, status);
    }
}

/// What a hub has written of what it decided of this node, as its page shows it.
fn states(hub: &Hub) -> Vec<String> {
    let alerts = hub.ask("GET /api/alerts", &[], "").json();
    let all = [&alerts["open"], &alerts["recent"]].map(|it| it.as_array().expect("a list").clone());
    let notices = all.iter().flatten().filter_map(|it| it["notices"].as_array().cloned());
    notices.flatten().map(|it| it["state"].as_str().expect("a state").to_owned()).collect()
}

#[track_caller]
fn waits_for(receiver: &Receiver, node: &str, what: &str) {
    eventually(&format!("{what} of {node} is told"), PATIENCE, || {
        (!about(receiver, node, what).is_empty()).then_some(())
    });
}

#[test]
fn two_hubs_that_see_the_same_tell_it_once() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let hubs = pair(&nats.url(), &receiver);
    beat(&hubs, "rack-1", "UP");
    beat(&hubs, "rack-1", "DOWN");
    waits_for(&receiver, "rack-1", "DOWN");
    // The other hub has decided it too, and dropped it.
    eventually("the other hub drops it", PATIENCE, || {
        (states(&hubs[1]) == ["folded"]).then_some(())
    });
    beat(&hubs, "rack-1", "UP");
    waits_for(&receiver, "rack-1", "UP");
    eventually("the other hub drops that too", PATIENCE, || {
        (states(&hubs[1]) == ["folded", "folded"]).then_some(())
    });
    let texts = texts(&receiver);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains("repetition")), "{texts:?}");
    for (hub, sends) in hubs.iter().zip([1.0, 0.0]) {
        let page = Page::at(&hub.at).expect("a page");
        assert_eq!(page.value("lamda_hub_pair_sends{channel=\"telegram\"}"), Some(sends));
    }
}

#[test]
fn a_hub_that_is_killed_is_taken_over_and_nothing_is_told_again() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let [mut one, two] = pair(&nats.url(), &receiver);
    for hub in [&one, &two] {
        hub.beat("rack-1", "UP");
        hub.beat("rack-2", "UP");
        hub.beat("rack-1", "DOWN");
    }
    waits_for(&receiver, "rack-1", "DOWN");
    // Killed before it has written that down, it would be told again, and marked.
    eventually("that is written down", PATIENCE, || (states(&one) == ["sent"]).then_some(()));
    one.kill();
    two.beat("rack-1", "UP");
    two.beat("rack-2", "DOWN");
    waits_for(&receiver, "rack-2", "DOWN");
    waits_until_sender_is(&two, "two", "this");
    waits_for(&receiver, "rack-1", "UP");
    // The first comes back, hears the same, and has nothing to say.
    one.begin();
    waits_until_sender_is(&one, "two", "other");
    let both = [one, two];
    beat(&both, "rack-1", "UP");
    beat(&both, "rack-2", "DOWN");
    beat(&both, "rack-2", "UP");
    waits_for(&receiver, "rack-2", "UP");
    eventually("the first drops what it knows", PATIENCE, || {
        states(&both[0]).iter().all(|state| state == "sent" || state == "folded").then_some(())
    });
    for (node, what) in [("rack-1", "DOWN"), ("rack-1", "UP"), ("rack-2", "DOWN"), ("rack-2", "UP")]
    {
        let told = about(&receiver, node, what);
        assert_eq!(told.len(), 1, "{node} {what}: {told:?}");
        assert!(!told[0].contains("repetition"), "{told:?}");
    }
}

/// Where the hub that sends dies, and how often the message may come.
const PLACES: [(&str, usize); 6] = [
    ("notice_begin.after", 1),
    ("pair_begin.after", 1),
    ("notice_send.before", 1),
    ("notice_send.after", 2),
    ("pair_end.before", 2),
    ("pair_end.after", 1),
];

#[test]
fn wherever_the_hub_that_sends_is_killed_the_other_tells_it_and_marks_what_may_be_a_repeat() {
    for (place, most) in PLACES {
        let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
        let mut one = hub("one", &nats.url(), &receiver);
        one.program.set("LAMDA_FAILPOINT", place);
        one.begin();
        waits_until_sender_is(&one, "one", "this");
        let mut two = hub("two", &nats.url(), &receiver);
        two.begin();
        waits_until_sender_is(&two, "one", "other");
        two.beat("rack-1", "UP");
        one.beat("rack-1", "UP");
        two.beat("rack-1", "DOWN");
        one.try_beat("rack-1", "DOWN");
        eventually(&format!("it dies at {place}"), PATIENCE, || {
            one.child().try_wait().expect("a process")
        });
        waits_for(&receiver, "rack-1", "DOWN");
        waits_until_sender_is(&two, "two", "this");
        // Told once more after this, it would come before the message that it is up again.
        two.beat("rack-1", "UP");
        waits_for(&receiver, "rack-1", "UP");
        let downs = about(&receiver, "rack-1", "DOWN");
        assert!(downs.len() <= most, "{place}: {downs:?}");
        let marked = downs.iter().filter(|text| text.contains("repetition")).count();
        let arrived_first = usize::from(most == 2 || place == "pair_end.after");
        let unmarked = usize::from(place == "notice_begin.after");
        assert_eq!(marked, downs.len() - arrived_first - unmarked, "{place}: {downs:?}");
    }
}

#[test]
fn what_only_the_hub_that_died_knew_is_told_by_the_other_if_it_was_on_its_way() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let mut one = hub("one", &nats.url(), &receiver);
    one.program.set("LAMDA_FAILPOINT", "pair_begin.after");
    one.begin();
    waits_until_sender_is(&one, "one", "this");
    let mut two = hub("two", &nats.url(), &receiver);
    two.begin();
    one.beat("rack-1", "UP");
    one.try_beat("rack-1", "DOWN");
    waits_for(&receiver, "rack-1", "DOWN");
    let downs = about(&receiver, "rack-1", "DOWN");
    assert!(downs[0].contains("repetition"), "{downs:?}");
    eventually("its log says so", PATIENCE, || {
        two.log().contains("told what the other hub was telling").then_some(())
    });
}

#[test]
fn a_hub_that_is_cut_off_is_taken_over_and_tells_by_itself_only_after_a_while_and_marked() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let line = TcpProxy::start(nats.port());
    let mut one = hub("one", &format!("nats://{}", line.address()), &receiver);
    one.begin();
    waits_until_sender_is(&one, "one", "this");
    let mut two = hub("two", &nats.url(), &receiver);
    two.begin();
    waits_until_sender_is(&two, "one", "other");
    let both = [one, two];
    beat(&both, "rack-1", "UP");
    beat(&both, "rack-2", "UP");
    line.cut();
    beat(&both, "rack-1", "DOWN");
    waits_for(&receiver, "rack-1", "DOWN");
    waits_until_sender_is(&both[1], "two", "this");
    let first = about(&receiver, "rack-1", "DOWN");
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(!first[0].contains("repetition"), "{first:?}");
    // It can't know that the other one did.
    eventually("the one without NATS tells by itself", Duration::from_mins(1), || {
        (sender(&both[0])["sends"] == "each" && about(&receiver, "rack-1", "DOWN").len() == 2)
            .then_some(())
    });
    let again = about(&receiver, "rack-1", "DOWN");
    assert!(again[1].contains("repetition"), "{again:?}");
    line.mend();
    waits_until_sender_is(&both[0], "two", "other");
    beat(&both, "rack-2", "DOWN");
    waits_for(&receiver, "rack-2", "DOWN");
    eventually("the first drops it", PATIENCE, || {
        states(&both[0]).iter().all(|state| state == "sent" || state == "folded").then_some(())
    });
    assert_eq!(about(&receiver, "rack-2", "DOWN").len(), 1, "{:?}", texts(&receiver));
}

#[test]
fn a_hub_that_hung_while_it_was_taken_over_tells_nothing_when_it_goes_on() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let [mut one, two] = pair(&nats.url(), &receiver);
    for hub in [&one, &two] {
        hub.beat("rack-1", "UP");
    }
    let pid = Pid::from_child(one.child());
    kill_process(pid, Signal::STOP).expect("it is ours");
    two.beat("rack-1", "DOWN");
    waits_for(&receiver, "rack-1", "DOWN");
    waits_until_sender_is(&two, "two", "this");
    kill_process(pid, Signal::CONT).expect("it is ours");
    // It believes that it is its turn until it tries.
    one.beat("rack-1", "DOWN");
    eventually("it drops what was told", PATIENCE, || (states(&one) == ["folded"]).then_some(()));
    waits_until_sender_is(&one, "two", "other");
    assert_eq!(about(&receiver, "rack-1", "DOWN").len(), 1, "{:?}", texts(&receiver));
}

#[test]
fn what_strangers_write_into_the_bucket_stops_nobody() {
    let (nats, receiver) = (Nats::start(), Receiver::telegram([]));
    let hubs = pair(&nats.url(), &receiver);
    let script = "
for subject in ('send.telegram', 'told.telegram.1-1', 'told.telegram.x', 'send.x', 'x'):
    for body in (b'', b'{', b'{\"v\":2}', b'\\xff' * 4000, b'[' * 4000):
        await js.publish('$KV.HUB_OUTBOX.' + subject, body)";
    nats.python(script, &[]);
    beat(&hubs, "rack-1", "UP");
    beat(&hubs, "rack-1", "DOWN");
    waits_for(&receiver, "rack-1", "DOWN");
    assert_eq!(about(&receiver, "rack-1", "DOWN").len(), 1, "{:?}", texts(&receiver));
}

#[test]
fn a_pair_without_nats_is_refused_with_the_reason() {
    let hub = Hub::with(&[("HUB_PAIR", "one")]);
    hub.program.run(&["hub"]).is_refused(64, "HUB_PAIR");
    let mut hub = Hub::with(&[("HUB_PAIR", "a b"), ("NATS_URL", "nats://127.0.0.1:1")]);
    hub.program.run(&["hub"]).is_refused(64, "HUB_PAIR");
    hub.program.set("HUB_PAIR", "");
    hub.begin();
    assert_eq!(hub.ask("GET /api/alerts", &[], "").json().get("pair"), None);
}
