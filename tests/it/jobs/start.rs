//! The node before its first job: it ends on permanent errors, waits for parts that are away, and pays for
//! nothing that is on the chain already.

use crate::support::nvml::FakeNvml;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last, shell};

/// Runs the node with these settings until it ends by itself; returns its exit code and its output.
fn ends(world: &World, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let log = world.dir.path().join("ends.log");
    let file = std::fs::File::create(&log).expect("a log");
    let mut command = world.command(&["run"]);
    let mut node = crate::support::tools::Running::start(
        command.envs(settings.iter().copied()).stdout(std::process::Stdio::null()).stderr(file),
    );
    let status = eventually("the node ends", PATIENCE, || node.0.try_wait().expect("our child"));
    (status.code(), std::fs::read_to_string(log).expect("its words"))
}

#[tokio::test]
async fn what_is_wrong_for_good_ends_the_start_with_69_and_a_sentence() {
    let world = World::start().await;
    let driver = FakeNvml::build("init 9\n");
    let broken = driver.library().display().to_string();
    let nobody = "0x00000000000000000000000000000000000000AA";
    for (settings, says) in [
        (&[("CHAIN_ID", "1337")][..], "is on chain 31337, but 1337 is set"),
        (&[("REPUTATION_CONTRACT_ADDRESS", nobody)], "there is no contract at 0x"),
        (&[("GPU_MODE", "auto"), ("NVML_LIB", &broken)], "set GPU_MODE=none"),
    ] {
        let (code, said) = ends(&world, settings);
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn what_the_chain_knows_already_is_not_paid_for_again() {
    let world = World::start().await;
    let address = World::agent_address().to_string();
    let spent = || world.anvil.cast(&["nonce", &address]);
    let mut agent = world.agent(&[]);
    agent.wait_for("heartbeat sent");
    assert_eq!(spent(), "2", "a registration and a beat");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    let agent = world.agent(&[]);
    agent.wait_for("the chain knows this node as CPU already");
    agent.wait_for("the chain has just seen this node");
    assert_eq!(spent(), "2", "a restart right after a beat costs nothing");
}

#[tokio::test]
async fn a_node_beats_on_its_interval_and_again_right_after_its_start() {
    let world = World::start().await;
    let address = World::agent_address().to_string();
    let spent = || world.anvil.cast(&["nonce", &address]).parse::<u64>().expect("a number");
    let mut agent = world.agent(&[("HEARTBEAT_INTERVAL", "1s")]);
    eventually("three beats", PATIENCE, || (spent() >= 4).then_some(()));
    agent.kill();
    let before = spent();
    let _agent = world.agent(&[("HEARTBEAT_INTERVAL", "1s")]);
    eventually("another", PATIENCE, || (spent() > before).then_some(()));
}

#[tokio::test]
async fn services_that_are_away_at_the_start_are_waited_for() {
    let mut world = World::start().await;
    world.nats.kill();
    let agent =
        world.start_agent(&[("OPBNB_RPC_URL", "http://127.0.0.1:9"), ("CHAIN_ID", "31337")]);
    agent.wait_for("nats: no NATS server answers");
    agent.wait_for("chain: the chain's endpoint http://127.0.0.1:9 does not answer");
    world.nats.restart();
    agent.wait_for("waiting for jobs on jobs.dispatch");
    world.publish("early", &shell("echo x > /output/output"));
    assert_eq!(last(&world.outcome("early"))["status"], "completed");
}

#[tokio::test]
async fn no_job_is_taken_while_too_little_disk_is_free() {
    let world = World::start().await;
    let mut agent = world.agent(&[("DISK_FREE_MIN_MIB", "1000000000")]);
    world.publish("small", &shell("echo x > /output/output"));
    agent.wait_for("no job is taken");
    assert_eq!(world.statuses("small"), Vec::<serde_json::Value>::new());
    assert_eq!(world.queued(), 1);
    agent.kill();
    let _agent = world.agent(&[]);
    assert_eq!(last(&world.outcome("small"))["status"], "completed");
}
