//! A node that can't work sends no beat, and one that can work again soon does.

use std::time::Duration;

use rusqlite::Connection;

use super::{FAST, let_three_beats_pass, nonce, nonce_of, wait_for_nonce, warnings};
use crate::support::anvil::Anvil;
use crate::support::engine::GPUS;
use crate::support::nvml::FakeNvml;
use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World};

/// Asserts that the node said once why it is silent, and that it is.
fn is_silent(world: &World, agent: &Agent, why: &str) {
    agent.wait_for(why);
    let before = nonce(world);
    let_three_beats_pass();
    assert_eq!(nonce(world), before, "{}", agent.log());
    assert_eq!(warnings(agent, why), 1, "{}", agent.log());
}

#[tokio::test]
async fn a_node_whose_engine_is_gone_falls_silent_and_a_new_one_does_not_register() {
    let mut world = World::start().await;
    let mut agent = world.agent(&[FAST]);
    wait_for_nonce(&world, &agent, 3);
    world.engine.kill();
    is_silent(&world, &agent, "no heartbeat: the container engine can't be used");
    agent.kill();
    let other = world.dir.path().join("other").display().to_string();
    let agent =
        world.start_agent(&[FAST, ("AGENT_PRIVATE_KEY", Anvil::key_hex(2)), ("DATA_DIR", &other)]);
    agent.wait_for("no heartbeat: the container engine can't be used");
    assert_eq!(nonce_of(&world, Anvil::key(2).address()), 0);
}

#[tokio::test]
async fn a_node_whose_cards_are_gone_falls_silent_until_they_are_back() {
    let world = World::start().await;
    let card = |code: u8| {
        format!("driver 550.54.15\ncuda 12040\ngpu {} 8589934592 {code} NVIDIA T4\n", GPUS[0])
    };
    let driver = FakeNvml::build(&card(0));
    let library = driver.library().display().to_string();
    let agent = world.agent(&[FAST, ("GPU_MODE", "auto"), ("NVML_LIB", &library)]);
    wait_for_nonce(&world, &agent, 3);
    // `NVML_ERROR_GPU_IS_LOST`: the card has fallen off the bus.
    driver.tell(&card(15));
    is_silent(&world, &agent, "no heartbeat: none of the 1 GPUs that this node started with");
    driver.tell(&card(0));
    agent.wait_for("the node can work again");
    wait_for_nonce(&world, &agent, nonce(&world) + 1);
}

#[tokio::test]
async fn a_node_without_nats_falls_silent_and_beats_right_after_the_reconnect() {
    let mut world = World::start().await;
    // No regular beat comes during this test.
    let agent = world.agent(&[("HEARTBEAT_INTERVAL", "1h")]);
    agent.wait_for("heartbeat sent");
    let before = nonce(&world);
    world.nats.kill();
    agent.wait_for("no heartbeat: NATS can't be reached");
    // Makes the beat half an hour old, since a fresh one would not be repeated.
    age_the_beats(&world, Duration::from_mins(30));
    assert_eq!(nonce(&world), before);
    world.nats.restart();
    agent.wait_for("the node can work again");
    wait_for_nonce(&world, &agent, before + 1);
    assert_eq!(warnings(&agent, "no heartbeat"), 1, "{}", agent.log());
    let sent = || agent.log().matches("heartbeat sent").count();
    eventually("the node knows of its beat", PATIENCE, || (sent() == 2).then_some(()));
    // The new beat is fresh, so reconnects cause no further one.
    let spared = || agent.log().matches("the chain has just seen this node").count();
    for breaks in 1..=2 {
        world.nats.kill();
        world.nats.restart();
        eventually("no beat is sent", PATIENCE, || (spared() >= breaks).then_some(()));
        assert_eq!(nonce(&world), before + 1);
    }
}

/// Moves back the time at which each transaction in the journal was settled.
fn age_the_beats(world: &World, by: Duration) {
    let db = Connection::open(world.dir.path().join("data/journal.db")).expect("a journal");
    db.busy_timeout(Duration::from_secs(5)).expect("it is set");
    let by_ms = i64::try_from(by.as_millis()).expect("some minutes");
    let sql = "UPDATE transactions SET settled_ms = settled_ms - ?";
    assert!(db.execute(sql, [by_ms]).expect("its schema") >= 2);
}
