//! The services on a simulated disk, with channels that do as they are told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use super::super::book::{SCHEMA, queue};
use super::*;
use crate::clock::Timestamp;
use crate::fleet::notice::{Notice, NoticeKind, Severity};
use crate::notify::NoticeId;
use crate::sql::{Disk, Fate, Gate, Writer};

const CHANNEL: &str = "telegram";

/// More steps than a few messages take, and than those of a day do.
const STEPS: usize = 2_000;
const STEPS_OF_A_DAY: usize = 20_000;

/// A clock on which a sleep ends at once and advances the time.
#[derive(Debug, Clone, Default)]
struct Quick(Arc<AtomicU64>);

impl Clock for Quick {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + self.0.load(SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(SeqCst))
    }

    async fn sleep(&self, span: Duration) {
        tokio::task::yield_now().await;
        self.0.fetch_add(u64::try_from(span.as_millis()).unwrap().max(1), SeqCst);
    }
}

/// What a channel does with one message.
#[derive(Debug, Clone, PartialEq)]
enum Does {
    Take,
    Refuse(Refused),
    /// The process dies during the send: before the message has arrived, or after.
    Die {
        has_arrived: bool,
    },
}

/// A channel that does as it is told, then takes all; and what arrived, with the time.
#[derive(Debug, Clone)]
struct Fake {
    clock: Quick,
    script: Arc<Mutex<VecDeque<Does>>>,
    arrived: Arc<Mutex<Vec<(Duration, Telling)>>>,
    tried: Arc<Mutex<Vec<(Duration, NoticeId)>>>,
    pace: Pace,
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    fn new(script: impl IntoIterator<Item = Does>) -> Self {
        Self {
            clock: Quick::default(),
            script: Arc::new(Mutex::new(script.into_iter().collect())),
            arrived: Arc::default(),
            tried: Arc::default(),
            pace: Pace { apart: Duration::from_secs(1), a_minute: 20 },
        }
    }

    fn arrived(&self) -> Vec<Telling> {
        lock(&self.arrived).iter().map(|(_, telling)| telling.clone()).collect()
    }
}

impl Carrier for Fake {
    fn name(&self) -> &'static str {
        CHANNEL
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let now = self.clock.monotonic();
        lock(&self.tried).push((now, telling.id));
        let does = lock(&self.script).pop_front().unwrap_or(Does::Take);
        if matches!(does, Does::Take | Does::Die { has_arrived: true }) {
            lock(&self.arrived).push((now, telling.clone()));
        }
        match does {
            Does::Take => Ok(Accepted { answer: "message 1".to_owned() }),
            Does::Refuse(refused) => Err(refused),
            Does::Die { .. } => std::future::pending().await,
        }
    }
}

/// A disk whose process dies at the n-th write of a name.
#[derive(Debug, Default)]
struct Trap {
    write: &'static str,
    passes: AtomicUsize,
    fate: Option<Fate>,
}

impl Trap {
    fn none() -> Arc<Self> {
        Arc::default()
    }
}

impl Gate for Trap {
    fn fate(&self, write: &'static str) -> Fate {
        let dies = write == self.write && self.passes.fetch_sub(1, SeqCst) == 1;
        self.fate.filter(|_| dies).unwrap_or(Fate::Written)
    }
}

fn book(disk: &Disk, gate: Arc<Trap>) -> Book {
    Book::of(Writer::simulated(disk, gate))
}

fn notice(incident: u64, kind: NoticeKind, title: &str) -> Notice {
    Notice {
        incident,
        kind,
        rule: "node-down".to_owned(),
        severity: Severity::Critical,
        title: title.to_owned(),
        opened: Timestamp::from_unix_ms(1_799_999_000_000),
        decided: Timestamp::from_unix_ms(1_800_000_000_000),
        nodes: Vec::new(),
        more: 0,
        lines: Vec::new(),
        remedy: String::new(),
        is_node_down: false,
        channels: Vec::new(),
    }
}

fn refusal(blame: Blame) -> Refused {
    Refused { blame, ..Refused::by_channel("no") }
}

/// Runs the channel's service until nothing waits, or until its process "dies".
async fn run(book: &Book, fake: &Fake) {
    run_for(STEPS, book, fake).await;
}

async fn run_for(steps: usize, book: &Book, fake: &Fake) {
    let outbox = Outbox::new(book.clone(), vec![fake.clone()]);
    let service = outbox.run(0, fake.clock.clone());
    tokio::pin!(service);
    for _ in 0..steps {
        let over = futures_util::poll!(&mut service);
        assert!(over.is_pending(), "{over:?}");
        // Only what is to die or has nothing to do makes no progress now.
        tokio::task::yield_now().await;
    }
}

async fn states(book: &Book) -> Vec<(String, State)> {
    let mut told = book.recent_notices(1_000).await.unwrap();
    told.reverse();
    told.into_iter().map(|it| (it.notice.title, it.state)).collect()
}

/// An outbox with three incidents: one of three notices, two of one.
async fn filled(disk: &Disk) {
    let book = book(disk, Trap::none());
    for (incident, kind, title) in [
        (1, NoticeKind::Opened, "1 opened"),
        (1, NoticeKind::Reminder, "1 still"),
        (2, NoticeKind::Opened, "2 opened"),
        (1, NoticeKind::Resolved, "1 resolved"),
        (3, NoticeKind::Opened, "3 opened"),
    ] {
        book.queue_notice(notice(incident, kind, title), vec![CHANNEL]).await.unwrap();
    }
}

fn titles(arrived: &[Telling]) -> Vec<String> {
    arrived.iter().map(|it| it.notice.title.clone()).collect()
}

fn folded(telling: &Telling) -> Vec<&str> {
    telling.earlier.iter().map(|it| it.notice.title.as_str()).collect()
}

#[tokio::test]
async fn after_an_outage_the_newest_state_arrives_first_and_older_ones_are_told_within_it() {
    let disk = Disk::new(&SCHEMA).unwrap();
    filled(&disk).await;
    let book = book(&disk, Trap::none());
    // A day of it.
    let away = (0..150).map(|_| Does::Refuse(refusal(Blame::Channel)));
    let fake = Fake::new(away);
    run_for(STEPS_OF_A_DAY, &book, &fake).await;
    let arrived = fake.arrived();
    assert_eq!(titles(&arrived), ["3 opened", "1 resolved", "2 opened"]);
    assert_eq!(folded(&arrived[1]), ["1 opened", "1 still"]);
    assert!(arrived.iter().all(|it| !it.may_be_repeat), "a refusal is no doubt");
    assert_eq!(
        states(&book).await.into_iter().map(|(_, state)| state).collect::<Vec<_>>(),
        [State::Folded, State::Folded, State::Sent, State::Sent, State::Sent]
    );
    let tried = lock(&fake.tried).clone();
    assert_eq!(tried.len(), 153, "no more than one message is tried at a time");
    assert!(tried[149].0 > Duration::from_hours(11), "{:?}", tried[149].0);
    let waits = tried.windows(2).map(|pair| pair[1].0.abs_diff(pair[0].0));
    assert!(waits.clone().take(150).all(|wait| wait <= Duration::from_secs(631)), "{tried:?}");
    assert!(waits.skip(150).all(|wait| wait < Duration::from_secs(2)), "then at its pace");
}

#[tokio::test]
async fn a_channel_that_asks_to_be_left_alone_is_left_alone_for_so_long() {
    let disk = Disk::new(&SCHEMA).unwrap();
    filled(&disk).await;
    let asked = Refused { retry_after: Some(Duration::from_secs(37)), ..refusal(Blame::Channel) };
    let fake = Fake::new([Does::Refuse(asked)]);
    run(&book(&disk, Trap::none()), &fake).await;
    let tried = lock(&fake.tried).clone();
    assert_eq!(tried.len(), 4);
    let wait = tried[1].0.abs_diff(tried[0].0);
    assert!(wait >= Duration::from_secs(37) && wait < Duration::from_secs(39), "{wait:?}");
    assert_eq!(tried[0].1, tried[1].1, "the same, under the same number");
}

#[tokio::test]
async fn a_notice_that_the_channel_will_never_take_is_marked_and_keeps_no_other_from_being_told() {
    let disk = Disk::new(&SCHEMA).unwrap();
    filled(&disk).await;
    let book = book(&disk, Trap::none());
    let fake = Fake::new([Does::Take, Does::Refuse(refusal(Blame::NoticeForEver))]);
    run(&book, &fake).await;
    assert_eq!(titles(&fake.arrived()), ["3 opened", "2 opened", "1 still"]);
    let states = states(&book).await;
    let of = |title: &str| states.iter().find(|(it, _)| it == title).map(|(_, state)| *state);
    assert_eq!(of("1 resolved"), Some(State::Refused));
    assert_eq!(of("1 still"), Some(State::Sent), "what it would have told is told");
    assert_eq!(of("1 opened"), Some(State::Folded));
}

#[tokio::test]
async fn a_notice_that_the_channel_dislikes_steps_aside_for_the_others_and_is_tried_again() {
    let disk = Disk::new(&SCHEMA).unwrap();
    filled(&disk).await;
    let fake = Fake::new([Does::Refuse(refusal(Blame::Notice))]);
    run(&book(&disk, Trap::none()), &fake).await;
    assert_eq!(titles(&fake.arrived()), ["1 resolved", "2 opened", "3 opened"]);
}

#[tokio::test]
async fn an_answer_that_did_not_come_makes_the_next_try_a_possible_repetition() {
    let disk = Disk::new(&SCHEMA).unwrap();
    filled(&disk).await;
    let lost = Refused { may_have_arrived: true, ..refusal(Blame::Channel) };
    let fake = Fake::new([Does::Take, Does::Refuse(lost)]);
    run(&book(&disk, Trap::none()), &fake).await;
    let arrived = fake.arrived();
    let doubts: Vec<bool> = arrived.iter().map(|it| it.may_be_repeat).collect();
    assert_eq!(doubts, [false, true, false], "{:?}", titles(&arrived));
    assert!(arrived[1].earlier.iter().all(|it| it.may_be_repeat));
}

#[tokio::test]
async fn a_notice_goes_to_the_channels_that_its_rule_names_or_to_all_rather_than_to_nobody() {
    let disk = Disk::new(&SCHEMA).unwrap();
    let book = book(&disk, Trap::none());
    for named in [&["mail"][..], &[], &["fax"]] {
        let mut notice = notice(1, NoticeKind::Opened, "x");
        notice.channels = named.iter().map(|it| (*it).to_owned()).collect();
        let work = move |db: &crate::sql::Connection| queue(db, &notice, &["mail", "ntfy"]);
        book.writer().call(true, work).await.unwrap();
    }
    let channels: Vec<String> =
        book.recent_notices(9).await.unwrap().into_iter().map(|it| it.channel).collect();
    assert_eq!(channels, ["ntfy", "mail", "ntfy", "mail", "mail"]);
}

#[tokio::test]
async fn a_notice_that_another_version_wrote_is_told_as_far_as_it_can_be_read() {
    let disk = Disk::new(&SCHEMA).unwrap();
    let book = book(&disk, Trap::none());
    let sql = "INSERT INTO notices (channel, decided_ms, body, next_ms)
         VALUES ('telegram', 0, ?, 0)";
    for body in [r#"{"title": "all is lost", "new": 1}"#, "rubbish"] {
        let work = move |db: &crate::sql::Connection| Ok(db.execute(sql, [body])?);
        book.writer().call::<_, Error, _>(true, work).await.unwrap();
    }
    let fake = Fake::new([]);
    run(&book, &fake).await;
    let wanted = ["a notice that this version can't read", "all is lost"];
    assert_eq!(titles(&fake.arrived()), wanted);
}

/// Where the process dies.
#[derive(Debug, Clone)]
enum Death {
    At(&'static str, usize, Fate),
    During { sends: usize, has_arrived: bool },
}

/// All the places: each write of the outbox, before and after, at each of its passes; and each send.
fn deaths() -> Vec<Death> {
    let mut deaths = Vec::new();
    for write in ["notice_begin", "notice_sent", "notice_later", "notice_refused"] {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            deaths.extend((1..=6).map(|pass| Death::At(write, pass, fate)));
        }
    }
    for sends in 0..6 {
        let during = |has_arrived| Death::During { sends, has_arrived };
        deaths.extend([during(false), during(true)]);
    }
    deaths
}

/// How the channel behaves before the death: it refuses twice, once with a doubt.
fn script() -> Vec<Does> {
    let doubt = Refused { may_have_arrived: true, ..refusal(Blame::Channel) };
    vec![Does::Take, Does::Refuse(refusal(Blame::Channel)), Does::Refuse(doubt)]
}

#[tokio::test]
async fn wherever_the_hub_is_killed_nothing_is_lost_and_only_what_was_on_its_way_is_repeated() {
    let full = Disk::new(&SCHEMA).unwrap();
    filled(&full).await;
    let mut repeats = 0;
    for death in deaths() {
        for power_too in [false, true] {
            let disk = full.another().unwrap();
            let mut script = script();
            let trap = match death {
                Death::At(write, pass, fate) => {
                    let passes = AtomicUsize::new(pass);
                    Arc::new(Trap { write, passes, fate: Some(fate) })
                }
                Death::During { sends, has_arrived } => {
                    script.resize(script.len().max(sends), Does::Take);
                    script.insert(sends, Does::Die { has_arrived });
                    Trap::none()
                }
            };
            let fake = Fake::new(script);
            run(&book(&disk, trap), &fake).await;
            // The handle of the dead process answers nothing any more.
            lock(&fake.script).clear();
            if power_too {
                disk.lose_power().unwrap();
            }
            let book = book(&disk, Trap::none());
            run(&book, &fake).await;
            repeats += check(&death, &book, &fake).await;
        }
    }
    assert!(repeats > 0, "no death led to a repetition, so the test has not looked");
}

/// Asserts that everything was told, that at most one message was told twice, and that it was marked. Returns how
/// many were.
async fn check(death: &Death, book: &Book, fake: &Fake) -> usize {
    let states = states(book).await;
    let is_told = |state: &State| matches!(state, State::Sent | State::Folded);
    assert!(states.iter().all(|(_, state)| is_told(state)), "{death:?}: {states:?}");
    let arrived = fake.arrived();
    for (title, _) in &states {
        let is_here =
            |it: &&Telling| it.notice.title == *title || folded(it).contains(&title.as_str());
        assert!(arrived.iter().any(|it| is_here(&it)), "{death:?}: {title} is lost");
    }
    let (mut seen, mut repeats) = (Vec::new(), 0);
    for telling in &arrived {
        repeats += usize::from(seen.contains(&&telling.notice.title));
        let within = telling.earlier.iter().map(|it| (&it.notice.title, it.may_be_repeat));
        for (title, is_marked) in within.chain([(&telling.notice.title, telling.may_be_repeat)]) {
            assert!(is_marked || !seen.contains(&title), "{death:?}: {title} is not marked");
            seen.push(title);
        }
    }
    assert!(repeats <= 1, "{death:?}: {:?}", titles(&arrived));
    repeats
}
