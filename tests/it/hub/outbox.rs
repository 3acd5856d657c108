//! Notices on their way to people: over a Telegram that throttles, fails, hangs and breaks off, a real SMTP server, and
//! a foreign receiver of Alertmanager's webhooks.

use std::path::Path;
use std::time::Duration;

use lamda_node::clock::Timestamp;
use lamda_node::fleet::notice::{Notice, NoticeKind, NoticeNode, Severity};
use lamda_node::hub::store::Store;
use lamda_node::notify::Outbox;
use lamda_node::notify::book::{State, Told};
use lamda_node::notify::{self, Channel, NoticeId, Telling, mail, ntfy, telegram, webhook};
use lamda_node::secret::Secret;
use lamda_node::supervise::Services;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::support::irc::Relay;
use crate::support::receiver::{CHAT, Receiver, Says, TOKEN, refusal, too_many};
use crate::support::smtp::{self, PASSWORD, Smtp};
use crate::support::tools::eventually;

/// Four refusals, one of which is 10 s of silence, and the waits after them.
const PATIENCE: Duration = Duration::from_secs(90);

const HOSTILE: &str = "<img src=x onerror=alert(1)>\r\nQUIT `x` _y_";

/// A hub's outbox at work.
struct Hub {
    store: Store,
    outbox: Outbox,
    _services: Services,
}

impl Hub {
    fn start(dir: &Path, config: &notify::Config) -> Self {
        let store = eventually("an earlier hub is gone", PATIENCE, || {
            Store::open(&dir.join("hub.db")).ok()
        });
        let outbox = Outbox::new(store.book(), Channel::all(config).expect("channels"));
        let mut services = Services::default();
        outbox.spawn(&mut services);
        Self { store, outbox, _services: services }
    }

    async fn tell(&self, notice: Notice) {
        self.store.book().queue_notice(notice, self.outbox.names()).await.expect("it is queued");
        self.outbox.poke();
    }

    /// All notices, the newest first, once `is_so` of them.
    fn told(&self, what: &str, is_so: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        tokio::task::block_in_place(|| {
            eventually(what, PATIENCE, || {
                let told = Handle::current().block_on(self.store.book().recent_notices(100));
                Some(told.expect("notices")).filter(|told| is_so(told))
            })
        })
    }

    fn all_sent(&self) -> Vec<Told> {
        let is_over = |it: &Told| matches!(it.state, State::Sent | State::Folded);
        self.told("all are sent", |told| told.iter().all(is_over))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn notice(incident: u64, kind: NoticeKind, name: &str) -> Notice {
    let ended = (kind == NoticeKind::Resolved).then(|| at("2026-11-27T04:00:00Z"));
    Notice {
        incident,
        kind,
        rule: "node-down".to_owned(),
        severity: Severity::Critical,
        title: format!("{name} is down"),
        opened: at("2026-11-27T03:12:00Z"),
        decided: at("2026-11-27T03:12:45Z"),
        nodes: vec![NoticeNode {
            name: name.to_owned(),
            ip: "203.0.113.7".to_owned(),
            why: "its last beat is 3 min old".to_owned(),
            since: at("2026-11-27T03:09:45Z"),
            heard: Some(at("2026-11-27T03:09:33Z")),
            ended,
        }],
        more: 0,
        lines: Vec::new(),
        remedy: "Look whether it has power.".to_owned(),
        is_node_down: true,
        channels: Vec::new(),
    }
}

fn telegram(receiver: &Receiver, token: &str, chat: &str) -> notify::Config {
    let config = telegram::Config::new(&receiver.url(), Secret::new(token), chat);
    notify::Config { telegram: Some(config.expect("a URL")), ..notify::Config::default() }
}

fn mail(url: &str) -> notify::Config {
    let address = |text| mail::Config::address(text).expect("an address");
    let to = vec![address("me@example.com"), address("You <you@example.com>")];
    let config = mail::Config::new(Secret::new(url), address("Hub <hub@example.com>"), to);
    notify::Config { mail: Some(config.expect("a URL")), ..notify::Config::default() }
}

fn texts(receiver: &Receiver) -> Vec<String> {
    let text = |body: &Value| body["text"].as_str().map(str::to_owned);
    receiver.taken().iter().filter_map(text).collect()
}

fn the_only(config: &notify::Config) -> Channel {
    Channel::all(config).expect("channels").remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telegram_that_throttles_fails_breaks_off_and_hangs_gets_the_notice_in_the_end() {
    let broken =
        Says::Answer(500, "", json!({"ok": false, "description": "Internal Server Error"}));
    let receiver = Receiver::telegram([too_many(3), broken, Says::Half, Says::Hang]);
    let dir = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(dir.path(), &telegram(&receiver, TOKEN, CHAT));
    hub.tell(notice(1, NoticeKind::Opened, "rig-1")).await;
    let told = hub.all_sent();
    assert_eq!((told[0].tries, told[0].answer.as_deref()), (5, Some("message 7")));
    let requests = receiver.requests();
    assert_eq!(requests.len(), 5);
    let waited = requests[1].at.duration_since(requests[0].at);
    assert!(waited >= Duration::from_secs(3), "Telegram asked for 3 s: {waited:?}");
    let is_marked = |at: usize| {
        let text = requests[at].body["text"].as_str().expect("a text");
        text.contains("This may be a repetition")
    };
    // Neither a 429 nor a 500 leaves a doubt; half an answer and none do.
    assert_eq!([1, 2, 3, 4].map(is_marked), [false, false, true, true]);
    let text = texts(&receiver).remove(0);
    let seeds = "❌ <b>Gensyn node DOWN</b>\nNode ID: <code>rig-1</code>\n\
         IP: <code>203.0.113.7</code>\nAge: <code>192s</code>\n\
         Time: <code>2026-11-27 03:12:45 UTC</code>\n";
    assert!(text.starts_with(seeds), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_without_being_shown_and_its_notices_are_sent_once_it_is_mended() {
    let receiver = Receiver::telegram([]);
    let dir = tempfile::tempdir().expect("a folder");
    let wrong = telegram(&receiver, "43:AAexampleexampleexample-hunter3_", CHAT);
    let hub = Hub::start(dir.path(), &wrong);
    hub.tell(notice(1, NoticeKind::Opened, "rig-1")).await;
    hub.tell(notice(1, NoticeKind::Resolved, "rig-1")).await;
    let is_answered = |told: &[Told]| told.iter().any(|it| it.answer.is_some());
    let told = hub.told("it is refused", is_answered);
    let said = told.iter().find_map(|it| it.answer.clone()).expect("an answer");
    assert!(said.contains("TELEGRAM_BOT_TOKEN is not the token of a bot"), "{said}");
    let refused = the_only(&wrong).check().await.expect_err("a wrong token");
    assert!(refused.reason.contains("TELEGRAM_BOT_TOKEN"), "{refused}");
    assert!(!format!("{said}{refused:?}{told:?}").contains("hunter3"), "{said} {refused:?}");
    drop(hub);
    let right = telegram(&receiver, TOKEN, CHAT);
    let known = the_only(&right).check().await.expect("the right token");
    assert_eq!(known, "the bot @hub_bot may write to the chat the owners");
    let hub = Hub::start(dir.path(), &right);
    let told = hub.all_sent();
    assert_eq!(told.iter().map(|it| it.state).collect::<Vec<_>>(), [State::Sent, State::Folded]);
    let text = texts(&receiver).remove(0);
    assert!(text.starts_with("✅ <b>Gensyn node UP</b>"), "{text}");
    let late = "told late: 2026-11-27 03:12 UTC opened: rig-1 is down";
    assert!(text.contains(late), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telegram_that_dislikes_the_form_gets_the_plainest_one_and_a_wrong_chat_is_told() {
    let receiver = Receiver::telegram([refusal(400, "Bad Request: can't parse entities")]);
    let channel = the_only(&telegram(&receiver, TOKEN, CHAT));
    let telling = |name: &str| Telling::of(NoticeId(1), notice(1, NoticeKind::Opened, name));
    channel.send(&telling("rig-1")).await.expect("it is taken");
    assert_eq!(texts(&receiver), ["❌ rig-1 is down"]);
    assert!(receiver.taken()[0].get("parse_mode").is_none());
    channel.send(&telling(HOSTILE)).await.expect("it is taken");
    assert_eq!(receiver.requests().len(), 3, "a hostile name needs no second form");
    let elsewhere = the_only(&telegram(&receiver, TOKEN, "-5"));
    let refused = elsewhere.send(&telling("rig-1")).await.expect_err("no such chat");
    assert!(!refused.is_final() && refused.reason.contains("TELEGRAM_CHAT_ID"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives_whole_with_the_same_id_at_each_try_over_a_real_smtp_server() {
    let port = Smtp::port();
    let dir = tempfile::tempdir().expect("a folder");
    let hub = Hub::start(dir.path(), &mail(&smtp::url(port, PASSWORD)));
    hub.tell(notice(1, NoticeKind::Opened, "rig-1")).await;
    let is_answered = |told: &[Told]| told.iter().any(|it| it.answer.is_some());
    hub.told("the server is away", is_answered);
    let server = Smtp::start(port, &["451 later", "554 no"]);
    let told = hub.all_sent();
    assert!(!told[0].may_be_repeat, "nothing can have arrived where nobody listens");
    assert_eq!(told[0].answer.as_deref(), Some("250 kept as number 1"));
    let mails = server.mails();
    let answers: Vec<&Value> = mails.iter().map(|mail| &mail["answer"]).collect();
    assert_eq!(answers, ["451 later", "554 no", "250 kept as number 1"]);
    let last = &mails[2];
    assert_eq!(mails[0]["headers"], last["headers"], "and so the same Message-ID");
    let headers = &last["headers"];
    let at = at("2026-11-27T03:12:45Z").unix_ms();
    assert_eq!(headers["message-id"], format!("<notice-1-{at}@example.com>"));
    assert_eq!(headers["subject"], "❌ rig-1 is down");
    assert_eq!(headers["date"], "Fri, 27 Nov 2026 03:12:45 +0000");
    assert_eq!(last["to"], json!(["me@example.com", "you@example.com"]));
    assert_eq!((&last["user"], &last["from"]), (&json!("hub"), &json!("hub@example.com")));
    let text = last["text"].as_str().expect("a text");
    assert!(text.contains("Node ID: rig-1") && text.contains("Do: Look whether"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_is_asked_who_it_lets_in_and_a_hostile_name_adds_no_header() {
    let server = Smtp::start(Smtp::port(), &[]);
    let wrong = the_only(&mail(&server.url("hunter3")));
    let refused = wrong.check().await.expect_err("a wrong password");
    assert!(refused.reason.contains("535") && !refused.reason.contains("hunter3"), "{refused}");
    let right = the_only(&mail(&server.url(PASSWORD)));
    assert!(!format!("{wrong:?}").contains("hunter3"), "{wrong:?}");
    right.check().await.expect("the right password");
    for (id, name) in ["rig-1", HOSTILE, &"x\r\nBcc: a@b.c ".repeat(500)].into_iter().enumerate() {
        let id = NoticeId(i64::try_from(id).expect("a small number"));
        let telling = Telling::of(id, notice(1, NoticeKind::Opened, name));
        right.send(&telling).await.expect("it is taken");
    }
    let mails =
        eventually("all mails", PATIENCE, || Some(server.mails()).filter(|it| it.len() == 3));
    for mail in &mails {
        assert_eq!(mail["count"], mails[0]["count"], "{mail}");
        let text = mail["text"].as_str().expect("a text");
        assert_eq!(text.trim_end().lines().count(), 6, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_receiver_of_alertmanagers_webhooks_reads_ours() {
    let relay = Relay::start();
    let dir = tempfile::tempdir().expect("a folder");
    let config = webhook::Config::new(Secret::new(relay.url()), "http://hub").expect("a URL");
    let config = notify::Config { webhook: Some(config), ..notify::Config::default() };
    let hub = Hub::start(dir.path(), &config);
    hub.tell(notice(1, NoticeKind::Opened, "rig-1")).await;
    hub.all_sent();
    hub.tell(notice(1, NoticeKind::Resolved, "rig-1")).await;
    hub.tell(notice(2, NoticeKind::Opened, HOSTILE)).await;
    hub.all_sent();
    let said = eventually("the relay said all", PATIENCE, || {
        Some(relay.said()).filter(|said| said.len() == 3)
    });
    let print = said[0].rsplit(' ').next().expect("a fingerprint");
    let of_rig = |status: &str| {
        format!("{status} node-down rig-1 critical its last beat is 3 min old {print}")
    };
    assert!(said.contains(&of_rig("firing")) && said.contains(&of_rig("resolved")), "{said:?}");
    let hostile = said.iter().find(|line| line.contains("<img")).expect("the hostile one");
    assert!(hostile.contains("onerror=alert(1)> QUIT `x` _y_ critical"), "{hostile}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_redirects_or_refuses_gets_no_secret_elsewhere_and_shows_none() {
    let elsewhere = Receiver::start([]);
    let location: &'static str = Box::leak(format!("location: {}/x\r\n", elsewhere.url()).into());
    let receiver = Receiver::start([
        Says::Answer(307, location, json!({})),
        Says::Answer(429, "retry-after: 40\r\n", json!({"error": "slow down"})),
        Says::Answer(413, "", json!({"error": "too large"})),
    ]);
    let url = receiver.url().replace("http://", "http://hub:hunter2@") + "/hook?key=hunter2";
    let config = webhook::Config::new(Secret::new(url), "").expect("a URL");
    let config = notify::Config { webhook: Some(config), ..notify::Config::default() };
    let channel = the_only(&config);
    let mut telling = Telling::of(NoticeId(5), notice(1, NoticeKind::Opened, "rig-1"));
    let moved = channel.send(&telling).await.expect_err("a redirect is no success");
    assert!(moved.reason.starts_with("307") && elsewhere.requests().is_empty(), "{moved}");
    let slow = channel.send(&telling).await.expect_err("it is throttled");
    assert_eq!(slow.retry_after, Some(Duration::from_secs(40)));
    let large = channel.send(&telling).await.expect_err("it is too large");
    assert!(large.is_final() && !slow.is_final() && !moved.is_final());
    telling.may_be_repeat = true;
    channel.send(&telling).await.expect("it is taken");
    for request in receiver.requests() {
        let key = format!("idempotency-key: 5-{}\r\n", telling.notice.decided.unix_ms());
        assert!(request.head.contains(&key), "{}", request.head);
        assert!(request.head.contains("authorization: basic "), "{}", request.head);
    }
    assert_eq!(receiver.taken()[0]["commonAnnotations"]["may_be_repeat"], "true");
    drop(receiver);
    let gone = channel.send(&telling).await.expect_err("nobody listens");
    assert!(!gone.may_have_arrived, "{gone:?}");
    assert!(!format!("{moved:?}{slow:?}{large:?}{gone:?}{channel:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ntfy_topic_gets_title_priority_tags_and_the_same_id_at_each_try() {
    let receiver = Receiver::start([]);
    let url = receiver.url().replace("http://", "http://hub:hunter2@") + "/folder/a-topic";
    let url = Secret::new(url);
    let config = notify::Config {
        ntfy: Some(ntfy::Config::new(url).expect("a URL")),
        ..notify::Config::default()
    };
    let channel = the_only(&config);
    let mut telling = Telling::of(NoticeId(5), notice(1, NoticeKind::Opened, "rig-1"));
    for _ in 0..2 {
        channel.send(&telling).await.expect("it is taken");
        telling.may_be_repeat = true;
    }
    assert!(!format!("{channel:?}").contains("hunter2"), "{channel:?}");
    let requests = receiver.requests();
    let head = &requests[0].head;
    assert!(head.starts_with("post /folder http") && head.contains("basic "), "{head}");
    let body = &requests[0].body;
    assert_eq!((&body["topic"], &body["title"]), (&json!("a-topic"), &json!("❌ rig-1 is down")));
    assert_eq!((&body["priority"], &body["tags"]), (&json!(5), &json!(["opened", "critical"])));
    assert_eq!(body["sequence_id"], requests[1].body["sequence_id"]);
    let message = body["message"].as_str().expect("a message");
    assert!(message.starts_with("Node ID: rig-1\n"), "{message}");
}
