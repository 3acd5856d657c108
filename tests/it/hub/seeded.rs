//! A made-up fleet of 10,000 nodes, a database with a past, and a server that shows both. What a test wants to
//! happen, it asks for under `/test/`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lamda_node::chain::extension::Reputation;
use lamda_node::clock::{Clock as _, SystemClock, Timestamp};
use lamda_node::fleet::clocks::{Patience, Standing};
use lamda_node::hub::api::pages::{Now, Pages, Project, Show, Site};
use lamda_node::hub::api::stream::Live;
use lamda_node::hub::fleet::{Fleet, Node, Scored};
use lamda_node::hub::logs::Lines;
use lamda_node::hub::store::Store;
use lamda_node::hub::store::view::{EventRow, Eyes};
use lamda_node::reputation::standing::Standing as RecordOnChain;
use lamda_node::sql::Connection;
use lamda_node::web::extract::Query;
use lamda_node::web::routing::{get, post};
use lamda_node::web::{Json, Router};
use serde_json::{Value, json};

pub(crate) const NODES: usize = 10_000;

/// What somebody calls a node who wishes us ill.
pub(crate) const HOSTILE: &str = "<img src=x onerror=alert(1)>/../'\"&%2f?#é\u{202e}";

const MINUTE: u64 = 60_000;
const SITES: [&str; 8] = ["ams", "fra", "gru", "hel", "iad", "nrt", "pdx", "sin"];
const REGIONS: [&str; 8] = ["eu", "eu", "sa", "eu", "us", "ap", "us", "ap"];
const USES: [&str; 5] = ["training", "render", "hosted", "own", "lab"];
const MODELS: [(&str, u64, usize); 4] = [
    ("NVIDIA H100 80GB HBM3", 81_559, 8),
    ("NVIDIA L40S", 46_068, 4),
    ("NVIDIA GeForce RTX 4090", 24_564, 2),
    ("NVIDIA GeForce RTX 3090", 24_576, 1),
];

fn now() -> u64 {
    SystemClock.now().unix_ms()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

pub(crate) fn name(i: usize) -> String {
    let (site, rack) = (SITES[i / 1_250 % 8], ["a", "b", "c", "d", "e"][i % 1_250 / 250]);
    match i {
        9_120 => HOSTILE.to_owned(),
        _ => format!("{site}-{rack}-{:03}", i % 250 + 1),
    }
}

pub(crate) fn address(i: usize) -> String {
    format!("0x{i:040x}")
}

fn node(i: usize, now: u64) -> Node {
    let ago = |ms: u64| Some(at(now - ms));
    let mut node = Node::new(name(i), at(now - 90 * 86_400_000 - i as u64 * 1_000));
    let (model, vram_mib, count) = MODELS[i / 250 % 4];
    node.ip = format!("198.51.{}.{}", i / 250, i % 250 + 1);
    node.meta = format!("rack {} of {}", i % 1_250 / 250 + 1, SITES[i / 1_250 % 8]);
    node.tags = vec![REGIONS[i / 1_250 % 8].to_owned(), USES[i % 5].to_owned()];
    node.standing_since = at(now - 86_400_000 - i as u64 * 10_000);
    "its beats come in time".clone_into(&mut node.why);
    node.heard.own = ago(i as u64 * 37 % 10_000);
    if i % 4 == 2 {
        node.scored = Some(scored(i, now));
    }
    // Every fourth one is an agent of the original monitor, of which less is known.
    if !i.is_multiple_of(4) {
        let card = json!({"model": model, "vram_mib": vram_mib, "health": "ok"});
        let said = json!({
            "pools": ["gpu"], "gpus": vec![card; count], "slots": 2, "free_slots": i % 3, "milli_cpus": 32_000,
            "memory_mib": 131_072, "disk_mib": 2_000_000, "networks": ["none", "internet"],
            "sandbox": "standard", "ready": true, "version": "0.1.0",
        });
        node.address = address(i).parse().ok();
        node.heard.is_ours = true;
        (node.heard.nats, node.nats_seq) =
            (ago(i as u64 * 53 % 5_000), Some(48_000_000 + i as u64));
        (node.heard.chain, node.chain_block) = (ago(i as u64 * 71 % 300_000), Some(41_203_991));
        node.presence = Some(Arc::new(said));
    }
    trouble(i, now, &mut node);
    node
}

/// What the contract said of a node.
fn scored(i: usize, now: u64) -> Scored {
    let standing = RecordOnChain {
        since_s: now / 1_000 - 90 * 86_400,
        last_seen_s: now / 1_000 - 60,
        on_time: 8_635,
        missed: 5,
        streak: 167,
        completed_claimed: 2_765,
        failed_claimed: 25,
        confirmed: 2_683,
    };
    let score = 9_000 + u16::try_from(i % 1_000).expect("small");
    let reputation = Arc::new(Reputation { standing, score });
    Scored { reputation, asked: at(now - 30_000) }
}

fn trouble(i: usize, now: u64, node: &mut Node) {
    let (standing, minutes, why) = match i {
        4_260..4_266 => (Standing::Down, 47, "its last beat is 47 min old"),
        2_011 => (Standing::Down, 540, "its last beat is 9 h old"),
        7_777 => (Standing::Down, 3, "it says so itself"),
        610 | 1_901 | 5_021 | 6_402 | 9_120 => (
            Standing::Zombie,
            41,
            "its heartbeats reach the chain, but its last beat is 41 min old",
        ),
        3_001..3_004 | 8_450 => {
            (Standing::NotWatched, 4, "the hub has not listened for long enough")
        }
        5_589 | 5_701 => (Standing::Clash, 18, "two programs use its key"),
        _ => return,
    };
    let since = at(now - minutes * MINUTE);
    (node.standing, node.standing_since, node.why) = (standing, since, why.to_owned());
    if standing != Standing::Clash {
        node.heard.own = Some(since);
        node.heard.nats = node.heard.nats.map(|_| since);
    }
    if standing == Standing::Down {
        node.heard.chain = node.heard.chain.map(|_| since);
    }
}

/// Writes a past: what the other parts of the hub will have written.
fn fill(path: &Path, now: u64) {
    let mut db = Connection::open(path).expect("the hub has made it");
    let all = db.transaction().expect("it can be written");
    let ms = |ms: u64| i64::try_from(ms).expect("a time");
    let put = |sql: &str, with: &[&dyn lamda_node::sql::ToSql]| {
        all.execute(sql, with).expect("the row fits");
    };
    put("INSERT INTO watches VALUES (?, ?)", &[&ms(now - 200 * MINUTE), &ms(now - 90 * MINUTE)]);
    put("INSERT INTO watches VALUES (?, ?)", &[&ms(now - 80 * MINUTE), &ms(now - 1_000)]);
    for i in [610, 4_260, 9_120, 101] {
        for (ago, standing, why) in
            [(900, "up", "its beats come in time"), (41, "zombie", "<b>it</b>")]
        {
            let at = ms(now - ago * MINUTE);
            put("INSERT INTO standings VALUES (?, ?, ?, ?)", &[&name(i), &at, &standing, &why]);
        }
        for slot in (now / 300_000 - 50..now / 300_000 - 9).filter(|slot| slot % 13 != 0) {
            put("INSERT INTO slots VALUES (?, ?)", &[&name(i), &ms(slot)]);
        }
    }
    for id in 1..=450_u64 {
        let i = [610, 101, 9_121, 4_261][usize::try_from(id % 4).expect("small")];
        let level =
            ["info", "info", "debug", "warning", "error"][usize::try_from(id % 5).expect("small")];
        let body = event(i, id, level, now - (450 - id) * 1_000);
        let sql = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)";
        let (at, job) = (ms(now - (450 - id) * 1_000), format!("job-{}", id % 7));
        put(sql, &[&ms(id), &ms(9_000 + id), &at, &address(i), &job, &level, &body.to_string()]);
    }
    jobs(&put, now);
    super::watched::seen(&put, &name(610), now);
    work(&put, now);
    alerts(&put, now);
    all.commit().expect("it is written");
}

fn event(i: usize, id: u64, level: &str, at_ms: u64) -> Value {
    json!({
        "timestamp": at(at_ms), "component": "job", "event_type": "running", "level": level,
        "message": format!("step {id} of <script>alert(2)</script>"), "details": {}, "node": address(i),
    })
}

type Put<'a> = dyn Fn(&str, &[&dyn lamda_node::sql::ToSql]) + 'a;

fn jobs(put: &Put<'_>, now: u64) {
    let told = |stage: &str, seq: u64, ago: u64, more: Value| {
        let mut status =
            json!({"seq": seq, "attempt": 1, "stage": stage, "timestamp": at(now - ago)});
        status
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        json!({"seq": 7_000 + seq, "at": at(now - ago), "status": status})
    };
    let begun = [
        told("accepted", 1, 900_000, json!({})),
        told("pulling", 2, 890_000, json!({"pull": {"bytes": 5, "layers": 4, "layers_done": 2}})),
        told("fetching", 3, 700_000, json!({})),
        told("running", 4, 650_000, json!({})),
    ];
    let failed = told(
        "failed",
        5,
        60_000,
        json!({"reason_code": "out_of_memory", "error": "the container went over its <32 GiB>",
            "exit_code": 137, "duration_ms": {"pull": 190_000, "run": 590_000},
            "receipt": {"message": {"job_id": "job-1", "exit_code": 137}, "signature": "0x12"},
            "usage": {"message": {"cpuUs": 1_200_000_000_u64, "memoryPeakBytes": 5 << 20, "gpuMs": 0, "known": 3}}}),
    );
    for (i, job, statuses, status, is_over) in [
        (610, "job-1", [&begun[..], &[failed]].concat(), "failed", true),
        (610, "job-2", begun.to_vec(), "processing", false),
        (9_121, "job-1", begun.to_vec(), "processing", false),
    ] {
        let (first, last) = (
            i64::try_from(now - 900_000).expect("a time"),
            i64::try_from(now - 60_000).expect("a time"),
        );
        let sql = "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)";
        put(
            sql,
            &[&address(i), &job, &first, &last, &status, &is_over, &json!(statuses).to_string()],
        );
    }
}

/// What the running job of node 610 used: 45 minutes, of which five were not seen; and what some nodes came to.
fn work(put: &Put<'_>, now: u64) {
    let ms = |ms: u64| i64::try_from(ms).expect("a time");
    let begun = now - 45 * MINUTE;
    let sql = "INSERT INTO usage_jobs VALUES (?, 'job-2', 1, 45, 1, 240, 5512, ?, NULL)";
    put(sql, &[&address(610), &ms(now - 20_000)]);
    let around = |value: u64| json!([value / 4 * 3, value, value / 4 * 5]);
    let minute = |k: u64| {
        let card = |n: u64| {
            let power = if n == 0 { around(300_000 + k * 3_000) } else { json!("denied") };
            let uuid = format!("GPU-5ba4538b-234f-4d18-8a1c-2f4b1d1a7e1{n}");
            json!([uuid, [around(60 + (k * 7 + n * 11) % 30), around(25 << 30), power]])
        };
        let cpu_us = 60_000_000 + (k % 9) * 20_000_000;
        json!({"samples": 6, "job": [cpu_us, around((4 << 30) + k * (50 << 20)), 0, 0, "not_supported", 0],
            "cards": [card(0), card(1)]})
    };
    for k in (0..45_u64).filter(|k| !(20..25).contains(k)) {
        let sql = "INSERT INTO usage_points VALUES (?, 'job-2', 60, ?, ?, 60000, ?)";
        put(sql, &[&address(610), &ms(k), &ms(begun + k * MINUTE), &minute(k).to_string()]);
    }
    for k in 0..4_u64 {
        let sql = "INSERT INTO usage_points VALUES (?, 'job-2', 600, ?, ?, 600000, ?)";
        let from = begun + k * 10 * MINUTE;
        let body = minute(k).to_string().replacen("60000000", "1200000000", 1);
        put(sql, &[&address(610), &ms(k), &ms(from), &body]);
    }
    for day in 0..14_u64 {
        for (i, cards) in [(610, 4), (101, 8), (9_121, 1)] {
            let run = (3 + day % 5) * 3_600_000;
            let sql = "INSERT INTO earned VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?)";
            let unknown = if day % 2 == 0 { 0 } else { run };
            let row: [u64; 7] =
                [9 + day, day % 3, 9 + day, run, run * cards, run * cards / 2, unknown];
            let row = row.map(ms);
            let [done, failed, receipts, run, held, busy, unknown] = &row;
            let today = ms(now / 86_400_000 - day);
            put(sql, &[&address(i), &today, done, failed, receipts, run, held, busy, unknown]);
        }
    }
}

fn alerts(put: &Put<'_>, now: u64) {
    let ms = |ago: u64| i64::try_from(now - ago * MINUTE).expect("a time");
    let heads = [
        (
            1,
            "clash",
            18,
            json!({"severity": "critical", "title": "One key on 2 machines", "remedy": "Stop one of the two."}),
        ),
        (
            2,
            "down",
            47,
            json!({"severity": "critical", "title": "6 of 10,000 nodes are down", "remedy": "Look at the uplink first; then `lamda-node doctor`."}),
        ),
        (3, "zombie", 41, json!({"title": HOSTILE, "muted": "quiet hours"})),
    ];
    for (id, rule, ago, head) in heads {
        put(
            "INSERT INTO incidents VALUES (?, ?, ?, NULL, ?)",
            &[&id, &rule, &ms(ago), &head.to_string()],
        );
    }
    put(
        "INSERT INTO incidents VALUES (4, 'down', ?, ?, '{\"title\":\"sin-a-201 is down\"}')",
        &[&ms(102), &ms(96)],
    );
    let members = [(1, 5_589), (1, 5_701), (3, 9_120), (3, 610)].into_iter();
    for (id, i) in members.chain((4_260..4_266).map(|i| (2, i))) {
        let body = json!({"why": "its last beat is 47 min old"}).to_string();
        put("INSERT INTO members VALUES (?, ?, ?)", &[&id, &name(i), &body]);
    }
    for (incident, channel, state, tries, ago, answer) in [
        (1, "telegram", "sent", 1, 17, "200"),
        (1, "ntfy", "sent", 1, 17, "200"),
        (2, "telegram", "sent", 2, 44, "200 after 429"),
        (2, "mail", "sent", 1, 44, "250 2.0.0 queued"),
        (2, "webhook", "queued", 9, 1, "500 <b>no</b>"),
        (3, "telegram", "sent", 1, 36, "200"),
    ] {
        let sql = "INSERT INTO notices (incident, channel, decided_ms, body, state, tries, next_ms, answered_ms, answer)
            VALUES (?, ?, ?, '{\"kind\":\"opened\"}', ?, ?, ?, ?, ?)";
        let next = ms(0) + 32_000;
        put(sql, &[&incident, &channel, &ms(ago + 1), &state, &tries, &next, &ms(ago), &answer]);
    }
    let silence =
        json!({"id": 1, "nodes": "gru-*", "by": "ann", "why": "moving the rack"}).to_string();
    put("INSERT INTO silences VALUES (1, ?, ?)", &[&silence, &(ms(0) + 19 * 3_600_000)]);
}

/// The server's parts.
pub(crate) struct Seeded {
    pub(crate) app: Router,
    pub(crate) fleet: Fleet,
    pub(crate) live: Live,
    pub(crate) project: Project,
    pub(crate) now: Now,
    /// The database's file.
    pub(crate) path: std::path::PathBuf,
    _store: Store,
    _dir: tempfile::TempDir,
}

impl Seeded {
    pub(crate) fn new(nodes: usize) -> Self {
        let (dir, begun) = (tempfile::tempdir().expect("a folder"), now());
        let path = dir.path().join("hub.db");
        let store = Store::open(&path).expect("the store opens");
        if nodes > 0 {
            fill(&path, begun);
        }
        let fleet = Fleet::new((0..nodes).map(|i| node(i, begun)));
        let (live, clock) = (Live::default(), Now::new(|| SystemClock.now()));
        let patience = Patience {
            own: Duration::from_mins(3),
            nats: Duration::from_mins(1),
            chain: Duration::from_mins(15),
            clash: Duration::from_secs(90),
        };
        let (title, project) = ("Fleet of <Ann & Bo>".to_owned(), Project::default());
        let site =
            Site { title, show: Show::Full, patience, shows_logs: true, project: project.clone() };
        let eyes = Eyes::open(&path).expect("it is there");
        let pages = Pages::new(fleet.clone(), eyes, site, live.clone(), clock.clone());
        let me = json!({"name": "ann", "is_admin": true, "can_log_in": true});
        let me = get(async || Json(me));
        let app = pages.routes().route("/api/me", me).merge(controls(&fleet, &live));
        Self { app, fleet, live, project, now: clock, path, _store: store, _dir: dir }
    }

    /// Lets nodes beat, some hundred a second, until this is dropped.
    pub(crate) async fn beat(&self) {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for i in (0..NODES).cycle().step_by(7) {
            if i % 50 == 0 {
                ticks.tick().await;
            }
            if let Some(node) = self.fleet.get(&name(i)).filter(|it| it.standing == Standing::Up) {
                let now = self.now.get();
                self.fleet.update(&node.name, now, |node| node.heard.own = Some(now));
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Asked {
    #[serde(default)]
    name: String,
    #[serde(default)]
    text: String,
}

/// What the test's browser can have happen.
fn controls(fleet: &Fleet, live: &Live) -> Router {
    let about = {
        let fleet = fleet.clone();
        post(async move |Query(Asked { name, text })| {
            fleet.update(&name, at(now()), |node| node.meta = text);
        })
    };
    let down = {
        let fleet = fleet.clone();
        post(async move |Query(Asked { name, text })| {
            fleet.update(&name, at(now()), |node| {
                (node.standing, node.standing_since) = (Standing::Down, at(now()));
                node.why = text;
            });
        })
    };
    let tell = {
        let live = live.clone();
        post(async move |Query(Asked { name, text })| {
            let body = json!({"component": "job", "event_type": "failed", "level": "error", "message": text});
            live.event(EventRow {
                id: 100_000,
                seq: Some(1),
                at: now(),
                node: name,
                job: None,
                level: "error".to_owned(),
                body,
            });
        })
    };
    let end = {
        let live = live.clone();
        post(async move || live.end())
    };
    Router::new()
        .route("/test/about", about)
        .route("/test/down", down)
        .route("/test/tell", tell)
        .route("/test/end", end)
        .route("/test/log", log(live))
}

/// Has the job whose log is looked at write something: a message as nodes send them. Answers how many logs are looked at.
fn log(live: &Live) -> lamda_node::web::routing::MethodRouter {
    let (logs, heard) = (live.logs.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    post(async move |Query(Asked { text, .. })| {
        let mut heard = heard.lock().expect("nobody panics");
        for (whose, sender) in logs.unheard() {
            logs.set_heard(&whose, true);
            heard.push((whose, sender));
        }
        heard.retain(|(whose, _)| !logs.forget(whose));
        for (_, sender) in &*heard {
            let mut lines = Lines::default();
            lines.take(text.as_bytes());
            sender.send(lines.text()).ok();
        }
        heard.len().to_string()
    })
}
