//! Which end of a job `watch`, `cancel` and `verify` believe.

use lamda_node::ids::Hash;
use serde_json::{Value, json};

use super::onlooker;
use crate::support::anvil::Anvil;
use crate::support::program::Program;
use crate::support::speaker::{CID, Speaker, say, without_chain};

#[tokio::test(flavor = "multi_thread")]
async fn watch_believes_no_end_that_the_jobs_node_did_not_sign() {
    let (nats, program, node, stranger) = onlooker().await;
    let address = node.key.address().to_string();
    let watch = |more: &[&str]| program.run(&[&["watch", "job-1"], more].concat());
    // Under the node's name with the stranger's signature, then unsigned, and under the stranger's own name.
    let mut under_its_name = stranger.completed("job-1", 4, Hash([2; 32]));
    under_its_name["agent_address"] = json!(address);
    let mut unsigned = under_its_name.clone();
    unsigned.as_object_mut().expect("an object").remove("signature");
    let his = stranger.completed("job-1", 4, Hash([2; 32]));
    say(&nats, &[&under_its_name, &unsigned, &his]);
    let ended = watch(&["--agent", &address]);
    assert_eq!(ended.code(), 3, "{}", ended.both());
    for why in ["its signature is not that of the node it names", "it carries no signature"] {
        assert!(ended.stderr().contains(&format!("not verified: {why}")), "{}", ended.both());
    }
    // Without `--agent` or `--pool` nobody knows whose job it is.
    let ended = watch(&[]);
    assert_eq!(ended.code(), 3, "{}", ended.both());
    assert!(ended.stderr().contains("name its --agent or its --pool"), "{}", ended.both());

    // Unsigned statuses with the highest possible numbers hide no genuine status.
    let running = |seq: u64| {
        json!({
            "agent_address": address, "job_id": "job-1", "status": "processing",
            "timestamp": "2026-11-22T12:00:05.120Z", "seq": seq, "attempt": 1, "stage": "running",
        })
    };
    let genuine = node.completed("job-1", 5, Hash([2; 32]));
    say(&nats, &[&running(u64::MAX), &running(1 << 53), &genuine]);
    let ended = watch(&["--agent", &address, "--json"]).succeeds();
    assert_eq!(ended.objects().last(), Some(&genuine), "{}", ended.both());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_whose_receipt_is_due_and_missing_or_wrong_is_not_verified() {
    let (nats, program, node, _) = onlooker().await;
    let address = node.key.address().to_string();
    let bare =
        node.status("bare", 3, "failed", &json!({"exit_code": 3, "duration_ms": {"run": 5}}));
    let mut other = node.completed("other", 3, Hash([2; 32]));
    other["receipt"]["message"]["exitCode"] = json!(1);
    let other = node.status("other", 3, "completed", &other);
    let early = node.status("early", 3, "cancelled", &json!({"reason_code": "cancelled"}));
    say(&nats, &[&bare, &other, &early]);
    for (job, why) in [
        ("bare", "receipt: its container was started, so it must have a receipt, and has none"),
        ("other", "receipt: its signature is not that of the node it names"),
    ] {
        let ended = program.run(&["watch", job, "--agent", &address]);
        assert_eq!(ended.code(), 3, "{}", ended.both());
        assert!(ended.stderr().contains(&format!("not verified: {why}")), "{}", ended.both());
    }
    let ended = program.run(&["watch", "early", "--agent", &address]);
    assert_eq!((ended.code(), ended.stderr()), (1, String::new()), "no receipt is due");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_word_that_a_job_has_ended_does_not_keep_it_in_the_queue() {
    let (nats, program, node, stranger) = onlooker().await;
    for job in ["idle", "over"] {
        program.run(&["submit", "--image", "img", "--pool", "p", "--job-id", job]).succeeds();
    }
    say(&nats, &[&stranger.completed("idle", 9, Hash([2; 32]))]);
    node.claim(&nats, "p", "over", Hash([2; 32]));
    let over = program.run(&["cancel", "over", "--pool", "p"]);
    assert!(over.code() == 1 && over.stderr().contains("too_late"), "{}", over.both());
    let idle = program.run(&["cancel", "idle", "--pool", "p"]).succeeds().stdout();
    assert!(idle.contains("is taken out of the queue"), "{idle}");
}

#[test]
fn a_signed_end_is_checked_offline_and_whatever_is_changed_in_it_is_noticed() {
    let program = Program::with(&[]);
    let node = Speaker::new(Anvil::key(1), without_chain());
    let refused = json!({"reason_code": "no_gpu", "error": "no GPU here"});
    let refused = node.status("job-1", 1, "rejected", &refused);
    let completed = node.completed("job-1", 5, Hash([2; 32]));
    let verify = |status: &Value| {
        let file = program.path("end.json");
        std::fs::write(&file, status.to_string()).expect("a file");
        program.run(&["verify", &file])
    };
    let told = verify(&refused).succeeds().stdout();
    let node = node.key.address();
    assert!(told.starts_with(&format!("valid: {node} signed this end of job job-1")), "{told}");
    assert!(!verify(&completed).succeeds().stdout().contains("NOT SIGNED"));
    for (end, key, value) in [
        (&refused, "error", json!("another reason")),
        (&refused, "reason_code", json!("no_node_fits")),
        (&completed, "log_cid", json!(CID)),
        (&completed, "attempt", json!(2)),
    ] {
        let mut changed = end.clone();
        changed[key] = value;
        let ended = verify(&changed);
        let told = ended.stdout();
        assert_eq!(ended.code(), 1, "{key}: {told}");
        assert!(told.contains("NOT VALID: the status: its signature is not"), "{key}: {told}");
    }
    // Older nodes sent statuses without a signature.
    let mut old = completed.clone();
    old.as_object_mut().expect("an object").remove("signature");
    assert!(verify(&old).succeeds().stdout().contains("the status around it is NOT SIGNED"));
}
