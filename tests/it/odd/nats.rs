//! NATS servers as they are found in the field: replaced and expired credentials, too little storage,
//! foreign consumers.

#![expect(clippy::unwrap_used, reason = "clippy exempts only functions marked as tests")]

use std::path::Path;
use std::time::Duration;

use lamda_node::bus::{Bus, Config, Credentials, Error, Kept, Target};
use lamda_node::clock::{Clock as _, SystemClock};
use nkeys::KeyPair;
use tempfile::TempDir;

use crate::support::anvil::Anvil;
use crate::support::bus::config;
use crate::support::nats::Nats;
use crate::support::nats_auth::{certificates, creds, operated};
use crate::support::program::{ACCOUNT, Program};
use crate::support::world::{World, shell};

/// The limit for a client to reconnect.
const BACK: Duration = Duration::from_secs(20);

/// A way to authenticate: the file's content and the server's settings, each before and after the
/// replacement, and the credentials.
struct Way {
    name: &'static str,
    held: [String; 2],
    server: [String; 2],
    by: fn(&Path) -> Credentials,
}

fn ways() -> Vec<Way> {
    let users = [KeyPair::new_user(), KeyPair::new_user()];
    let accounts = [KeyPair::new_account(), KeyPair::new_account()];
    vec![
        Way {
            name: "a token",
            held: ["first\n", "second\n"].map(str::to_owned),
            server: ["first", "second"].map(|token| format!("authorization {{ token: {token} }}")),
            by: |path| Credentials::Token(Kept::InFile(path.to_owned())),
        },
        Way {
            name: "a password",
            held: ["first\n", "second\n"].map(str::to_owned),
            server: ["first", "second"]
                .map(|word| format!("authorization {{ user: node, password: {word} }}")),
            by: |path| Credentials::UserPassword("node".to_owned(), Kept::InFile(path.to_owned())),
        },
        Way {
            name: "an nkey",
            held: users.each_ref().map(|user| user.seed().unwrap()),
            server: users.each_ref().map(|user| {
                format!("authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key())
            }),
            by: |path| Credentials::Nkey(Kept::InFile(path.to_owned())),
        },
        Way {
            name: "a .creds file",
            held: accounts.each_ref().map(|account| creds(account, None)),
            server: accounts.each_ref().map(operated),
            by: |path| Credentials::File(path.to_owned()),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replaced_on_disk_is_used_at_the_next_connection() {
    for Way { name, held, server, by } in ways() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &held[0]).unwrap();
        let mut nats = Nats::with(&server[0]);
        let bus = Bus::connect(&config(nats.url(), by(file.path()))).await.unwrap();
        let before = bus.connection_number();
        std::fs::write(file.path(), &held[1]).unwrap();
        nats.restart_with(&server[1]);
        let back = tokio::time::timeout(BACK, bus.connected_again(before)).await;
        assert!(matches!(back, Ok(Ok(()))), "{name}: it takes no jobs until it is restarted");
    }
}

fn tls(dir: &TempDir, more: &str) -> String {
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (file("server.pem"), file("server.key"));
    format!("tls {{ cert_file: {cert:?}, key_file: {key:?}{more} }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_replaced_on_disk_is_believed_at_the_next_connection() {
    // The file as it is, and with the byte order mark of an editor on Windows.
    for mark in ["", "\u{feff}"] {
        let servers = [certificates(), certificates()];
        let settings = servers.each_ref().map(|(dir, _)| tls(dir, ""));
        let authorities = servers
            .each_ref()
            .map(|(_, authority)| format!("{mark}{}", std::fs::read_to_string(authority).unwrap()));
        let authority = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(authority.path(), &authorities[0]).unwrap();
        let mut nats = Nats::with(&settings[0]);
        let url = format!("tls://127.0.0.1:{}", nats.port());
        let tls_ca = Some(authority.path().to_owned());
        let known = Config { tls_ca, ..config(url, Credentials::None) };
        let bus = Bus::connect(&known).await.unwrap();
        let before = bus.connection_number();
        std::fs::write(authority.path(), &authorities[1]).unwrap();
        let strange = Bus::connect(&known).await.map(drop);
        assert!(matches!(strange, Err(Error::Untrusted { .. })), "{mark:?}: {strange:?}");
        nats.restart_with(&settings[1]);
        let back = tokio::time::timeout(BACK, bus.connected_again(before)).await;
        assert!(matches!(back, Ok(Ok(()))), "{mark:?}: it takes no jobs until it is restarted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tls_first_is_named_and_reached_with_the_setting() {
    let (dir, authority) = certificates();
    let mut nats = Nats::with(&tls(&dir, ", handshake_first: true"));
    let url = format!("tls://127.0.0.1:{}", nats.port());
    let late = Config { tls_ca: Some(authority), ..config(url, Credentials::None) };
    let refused = Bus::connect(&late).await.map(drop).unwrap_err();
    assert!(matches!(refused, Error::NoGreeting { .. }), "{refused}");
    assert!(refused.to_string().contains("NATS_TLS_HANDSHAKE=first"), "{refused}");
    let bus = Bus::connect(&Config { tls_first: true, ..late }).await.unwrap();
    bus.prepare().await.unwrap();
    let before = bus.connection_number();
    nats.restart();
    let back = tokio::time::timeout(BACK, bus.connected_again(before)).await;
    assert!(matches!(back, Ok(Ok(()))), "it takes no jobs until it is restarted");
}

fn count(log: &str, text: &str) -> usize {
    log.to_ascii_lowercase().matches(&text.to_ascii_lowercase()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_running_node_from_its_server_is_told_once_and_by_name() {
    let world = World::start().await;
    let account = KeyPair::new_account();
    let day = 24 * 3600;
    let mut nats = Nats::with(&operated(&account));
    let file = world.dir.path().join("node.creds");
    let put = |exp: Option<u64>| {
        std::fs::write(&file, creds(&account, exp)).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&file, private).unwrap();
    };
    put(Some(in_seconds(3 * day + 60)));
    let (url, path) = (nats.url(), file.display().to_string());
    // A list of directives also keeps out the client library's lines.
    let level = ("LOG_LEVEL", "info,lamda_node::bus=debug");
    let agent = world.agent(&[("NATS_URL", &url), ("NATS_CREDS", &path), level]);
    agent.wait_for("node.creds expire at 20");
    put(Some(in_seconds(-60)));
    nats.restart();
    let told = "refuses our credentials: the credentials of";
    agent.wait_for(told);
    put(None);
    agent.wait_for("connected to NATS again");
    let log = agent.log();
    assert_eq!((count(&log, told), count(&log, "authorization violation")), (1, 0), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_believed_no_more_is_told_once_by_a_running_node() {
    let world = World::start().await;
    let servers = [certificates(), certificates()];
    let authority = world.dir.path().join("ca.pem");
    std::fs::copy(&servers[0].1, &authority).unwrap();
    let mut nats = Nats::with(&tls(&servers[0].0, ""));
    let (url, path) = (format!("tls://127.0.0.1:{}", nats.port()), authority.display().to_string());
    let agent = world.agent(&[("NATS_URL", &url), ("NATS_TLS_CA", &path)]);
    nats.restart_with(&tls(&servers[1].0, ""));
    let told = "NATS stays away: the NATS server at";
    agent.wait_for(told);
    let why = format!("of an authority in {path}: IO error: invalid peer certificate");
    assert_eq!(count(&agent.log(), &why), 1, "{}", agent.log());
    std::fs::copy(&servers[1].1, &authority).unwrap();
    agent.wait_for("connected to NATS again");
    let log = agent.log();
    assert_eq!(count(&log, told), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_its_administrator_holds_back_is_told_and_the_node_goes_on() {
    let world = World::start().await;
    let bus = Bus::connect(&config(world.nats.url(), Credentials::None)).await.unwrap();
    bus.prepare_pools().await.unwrap();
    for source in [Target::Agent(World::agent_address()), Target::Pool("night".parse().unwrap())] {
        bus.intake(&source).await.unwrap().close().await;
    }
    let own = format!("agent-{}", World::agent_address().lower_hex());
    let pause = "await nc.request('$JS.API.CONSUMER.PAUSE.JOBS.' + args[0], \
                 json.dumps({'pause_until': args[1]}).encode())";
    world.nats.python(pause, &[&own, "2100-01-02T03:04:05Z"]);
    let lower = "c = (await js.consumer_info('JOBS', args[0])).config\n\
                 c.max_ack_pending = 1\n\
                 await js.add_consumer('JOBS', c)";
    world.nats.python(lower, &["pool-night"]);
    let paused = format!("the consumer {own} of JOBS is paused until 2100-01-02T03:04:05.000Z");
    let few = "the consumer pool-night of JOBS has 1 jobs in hand at the most";
    let agent = world.agent(&[("AGENT_POOLS", "night")]);
    agent.wait_for(&paused);
    agent.wait_for(few);
    let doctor = world.command(&["doctor"]).env("AGENT_POOLS", "night").output().unwrap();
    let told = String::from_utf8(doctor.stdout).unwrap();
    let line = told.lines().find(|line| line.contains("  nats: ")).unwrap();
    assert!(line.starts_with("warn") && line.contains(&paused) && line.contains(few), "{line}");
    assert!(told.contains(&format!("nats consumer resume JOBS {own}")), "{told}");
    assert!(told.contains("nats consumer edit JOBS pool-night --max-pending=10000"), "{told}");
    for id in ["first", "second"] {
        let job = crate::support::world::job(id, &shell("echo x > /output/output"));
        world.publish_to("jobs.pool.night", &job.to_string());
    }
    for id in ["first", "second"] {
        assert_eq!(world.outcome(id).last().unwrap()["status"], "completed", "{id}");
    }
    world.publish("waits", &shell("echo x > /output/output"));
    assert_eq!(world.statuses("waits").len(), 0, "it is paused");
    world.nats.python(pause, &[&own, "2000-01-01T00:00:00Z"]);
    assert_eq!(world.outcome("waits").last().unwrap()["status"], "completed");
    agent.wait_for(&format!("no longer so: {paused}"));
    let log = agent.log();
    assert_eq!((count(&log, &paused), count(&log, few)), (2, 1), "{log}");
}

fn in_seconds(seconds: i64) -> u64 {
    let now = SystemClock.now().unix_ms() / 1000;
    now.checked_add_signed(seconds).unwrap()
}

/// The program with a node's settings, of which only the NATS server at this URL exists.
fn program(url: &str) -> Program {
    Program::with(&[
        ("NATS_URL", url),
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(1)),
        ("AGENT_POOLS", "night"),
    ])
}

/// `doctor`'s check of NATS.
fn doctor(program: &Program) -> String {
    let told = program.run(&["doctor"]).stdout();
    let line = told.lines().find(|line| line.contains("  nats: "));
    line.unwrap_or_else(|| panic!("{told}")).to_owned()
}

#[test]
fn credentials_that_expire_are_told_with_their_file_and_date() {
    let account = KeyPair::new_account();
    let nats = Nats::with(&operated(&account));
    let day = 24 * 3600;
    for (name, exp, begins, says) in [
        ("long ahead", in_seconds(90 * day), "ok", "the credentials are good until 20"),
        ("near", in_seconds(3 * day + 60), "warn", "node.creds expire at 20"),
        ("over", in_seconds(-60), "fail", "refuses our credentials: the credentials of "),
        ("over", in_seconds(-60), "fail", "node.creds expired at 20"),
    ] {
        let mut program = program(&nats.url());
        let file = program.write("node.creds", &creds(&account, Some(exp)));
        program.set("NATS_CREDS", &file);
        let told = doctor(&program);
        assert!(told.starts_with(begins) && told.contains(says), "{name}: {told}");
    }
}

#[test]
fn a_server_without_room_for_all_streams_is_told_how_much_it_needs_and_takes_no_job() {
    for (name, room, short) in [
        ("room for nothing", "100M", "STATUS"),
        ("room for one", "1500M", "KV_JOB_CLAIMS"),
        ("room for claims alone", "3500M", "JOBS"),
    ] {
        let settings = format!("jetstream {{ store_dir: $STORE, max_file_store: {room} }}");
        let nats = Nats::with_own_jetstream(&settings);
        let told = doctor(&program(&nats.url()));
        assert!(told.starts_with("fail"), "{name}: {told}");
        let says = format!("the stream {short} can't be used: it can't be made");
        assert!(told.contains(&says), "{name}: {told}");
        assert!(told.contains("all streams of a node reserve 7168 MiB"), "{name}: {told}");
        let jobs =
            nats.python("print('JOBS' in [s.config.name for s in await js.streams_info()])", &[]);
        assert_eq!(jobs, "False", "{name}: a job would be taken that nobody runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_consumer_of_the_queue_is_named() {
    for (name, filter) in [("everything", ""), ("monitor", "jobs.>"), ("ours", "jobs.dispatch.*")] {
        let nats = Nats::start();
        let bus = Bus::connect(&config(nats.url(), Credentials::None)).await.unwrap();
        bus.prepare().await.unwrap();
        let made = "f = args[1] or None\n\
                    await js.add_consumer('JOBS', ConsumerConfig(durable_name=args[0], \
                    filter_subject=f, ack_policy=AckPolicy.EXPLICIT))";
        nats.python(made, &[name, filter]);
        let source = Target::Agent(ACCOUNT.parse().unwrap());
        let refused = bus.intake(&source).await.map(drop).unwrap_err();
        let told = refused.to_string();
        assert!(matches!(refused, Error::Stream { .. }), "{told}");
        assert!(told.contains(&format!("its consumer {name} takes jobs.dispatch.")), "{told}");
        assert!(told.contains(&format!("nats consumer rm JOBS {name}")), "{told}");
    }
}
