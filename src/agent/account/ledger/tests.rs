use super::*;
use crate::chain::fake::FakeChain;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};
use crate::reputation::Fees;

const QUIET: Duration = Duration::from_mins(15);

struct Bench {
    chain: FakeChain,
    journal: Journal,
    sole: Sole,
    spending: Spending,
    chain_id: u64,
}

impl Bench {
    fn new() -> Self {
        let chain = FakeChain::new(Address::new([1; 20]));
        let spending = Spending::of(31337, Limits::default());
        let (journal, sole) = (Journal::in_memory().unwrap(), Sole::new(QUIET));
        Self { chain, journal, sole, spending, chain_id: 31337 }
    }

    /// The pipeline as a start of the node makes it.
    fn ledger(&self) -> Ledger<FakeChain, FakeChain> {
        let pace = Pace { poll: Duration::from_secs(1), ..Pace::of(self.chain_id, self.spending) };
        Ledger::new(Parts {
            chain: Arc::new(self.chain.clone()),
            chain_id: self.chain_id,
            journal: self.journal.clone(),
            clock: self.chain.clone(),
            sole: self.sole.clone(),
            spending: self.spending,
            pace,
        })
    }

    /// The unfinished transactions if the chain counts this many.
    async fn open(&self, counted: u64) -> Vec<Transaction> {
        let account = Account { chain_id: self.chain_id, address: self.chain.address() };
        let since = Timestamp::from_unix_ms(0);
        self.journal.unfinished(account, counted, since).await.unwrap()
    }

    /// The cost of all mined transactions, in wei.
    fn paid(&self) -> u128 {
        self.chain.mined().iter().map(|(_, outcome)| outcome.fee_wei).sum()
    }

    /// The number of mined transactions; asserts that each nonce is there once.
    fn mined(&self) -> usize {
        let mined = self.chain.mined();
        let nonces: Vec<u64> = mined.iter().map(|(nonce, _)| *nonce).collect();
        assert_eq!(nonces, (0..mined.len() as u64).collect::<Vec<_>>());
        mined.len()
    }
}

fn register() -> Call {
    Call::Register { gpu_model: "A10".to_owned(), vram_mib: 24_576 }
}

async fn registered() -> (Bench, Ledger<FakeChain, FakeChain>) {
    let bench = Bench::new();
    let ledger = bench.ledger();
    ledger.carry_out(register(), Vec::new()).await.unwrap();
    (bench, ledger)
}

#[tokio::test]
async fn an_hour_without_an_endpoint_costs_nothing_and_ends_with_one_beat() {
    let (bench, ledger) = registered().await;
    bench.chain.set_reachable(false);
    let until = bench.chain.now().plus(Duration::from_hours(1));
    while bench.chain.now() < until {
        let err = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap_err();
        assert!(matches!(err, Error::Chain(chain::Error::Unreachable { .. })), "{err}");
        bench.chain.advance(Duration::from_secs(30));
    }
    bench.chain.set_reachable(true);
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert_eq!(bench.mined(), 2);
}

#[tokio::test]
async fn what_no_block_takes_is_told_kept_and_gone_on_with_after_a_restart() {
    let (bench, ledger) = registered().await;
    bench.chain.set_deaf(true);
    let err = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap_err();
    assert!(matches!(err, Error::Chain(chain::Error::NotMined { seconds: 90, .. })), "{err}");
    let again = bench.ledger();
    assert!(again.catch_up().await.is_err());
    bench.chain.set_deaf(false);
    again.catch_up().await.unwrap();
    assert_eq!(bench.mined(), 2, "the beat that was begun, and no other");
    assert_eq!(bench.open(2).await, []);
}

#[tokio::test]
async fn a_price_that_rises_tenfold_is_followed_under_the_same_nonce() {
    let (bench, ledger) = registered().await;
    bench.chain.set_deaf(true);
    assert!(ledger.carry_out(Call::Heartbeat, Vec::new()).await.is_err());
    bench.chain.set_base_fee(10_000_000_000);
    bench.chain.set_deaf(false);
    ledger.catch_up().await.unwrap();
    let (nonce, outcome) = bench.chain.mined().pop().unwrap();
    assert_eq!(nonce, 1);
    let paid = outcome.fee_wei / u128::from(outcome.gas_used);
    assert!(paid >= 10_000_000_000, "{paid}");
    assert_eq!(bench.mined(), 2);
}

#[tokio::test]
async fn what_costs_more_than_allowed_waits_until_it_is_cheaper() {
    let (mut bench, _) = registered().await;
    let dear = Fees::offer(Some(10_000_000_000), 11_000_000_000).per_gas() * 60_000;
    bench.spending.transaction_max_wei = dear / 4;
    let ledger = bench.ledger();
    bench.chain.set_base_fee(10_000_000_000);
    let err = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap_err();
    assert!(matches!(err, Error::TooDear(_)), "{err}");
    assert_eq!(bench.mined(), 1);
    bench.chain.set_base_fee(1_000_000_000);
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert_eq!(bench.mined(), 2);
}

#[tokio::test]
async fn a_day_costs_no_more_than_allowed_and_the_next_day_goes_on() {
    let (mut bench, first) = registered().await;
    let cost = bench.chain.mined()[0].1.fee_wei;
    drop(first);
    bench.spending.day_max_wei = cost * 4;
    let ledger = bench.ledger();
    let mut sent = 0;
    let err = loop {
        match ledger.carry_out(Call::Heartbeat, Vec::new()).await {
            Ok(_) => sent += 1,
            Err(err) => break err,
        }
    };
    assert!(matches!(err, Error::DaySpent), "{err}");
    assert!(sent >= 1 && bench.paid() <= cost * 4, "{sent} {}", bench.paid());
    bench.chain.advance(DAY + Duration::from_secs(1));
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_hides_receipts_makes_the_node_pay_no_more_than_the_day_allows() {
    let (mut bench, first) = registered().await;
    drop(first);
    let worst = Fees::offer(Some(1_000_000_000), 2_000_000_000).worst(60_000);
    bench.spending.day_max_wei = worst * 4;
    let ledger = bench.ledger();
    bench.chain.set_secretive(true);
    let mut last = None;
    for _ in 0..30 {
        // Each is mined, but seems to be somebody else's.
        last = ledger.carry_out(Call::Heartbeat, Vec::new()).await.err();
        if matches!(last, Some(Error::DaySpent)) {
            break;
        }
    }
    assert!(matches!(last, Some(Error::DaySpent)), "{last:?}, {} are mined", bench.mined());
    assert!(bench.paid() <= worst * 4, "{} of {}", bench.paid(), worst * 4);
}

#[tokio::test]
async fn an_empty_account_is_told_and_goes_on_once_it_is_filled() {
    let bench = Bench::new();
    bench.chain.impoverish();
    let ledger = bench.ledger();
    let err = ledger.carry_out(register(), Vec::new()).await.unwrap_err();
    assert!(matches!(err, Error::Chain(chain::Error::Unpaid { .. })), "{err}");
    assert_eq!(bench.open(0).await, [], "no nonce was reserved");
}

#[tokio::test]
async fn a_transaction_of_somebody_else_stops_sending_for_the_quiet_time() {
    let (bench, ledger) = registered().await;
    bench.chain.interfere();
    let before = bench.chain.now();
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert!(bench.chain.now() >= before.plus(QUIET), "it waited");
    assert_eq!(bench.mined(), 3);
    // A known foreign transaction does not stop sending again.
    let before = bench.chain.now();
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert!(bench.chain.now() < before.plus(QUIET));
}

#[tokio::test]
async fn a_restart_does_not_end_the_quiet_time() {
    let (bench, ledger) = registered().await;
    bench.chain.interfere();
    ledger.accept(1, 2).await.unwrap();
    let (sole, before) = (Sole::new(QUIET), bench.chain.now());
    let bench = Bench { sole, ..bench };
    bench.ledger().carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert!(bench.chain.now() >= before.plus(QUIET), "it waited");
}

#[tokio::test]
async fn a_strangers_transaction_that_the_chain_took_back_with_ours_leaves_no_gap() {
    let (bench, ledger) = registered().await;
    bench.chain.interfere();
    let ours = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    bench.chain.take_back(2);
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert_eq!(bench.mined(), 2, "the nonce of the stranger is used");
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    let mined = bench.chain.mined();
    assert_eq!(mined[2].1.hash, ours.hash, "what was taken back is there again");
    assert_eq!(bench.mined(), 4);
}

#[tokio::test]
async fn a_count_that_was_a_lie_at_first_sight_does_not_hold_up_what_follows() {
    let bench = Bench::new();
    let account = Account { chain_id: 31337, address: bench.chain.address() };
    bench.journal.account(account, 1000).await.unwrap();
    bench.ledger().carry_out(register(), Vec::new()).await.unwrap();
    assert_eq!(bench.mined(), 1);
}

#[tokio::test]
async fn a_dearer_form_costs_no_more_than_the_day_has_left() {
    let (mut bench, first) = registered().await;
    drop(first);
    let worst = Fees::offer(Some(1_000_000_000), 2_000_000_000).worst(60_000);
    // The registration counts at its worst cost, too.
    bench.spending.day_max_wei = worst * 3;
    let ledger = bench.ledger();
    bench.chain.set_deaf(true);
    assert!(ledger.carry_out(Call::Heartbeat, Vec::new()).await.is_err());
    for _ in 0..10 {
        assert!(ledger.catch_up().await.is_err());
    }
    let forms = bench.open(1).await.remove(0).forms;
    let most = forms.iter().map(|form| form.fees.worst(form.gas_limit)).max().unwrap();
    assert!(forms.len() > 1 && most + worst <= worst * 3, "{} forms, {most} wei", forms.len());
}

#[tokio::test]
async fn a_nonce_that_another_program_used_first_gives_the_call_up_on_every_kind_of_chain() {
    for chain_id in [31337, 5611] {
        let bench = Bench { chain_id, ..Bench::new() };
        let ledger = bench.ledger();
        ledger.carry_out(register(), Vec::new()).await.unwrap();
        bench.chain.set_deaf(true);
        assert!(ledger.carry_out(Call::Heartbeat, Vec::new()).await.is_err());
        bench.chain.interfere();
        bench.chain.set_deaf(false);
        ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
        assert_eq!(bench.mined(), 3, "the registration, the stranger's, one beat");
    }
}

#[tokio::test]
async fn what_a_reorganisation_took_back_is_sent_again_before_anything_new() {
    let (bench, ledger) = registered().await;
    let first = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    bench.chain.take_back(2);
    ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    let hashes: Vec<_> = bench.chain.mined().into_iter().map(|(_, outcome)| outcome.hash).collect();
    assert_eq!(bench.mined(), 3, "the registration, the beat, the new beat");
    assert_eq!(hashes[1], first.hash, "the same transaction as before");
}

#[tokio::test]
async fn what_was_taken_back_and_whose_nonce_a_stranger_used_then_is_not_taken_for_done() {
    let (bench, ledger) = registered().await;
    let ours = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    bench.chain.take_back(1);
    bench.chain.interfere();
    let next = ledger.carry_out(Call::Heartbeat, Vec::new()).await.unwrap();
    assert_eq!(bench.mined(), 3, "the registration, the stranger's, one beat");
    let settled: Vec<Hash> = bench.open(0).await.iter().map(|tx| tx.forms[0].hash).collect();
    assert!(settled.contains(&next.hash), "{settled:?}");
    assert!(!settled.contains(&ours.hash), "no block has it, and none ever will");
}
