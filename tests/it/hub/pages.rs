//! The hub's pages in a real browser (tests/browser/hub.mjs), on 10,000 made-up nodes.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lamda_node::chain::Key;
use lamda_node::clock::{Clock as _, SystemClock, Timestamp};
use lamda_node::hub::api::pages::OnChain;
use lamda_node::ids::{Address, Domain, Hash, Signature};
use lamda_node::job::Receipt;
use lamda_node::job::receipt::{Facts, Signed};
use lamda_node::reputation::merkle;
use lamda_node::reputation::proof::Proof;
use lamda_node::sql::Connection;
use lamda_node::web;
use serde_json::json;
use tokio::net::TcpListener;

use super::seeded::{HOSTILE, NODES, Seeded, name};
use crate::support::anvil::{Anvil, CHAIN_ID, cast};
use crate::support::tools::{run_with_input, tool};

/// Serves the seeded hub while `with` runs on a thread of its own.
async fn serving<T: Send + 'static>(
    seeded: Seeded,
    with: impl FnOnce(String) -> T + Send + 'static,
) -> T {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    let served =
        web::serve(listener, seeded.app.clone(), std::future::pending(), Duration::from_secs(1));
    let work = tokio::task::spawn_blocking(move || with(base));
    let (fleet, live, now) = (seeded.fleet.clone(), seeded.live.clone(), seeded.now.clone());
    // Until the streams are ended, which the browser asks for at its own end.
    let tell = async {
        live.tell(&fleet, &now).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = work => done.expect("it does not panic"),
        ended = served => panic!("the server ended: {ended:?}"),
        () = tell => panic!("nobody tells"),
        () = seeded.beat() => panic!("nobody beats"),
    }
}

/// Runs a part of the browser's script against the hub; panics with what it says if something is wrong.
fn browse(part: &str, base: &str) -> String {
    browse_with(part, base, &[])
}

/// As [`browse`], with these variables more.
fn browse_with(part: &str, base: &str, more: &[(&str, String)]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/browser/hub.mjs");
    let packages = root.join("tests/browser/node_modules/puppeteer-core");
    assert!(packages.is_dir(), "puppeteer-core is missing: scripts/test installs it");
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root.join("target"), |path| root.join(path));
    let mut command = Command::new(tool("node"));
    command.arg(script).args([part, base]).arg(tool("chromium")).arg(target.join("hub-shots"));
    command.env("HOSTILE", HOSTILE).env("HOSTILE_PLACE", name(9_120));
    command.envs(more.iter().map(|(name, value)| (name, value)));
    let output = run_with_input(&mut command, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}:\n{said}\n{errors}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_ten_thousand_is_sorted_filtered_and_live_in_a_browser() {
    let said = serving(Seeded::new(NODES), |base| browse("fleet", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_fits_on_screens_from_360_to_1440_pixels() {
    let said = serving(Seeded::new(NODES), |base| browse("looks", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn plots_logs_earnings_and_checks_are_accessible_and_fit_on_screens_from_360_to_1440_pixels()
{
    let said = serving(Seeded::new(NODES), |base| browse("looks-of-work", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_say_what_is_empty_what_loads_and_what_failed() {
    let said = serving(Seeded::new(0), |base| browse("states", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_usage_its_live_log_and_what_nodes_earn_are_shown() {
    let said = serving(Seeded::new(NODES), |base| browse("work", &base)).await;
    assert!(said.contains("all is well"), "{said}");
}

/// A receipt of a node for a job that ended at this time.
fn receipt(key: &Key, domain: Domain, job: &str, finished_ms: u64, more: &str) -> Signed {
    let facts = Facts {
        image_digest: more,
        gpus: &[],
        input: None,
        output: None,
        exit_code: -1,
        ran: (Timestamp::from_unix_ms(finished_ms - 5), Timestamp::from_unix_ms(finished_ms)),
    };
    let id = job.parse().expect("an id");
    let receipt = Receipt::new(id, key.address(), Hash([2; 32]), facts);
    let signature = Signature(key.sign_digest(&receipt.digest(&domain).0));
    Signed { domain, receipt, signature }
}

/// Writes jobs that ended with these receipts.
fn ended(path: &Path, receipts: &[Signed]) {
    let db = Connection::open(path).expect("the hub has made it");
    for signed in receipts {
        let (job, node) = (signed.receipt.job_id.to_string(), signed.receipt.node);
        let status = json!({
            "seq": 2, "attempt": 1, "stage": "failed", "status": "failed", "job_id": job, "agent_address": node,
            "exit_code": -1, "timestamp": Timestamp::from_unix_ms(signed.receipt.finished_at),
            "receipt": signed.to_json(),
        });
        let statuses = json!([{"seq": 1, "at": 0, "status": status}]).to_string();
        let at = i64::try_from(signed.receipt.finished_at).expect("a time");
        let sql = "INSERT INTO jobs VALUES (?, ?, ?, ?, 'failed', 1, ?)";
        let row: [&dyn lamda_node::sql::ToSql; 5] = [&node.lower_hex(), &job, &at, &at, &statuses];
        db.execute(sql, &row[..]).expect("the row fits");
    }
}

/// Puts the root of these receipts on the chain; the proof of the one at `index`.
fn committed(anvil: &Anvil, contract: Address, receipts: &[Signed], index: usize) -> Proof {
    let digests: Vec<Hash> = receipts.iter().map(|it| it.receipt.digest(&it.domain)).collect();
    let root = merkle::root(&digests).expect("there are some");
    let call = "sendHeartbeatWithReceipts(bytes32,uint32,uint32)";
    let (to, root_text) = (contract.to_string(), root.to_string());
    let key = Anvil::key_hex(1);
    let count = receipts.len().to_string();
    let args = [&to, call, &root_text, "0", &count, "--private-key", key, "--json"];
    // Without a margin it fails if it costs more in the second in which it is mined.
    let args = [&["send", "--gas-limit", "500000"], &args[..]].concat();
    let mined: serde_json::Value = serde_json::from_str(&anvil.cast(&args)).expect("JSON");
    let text = |key: &str| mined[key].as_str().expect("a text").to_owned();
    Proof {
        receipt: receipts[index].clone(),
        siblings: merkle::proof(&digests, index).expect("it is one of them"),
        root,
        tx_hash: text("transactionHash").parse().expect("a hash"),
        block: u64::from_str_radix(text("blockNumber").trim_start_matches("0x"), 16).expect("hex"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_checked_in_the_browser_against_the_chain_of_the_readers_choice() {
    let anvil = Anvil::start();
    let contract = anvil.deploy_with_node(1).await;
    let domain = Domain { chain_id: CHAIN_ID, contract };
    let (key, now) = (Anvil::key(1), SystemClock.now().unix_ms());
    let made =
        |job: &str, ago: u64| receipt(&key, domain, job, now - ago, "sha256:\u{e9}\u{1f600}");
    let before = [made("one", 900_000), made("two", 800_000)];
    // Two ended together; five leaves, so that one moves up without a sibling.
    let jobs = [("a", 70_000), ("b", 60_000), ("c", 60_000), ("d", 50_000), ("e", 40_000)];
    let receipts = jobs.map(|(job, ago)| made(job, ago));
    let seeded = Seeded::new(20);
    seeded.project.set(OnChain { chain_id: CHAIN_ID, contract });
    seeded.fleet.update(HOSTILE, Timestamp::from_unix_ms(now), |node| {
        node.address = Some(key.address());
    });
    ended(&seeded.path, &before);
    ended(&seeded.path, &receipts);
    ended(&seeded.path, &[made("later", 1_000)]);
    committed(&anvil, contract, &before, 0);
    let proof = committed(&anvil, contract, &receipts, 4).to_json();
    let other = Key::random();
    let vectors: Vec<_> = (0..8_usize)
        .map(|n| {
            let signed =
                receipt(&other, domain, &format!("job-{n}"), now, &"\u{e9}".repeat(n * 40));
            json!({"document": signed.to_json(), "digest": signed.receipt.digest(&domain)})
        })
        .collect();
    let hashes: Vec<_> = [0, 1, 135, 136, 137, 500]
        .map(|length| "x".repeat(length))
        .map(|text| json!([text, cast(&["keccak", &text])]))
        .into();
    let more = [
        ("RPC", anvil.rpc_url.clone()),
        ("PROOF", proof.to_string()),
        ("VECTORS", json!({"receipts": vectors, "hashes": hashes}).to_string()),
    ];
    let said = serving(seeded, move |base| browse_with("check", &base, &more)).await;
    assert!(said.contains("all is well"), "{said}");
    drop(anvil);
}
