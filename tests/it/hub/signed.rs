//! Beats that are signed by their node's key: for whom they speak, and for whom they don't.

use std::time::{Duration, Instant};

use lamda_node::chain::Key;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::fleet::signed::{Seal, digest, instance};
use lamda_node::ids::hash::keccak256;
use lamda_node::ids::{Hash, Signature};
use serde_json::{Value, json};

use super::process::{ADMIN, Answer, Hub, PATIENCE, SECRET, bearer};
use crate::support::anvil::Anvil;
use crate::support::oracle::python;
use crate::support::tools::eventually;

/// A run of a program that has this key.
pub(super) struct Speaker {
    pub(super) key: Key,
    pub(super) instance: Hash,
}

impl Speaker {
    pub(super) fn new(account: usize, run: &str) -> Self {
        Self { key: Anvil::key(account), instance: instance(run) }
    }

    pub(super) fn name(&self) -> String {
        self.key.address().lower_hex()
    }

    /// The head for this body, signed at this time.
    pub(super) fn head(&self, at_ms: u64, body: &str) -> String {
        let (node, instance) = (self.key.address(), self.instance);
        let digest = digest(node, instance, at_ms, body.as_bytes());
        let signature = Signature(self.key.sign_digest(&digest.0));
        format!("Lamda-Signature: {}", Seal { node, instance, at_ms, signature })
    }

    /// Beats for the node of this name, now.
    pub(super) fn beat(&self, hub: &Hub, node: &str) -> Answer {
        let body = json!({"node_id": node}).to_string();
        post(hub, &self.head(now(), &body), &body)
    }
}

/// Waits until the hub has taken a key up, by beats; wrong ones are few, since they count.
pub(super) fn is_taken_up(hub: &Hub, speaker: &Speaker, node: &str) {
    let mut last: Option<Instant> = None;
    eventually("the hub takes the key up", PATIENCE, || {
        if last.is_some_and(|last| last.elapsed() < Duration::from_secs(2)) {
            return None;
        }
        last = Some(Instant::now());
        (speaker.beat(hub, node).status == 200).then_some(())
    });
}

pub(super) fn now() -> u64 {
    SystemClock.now().unix_ms()
}

pub(super) fn post(hub: &Hub, head: &str, body: &str) -> Answer {
    hub.ask("POST /api/heartbeat", &[head], body)
}

/// Has a key speak for a node.
pub(super) fn bind(hub: &Hub, speaker: &Speaker, name: &str) {
    let key = speaker.key.address().to_string();
    let ended = hub.program.run(&["hub", "enroll", "--key", &key, name]).succeeds();
    assert!(ended.stdout().contains(&format!("{key} speaks for {name}")), "{}", ended.stdout());
}

#[track_caller]
fn refused(answer: &Answer, status: u16, why: &str) {
    let body = answer.json();
    let said = body["detail"].as_str().unwrap_or_default();
    assert!(answer.status == status && said.contains(why), "{answer:?}");
}

#[test]
fn a_key_speaks_for_its_node_alone_and_nobody_else_speaks_for_that() {
    let hub = Hub::start(&[("HUB_KEYS", "enrolled")]);
    let (ours, other) = (Speaker::new(1, "a"), Speaker::new(2, "b"));
    refused(&ours.beat(&hub, &ours.name()), 401, "the hub does not know the key 0x");
    bind(&hub, &ours, "rack-1");
    bind(&hub, &other, "rack-2");
    is_taken_up(&hub, &ours, "rack-1");
    is_taken_up(&hub, &other, "rack-2");
    assert_eq!(ours.beat(&hub, &ours.name()).status, 200, "its address is its name too");
    assert_eq!(hub.names(), ["rack-1", "rack-2"]);
    refused(&ours.beat(&hub, "rack-2"), 401, "does not speak for rack-2");
    refused(&ours.beat(&hub, "rack-3"), 401, "does not speak for rack-3");
    refused(&other.beat(&hub, &ours.name()), 401, "does not speak for");
    // Another's signature under its name.
    let body = json!({"node_id": "rack-1"}).to_string();
    let forged = other.head(now(), &body).replacen(
        &other.key.address().to_string(),
        &ours.key.address().to_string(),
        1,
    );
    refused(&post(&hub, &forged, &body), 401, "is not that of");
    let signed = ours.head(now(), &body);
    refused(&post(&hub, &signed, &body.replace('}', " }")), 401, "is not that of");
    refused(&post(&hub, "Lamda-Signature: v1 x", &body), 401, "Lamda-Signature is: v1");
    refused(&hub.post(SECRET, &body), 403, "rack-1 has a key");
    assert_eq!(hub.post("wrong", &body).status, 401);
    hub.beat("rack-4", "UP");
    // Its name moves, and the key with it.
    assert_eq!(hub.admin("rename", &json!({"old_id": "rack-1", "new_id": "rack-9"})).0, 200);
    assert_eq!(ours.beat(&hub, &ours.name()).status, 200);
    assert_eq!(hub.names(), ["rack-2", "rack-4", "rack-9"]);
    let body = json!({"node_id": "rack-9"}).to_string();
    refused(&hub.post(SECRET, &body), 403, "rack-9 has a key");
    assert_eq!(hub.ask("POST /api/admin/delete", &[&bearer(ADMIN)], &body).status, 200);
    refused(&ours.beat(&hub, &ours.name()), 401, "does not know the key");
}

#[test]
fn a_beat_is_taken_once_and_not_long_after_also_by_a_hub_that_started_anew() {
    let mut hub = Hub::start(&[]);
    let ours = Speaker::new(1, "a");
    bind(&hub, &ours, "rack-1");
    hub.kill();
    hub.begin();
    let body = json!({"node_id": "rack-1", "status": "DOWN"}).to_string();
    let at = now();
    let taken = ours.head(at, &body);
    assert_eq!(post(&hub, &taken, &body).status, 200);
    refused(&post(&hub, &taken, &body), 401, "a repetition");
    refused(&post(&hub, &ours.head(at - 1, &body), &body), 401, "a repetition");
    hub.kill();
    hub.begin();
    refused(&post(&hub, &taken, &body), 401, "a repetition");
    refused(&post(&hub, &ours.head(at - 310_000, &body), &body), 401, "6 min from the hub's time");
    refused(&post(&hub, &ours.head(at + 400_000, &body), &body), 401, "7 min from the hub's time");
    assert_eq!(ours.beat(&hub, "rack-1").status, 200);
}

#[test]
fn another_key_takes_the_place_of_a_lost_one() {
    let hub = Hub::start(&[]);
    let (lost, new) = (Speaker::new(1, "a"), Speaker::new(2, "b"));
    bind(&hub, &lost, "rack-1");
    let key = new.key.address().to_string();
    is_taken_up(&hub, &lost, "rack-1");
    let ended = hub.program.run(&["hub", "enroll", "--key", &key, "rack-1"]).succeeds();
    assert!(ended.stdout().contains(&format!("instead of {}", lost.key.address())));
    // The lost one goes on, before the new one is heard.
    eventually("the lost one is refused", PATIENCE, || {
        (lost.beat(&hub, "rack-1").status != 200).then_some(())
    });
    for name in ["rack-1", &lost.name()] {
        assert_ne!(lost.beat(&hub, name).status, 200, "{name}");
    }
    is_taken_up(&hub, &new, "rack-1");
    assert_eq!(lost.beat(&hub, "rack-1").status, 401);
    assert_eq!(hub.names(), ["rack-1"]);
    let again = hub.program.run(&["hub", "enroll", "--key", &key, "rack-2"]);
    again.is_refused(64, "the hub knows the node of this key as rack-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contracts_active_nodes_that_the_hub_knows_need_no_enrolment_unless_the_owner_says_so()
{
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await.to_string();
    let links = [
        ("OPBNB_RPC_URL", anvil.rpc_url.as_str()),
        ("REPUTATION_CONTRACT_ADDRESS", &contract),
        ("HUB_KEYS", "enrolled"),
    ];
    let (node, stranger) = (Speaker::new(1, "a"), Speaker::new(2, "b"));
    let closed = Hub::start(&links);
    refused(&node.beat(&closed, &node.name()), 401, "does not know the key");
    let hub = Hub::start(&links[..2]);
    refused(&stranger.beat(&hub, &stranger.name()), 401, "does not know the key");
    refused(&node.beat(&hub, &node.name()), 401, "does not know the key");
    assert!(hub.names().is_empty(), "whoever registers is no node of the owner's");
    hub.beat(&stranger.name(), "UP");
    refused(&stranger.beat(&hub, &stranger.name()), 401, "does not know the key");
    assert_eq!(hub.admin("delete", &json!({"node_id": stranger.name()})).0, 200);
    hub.beat(&node.name(), "UP");
    assert_eq!(node.beat(&hub, &node.name()).status, 200);
    assert_eq!(hub.names(), [node.name()]);
    let body = json!({"node_id": node.name()}).to_string();
    refused(&hub.post(SECRET, &body), 403, "has a key");
    // Nor does it speak for another spelling of the name.
    for name in [node.key.address().to_string(), node.name().to_uppercase().replace("0X", "0x")] {
        refused(&hub.post(SECRET, &json!({"node_id": name}).to_string()), 403, "has a key");
    }
    assert_eq!(hub.names(), [node.name()]);
}

#[test]
fn another_library_signs_the_same() {
    let (ours, body) = (Speaker::new(1, "a"), r#"{"node_id":"rack-1"}"#);
    let types = |members: &[(&str, &str)]| -> Value {
        members.iter().map(|(name, kind)| json!({"name": name, "type": kind})).collect()
    };
    let document = json!({
        "types": {
            "EIP712Domain": types(&[("name", "string"), ("version", "string"),
                ("chainId", "uint256"), ("verifyingContract", "address")]),
            "Beat": types(&[("node", "address"), ("instance", "bytes32"), ("at", "uint64"),
                ("bodyHash", "bytes32")]),
        },
        "primaryType": "Beat",
        "domain": {"name": "LamdaNode", "version": "1", "chainId": 0,
            "verifyingContract": "0x0000000000000000000000000000000000000000"},
        "message": {"node": ours.key.address(), "instance": ours.instance, "at": 1_800_000_000_000_u64,
            "bodyHash": keccak256(body.as_bytes())},
    });
    let theirs = python("typed_data.py", &["digest"], &document.to_string());
    let own = digest(ours.key.address(), ours.instance, 1_800_000_000_000, body.as_bytes());
    assert_eq!(theirs, own.to_string());
}
