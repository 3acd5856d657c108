//! Many beats with random faults: the endpoint misbehaves, the pipeline is dropped at any point, blocks
//! are reverted, fees jump, another program uses the key.

use std::time::Duration;

use fastrand::Rng;
use lamda_node::agent::account::ledger::Error;
use lamda_node::clock::{Clock as _, SystemClock};
use lamda_node::report::causes;
use lamda_node::reputation::Call;

use super::bench::Bench;
use crate::support::anvil::Anvil;
use crate::support::rpc_proxy::{Garbage, Weather};
use crate::support::world::PATIENCE;

/// Blocks per second.
const HASTE: u32 = 20;

/// The numbers of begun beats by their result.
#[derive(Debug, Default)]
struct Tally {
    done: u32,
    failed: u32,
    dropped: u32,
    strangers: u64,
    reorganised: u32,
}

/// Goes on until the node has this many mined transactions, and checks all of them.
pub(crate) async fn beat_through(beats: u64) {
    let seed = seed();
    let (mut rng, mut tally) = (Rng::with_seed(seed), Tally::default());
    let bench = Bench::hasty(HASTE).await;
    while bench.nonce() < beats {
        for _ in 0..10 {
            meddle_and_beat(&bench, &mut rng, &mut tally).await;
        }
    }
    bench.proxy.clear();
    let last = async { while bench.beat().await.is_err() {} };
    tokio::time::timeout(PATIENCE, last).await.expect("beats resume by themselves");
    let Tally { done, failed, dropped, strangers, .. } = tally;
    assert!(done > 0 && failed > 0 && dropped > 0, "each of these is likely: {tally:?}");
    bench.check(strangers);
}

async fn meddle_and_beat(bench: &Bench, rng: &mut Rng, tally: &mut Tally) {
    let mut snapshot = None;
    match rng.u8(..100) {
        0..3 => snapshot = Some(bench.rpc(&["evm_snapshot"])),
        3..5 => {
            let wei = format!("{:#x}", rng.u64(1_000_000_000..20_000_000_000));
            bench.rpc(&["anvil_setNextBlockBaseFeePerGas", &wei]);
        }
        5 => {
            let to = Anvil::key(2).address().to_string();
            bench.anvil.cast(&["send", &to, "--value", "1", "--private-key", Anvil::key_hex(1)]);
            tally.strangers += 1;
        }
        _ => {}
    }
    bench.proxy.set(weather(rng));
    let ledger = bench.ledger();
    let beat = ledger.carry_out(Call::Heartbeat, Vec::new());
    let patience = Duration::from_millis(rng.u64(..1000));
    let change = async {
        loop {
            SystemClock.sleep(Duration::from_millis(rng.u64(20..200))).await;
            bench.proxy.set(weather(rng));
        }
    };
    let outcome = async {
        tokio::select! {
            outcome = beat => outcome,
            () = change => unreachable!("the weather never ends"),
        }
    };
    match tokio::time::timeout(patience, outcome).await {
        Ok(Ok(outcome)) => {
            assert!(outcome.success, "{outcome:?}");
            tally.done += 1;
        }
        Ok(Err(Error::Chain(err))) => {
            assert!(err.is_transient(), "{err}");
            tally.failed += 1;
        }
        Ok(Err(Error::Displaced)) => tally.failed += 1,
        Ok(Err(err)) => panic!("{}", causes(&err)),
        Err(_) => tally.dropped += 1,
    }
    if let Some(snapshot) = snapshot {
        assert_eq!(bench.rpc(&["evm_revert", snapshot.trim_matches('"')]), "true");
        tally.reorganised += 1;
    }
}

/// Clear in about half of the cases, so that some beats are mined.
fn weather(rng: &mut Rng) -> Weather {
    match rng.u8(..24) {
        0 => Weather::Down,
        1 => Weather::Status(503, None),
        2 => Weather::Status(429, Some("0".to_owned())),
        3 => Weather::Throttled,
        4 => Weather::Garbage(Garbage::Html),
        5 => Weather::Garbage(Garbage::CutJson),
        6 => Weather::Garbage(Garbage::WrongType),
        7 => Weather::Slow(Duration::from_millis(rng.u64(..700))),
        8 => Weather::StaleHead { nonces: true },
        9 => Weather::StaleHead { nonces: false },
        10 => Weather::DropSends,
        11 => Weather::LoseAnswers,
        _ => Weather::Clear,
    }
}

/// `FAULTS_SEED`, to repeat another run, or else a random seed.
#[expect(clippy::print_stderr, reason = "the seed repeats a failed run")]
fn seed() -> u64 {
    let set = std::env::var_os("FAULTS_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let seed = set.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("FAULTS_SEED={seed}");
    seed
}

#[tokio::test]
async fn forty_beats_with_faults_between_them_leave_no_gap_and_nothing_twice() {
    beat_through(40).await;
}
