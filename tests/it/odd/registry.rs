//! Registries as they are found in the field: a moved tag, one that is away or limits its rate, one that
//! wants an account.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use lamda_node::container::docker::{Config, Docker};
use lamda_node::container::{ContainerRuntime as _, Error, Image};
use serde_json::{Value, json};

use crate::support::engine::Engine;
use crate::support::odd_engine::OddEngine;
use crate::support::registry::{ACCOUNT, ADDRESS, PORT, Registry};
use crate::support::tools::{Running, eventually, tool};
use crate::support::world::{PATIENCE, World, last, shell, shell_with};

const NAME: &str = "t/busybox";

/// A row: status and body of a registry's answer to all but the first request of a pull; whether the
/// error is final, and its last words.
const ANSWERS: [(u16, &str, bool, &str); 6] = [
    (
        429,
        r#"{"errors": [{"code": "TOOMANYREQUESTS", "message": "pull rate limit"}]}"#,
        false,
        "(rate limit)",
    ),
    (503, "<html>busy</html>", false, "or broke off"),
    (500, r#"{"errors": [{"code": "UNKNOWN", "message": "10.1.2.3"}]}"#, false, "or broke off"),
    (200, "<html>a portal</html>", false, "or broke off"),
    (404, r#"{"errors": [{"code": "MANIFEST_UNKNOWN"}]}"#, true, "give it to this node"),
    (401, r#"{"errors": [{"code": "UNAUTHORIZED"}]}"#, true, "give it to this node"),
];

const SERVER: &str = "
import http.server, sys
status, body = int(sys.argv[1]), sys.argv[2].encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ping = self.path == '/v2/'
        self.send_response(200 if ping else status)
        said = b'{}' if ping else body
        self.send_header('Content-Type', 'text/html' if said[:1] == b'<' else 'application/json')
        self.send_header('Content-Length', str(len(said)))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(said)
    do_HEAD = do_GET
    def log_message(self, *args):
        pass
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(('127.0.0.1', 5000), Handler).serve_forever()";

fn answering(engine: &Engine, status: u16, body: &str) -> Running {
    let mut command = engine.command(&tool("python3"));
    command.args(["-c", SERVER, &status.to_string(), body]).stdin(Stdio::null());
    let running = Running::start(&mut command);
    engine.wait_for_port(PORT);
    running
}

fn tagged() -> String {
    format!("{ADDRESS}/{NAME}:latest")
}

/// The adapter, which trusts a registry's answer about a tag for this long.
fn adapter(engine: &Engine, tag_good_for: Duration) -> Docker {
    Docker::connect(&Config { tag_good_for, ..engine.config() }).expect("an address")
}

/// An image's digest, whether it was pulled now, and whether its registry did not confirm the tag.
fn told(image: &Image) -> (&str, bool, bool) {
    (&image.digest, image.pulled, image.unconfirmed)
}

/// Pushes another image under this tag; returns the manifest's digest.
async fn push(engine: &Engine, registry: &Registry, tag: &str, mark: &str) -> String {
    engine.import_marked(mark).await;
    registry.take_busybox(engine, NAME, tag).await
}

#[tokio::test]
async fn what_a_registry_answers_is_final_or_tried_again_and_told_in_our_words() {
    let engine = Engine::start();
    let docker = adapter(&engine, Duration::ZERO);
    for (status, body, is_final, end) in ANSWERS {
        let _registry = answering(&engine, status, body);
        let told = docker.image(&tagged()).await.expect_err("no image");
        assert_eq!(matches!(told, Error::ImageRefused { .. }), is_final, "{status}: {told:?}");
        assert_eq!(told.is_transient(), !is_final, "{status}: {told:?}");
        let sentence = told.to_string();
        assert!(sentence.ends_with(end), "{status}: {sentence}");
        for word in ["10.1.2.3", "http", "html", "docker.sock"] {
            assert!(!sentence.contains(word), "{status}: {sentence}");
        }
    }
}

#[tokio::test]
async fn a_tag_means_what_its_registry_says_now_and_its_silence_is_told() {
    let engine = Engine::start();
    let (asks, trusts) =
        (adapter(&engine, Duration::ZERO), adapter(&engine, Duration::from_mins(1)));
    let registry = Registry::start(&engine);
    let v2 = push(&engine, &registry, "next", "v2").await;
    let v1 = push(&engine, &registry, "latest", "v1").await;
    assert_ne!(v1, v2);
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v1, true, false));
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v1, false, false));
    assert_eq!(told(&trusts.image(&tagged()).await.unwrap()).0, v1);
    registry.move_tag(NAME, "latest", "next");
    let remembered = trusts.image(&tagged()).await.unwrap();
    assert_eq!(told(&remembered), (&*v1, false, false), "the tag is trusted for a minute");
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, true, false));
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, false, false));
    // A digest always means the same image, so the registry is not asked.
    let pinned = format!("{ADDRESS}/{NAME}@{v1}");
    assert_eq!(asks.image(&pinned).await.unwrap().digest, v1);
    drop(registry);
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, false, true));
    assert_eq!(told(&asks.image(&pinned).await.unwrap()), (&*v1, false, false));
    // A registry that limits this node's rate says nothing about the tag either.
    let _registry = answering(&engine, 429, r#"{"errors": [{"code": "TOOMANYREQUESTS"}]}"#);
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, false, true));
}

#[tokio::test]
async fn a_tag_of_the_owners_stays_where_it_is_while_jobs_follow_the_registry() {
    let engine = Engine::start();
    let asks = adapter(&engine, Duration::ZERO);
    let registry = Registry::start(&engine);
    let v2 = push(&engine, &registry, "next", "v2").await;
    let v1 = push(&engine, &registry, "latest", "v1").await;
    // The owner pulls it too.
    let owners = adapter(&engine, Duration::ZERO).image(&tagged()).await.unwrap();
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()).0, v1);
    registry.move_tag(NAME, "latest", "next");
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, true, false));
    let under_the_name = engine.client().inspect_image(&tagged()).await.unwrap();
    assert_eq!(under_the_name.id, Some(owners.id));
    assert_eq!(told(&asks.image(&tagged()).await.unwrap()), (&*v2, false, false));
}

#[tokio::test]
async fn a_status_says_that_a_tag_could_not_be_asked_for() {
    let world = World::start().await;
    let registry = Registry::start(&world.engine);
    let digest = push(&world.engine, &registry, "latest", "v1").await;
    let agent = world.agent(&[("JOB_REGISTRIES", ADDRESS)]);
    let mut job = shell("echo x > /output/output");
    job["image_name"] = tagged().into();
    world.publish("asked", &job);
    assert_eq!(world.outcome("asked").last().expect("an end")["stage"], "completed");
    // A new process has not asked any registry yet.
    drop((agent, registry));
    let _agent = world.agent(&[("JOB_REGISTRIES", ADDRESS)]);
    world.publish("unasked", &job);
    let statuses = world.outcome("unasked");
    let said =
        statuses.iter().find(|status| status["stage"] == "pulling" && status["error"].is_string());
    let error = &said.expect("it says so")["error"];
    assert!(error.as_str().is_some_and(|text| text.contains("pulled before")), "{error}");
    let end = statuses.last().expect("an end");
    assert_eq!((&end["stage"], &end["reason_code"]), (&json!("completed"), &json!(null)));
    assert_eq!(end["receipt"]["message"]["imageDigest"], digest);
}

#[tokio::test]
async fn accounts_of_a_file_open_a_private_registry_and_are_read_at_each_pull() {
    let engine = Engine::start();
    let registry = Registry::start_private(&engine);
    let digest = push(&engine, &registry, "latest", "v1").await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.json");
    let docker =
        Docker::connect(&Config { registry_auth_file: Some(file.clone()), ..engine.config() });
    let docker = docker.expect("an address");
    let write = |password: &str| accounts(&file, password);
    let told = docker.image(&tagged()).await;
    assert!(
        matches!(&told, Err(Error::Pull { reason, .. }) if reason.contains("accounts")),
        "{told:?}"
    );
    for wrong in ["wrong", ""] {
        write(wrong);
        let told = docker.image(&tagged()).await;
        assert!(matches!(told, Err(Error::ImageRefused { .. })), "{told:?}");
    }
    write(ACCOUNT.1);
    assert_eq!(docker.image(&tagged()).await.unwrap().digest, digest);
    assert!(!format!("{docker:?}").contains(ACCOUNT.1));
}

/// Writes a file as `docker login` does.
pub(crate) fn accounts(file: &Path, password: &str) {
    let account = json!({"username": ACCOUNT.0, "password": password});
    let text = json!({"auths": {ADDRESS: account}, "credsStore": "desktop"});
    std::fs::write(file, text.to_string()).expect("the accounts");
}

#[tokio::test]
async fn an_image_for_another_processor_is_refused_before_it_dies() {
    let engine = Engine::start();
    let here = engine.client().version().await.expect("the engine answers").arch.expect("its word");
    let docker = adapter(&engine, Duration::ZERO);
    for (platform, runs) in [("s390x", false), (here.as_str(), true)] {
        engine.load_for(platform).await;
        let told = docker.image("busybox:test").await;
        match told {
            Err(Error::ImageRefused { reason, .. }) if !runs => {
                assert_eq!(reason, format!("it is for s390x, and this node is {here}"));
            }
            other => assert!(runs && other.is_ok(), "{platform}: {other:?}"),
        }
    }
}

/// Makes `docker-credential-NAME`, an account file that names it for the registry, and the settings that use both.
fn helper(world: &World, name: &str, script: &str) -> [(&'static str, String); 3] {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = world.dir.path();
    let program = dir.join(format!("docker-credential-{name}"));
    std::fs::write(&program, format!("#!/bin/sh\n{script}")).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let file = dir.join(format!("{name}.json"));
    let accounts = json!({"credHelpers": {ADDRESS: name}});
    std::fs::write(&file, accounts.to_string()).expect("a file");
    let path = std::env::var_os("PATH").unwrap_or_default().into_string().expect("a PATH");
    [
        ("PATH", format!("{}:{path}", dir.display())),
        ("JOB_REGISTRY_AUTH_FILE", file.display().to_string()),
        ("JOB_REGISTRIES", ADDRESS.to_owned()),
    ]
}

#[tokio::test]
async fn a_credential_helper_gives_the_account_and_gets_none_of_the_nodes_secrets() {
    let world = World::start().await;
    let registry = Registry::start_private(&world.engine);
    registry.take_busybox(&world.engine, NAME, "v1").await;
    world.engine.import_busybox().await;
    let (user, password) = ACCOUNT;
    let log = world.dir.path().join("asked");
    let answers = format!(
        "read -r server; echo \"$1 $server\" >> {0}; env >> {0}\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"{password}\"}}'\n",
        log.display()
    );
    let settings = helper(&world, "answers", &answers);
    let agent = world.agent(&settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    let image = json!({"image_name": format!("{ADDRESS}/{NAME}:v1")});
    world.publish("opened", &shell_with("echo x > /output/output", &image));
    assert_eq!(last(&world.outcome("opened"))["status"], "completed");
    let asked = std::fs::read_to_string(log).expect("the helper was asked");
    assert!(asked.starts_with(&format!("get {ADDRESS}\n")), "{asked}");
    for secret in ["AGENT_PRIVATE_KEY", "PINATA_JWT", "NATS_URL", "OPBNB_RPC_URL"] {
        assert!(!asked.contains(secret), "{asked}");
    }
    assert!(asked.contains("DATA_DIR="), "the rest of the environment is there: {asked}");
    assert!(!agent.log().contains(password), "{}", agent.log());
}

#[tokio::test]
async fn a_credential_helper_that_gives_no_account_is_named_and_nothing_of_what_it_says_is() {
    let world = World::start().await;
    let registry = Registry::start_private(&world.engine);
    registry.take_busybox(&world.engine, NAME, "v1").await;
    world.engine.import_busybox().await;
    let image = json!({"image_name": format!("{ADDRESS}/{NAME}:v1")});
    for (name, script, says) in [
        ("fails", "echo secretive; exit 1", "docker-credential-fails gave no account: it failed"),
        ("babbles", "echo '{\"Secret\": \"secretive'", "its answer is not what a helper says"),
        ("floods", "exec yes secretive", "its answer is too long"),
        ("hangs", "echo secretive; exec sleep 3600", "gave no answer in 15 s"),
    ] {
        let settings = helper(&world, name, script);
        let mut agent =
            world.agent(&settings.each_ref().map(|(name, value)| (*name, value.as_str())));
        world.publish(name, &shell_with("true", &image));
        agent.wait_for(says);
        assert!(!agent.log().contains("secretive"), "{}", agent.log());
        let told: Vec<Value> = eventually("it says something", PATIENCE, || {
            Some(world.statuses(name)).filter(|told| !told.is_empty())
        });
        assert_ne!(last(&told)["status"], "rejected", "{told:?}");
        agent.kill();
    }
    // One that has no account at the registry is no fault: it is asked as nobody.
    let settings =
        helper(&world, "empty", "echo 'credentials not found in native keychain'; exit 1");
    let _agent = world.agent(&settings.each_ref().map(|(name, value)| (*name, value.as_str())));
    world.publish("nobody", &shell_with("true", &image));
    assert_eq!(last(&world.outcome("nobody"))["reason_code"], "image_unavailable");
}

#[tokio::test]
async fn each_job_that_waits_for_a_pull_says_now_and_then_how_far_it_is() {
    let world = World::start().await;
    let silence = Duration::from_secs(17);
    let slow = OddEngine::start_slow_to(&world.engine.host(), "Downloading", silence);
    let host = slow.host();
    let settings =
        [("DOCKER_HOST", host.as_str()), ("JOB_REGISTRIES", ADDRESS), ("LOG_LEVEL", "debug")];
    let _agent = world.agent(&settings);
    let image = json!({"image_name": format!("{ADDRESS}/{NAME}:v1")});
    for id in ["first", "second"] {
        world.publish(id, &shell_with("true", &image));
    }
    let told = |id: &str| {
        let statuses = world.statuses(id);
        let told =
            statuses.iter().filter(|one| !one["pull"].is_null()).cloned().collect::<Vec<_>>();
        (statuses, told)
    };
    for id in ["first", "second"] {
        let (statuses, told) = eventually("it says how far its image is", PATIENCE, || {
            Some(told(id)).filter(|(_, told)| !told.is_empty())
        });
        assert_eq!(told[0]["stage"], "pulling");
        assert_eq!(told[0]["pull"], json!({"bytes": 0, "layers": 1, "layers_done": 0}));
        let seqs: Vec<u64> = statuses.iter().filter_map(|one| one["seq"].as_u64()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    }
    // Nothing moved since.
    eventually("the pull has failed", PATIENCE, || {
        let shown = world.command(&["jobs", "first"]).output().expect("it runs").stdout;
        String::from_utf8_lossy(&shown).contains("did not work").then_some(())
    });
    let (_, told) = told("first");
    assert_eq!(told.len(), 1, "what has not changed is said once: {told:?}");
    let shown = world.command(&["jobs", "first"]).output().expect("it runs").stdout;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(shown.contains("the image is being pulled: 0 MiB, 0 of 1 layers"), "{shown}");
}
