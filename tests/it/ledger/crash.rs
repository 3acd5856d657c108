//! SIGKILL before and after every write and every send of the pipeline, in the real program.

use std::os::unix::process::ExitStatusExt as _;

use super::{FAST, check, nonce};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World};

/// Every place where the pipeline writes or sends something, in the order of a transaction.
const PLACES: [&str; 5] = ["account", "reserve_nonce", "signed", "send", "settle"];

#[tokio::test]
async fn whatever_is_killed_no_call_is_mined_twice_and_no_nonce_is_left_out() {
    let world = World::start().await;
    // The first pass of each place is the registration, the second is the first beat.
    for pass in 1..=2 {
        for place in PLACES.map(|place| [format!("{place}.before"), format!("{place}.after")]) {
            for place in place {
                let armed = format!("{place}:{pass}");
                let mut agent = world.start_agent(&[FAST, ("LAMDA_FAILPOINT", &armed)]);
                let status = agent.wait_for_end();
                assert_eq!(status.signal(), Some(9), "{armed}: {status}\n{}", agent.log());
            }
        }
    }
    let before = nonce(&world);
    let mut agent = world.start_agent(&[FAST]);
    eventually("three more beats", PATIENCE, || (nonce(&world) >= before + 3).then_some(()));
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    check(&world);
}
