//! Which servers the bus connects to, and its errors for the others.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use lamda_node::bus::{Bus, Config, Credentials, DeliveryMode, Error, Kept, StatusFilter};
use lamda_node::secret::Secret;
use tokio::time::timeout;

use super::{AGENT, LIMIT, agent, config, dispatch, ids, job, next, source};
use crate::support::nats::Nats;
use crate::support::tools::free_port;

#[tokio::test(flavor = "multi_thread")]
async fn in_core_mode_jobs_and_statuses_go_by_plain_subscriptions() {
    let nats = Nats::without_jetstream();
    let core = Config { mode: DeliveryMode::Core, ..config(nats.url()) };
    let bus = Bus::connect(&core).await.expect("the server is there");
    bus.prepare().await.unwrap();
    let mut intake = bus.intake(&source()).await.unwrap();
    let lower = format!("jobs.dispatch.{}", AGENT.to_lowercase());
    let publish = "await nc.publish(args[0], b'1')\nawait nc.flush()";
    for subject in [dispatch(), lower] {
        nats.python(publish, &[&subject]);
        let delivery = next(&mut intake, 1).await;
        assert_eq!((delivery.subject, delivery.ack), (subject, None));
    }
    let filter = StatusFilter { agent: Some(agent()), job: None };
    let mut statuses = bus.statuses(&filter, true).await.unwrap();
    bus.publish_status(&ids(), agent(), &job("j"), 1, "s".into()).await.unwrap();
    let status = timeout(LIMIT, statuses.next()).await.unwrap().unwrap();
    assert_eq!((status.agent, status.job, &status.body[..]), (agent(), job("j"), &b"s"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_count_wherever_they_stand_and_wrong_ones_are_final() {
    let nats = Nats::with("authorization { user: node, password: \"p@ss\" }");
    let with = |url: &str, credentials| Config { credentials, ..config(url.to_owned()) };
    let (plain, port) = (nats.url(), nats.port());
    let user = |password: &str| {
        Credentials::UserPassword("node".into(), Kept::Here(Secret::new(password)))
    };
    for wrong in [
        with(&plain, Credentials::None),
        with(&plain, user("wrong")),
        with(&format!("nats://node:wrong@127.0.0.1:{port}"), Credentials::None),
        with(&plain, Credentials::Token(Kept::Here(Secret::new("p@ss")))),
    ] {
        let refused = Bus::connect(&wrong).await.unwrap_err();
        assert!(matches!(refused, Error::Unauthorized { .. }) && !refused.is_transient());
        assert!(!format!("{refused} {refused:?}").contains("wrong"));
    }
    for right in [
        with(&plain, user("p@ss")),
        with(&format!("nats://node:p%40ss@127.0.0.1:{port}"), Credentials::None),
    ] {
        let bus = Bus::connect(&right).await.unwrap();
        bus.prepare().await.unwrap();
        assert!(bus.server().starts_with(&format!("nats://127.0.0.1:{port} (2.")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_error_says_so_and_may_pass() {
    let url = format!("nats://u:hunter2@127.0.0.1:{}", free_port());
    let refused = Bus::connect(&config(url)).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }) && refused.is_transient());
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_leaves_the_others_of_the_list() {
    let nats = Nats::start();
    let list = format!("nats://127.0.0.1:{}, {}", free_port(), nats.url());
    let bus = Bus::connect(&config(list)).await.unwrap();
    assert!(bus.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_before_2_10_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let old = tokio::task::spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"INFO {\"version\":\"2.9.10\",\"max_payload\":1048576}\r\n").unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in lines.map_while(Result::ok) {
            if line == "PING" {
                stream.write_all(b"PONG\r\n").unwrap();
            }
        }
    });
    let bus = Bus::connect(&config(url)).await.unwrap();
    let refused = bus.prepare().await.unwrap_err();
    assert!(matches!(&refused, Error::TooOld { version } if version == "2.9.10"), "{refused}");
    // The connection ends with its last handle, and that ends the fake server.
    drop(bus);
    timeout(LIMIT, old).await.unwrap().unwrap();
}
