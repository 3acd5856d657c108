//! Receipts of real jobs on their way to the chain: under exactly one root, and provable by anybody.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use serde_json::{Value, json};

use super::{COMMITTED, FAST, check, events, wait_for_nonce};
use crate::support::rpc_proxy::{Hold, RpcProxy, SEND};
use crate::support::tools::{eventually, run_with_input};
use crate::support::world::{PATIENCE, World, shell};

const GOOD: &str = "echo x > /output/output";

/// The output of a command for this input; panics if it fails.
fn says(command: &mut Command, input: &str) -> String {
    let output = run_with_input(command, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The root under which a job's receipt is proven; checks the proof with `verify`.
fn proven_root(world: &World, job: &str) -> String {
    let proof = says(&mut world.command(&["receipt", "proof", job]), "");
    let mut verify = world.command(&["verify", "-", "--json", "--rpc", &world.anvil.rpc_url]);
    let told: Value = serde_json::from_str(&says(&mut verify, &proof)).expect("JSON");
    assert_eq!(told["valid"], json!(true), "{told}");
    assert_eq!(told["job_id"], json!(job), "{told}");
    assert_eq!(told["signer"], json!(World::agent_address().to_string()), "{told}");
    assert!(told["committed"]["block"].is_number(), "{told}");
    told["root"].as_str().expect("a root").to_owned()
}

/// Every root in an event, with the numbers of completed and failed jobs claimed under it.
fn roots(world: &World) -> Vec<(String, u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text, 16).expect("a number");
    let root = |event: Value| {
        let data = event["data"].as_str().expect("its data");
        let (completed, failed) = data.trim_start_matches("0x").split_at(64);
        let root = event["topics"][2].as_str().expect("its root").to_owned();
        (root, number(completed), number(failed))
    };
    events(world, COMMITTED).into_iter().map(root).collect()
}

/// The contract's counts of the node's claimed jobs: completed, failed.
fn claimed(world: &World) -> (u64, u64) {
    let call =
        "reputationOf(address)(uint40,uint40,uint32,uint32,uint32,uint40,uint40,uint256,uint16)";
    let (contract, node) = (world.contract.to_string(), World::agent_address().to_string());
    let said = world.anvil.cast(&["call", &contract, call, &node]);
    let count = |line: &str| line.split(' ').next().and_then(|number| number.parse().ok());
    let counts: Vec<u64> = said.lines().map(|line| count(line).expect("a number")).collect();
    (counts[5], counts[6])
}

#[tokio::test]
async fn jobs_that_end_between_two_beats_share_one_root_and_each_can_be_proven() {
    let world = World::start().await;
    let proxy = RpcProxy::start(&world.anvil.rpc_url);
    let mut agent = world.agent(&[FAST, ("OPBNB_RPC_URL", proxy.url())]);
    agent.wait_for("heartbeat sent");
    // Holds a beat that was composed before any job ended until all have ended.
    let held = proxy.hold(SEND, Hold::Request);
    let sent = proxy.seen(SEND).len();
    eventually("a beat is held", PATIENCE, || (proxy.seen(SEND).len() > sent).then_some(()));
    let jobs =
        [("one", GOOD, "completed"), ("two", GOOD, "completed"), ("bad", "exit 1", "failed")];
    for (id, script, _) in jobs {
        world.publish(id, &shell(script));
    }
    for (id, _, end) in jobs {
        let statuses = world.outcome(id);
        let last = statuses.last().expect("a status");
        assert_eq!(last["status"], json!(end), "{last}");
        assert!(last["receipt"].is_object(), "{last}");
    }
    assert_eq!(roots(&world), []);
    drop(held);
    let committed = eventually("a root is on the chain", PATIENCE, || {
        Some(roots(&world)).filter(|roots| !roots.is_empty())
    });
    assert_eq!(claimed(&world), (2, 1));
    // The node considers the block final a moment later.
    agent.wait_for("receipts=3");
    for (id, _, _) in jobs {
        assert_eq!(committed, [(proven_root(&world, id), 2, 1)]);
    }
    let mined = super::nonce(&world);
    wait_for_nonce(&world, &agent, mined + 2);
    assert_eq!(roots(&world).len(), 1, "what is committed is not committed again");
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    check(&world);
}

fn job_of(place: &str) -> String {
    place.replace('.', "-")
}

#[tokio::test]
async fn receipts_that_a_killed_node_had_in_hand_are_under_exactly_one_root() {
    let world = World::start().await;
    let proxy = RpcProxy::start(&world.anvil.rpc_url);
    let settings = [FAST, ("OPBNB_RPC_URL", proxy.url()), ("CHAIN_ID", "31337")];
    let mut agent = world.agent(&settings);
    agent.wait_for("heartbeat sent");
    agent.kill();
    let places = ["reserve_nonce.after", "signed.after", "send.after", "settle.before"];
    for place in places {
        // The first call of a start: while it is held, the job gets its receipt before anything is sent.
        let held = proxy.hold("eth_chainId", Hold::Request);
        let armed = [&settings[..], &[("LAMDA_FAILPOINT", place)]].concat();
        let mut agent = world.agent(&armed);
        let job = job_of(place);
        world.publish(&job, &shell(GOOD));
        agent.wait_for(&format!("job {job} completed"));
        drop(held);
        let status = agent.wait_for_end();
        assert_eq!(status.signal(), Some(9), "{place}: {status}\n{}", agent.log());
    }
    let mut agent = world.agent(&settings);
    let committed = eventually("all receipts are committed", PATIENCE, || {
        let roots = roots(&world);
        let leaves: u64 = roots.iter().map(|(_, completed, failed)| completed + failed).sum();
        (leaves >= places.len() as u64).then_some(roots)
    });
    let mined = super::nonce(&world);
    wait_for_nonce(&world, &agent, mined + 2);
    assert_eq!(roots(&world), committed, "nothing is committed again");
    assert_eq!(claimed(&world), (places.len() as u64, 0));
    let on_chain: BTreeSet<String> = committed.iter().map(|(root, ..)| root.clone()).collect();
    assert_eq!(on_chain.len(), committed.len(), "no root twice: {committed:?}");
    let proven: BTreeSet<String> = places.map(|place| proven_root(&world, &job_of(place))).into();
    assert_eq!(proven, on_chain);
    agent.ask_to_end();
    assert!(agent.wait_for_end().success());
    check(&world);
}
