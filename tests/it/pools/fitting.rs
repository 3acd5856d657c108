//! A job that not every node of its pool can run.

use lamda_node::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{HELD, Pool, SHORT, address, dead_letters, is_end, last};
use crate::support::tools::eventually;
use crate::support::world::{PATIENCE, job, shell};

/// The claim of a job that was refused so often that one more refusal may be the last.
fn last_but_one_refusal(delivered: u32) -> Value {
    let now = SystemClock.now();
    json!({
        "agent": address(3), "state": "refused", "stream_seq": 1, "delivered": delivered, "attempt": 0,
        "starts": 0, "spec_hash": format!("0x{:064}", 0), "refusals": 19, "refused_first_at": now, "at": now,
    })
}

#[tokio::test]
async fn a_job_that_fits_no_node_of_its_pool_is_put_aside_and_its_requester_told() {
    let pool = Pool::start(120).await;
    let _agent = pool.agent(1, &[]);
    pool.world.nats.put_claim("it.too-big", &last_but_one_refusal(19));
    pool.publish("too-big", &json!({"gpus": 1}));
    let said = pool.outcome("too-big").await;
    assert_eq!(last(&said, 1), json!(["failed", "no_node_fits"]));
    let letters = dead_letters(&pool.world, "it");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["job"]["job_id"], "too-big");
    assert_eq!(letters[0]["agent_address"], json!(address(1)));
}

#[tokio::test]
async fn a_job_that_fits_one_node_of_its_pool_is_run_there() {
    let pool = Pool::start(120).await;
    let first = pool.agent(1, &[]);
    let mut wanted = shell(SHORT);
    wanted["network"] = "bridge".into();
    pool.publish("fits-one", &wanted);
    let claim = eventually("the first node refuses the job", PATIENCE, || pool.claim("fits-one"));
    assert_eq!((&claim["state"], &claim["refusals"]), (&json!("refused"), &json!(1)));
    // Keeps the first node busy, so that it is not given the job again before the second node is.
    let own = job("own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(1)), &own);
    pool.wait_until_held(1, "own");
    let _second = pool.agent(2, &[("JOB_NETWORK", "bridge")]);
    eventually("the other node runs the job", PATIENCE, || {
        pool.world.statuses("fits-one").iter().any(is_end).then_some(())
    });
    pool.release(1, "own");
    let said = pool.outcome("fits-one").await;
    assert!(!first.log().contains("ERROR"), "{}", first.log());
    assert_eq!(last(&said, 1), Value::Null, "the first node has nothing to say");
    assert_eq!(last(&said, 2), json!(["completed", null]));
}

#[tokio::test]
async fn a_job_that_fits_a_node_that_is_busy_waits_for_it() {
    let pool = Pool::start(120).await;
    let small = pool.agent(1, &[]);
    let big = pool.agent(2, &[("JOB_NETWORK", "bridge")]);
    let own = job("own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(2)), &own);
    pool.wait_until_held(2, "own");
    // The state after an hour of refusals in which the busy node never announced itself.
    pool.world.nats.put_claim("it.waits", &last_but_one_refusal(1));
    let read = "
from nats.js.errors import NotFoundError, NoKeysError
try:
    kv = await js.key_value('NODES')
    print(json.dumps([json.loads((await kv.get(key)).value) for key in await kv.keys()]))
except (NotFoundError, NoKeysError):
    print('[]')";
    let there = eventually("both nodes are there", PATIENCE, || {
        let there: Vec<Value> =
            serde_json::from_str(&pool.world.nats.python(read, &[])).expect("JSON");
        (there.len() == 2).then_some(there)
    });
    let networks: Vec<&Value> = there.iter().map(|one| &one["networks"]).collect();
    assert!(networks.contains(&&json!(["none", "internet", "bridge"])), "{there:?}");
    assert!(there.iter().all(|one| one["ready"] == true && one["pools"] == json!(["it"])));
    let mut wanted = shell(SHORT);
    wanted["network"] = "bridge".into();
    pool.publish("waits", &wanted);
    eventually("the job is delivered to the small node", PATIENCE, || {
        (pool.given() > 0).then_some(())
    });
    // Keeps the small node busy, so that the job is not put off again and again before the big one gets it.
    let small_own = job("small-own", &shell(HELD)).to_string();
    pool.world.publish_to(&format!("jobs.dispatch.{}", address(1)), &small_own);
    pool.wait_until_held(1, "small-own");
    pool.release(2, "own");
    eventually("the other node runs the job", PATIENCE, || {
        pool.world.statuses("waits").iter().any(is_end).then_some(())
    });
    pool.release(1, "small-own");
    let said = pool.outcome("waits").await;
    assert_eq!(last(&said, 1), Value::Null, "the small node has nothing to say");
    assert_eq!(last(&said, 2), json!(["completed", null]));
    assert!(!small.log().contains("ERROR"), "{}", small.log());
    assert!(!big.log().contains("ERROR"), "{}", big.log());
}

#[tokio::test]
async fn who_submits_is_told_where_no_node_that_is_there_fits() {
    let pool = Pool::start(120).await;
    let _agent = pool.agent(1, &[]);
    let submit = |name: &str, more: &[&str]| {
        let arguments = ["submit", "--pool", name, "--image", "busybox:test", "--gpus", "0"];
        let said = pool.world.command(&[&arguments[..], more].concat()).output();
        String::from_utf8(said.expect("it runs").stdout).expect("text")
    };
    let unfit = "none of the 1 nodes of the pool it that are there fits the job";
    let large = ["--memory-mib", "60000000"];
    let said = eventually("the node says that it is there", PATIENCE, || {
        Some(submit("it", &large)).filter(|said| said.contains(unfit))
    });
    assert!(said.contains("is submitted to"), "{said}");
    let said = submit("other", &[]);
    assert!(said.contains("no node of the pool other is there now"), "{said}");
    let said = submit("it", &[]);
    assert!(said.contains("is submitted to") && !said.contains("of the pool"), "{said}");
}
