//! The node on the chain, and the pipeline of its transactions: killed at every step, and with failing
//! endpoints. Afterwards the chain is compared with the journal.

mod bench;
mod crash;
pub(crate) mod faults;
mod kinds;
mod readiness;
mod receipts;
pub(crate) mod seasons;
mod spending;
mod weather;

use std::path::Path;
use std::time::{Duration, Instant};

use lamda_node::ids::Address;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::tools::eventually;
use crate::support::world::{Agent, PATIENCE, World};

/// The setting for fast beats.
const FAST: (&str, &str) = ("HEARTBEAT_INTERVAL", "1s");

const REGISTERED: &str = "NodeRegistered(address indexed,string,uint256)";
const BEATEN: &str = "NodeHeartbeat(address indexed,uint256)";
const COMMITTED: &str = "ReceiptsCommitted(address indexed,bytes32 indexed,uint32,uint32)";

/// A transaction in the journal.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) nonce: u64,
    pub(super) call: String,
    pub(super) state: String,
    /// The hashes of its forms.
    pub(super) forms: Vec<String>,
}

/// All transactions in the journal under this folder, in order.
pub(super) fn transactions(data: &Path) -> Vec<Row> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = Connection::open_with_flags(data.join("journal.db"), flags).expect("a journal");
    let sql =
        "SELECT nonce, call, state, (SELECT coalesce(group_concat(hash), '') FROM signed_forms
         WHERE transaction_id = transactions.id) FROM transactions ORDER BY id";
    let mut query = db.prepare(sql).expect("its schema");
    let rows = query.query_map([], |row| {
        let (nonce, forms): (i64, String) = (row.get(0)?, row.get(3)?);
        let forms = forms.split(',').filter(|hash| !hash.is_empty()).map(str::to_owned).collect();
        let nonce = u64::try_from(nonce).expect("a nonce");
        Ok(Row { nonce, call: row.get(1)?, state: row.get(2)?, forms })
    });
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

/// The number of an account's mined transactions.
fn nonce_of(world: &World, account: Address) -> usize {
    world.anvil.cast(&["nonce", &account.to_string()]).parse().expect("a number")
}

/// [`nonce_of`] the node.
fn nonce(world: &World) -> usize {
    nonce_of(world, World::agent_address())
}

/// All events with this topic that the contract has emitted.
fn events(world: &World, event: &str) -> Vec<Value> {
    let (contract, all) = (world.contract.to_string(), ["--from-block", "0", "--json"]);
    let said = world.anvil.cast(&[&["logs", event, "--address", &contract], &all[..]].concat());
    serde_json::from_str(&said).expect("events")
}

/// Waits until the node has `count` mined transactions.
fn wait_for_nonce(world: &World, agent: &Agent, count: usize) {
    let what = format!("{count} transactions are in blocks");
    let found = std::panic::catch_unwind(|| {
        eventually(&what, PATIENCE, || (nonce(world) >= count).then_some(()));
    });
    assert!(found.is_ok(), "{what}, there are {}; the log:\n{}", nonce(world), agent.log());
}

/// Waits for three intervals of the [`FAST`] beats.
fn let_three_beats_pass() {
    let (began, span) = (Instant::now(), Duration::from_secs(3));
    eventually("time passes", PATIENCE, || (began.elapsed() > span).then_some(()));
}

/// The number of times that the node logged this text at WARN or above.
fn warnings(agent: &Agent, text: &str) -> usize {
    let log = agent.log();
    let loud = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    loud.filter(|line| line.contains(text)).count()
}

/// Compares the chain with the journal, after the node has ended: every mined transaction is a
/// registration or a beat, the nonces are consecutive, each nonce has exactly one mined form, and the
/// node registered once.
fn check(world: &World) {
    let rows = transactions(&world.dir.path().join("data"));
    let mined = nonce(world);
    let (registered, beaten) = (events(world, REGISTERED).len(), events(world, BEATEN).len());
    assert_eq!(registered, 1, "{rows:?}");
    assert_eq!(registered + beaten, mined, "every transaction of the key is one of these");

    let kept: Vec<_> = rows.iter().filter(|row| row.state != "abandoned").collect();
    let nonces: Vec<u64> = kept.iter().map(|row| row.nonce).collect();
    assert_eq!(nonces, (0..kept.len() as u64).collect::<Vec<_>>(), "one after the other: {rows:?}");
    assert!(kept.len() == mined || kept.len() == mined + 1, "{mined} are mined: {rows:?}");
    for row in rows.iter().filter(|row| row.state == "abandoned") {
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
