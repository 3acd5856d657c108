//! The program behind an endpoint in every weather: jobs are always served, and beats resume by
//! themselves.

use std::time::Duration;

use serde_json::json;

use super::{FAST, check, nonce, wait_for_nonce};
use crate::support::anvil::Anvil;
use crate::support::rpc_proxy::{Garbage, RpcProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

/// Every weather of an endpoint that a running node may meet.
pub(crate) fn all() -> Vec<Weather> {
    vec![
        Weather::Down,
        Weather::Status(500, None),
        Weather::Status(429, Some("1".to_owned())),
        Weather::Throttled,
        Weather::Garbage(Garbage::Html),
        Weather::Garbage(Garbage::CutJson),
        Weather::Garbage(Garbage::Huge),
        Weather::Garbage(Garbage::WrongType),
        Weather::Slow(Duration::from_secs(3)),
        Weather::StaleHead { nonces: true },
        Weather::DropSends,
        Weather::LoseAnswers,
    ]
}

/// A node starts while the endpoint is away, and lives through these weathers. It is restarted before
/// each, since its waits are long after many failures.
pub(crate) async fn live_through(weathers: Vec<Weather>, block_time: Option<&str>) {
    let mut world = World::start().await;
    if let Some(seconds) = block_time {
        world.anvil = Anvil::start_with(&["--block-time", seconds]);
        world.contract = world.anvil.deploy().await;
    }
    let proxy = RpcProxy::start(&world.anvil.rpc_url);
    let settings = [FAST, ("OPBNB_RPC_URL", proxy.url()), ("CHAIN_ID", "31337")];
    proxy.set(Weather::Down);
    let mut agent = world.agent(&settings);
    serve(&world, "at-the-start");
    proxy.clear();
    wait_for_nonce(&world, &agent, 2);
    for (number, weather) in weathers.into_iter().enumerate() {
        agent.kill();
        agent = world.agent(&settings);
        wait_for_nonce(&world, &agent, nonce(&world) + 1);
        let asked = proxy.connections();
        proxy.set(weather.clone());
        serve(&world, &format!("weather-{number}"));
        eventually("the proxy sees requests", PATIENCE, || {
            (proxy.connections() > asked + 1).then_some(())
        });
        proxy.clear();
        // The beat on its way, and one that was begun in clear weather.
        wait_for_nonce(&world, &agent, nonce(&world) + 2);
        assert!(agent.running.0.try_wait().expect("our child").is_none(), "{weather:?} ended it");
    }
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    check(&world);
}

/// Asserts that a job is served, whatever the chain does.
fn serve(world: &World, id: &str) {
    world.publish(id, &shell("echo x > /output/output"));
    assert_eq!(world.outcome(id).pop().expect("an end")["status"], json!("completed"));
}

#[tokio::test]
async fn jobs_are_served_in_bad_weather_and_beats_come_again_by_themselves() {
    let weathers = vec![
        Weather::Status(429, Some("1".to_owned())),
        Weather::Garbage(Garbage::WrongType),
        Weather::StaleHead { nonces: true },
    ];
    live_through(weathers, None).await;
}
