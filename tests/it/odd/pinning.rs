//! The pinning service, and what a job leaves for it: a row has the service's answer, or the content of
//! `/output`, and the required result.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use lamda_node::agent::health::trials::{EVERY, Store};
use lamda_node::agent::jobs::board::Board;
use lamda_node::agent::jobs::terms::{OwnersSandbox, Terms};
use lamda_node::artifact::{Config, Pinata};
use lamda_node::clock::{Clock, SystemClock, Timestamp};
use lamda_node::container::ImagePolicy;
use lamda_node::node::admission::{Offer, Reach};
use lamda_node::secret::Secret;
use serde_json::{Value, json};

use crate::support::program::PROGRAM;
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::{Running, eventually, free_port};
use crate::support::world::{JWT, PATIENCE, World, shell};

/// A row: name, the service's answer to an upload, the reason that is reported at once, words of the
/// error, and whether other jobs go on.
type Refusal = (&'static str, Weather, &'static str, &'static str, bool);

const NO_SCOPES: &str = r#"{"error":{"reason":"NO_SCOPES_FOUND","details":"This key does not have the \"pin\" scope"}}"#;

const REFUSALS: &[Refusal] = &[
    (
        "no-scopes",
        Weather::Says(403, NO_SCOPES),
        "store_refused",
        "NO_SCOPES_FOUND: This key does not have the \"pin\" scope",
        false,
    ),
    ("key", Weather::Says(401, "no such\nkey"), "store_refused", "no such key", false),
    (
        "echoes-the-key",
        Weather::Says(403, "jwt-that-nobody-may-see is no key"),
        "store_refused",
        "[secret] is no key",
        false,
    ),
    ("plan", Weather::Says(402, "<h1>pay\u{7} first</h1>"), "store_refused", "pay first", false),
    ("small-too", Weather::Says(413, "full"), "store_refused", "full", false),
    (
        "large-only",
        Weather::SaysAbove(100_000, 413, r#"{"error":"File too large"}"#),
        "output_refused",
        "File too large",
        true,
    ),
    (
        "what-is-in-it",
        Weather::SaysAbove(100_000, 403, "blocked by a content rule"),
        "output_refused",
        "blocked by a content rule",
        true,
    ),
    (
        "plan-of-its-size",
        Weather::SaysAbove(100_000, 402, "a larger plan takes this"),
        "output_refused",
        "a larger plan takes this",
        true,
    ),
];

#[tokio::test]
async fn whatever_the_pinning_service_says_is_told_at_once_and_loses_nothing() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let url = proxy.url();
    let settings = [("PINATA_API_URL", &*url), ("UPLOAD_GIVE_UP_S", "1")];
    let agent = world.agent(&settings);
    for (name, weather, reason, words, others_go_on) in REFUSALS {
        proxy.set_pins(*weather);
        world.publish(name, &shell("head -c 200000 /dev/zero > /output/output"));
        let told = eventually(&format!("{name} is told"), PATIENCE, || {
            let told = world.statuses(name).pop()?;
            (told["reason_code"] == *reason).then_some(told)
        });
        assert_eq!((&told["stage"], &told["status"]), (&json!("uploading"), &json!("processing")));
        assert!(told["error"].as_str().is_some_and(|error| error.contains(words)), "{told}");
        if !others_go_on {
            // More tries than an upload gets for any other failure.
            let before = proxy.pins();
            eventually("the uploads go on", PATIENCE, || {
                (proxy.pins() > before + 22).then_some(())
            });
        }
        let other = format!("{name}-other");
        world.publish(&other, &shell("echo small > /output/output"));
        if *others_go_on {
            assert_eq!(
                world.outcome(&other).last().map(|it| it["status"].clone()),
                Some(json!("completed"))
            );
        }
        if *others_go_on {
            // Only this job's tries are used up, and its output is kept.
            let end = world.outcome(name).pop().unwrap_or(Value::Null);
            assert_eq!(end["reason_code"], "upload_failed", "{end}");
            proxy.set_pins(Weather::Clear);
            let retry = world.command(&["jobs", "retry", name]).output().expect("it runs");
            assert!(retry.status.success(), "{}", String::from_utf8_lossy(&retry.stderr));
            agent.wait_for(&format!("the output of job {name} is published after all"));
            continue;
        }
        let before = proxy.pins();
        eventually("the uploads go on", PATIENCE, || (proxy.pins() > before + 3).then_some(()));
        assert_eq!(world.statuses(&other), Vec::<Value>::new(), "{name}");
        proxy.set_pins(Weather::Clear);
        for id in [*name, &other] {
            let end = world.outcome(id).pop().unwrap_or(Value::Null);
            assert_eq!(end["status"], "completed", "{id}: {end}");
        }
    }
    assert!(!agent.log().contains(JWT), "the key is in the log");
    world.wait_until_clean().await;
}

/// A row: name, the service's answer before the node's start, and whether jobs wait until it changes.
const AT_THE_START: &[(&str, Weather, bool)] = &[
    ("no-right", Weather::Says(403, NO_SCOPES), true),
    ("used-up", Weather::Says(402, "pay first"), true),
    ("away", Weather::Status(503, None), false),
    ("busy", Weather::Status(429, Some(1)), false),
];

#[tokio::test]
async fn a_service_that_takes_no_upload_at_the_start_costs_no_job_and_one_that_is_away_stops_none()
{
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let url = proxy.url();
    for (name, weather, waits) in AT_THE_START {
        proxy.set_pins(*weather);
        let mut agent = world.agent(&[("PINATA_API_URL", &*url)]);
        if *waits {
            agent.wait_for("no job is taken: the store takes no upload: ");
        }
        world.publish(name, &shell("echo x > /output/output"));
        if *waits {
            agent.wait_for("no heartbeat: the store takes no upload: ");
            assert_eq!(world.statuses(name), Vec::<Value>::new(), "{name}");
            assert!(!agent.log().contains("heartbeat sent"), "{}", agent.log());
        } else {
            agent.wait_for(&format!("job {name}: exited"));
        }
        proxy.set_pins(Weather::Clear);
        let end = world.outcome(name).pop().unwrap_or(Value::Null);
        assert_eq!(end["status"], "completed", "{name}: {end}");
        assert_eq!(agent.log().contains("no job is taken"), *waits, "{}", agent.log());
        assert!(!agent.log().contains(JWT), "the key is in the log");
        agent.kill();
    }
}

/// The service's words when it refuses to unpin.
const NO_UNPIN: &str = "no unpin scope";

/// A clock on which waits of [`EVERY`] and more end at once, four times; the next never ends.
#[derive(Debug, Clone)]
struct Hours(Arc<AtomicUsize>);

impl Clock for Hours {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }

    async fn sleep(&self, span: Duration) {
        if span < EVERY || self.0.fetch_add(1, Relaxed) >= 4 {
            std::future::pending::<()>().await;
        }
    }
}

/// What a node without cards offers.
fn offer() -> Offer {
    let (milli_cpus, memory_mib, disk_mib) = (1000, 1000, 1000);
    Offer { gpus: Vec::new(), milli_cpus, memory_mib, disk_mib, network: Reach::Nothing, slots: 1 }
}

#[tokio::test]
async fn what_is_tried_each_hour_is_taken_back_or_is_one_pin_where_it_can_not_be() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let mut store = Command::new(PROGRAM);
    store.args(["store", "--listen", &format!("127.0.0.1:{port}"), "--dir"]).arg(folder.path());
    let _store = Running::start(store.stdout(Stdio::null()).stderr(Stdio::null()));
    eventually("the store listens", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
    let away = Weather::Status(503, None);
    for (weather, counts) in [
        (Weather::Clear, (5, 5)),
        // The same bytes each time: one pin is left.
        (Weather::Says(403, NO_UNPIN), (5, 5)),
        (Weather::Says(400, NO_UNPIN), (5, 5)),
        // Retried: the service may be back next time.
        (away, (5, 5)),
    ] {
        let proxy = StoreProxy::start(&format!("http://127.0.0.1:{port}"));
        proxy.set_unpins(weather);
        let config = Config {
            gateways: vec![proxy.url()],
            gateway_token: None,
            pinata_url: proxy.url(),
            pinata_jwt: Secret::new(JWT.to_owned()),
            pinata_rate_per_min: 60_000,
            connect_timeout: PATIENCE,
            idle_timeout: PATIENCE,
        };
        let board = Board::untried(Terms {
            offer: offer(),
            images: ImagePolicy::default(),
            sandbox: OwnersSandbox::default(),
        });
        let hours = Hours(Arc::default());
        let tries = Store::new(Pinata::new(&config).unwrap(), board.clone(), hours.clone());
        let tries = Arc::new(tries).run();
        let passed = async {
            while hours.0.load(Relaxed) < 5 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = tries => panic!("it ends"),
            passed = tokio::time::timeout(PATIENCE, passed) => passed.expect("five hours pass"),
        }
        assert_eq!((proxy.pins(), proxy.unpins()), counts, "{weather:?}");
        assert_eq!(board.unfit(), None, "{weather:?}");
    }
}

#[tokio::test]
async fn doctor_vouches_for_a_key_only_when_it_uploads() {
    let world = World::start().await;
    let proxy = StoreProxy::start(&world.store());
    let check = || {
        let doctor =
            world.command(&["doctor", "--json"]).env("PINATA_API_URL", proxy.url()).output();
        let report: Value = serde_json::from_slice(&doctor.expect("it runs").stdout).expect("JSON");
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        checks.into_iter().find(|check| check["name"] == "pinning service").expect("it is checked")
    };
    let fine = check();
    assert_eq!(fine["status"], "ok", "{fine}");
    assert_eq!((proxy.pins(), proxy.unpins()), (1, 1), "a few bytes are uploaded and taken back");
    proxy.set_unpins(Weather::Says(403, NO_UNPIN));
    let told = check();
    assert_eq!(told["status"], "warn", "{told}");
    assert!(told.to_string().contains("no unpin scope"), "{told}");
    assert!(told["remedy"].as_str().is_some_and(|it| it.contains("let the key")), "{told}");
    proxy.set_unpins(Weather::Status(404, None));
    assert_eq!(check()["status"], "ok", "what is not pinned need not be unpinned");
    proxy.set_unpins(Weather::Clear);
    for (name, weather, _, words, others_go_on) in REFUSALS {
        proxy.set_pins(*weather);
        let told = check();
        assert_eq!(told["status"] == "ok", *others_go_on, "{name}: {told}");
        assert!(
            *others_go_on
                || told
                    .to_string()
                    .contains(&json!(words).to_string().trim_matches('"').to_owned()),
            "{name}: {told}"
        );
        assert!(!told.to_string().contains(JWT), "{told}");
    }
}

/// A row: the command, the output path, the expected content of the output, and a part of the expected
/// note.
type Left = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const LEFT: &[Left] = &[
    (
        "latest",
        "echo w > /output/model.bin; ln -s model.bin /output/latest",
        "",
        &[("model.bin", "w\n"), ("latest", "w\n")],
        "",
    ),
    (
        "absolute",
        "mkdir /output/v1; echo w > /output/v1/m; ln -s /output/v1 /output/best",
        "",
        &[("v1/m", "w\n"), ("best/m", "w\n")],
        "",
    ),
    (
        "dangling",
        "echo w > /output/m; ln -s gone /output/latest; ln -s /etc/passwd /output/users",
        "",
        &[("m", "w\n")],
        "latest: a link to nothing",
    ),
    (
        "pipe",
        "echo w > /output/m; mkdir -p /output/ray; mkfifo /output/ray/p",
        "",
        &[("m", "w\n")],
        "ray/p: a named pipe",
    ),
    (
        "names",
        "echo w > \"/output/say \\\"hi\\\".txt\"; echo x > \"/output/$(printf 'b\\007l')\"; \
         echo y > '/output/a\\b;c=d%ü'; echo z > \"/output/$(printf 'new\\nline')\"",
        "",
        &[("say%20%22hi%22.txt", "w\n"), ("a%5Cb;c=d%25%C3%BC", "y\n")],
        "a name with a control character",
    ),
    (
        "named-link",
        "mkdir /output/v2; echo w > /output/v2/m; ln -s v2 /output/latest",
        "/output/latest",
        &[("m", "w\n")],
        "",
    ),
    (
        "named-link-elsewhere",
        "mkdir -p /data/v2; echo w > /data/v2/m; ln -s m /data/v2/l; ln -s v2 /data/latest",
        "/data/latest",
        &[("m", "w\n"), ("l", "w\n")],
        "",
    ),
];

#[tokio::test]
async fn what_lies_in_an_output_is_carried_and_the_rest_is_left_out_by_name() {
    let world = World::start().await;
    let _agent = world.agent(&[("JOB_SLOTS", "4")]);
    for (name, script, path, ..) in LEFT {
        let mut job = shell(script);
        if !path.is_empty() {
            job["output_path"] = json!(path);
        }
        world.publish(name, &job);
    }
    for (name, _, _, files, note) in LEFT {
        let end = world.outcome(name).pop().unwrap_or(Value::Null);
        assert_eq!(end["status"], "completed", "{end}");
        let cid = end["output_cid"].as_str().expect("a CID");
        for (file, content) in *files {
            let found = world.content(&format!("{cid}/{file}")).await;
            assert_eq!(String::from_utf8_lossy(&found), *content, "{name}: {file}");
        }
        let notes = end["output_notes"].to_string();
        assert_eq!(end["output_notes"].is_null(), note.is_empty(), "{end}");
        assert!(notes.contains(note), "{name}: {notes}");
    }
    world.wait_until_clean().await;
}
