//! The pipeline over a real chain that makes a block per second: rising fees, dropped transactions,
//! reorganisations, another program with the same key, and no money.

use lamda_node::agent::account::ledger::Error;
use lamda_node::agent::key::sole::Conflict;
use lamda_node::chain;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::ids::Hash;
use lamda_node::reputation::Call;

use super::bench::Bench;
use super::transactions;
use crate::support::anvil::Anvil;
use crate::support::rpc_proxy::{SEND, Weather};

#[tokio::test]
async fn a_base_fee_that_rises_tenfold_is_followed_by_a_dearer_form_of_the_same_transaction() {
    let bench = Bench::start().await;
    bench.proxy.set(Weather::DropSends);
    let sent = bench.proxy.seen(SEND).len();
    let ledger = bench.ledger();
    let beat = ledger.carry_out(Call::Heartbeat, Vec::new());
    let meddle = async {
        bench.next_send(sent).await;
        bench.rpc(&["anvil_setNextBlockBaseFeePerGas", "0x4A817C800"]);
        bench.proxy.clear();
    };
    let (outcome, ()) = tokio::join!(beat, meddle);
    let paid = {
        let outcome = outcome.expect("a beat");
        outcome.fee_wei / u128::from(outcome.gas_used)
    };
    let rows = transactions(bench.dir.path());
    assert!(rows[1].forms.len() >= 2, "{paid}: {rows:?}");
    bench.check(0);
}

#[tokio::test]
async fn a_transaction_that_the_pool_dropped_is_sent_again() {
    let bench = Bench::start().await;
    bench.proxy.queue(SEND, &[Weather::DropSends, Weather::DropSends]);
    bench.beat().await.expect("a beat");
    let sent = bench.proxy.seen(SEND);
    assert!(sent.len() >= 4, "{sent:?}");
    bench.check(0);
}

#[tokio::test]
async fn an_answer_that_got_lost_sends_nothing_twice() {
    let bench = Bench::start().await;
    bench.proxy.set(Weather::LoseAnswers);
    bench.beat().await.expect("a beat");
    bench.proxy.set(Weather::Clear);
    bench.beat().await.expect("another");
    assert_eq!(bench.nonce(), 3);
    bench.check(0);
}

#[tokio::test]
async fn a_nonce_that_another_wallet_used_stops_sending_and_beats_resume_by_themselves() {
    let bench = Bench::start().await;
    bench.proxy.set(Weather::DropSends);
    let sent = bench.proxy.seen(SEND).len();
    let ledger = bench.ledger();
    let beat = ledger.carry_out(Call::Heartbeat, Vec::new());
    let meddle = async {
        bench.next_send(sent).await;
        let to = Anvil::key(2).address().to_string();
        bench.anvil.cast(&["send", &to, "--value", "1", "--private-key", Anvil::key_hex(1)]);
        bench.proxy.clear();
    };
    let (outcome, ()) = tokio::join!(beat, meddle);
    let err = outcome.expect_err("its nonce is gone");
    assert!(matches!(err, Error::Displaced), "{err}");
    let alarm = bench.sole.alarm(SystemClock.now());
    assert_eq!(alarm, Some(Conflict::ForeignTransaction { nonce: 1 }));
    bench.beat().await.expect("once nothing more was seen of the other wallet");
    bench.check(1);
}

#[tokio::test]
async fn a_reorganisation_that_removes_our_block_ends_with_the_same_transaction_mined() {
    let bench = Bench::start().await;
    let snapshot = bench.rpc(&["evm_snapshot"]);
    let first = bench.beat().await.expect("a beat");
    assert_eq!(bench.rpc(&["evm_revert", snapshot.trim_matches('"')]), "true");
    assert_eq!(bench.nonce(), 1, "it is in no block any more");
    let second = bench.beat().await.expect("another beat");
    assert_ne!(first, second);
    assert_ne!(bench.receipt_of(first), "null", "the first is there again");
    bench.check(0);
}

#[tokio::test]
async fn an_account_that_is_empty_sends_nothing_until_it_is_filled() {
    let bench = Bench::start().await;
    let account = Anvil::key(1).address().to_string();
    bench.rpc(&["anvil_setBalance", &account, "0x0"]);
    let err = bench.beat().await.expect_err("no money");
    assert!(matches!(err, Error::Chain(chain::Error::Unpaid { .. })), "{err}");
    bench.rpc(&["anvil_setBalance", &account, "0xde0b6b3a7640000"]);
    bench.beat().await.expect("a beat");
    bench.check(0);
}

#[tokio::test]
async fn what_the_contract_would_refuse_reserves_no_nonce_and_is_not_paid_for() {
    let bench = Bench::start().await;
    let call = Call::HeartbeatWithReceipts { root: Hash([0; 32]), completed: 0, failed: 0 };
    let err = bench.ledger().carry_out(call, Vec::new()).await.expect_err("no receipts");
    assert!(matches!(err, Error::Chain(chain::Error::Reverted { .. })), "{err}");
    assert_eq!(bench.nonce(), 1, "the registration");
    assert_eq!(transactions(bench.dir.path()).len(), 1);
    bench.check(0);
}
