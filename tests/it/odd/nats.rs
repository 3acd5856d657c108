//! What NATS servers do: credentials that were replaced or expired, too little room, somebody else's
//! consumer.

#![expect(clippy::unwrap_used, reason = "clippy takes only what is marked as a test for one")]

use std::path::Path;
use std::time::Duration;

use lamda_node::bus::{Bus, Config, Credentials, Error, Kept, Target};
use lamda_node::clock::{Clock as _, SystemClock};
use nkeys::KeyPair;

use crate::bus_auth::{certificates, config, creds, operated};
use crate::cli::{ACCOUNT, Program};
use crate::support::anvil::Anvil;
use crate::support::nats::Nats;

/// How long a client may take to be back.
const BACK: Duration = Duration::from_secs(20);

/// A way of being known: what stands in the file, the server's settings, and the way itself.
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
        assert!(matches!(back, Ok(Ok(()))), "{name}: it is deaf until it is started again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_replaced_on_disk_is_believed_at_the_next_connection() {
    let servers = [certificates(), certificates()];
    let settings = servers.each_ref().map(|(dir, _)| {
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (cert, key) = (file("server.pem"), file("server.key"));
        format!("tls {{ cert_file: {cert:?}, key_file: {key:?} }}")
    });
    let authority = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(&servers[0].1, authority.path()).unwrap();
    let mut nats = Nats::with(&settings[0]);
    let url = format!("tls://127.0.0.1:{}", nats.port());
    let tls_ca = Some(authority.path().to_owned());
    let known = Config { tls_ca, ..config(url, Credentials::None) };
    let bus = Bus::connect(&known).await.unwrap();
    let before = bus.connection_number();
    std::fs::copy(&servers[1].1, authority.path()).unwrap();
    nats.restart_with(&settings[1]);
    let back = tokio::time::timeout(BACK, bus.connected_again(before)).await;
    assert!(matches!(back, Ok(Ok(()))), "it is deaf until it is started again");
}

fn in_seconds(seconds: i64) -> u64 {
    let now = SystemClock.now().unix_ms() / 1000;
    now.checked_add_signed(seconds).unwrap()
}

/// A node's settings with the NATS server at this URL, and no other part of them.
fn program(url: &str) -> Program {
    Program::with(&[
        ("NATS_URL", url),
        ("AGENT_PRIVATE_KEY", Anvil::key_hex(1)),
        ("AGENT_POOLS", "night"),
    ])
}

/// What `doctor` says of NATS.
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
        assert!(told.contains("all streams of a node reserve 5120 MiB"), "{name}: {told}");
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
