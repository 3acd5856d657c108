//! A node with a broken card, gateway or store beside a healthy node: no job of the pool suffers.

use serde_json::{Value, json};

use super::{Pool, address, by_node, is_end, job, last};
use crate::odd::registry::accounts;
use crate::support::anvil::Anvil;
use crate::support::engine::{Engine, GPUS};
use crate::support::nvml::FakeNvml;
use crate::support::registry::{ACCOUNT, ADDRESS, Registry};
use crate::support::store_proxy::{StoreProxy, Weather};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, World, shell};

const SHORT: &str = "echo x > /output/output";

/// Waits until all of these have completed and nothing is left of any.
async fn all_complete(pool: &Pool, ids: &[&str]) {
    let all = eventually("all have ended", PATIENCE, || {
        let all = pool.world.statuses("*");
        (all.iter().filter(|one| is_end(one)).count() >= ids.len()).then_some(all)
    });
    pool.world.wait_until_clean().await;
    for id in ids {
        let said = by_node(all.iter().filter(|one| one["job_id"] == **id).cloned().collect());
        let ends = said.values().flatten().filter(|status| is_end(status));
        let stages: Vec<&Value> = ends.map(|status| &status["stage"]).collect();
        assert_eq!(stages, [&json!("completed")], "{said:?}");
    }
}

/// A node's answer to a control request of nats-py.
fn status(world: &World, account: usize) -> Value {
    let script = "
body = json.dumps({'action': 'status'}).encode()
print((await nc.request('jobs.control.' + args[0], body, timeout=10)).data.decode())";
    let said = world.nats.python(script, &[&address(account).to_string()]);
    serde_json::from_str(&said).expect("an answer is JSON")
}

#[tokio::test]
async fn a_node_whose_gateway_is_down_fails_no_job_of_its_pool() {
    let pool = Pool::start(120).await;
    let proxy = StoreProxy::start(&pool.world.store());
    proxy.set_fetches(Weather::Status(503, None));
    let input = json!({"input_file_cid": pool.world.pin(b"input").await});
    let _sick = pool.agent(1, &[("IPFS_GATEWAYS", &proxy.url())]);
    let ids = ["in-a", "in-b", "in-c"];
    for id in ids {
        let mut job = shell("cp /input/input /output/output");
        job.as_object_mut().expect("an object").extend(input.as_object().expect("one").clone());
        pool.publish(id, &job);
    }
    let refused = eventually("the sick node gives a job back", PATIENCE, || {
        let all = pool.world.statuses("*");
        all.into_iter().find(|one| one["stage"] == "interrupted")
    });
    assert_eq!(refused["reason_code"], "input_unavailable");
    let id = refused["job_id"].as_str().expect("an id");
    let claim = eventually("the claim counts the failure", PATIENCE, || pool.claim(id));
    assert_eq!((&claim["faulted_by"], &claim["starts"]), (&json!(address(1)), &json!(0)));
    let _well = pool.agent(2, &[]);
    all_complete(&pool, &ids).await;
}

#[tokio::test]
async fn a_node_without_the_account_for_an_image_leaves_its_jobs_to_one_that_has_it() {
    let pool = Pool::start(120).await;
    let registry = Registry::start_private(&pool.world.engine);
    registry.take_busybox(&pool.world.engine, "t/busybox", "v1").await;
    let file = pool.world.dir.path().join("accounts.json");
    accounts(&file, ACCOUNT.1);
    let file = file.display().to_string();
    let mut sick = pool.agent(1, &[("JOB_REGISTRIES", ADDRESS)]);
    let mut job = shell(SHORT);
    job["image_name"] = format!("{ADDRESS}/t/busybox:v1").into();
    let ids = ["private-a", "private-b", "private-c", "private-d"];
    for id in ids {
        pool.publish(id, &job);
    }
    for id in ids {
        let refused = eventually("each job is given back", PATIENCE, || {
            let all = pool.world.statuses(id);
            all.into_iter().find(|one| one["stage"] == "interrupted")
        });
        assert_eq!(refused["reason_code"], "image_unavailable");
    }
    // More failures than a node may have in a row; but an image's own demands say nothing about the node.
    assert_eq!(status(&pool.world, 1)["ready"], true);
    assert!(!sick.log().contains("no job is taken"), "{}", sick.log());
    sick.ask_to_end();
    sick.wait_for_end();
    let _well = pool.agent(2, &[("JOB_REGISTRIES", ADDRESS), ("JOB_REGISTRY_AUTH_FILE", &file)]);
    all_complete(&pool, &ids).await;
}

#[tokio::test]
async fn a_node_whose_card_fails_sets_it_aside_and_takes_no_job_until_it_works_again() {
    let pool = Pool::start(120).await;
    let driver = FakeNvml::build(&format!(
        "driver 550.54.15\ncuda 12040\ngpu {} 8589934592 0 NVIDIA T4\n",
        GPUS[0]
    ));
    let library = driver.library().display().to_string();
    let cards = [("GPU_MODE", "auto"), ("NVML_LIB", library.as_str())];
    let broken = Engine::start();
    broken.import_busybox().await;
    let host = broken.host();
    let sick = pool.agent(1, &[&cards[..], &[("DOCKER_HOST", host.as_str())]].concat());
    // Broken only after the check at the start.
    broken.break_gpus("fail");
    pool.publish("first", &shell(SHORT));
    sick.wait_for("no job is taken: the GPUs can't be used: the engine can't give GPUs");
    let told = status(&pool.world, 1);
    assert_eq!((&told["ok"], &told["ready"]), (&json!(true), &json!(false)), "{told}");
    assert_eq!(
        told["not_ready"], "the GPUs can't be used",
        "the engine's own words are not passed on"
    );
    pool.publish("second", &shell(SHORT));
    let _well = pool.agent(2, &cards);
    all_complete(&pool, &["first", "second"]).await;
    let said = by_node(pool.world.statuses("first"));
    assert_eq!(last(&said, 1), json!(["interrupted", "gpu_failed"]), "one failed start is enough");
    assert_eq!(last(&by_node(pool.world.statuses("second")), 1), Value::Null);
    // The node's own probe finds the card healthy again, without the owner.
    broken.mend_gpus();
    sick.wait_for("the node is ready again");
    assert_eq!(status(&pool.world, 1)["ready"], true);
    let own = job("own", &shell(SHORT)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(1)), &own);
    let said = pool.outcome("own").await;
    assert_eq!(last(&said, 1), json!(["completed", null]));
}

#[tokio::test]
async fn a_node_whose_store_refuses_its_results_takes_no_more_jobs_until_it_takes_one() {
    let pool = Pool::start(120).await;
    let proxy = StoreProxy::start(&pool.world.store());
    let sick = pool.agent(1, &[("PINATA_API_URL", &proxy.url())]);
    // Broken only after the check at the start.
    proxy.set_pins(Weather::Status(403, None));
    pool.publish("kept", &shell(SHORT));
    sick.wait_for("no job is taken: the store refuses what was run");
    let ids = ["after-a", "after-b"];
    for id in ids {
        pool.publish(id, &shell(SHORT));
    }
    let _well = pool.agent(2, &[]);
    for id in ids {
        let end = eventually("the other node runs the job", PATIENCE, || {
            pool.world.statuses(id).into_iter().find(is_end)
        });
        assert_eq!(end["agent_address"], json!(Anvil::key(2).address()));
    }
    proxy.set_pins(Weather::Clear);
    sick.wait_for("the node is ready again");
    all_complete(&pool, &["kept", "after-a", "after-b"]).await;
}

#[tokio::test]
async fn a_job_that_no_node_can_begin_ends_with_what_the_last_one_said() {
    let pool = Pool::start(120).await;
    let proxy = StoreProxy::start(&pool.world.store());
    proxy.set_fetches(Weather::Status(503, None));
    let claim = |faults: u32| {
        let mut claim = pool.claim("nowhere").expect("it is counted");
        claim["faults"] = faults.into();
        claim["faulted_by"] = json!(address(3));
        pool.world.nats.put_claim("it.nowhere", &claim);
    };
    let _agent = pool.agent(1, &[("IPFS_GATEWAYS", &proxy.url()), ("FETCH_GIVE_UP_S", "1")]);
    let mut job = shell("cp /input/input /output/output");
    job["input_file_cid"] = pool.world.pin(b"input").await.into();
    pool.publish("nowhere", &job);
    eventually("the job is given back", PATIENCE, || {
        let all = pool.world.statuses("nowhere");
        all.iter().any(|one| one["stage"] == "interrupted").then_some(())
    });
    eventually("the claim counts the failure", PATIENCE, || pool.claim("nowhere"));
    // As if two other nodes had failed at it too.
    claim(4);
    let said = pool.outcome("nowhere").await;
    assert_eq!(last(&said, 1), json!(["failed", "input_unavailable"]));
    assert_eq!(pool.claim("nowhere").expect("a claim")["state"], "done");
}
