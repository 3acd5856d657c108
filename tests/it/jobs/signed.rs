//! If the owner names requesters, only their signed jobs run; and the node signs its own statements.

use lamda_node::chain::key::recover;
use lamda_node::ids::{Domain, Signature};
use lamda_node::job::receipt::Signed;
use lamda_node::job::spec::parse;
use serde_json::{Value, json};

use crate::support::anvil::{Anvil, CHAIN_ID};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, last};

fn sign(world: &World, mut body: Value, account: usize) -> Value {
    let parsed = parse(body.to_string().as_bytes()).expect("a job");
    let domain = Domain { chain_id: CHAIN_ID, contract: world.contract };
    let target = format!("dispatch.{}", World::agent_address());
    let digest = domain.job_digest(&target, parsed.spec_hash);
    let signature = Signature(Anvil::key(account).sign_digest(&digest.0));
    body["signature"] = json!(signature);
    body
}

#[tokio::test]
async fn only_jobs_signed_by_a_named_requester_run() {
    let world = World::start().await;
    let requester = Anvil::key(2).address().to_string();
    let _agent = world.agent(&[("JOB_ALLOWED_REQUESTERS", &requester)]);
    let job = |id: &str, requester: &str| {
        json!({"job_id": id, "image_name": "busybox:test", "requester": requester,
            "command": ["/bin/sh", "-c", "echo x > /output/output"],
            "deadline": "2099-01-01T00:00:00.000Z"})
    };
    let stranger = Anvil::key(3).address().to_string();
    let mut changed = sign(&world, job("changed", &requester), 2);
    changed["command"] = json!(["/bin/sh", "-c", "echo evil > /output/output"]);
    let cases = [
        (sign(&world, job("good", &requester), 2), "completed", Value::Null),
        (job("unsigned", &requester), "rejected", json!("requester_not_allowed")),
        (sign(&world, job("forged", &requester), 3), "rejected", json!("signature_invalid")),
        (sign(&world, job("stranger", &stranger), 3), "rejected", json!("requester_not_allowed")),
        (changed, "rejected", json!("signature_invalid")),
    ];
    for (body, status, reason) in cases {
        world.publish_raw(&body.to_string());
        let id = body["job_id"].as_str().expect("an id");
        let end = last(&world.outcome(id)).clone();
        assert_eq!((end["status"].as_str(), &end["reason_code"]), (Some(status), &reason), "{end}");
    }
}

#[tokio::test]
async fn nobody_can_use_up_an_id_that_is_not_proved_to_be_theirs() {
    let world = World::start().await;
    let requester = Anvil::key(2).address().to_string();
    let _agent = world.agent(&[("JOB_ALLOWED_REQUESTERS", &requester)]);
    let job = json!({"job_id": "wanted", "image_name": "busybox:test", "requester": requester,
        "command": ["/bin/sh", "-c", "echo x > /output/output"],
        "deadline": "2099-01-01T00:00:00.000Z"});
    let ends = |world: &World, count: usize| {
        eventually("another job ends", PATIENCE, || {
            let statuses = world.statuses("wanted");
            let ends = statuses.iter().filter(|status| status["status"] != "processing").count();
            (ends == count).then_some(statuses)
        })
    };
    // The same job with a stranger's signature, then a body with only the id.
    world.publish_raw(&sign(&world, job.clone(), 3).to_string());
    assert_eq!(last(&ends(&world, 1))["reason_code"], "signature_invalid");
    world.publish_raw(r#"{"job_id": "wanted"}"#);
    world.publish_raw(&sign(&world, job, 2).to_string());
    let statuses = ends(&world, 2);
    assert_eq!(last(&statuses)["status"], "completed");
    let seqs: Vec<u64> = statuses.iter().filter_map(|status| status["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=statuses.len() as u64).collect::<Vec<_>>());
    world.wait_until_clean().await;
}

#[tokio::test]
async fn a_receipt_is_the_nodes_word_and_foreign_tools_agree() {
    let world = World::start().await;
    let _agent = world.agent(&[]);
    world.publish("claim", &json!({"command": ["/bin/sh", "-c", "exit 7"]}));
    let end = last(&world.outcome("claim")).clone();
    let document = &end["receipt"];
    let signed = Signed::from_json(document).expect("a receipt");
    assert_eq!(signed.receipt.exit_code, 7);
    let digest = signed.receipt.digest(&signed.domain);
    assert_eq!(recover(&digest.0, &signed.signature.0), Ok(World::agent_address()));
    let file = world.dir.path().join("receipt.json");
    std::fs::write(&file, document.to_string()).expect("the receipt is written");
    let signature = document["signature"].as_str().expect("a signature");
    let address = World::agent_address().to_string();
    let file = file.display().to_string();
    let said = crate::support::anvil::cast(&[
        "wallet",
        "verify",
        "--address",
        &address,
        "--data",
        "--from-file",
        &file,
        signature,
    ]);
    assert!(said.contains("succeeded"), "{said}");
}
