//! `kill -9` before and after every write of the pipeline and every send, on the real program.

use std::os::unix::process::ExitStatusExt as _;

use super::transactions;
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World};

/// Every place where the pipeline writes something down or sends it, in the order of a transaction.
const PLACES: [&str; 5] = ["account", "reserve", "signed", "send", "settle"];

#[tokio::test]
async fn whatever_is_killed_no_call_is_mined_twice_and_no_nonce_is_left_out() {
    let world = World::start().await;
    let address = World::agent_address().to_string();
    let nonce = || world.anvil.cast(&["nonce", &address]).parse::<usize>().expect("a number");
    let beats = ("HEARTBEAT_INTERVAL", "1s");
    // The first pass of each place is the registration's, the second the first beat's.
    for pass in 1..=2 {
        for place in PLACES.map(|place| [format!("{place}.before"), format!("{place}.after")]) {
            for place in place {
                let armed = format!("{place}:{pass}");
                let mut agent = world.start_agent(&[beats, ("LAMDA_FAILPOINT", &armed)]);
                let status = agent.wait_for_end();
                assert_eq!(status.signal(), Some(9), "{armed}: {status}\n{}", agent.log());
            }
        }
    }
    let before = nonce();
    let mut agent = world.start_agent(&[beats]);
    eventually("three more beats", PATIENCE, || (nonce() >= before + 3).then_some(()));
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());

    let rows = transactions(&world.dir.path().join("data"));
    let mined = nonce();
    let logs = |event: &str| {
        let (contract, all) = (world.contract.to_string(), ["--from-block", "0", "--json"]);
        let said = world.anvil.cast(&[&["logs", event, "--address", &contract], &all[..]].concat());
        serde_json::from_str::<Vec<serde_json::Value>>(&said).expect("logs").len()
    };
    let registered = logs("NodeRegistered(address indexed,string,uint256)");
    let beaten = logs("NodeHeartbeat(address indexed,uint256)");
    assert_eq!(registered, 1, "{rows:?}");
    assert_eq!(registered + beaten, mined, "every transaction of the key is one of these");

    let kept: Vec<_> = rows.iter().filter(|row| row.state != "displaced").collect();
    let nonces: Vec<u64> = kept.iter().map(|row| row.nonce).collect();
    assert_eq!(nonces, (0..kept.len() as u64).collect::<Vec<_>>(), "one after the other: {rows:?}");
    assert!(kept.len() == mined || kept.len() == mined + 1, "{mined} are mined: {rows:?}");
    for row in rows.iter().filter(|row| row.state == "displaced") {
        assert!(row.forms.is_empty(), "only what was never signed is given up: {row:?}");
    }
    for row in kept.iter().take(mined) {
        let is_mined = |hash: &&String| {
            world.anvil.cast(&["rpc", "eth_getTransactionReceipt", hash]) != "null"
        };
        assert_eq!(row.forms.iter().filter(is_mined).count(), 1, "{row:?}");
    }
    let registrations = kept.iter().filter(|row| row.call.contains("register")).count();
    assert_eq!(registrations, 1, "{rows:?}");
}
