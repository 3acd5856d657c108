//! The chain's endpoints in bad weather: real anvils behind proxies that misbehave.

#![expect(clippy::unwrap_used, reason = "clippy takes only what is marked as a test for one")]

use std::process::Command;
use std::time::Duration;

use lamda_node::backoff::Backoff;
use lamda_node::chain::{Chain as _, Config, EndpointLimits, Error, Evm, Reader};
use lamda_node::ids::Address;
use lamda_node::reputation::Call;
use serde_json::{Value, json};

use super::support::anvil::{Anvil, CHAIN_ID, carry_out, cast, mined};
use super::support::rpc_proxy::{Garbage, Hold, RpcProxy, SEND, Weather};
use super::support::tools::eventually;

const H100: &str = "NVIDIA H100 80GB HBM3";
/// What a reader sends to read the contract.
const READ: &str = "eth_call";

fn register() -> Call {
    Call::Register { gpu_model: H100.to_owned(), vram_mib: 81_559 }
}

/// One chain behind two endpoints, `a` preferred.
struct Chain {
    anvil: Anvil,
    contract: Address,
    a: RpcProxy,
    b: RpcProxy,
}

impl Chain {
    async fn start() -> Self {
        let anvil = Anvil::start();
        let contract = anvil.deploy().await;
        let (a, b) = (RpcProxy::start(&anvil.rpc_url), RpcProxy::start(&anvil.rpc_url));
        Self { anvil, contract, a, b }
    }

    fn config(&self, limits: EndpointLimits) -> Config {
        let rpc_urls = vec![self.a.url().to_owned(), self.b.url().to_owned()];
        Config { rpc_urls, endpoints: limits, ..self.anvil.config(self.contract) }
    }

    fn reader(&self, limits: EndpointLimits) -> Reader {
        Reader::new(self.config(limits)).unwrap()
    }

    fn node(&self, limits: EndpointLimits) -> Evm {
        Evm::new(self.config(limits), Anvil::key(1)).unwrap()
    }

    /// How many transactions of account 1 are in blocks.
    fn nonce(&self) -> String {
        self.anvil.cast(&["nonce", &Anvil::key(1).address().to_string()])
    }
}

/// An endpoint that failed rests longer than any test lasts, and no call waits for it.
fn long_rests() -> EndpointLimits {
    let hour = Duration::from_hours(1);
    let rest = Backoff::new(hour, hour);
    EndpointLimits { rest, wait_max: Duration::ZERO, ..EndpointLimits::default() }
}

/// An endpoint that failed is asked again by the next call, and every head is looked at.
fn no_rests() -> EndpointLimits {
    let none = Duration::ZERO;
    let rest = Backoff::new(none, none);
    let defaults = EndpointLimits::default();
    EndpointLimits { rest, foreign_rest: none, look_every: none, ..defaults }
}

fn busy(retry_after: &str) -> Weather {
    Weather::Status(429, Some(retry_after.to_owned()))
}

#[tokio::test]
async fn a_read_that_fails_at_one_endpoint_goes_on_at_the_next() {
    let chain = Chain::start().await;
    for (turn, weather) in (1..).zip([
        Weather::Down,
        Weather::Status(500, None),
        Weather::Status(503, Some("1".to_owned())),
        Weather::Throttled,
        Weather::Garbage(Garbage::Html),
        Weather::Garbage(Garbage::CutJson),
        Weather::Garbage(Garbage::WrongType),
        Weather::Garbage(Garbage::Huge),
        Weather::Slow(Duration::from_mins(1)),
    ]) {
        chain.a.set_for(READ, weather.clone());
        let config = chain.config(long_rests());
        let patient = Config { request_timeout: Duration::from_secs(4), ..config };
        let reader = Reader::new(patient).unwrap();
        assert_eq!(reader.total_providers().await.unwrap(), 0, "{weather:?}");
        assert_eq!(reader.owner().await.unwrap(), Anvil::key(0).address());
        assert_eq!(chain.a.seen(READ).len(), turn, "it is left alone after one: {weather:?}");
        assert_eq!(chain.b.seen(READ).len(), 2 * turn, "{weather:?}");
    }
}

#[tokio::test]
async fn a_transaction_whose_answer_was_lost_is_sent_on_and_mined_once() {
    let chain = Chain::start().await;
    chain.a.set(Weather::LoseAnswers);
    let node = chain.node(long_rests());
    carry_out(&node, &register()).await.unwrap();
    assert_eq!(chain.nonce(), "1");
    let (first, second) = (chain.a.seen(SEND), chain.b.seen(SEND));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first, second, "the same bytes");
}

#[tokio::test]
async fn a_transaction_that_one_endpoint_keeps_to_itself_is_passed_on_by_the_other() {
    let chain = Chain::start().await;
    chain.a.set(Weather::DropSends);
    let node = chain.node(long_rests());
    let quote = node.quote(&register()).await.unwrap();
    let signed = node.sign(&register(), 0, quote).await.unwrap();
    node.send(&signed.raw).await.unwrap();
    assert_eq!(node.included(signed.hash).await.unwrap(), None, "it says that it took it");
    node.send_everywhere(&signed.raw).await.unwrap();
    assert!(mined(&node, signed.hash).await.success);
    assert_eq!(chain.nonce(), "1");
}

#[tokio::test]
async fn a_transaction_that_one_endpoint_does_not_take_is_sent_to_the_next() {
    for weather in [Weather::Down, Weather::Status(502, None), Weather::Throttled, busy("60")] {
        let chain = Chain::start().await;
        chain.a.set_for(SEND, weather.clone());
        carry_out(&chain.node(long_rests()), &register()).await.unwrap();
        assert_eq!(chain.nonce(), "1", "{weather:?}");
        assert_eq!((chain.a.seen(SEND).len(), chain.b.seen(SEND).len()), (1, 1), "{weather:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_no_other_endpoint_is_asked() {
    let chain = Chain::start().await;
    let error = chain.node(long_rests()).quote(&Call::Heartbeat).await.unwrap_err();
    assert!(matches!(error, Error::Reverted { .. }), "{error}");
    assert!(!chain.b.methods().contains(&READ.to_owned()), "{:?}", chain.b.methods());
}

#[tokio::test]
async fn an_endpoint_gets_the_rest_that_it_asks_for_within_bounds() {
    let chain = Chain::start().await;
    let cases = [
        ("3600", true),
        ("Tue, 22 Nov 2095 10:00:00 GMT", true),
        ("0", false),
        ("Sun, 22 Nov 2015 10:00:00 GMT", false),
    ];
    for (retry_after, is_left_alone) in cases {
        chain.a.set_for(READ, busy(retry_after));
        let before = chain.a.seen(READ).len();
        let reader = chain.reader(no_rests());
        for _ in 0..3 {
            reader.owner().await.unwrap();
        }
        let asked = chain.a.seen(READ).len() - before;
        assert_eq!(asked, if is_left_alone { 1 } else { 3 }, "{retry_after}");
    }

    chain.a.set_for(READ, busy("3600"));
    let before = chain.a.seen(READ).len();
    let bounded = EndpointLimits { retry_after_max: Duration::ZERO, ..no_rests() };
    let reader = chain.reader(bounded);
    for _ in 0..3 {
        reader.owner().await.unwrap();
    }
    assert_eq!(chain.a.seen(READ).len() - before, 3, "no endpoint can send itself to sleep");
}

#[tokio::test]
async fn the_preferred_endpoint_is_taken_again_after_its_rest() {
    let chain = Chain::start().await;
    chain.a.queue(READ, &[Weather::Status(503, None)]);
    let reader = chain.reader(no_rests());
    reader.owner().await.unwrap();
    assert_eq!((chain.a.seen(READ).len(), chain.b.seen(READ).len()), (1, 1));
    for _ in 0..3 {
        reader.owner().await.unwrap();
    }
    assert_eq!((chain.a.seen(READ).len(), chain.b.seen(READ).len()), (4, 1));
}

#[tokio::test]
async fn with_all_endpoints_down_calls_end_at_once_and_nobody_is_bothered() {
    let chain = Chain::start().await;
    chain.a.set(Weather::Down);
    chain.b.set(Weather::Status(503, Some("60".to_owned())));
    let key = "AbCdEf0123456789AbCdEf";
    let mut config = chain.config(long_rests());
    config.rpc_urls.iter_mut().for_each(|url| *url = format!("{url}/v2/{key}"));
    let reader = Reader::new(config).unwrap();

    let error = reader.owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && error.is_transient(), "{error}");
    let asked = (chain.a.connections(), chain.b.connections());
    assert_eq!(asked, (1, 1));
    for _ in 0..5 {
        let error = reader.owner().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("left alone for "), "{cause}");
        assert!(!format!("{error} {cause}").contains(key), "{error} {cause}");
    }
    assert_eq!((chain.a.connections(), chain.b.connections()), asked);
}

#[tokio::test]
async fn endpoints_that_were_all_down_are_used_when_they_are_back() {
    let chain = Chain::start().await;
    chain.a.set(Weather::Down);
    chain.b.set(Weather::Down);
    let reader = chain.reader(no_rests());
    for _ in 0..3 {
        assert!(matches!(reader.owner().await, Err(Error::Unreachable { .. })));
    }
    chain.b.clear();
    assert_eq!(reader.owner().await.unwrap(), Anvil::key(0).address());
    chain.a.clear();
    assert_eq!(reader.owner().await.unwrap(), Anvil::key(0).address());
    assert_eq!(chain.a.seen(READ).len(), 1);
}

#[tokio::test]
async fn a_call_waits_for_a_short_rest_and_tries_again() {
    let chain = Chain::start().await;
    for endpoint in [&chain.a, &chain.b] {
        endpoint.queue(READ, &[Weather::Throttled]);
    }
    let moment = Duration::from_millis(50);
    let limits = EndpointLimits {
        rest: Backoff::new(moment, moment),
        wait_max: Duration::from_secs(10),
        ..EndpointLimits::default()
    };
    assert_eq!(chain.reader(limits).owner().await.unwrap(), Anvil::key(0).address());
    assert_eq!(chain.a.seen(READ).len() + chain.b.seen(READ).len(), 3);
}

#[tokio::test]
async fn an_endpoint_on_another_chain_is_asked_for_its_id_and_nothing_else() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(5611));
    let node = chain.node(EndpointLimits::default());
    carry_out(&node, &register()).await.unwrap();
    assert_eq!(node.check().await.unwrap().chain_id, CHAIN_ID);
    assert_eq!(chain.a.methods(), ["eth_chainId"]);
}

#[tokio::test]
async fn the_chain_is_wrong_only_where_all_endpoints_say_so() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(5611));
    chain.b.set(Weather::Down);
    let reader = chain.reader(no_rests());
    let error = reader.owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "the other one may be right: {error}");

    chain.b.set(Weather::WrongChain(204));
    let error = reader.owner().await.unwrap_err();
    let told = matches!(error, Error::WrongChain { expected: CHAIN_ID, actual: 5611, .. });
    assert!(told && !error.is_transient(), "{error}");
    assert!(!chain.a.methods().contains(&READ.to_owned()));
}

#[tokio::test]
async fn without_a_set_chain_the_first_to_answer_is_what_the_others_must_match() {
    let chain = Chain::start().await;
    chain.b.set(Weather::WrongChain(204));
    let config = Config { chain_id: None, ..chain.config(no_rests()) };
    let reader = Reader::new(config).unwrap();
    reader.owner().await.unwrap();
    chain.a.set(Weather::Status(503, None));
    let error = reader.owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(chain.b.methods().iter().all(|method| method == "eth_chainId"));
}

#[tokio::test]
async fn an_endpoint_that_was_away_is_asked_for_its_chain_again() {
    let chain = Chain::start().await;
    let reader = chain.reader(no_rests());
    reader.owner().await.unwrap();
    chain.a.queue(READ, &[Weather::Status(503, None)]);
    chain.a.set(Weather::WrongChain(204));
    reader.owner().await.unwrap();
    let before = chain.a.seen(READ).len();
    reader.owner().await.unwrap();
    assert_eq!(chain.a.seen(READ).len(), before, "another chain came back");
    assert_eq!(chain.b.seen(READ).len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_fell_behind_is_not_read_from() {
    let chain = Chain::start().await;
    chain.a.set(Weather::StaleHead { nonces: true });
    chain.anvil.cast(&["rpc", "anvil_mine", "0x28"]);
    let reader = chain.reader(no_rests());
    let height = reader.facts(chain.contract).await.unwrap().block;
    assert_eq!(height.to_string(), chain.anvil.cast(&["block-number"]));
    reader.owner().await.unwrap();
    assert!(chain.a.seen(READ).is_empty(), "{:?}", chain.a.methods());
    assert!(!chain.b.seen(READ).is_empty());

    chain.a.clear();
    reader.owner().await.unwrap();
    assert_eq!(chain.a.seen(READ).len(), 1, "it caught up");
}

#[tokio::test]
async fn a_chain_that_begins_anew_is_read_again_once_its_old_height_is_forgotten() {
    let chain = Chain::start().await;
    let fresh = chain.anvil.cast(&["rpc", "evm_snapshot"]);
    chain.anvil.cast(&["rpc", "anvil_mine", "0x64"]);
    let remembers = |height_memory| EndpointLimits { height_memory, ..no_rests() };
    let forgetful = chain.reader(remembers(Duration::ZERO));
    let mindful = chain.reader(remembers(Duration::from_hours(1)));
    forgetful.owner().await.unwrap();
    mindful.owner().await.unwrap();

    chain.anvil.cast(&["rpc", "evm_revert", fresh.trim_matches('"')]);
    forgetful.owner().await.unwrap();
    let error = mindful.owner().await.unwrap_err().to_string();
    assert!(error.contains("its head, block 1, is 100 blocks behind"), "{error}");
}

#[tokio::test]
async fn an_endpoint_whose_head_is_old_is_not_read_from_and_alone_says_how_old_it_is() {
    // Both chains are put behind the id of one whose blocks come by themselves.
    let (old, new) = (Anvil::start_with(&["--timestamp", "1700000000"]), Anvil::start());
    let contract = new.deploy().await;
    assert_eq!(old.deploy().await, contract, "one owner, one nonce, one address");
    let (a, b) = (RpcProxy::start(&old.rpc_url), RpcProxy::start(&new.rpc_url));
    let reader = |urls: &[&str]| {
        let rpc_urls = urls.iter().map(|url| (*url).to_owned()).collect();
        let config = Config { rpc_urls, chain_id: Some(5611), ..new.config(contract) };
        Reader::new(config).unwrap()
    };
    a.set(Weather::WrongChain(5611));
    b.set(Weather::WrongChain(5611));
    reader(&[a.url(), b.url()]).owner().await.unwrap();
    assert_eq!((a.seen(READ).len(), b.seen(READ).len()), (0, 1));

    let alone = reader(&[a.url()]);
    for _ in 0..2 {
        let error = alone.owner().await.unwrap_err();
        let told = error.to_string();
        assert!(told.contains("its head, block 1, is ") && told.contains(" s old"), "{told}");
        assert!(error.is_transient());
    }
    assert!(a.seen(READ).is_empty());
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let chain = Chain::start().await;
    for endpoint in [&chain.a, &chain.b] {
        endpoint.set(Weather::Garbage(Garbage::Huge));
    }
    let error = chain.reader(long_rests()).owner().await.unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes") && error.len() < 200, "{error}");
}

#[tokio::test]
async fn doctor_tells_which_endpoint_is_unfit_although_the_others_do_its_work() {
    let chain = Chain::start().await;
    chain.a.set(Weather::WrongChain(204));
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamda-node"));
    command.args(["doctor", "--json"]).current_dir(dir.path()).env_clear();
    command.env("HOME", dir.path()).env("DATA_DIR", dir.path().join("data"));
    command.env("REPUTATION_CONTRACT_ADDRESS", chain.contract.to_string());
    command.env("AGENT_PRIVATE_KEY", Anvil::key_hex(1)).env("CHAIN_ID", CHAIN_ID.to_string());
    command.env("OPBNB_RPC_URL", format!("{}/hunter2?k=hunter2,{}", chain.a.url(), chain.b.url()));
    let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == "chain").unwrap();
    let detail = check["detail"].as_str().unwrap();
    assert_eq!(check["status"], "warn", "{check}");
    assert!(detail.contains("1 of 2 endpoints unfit: endpoint 1, "), "{detail}");
    assert!(detail.ends_with("it is on chain 204, not 31337"), "{detail}");
    assert!(!detail.contains("k=hunter2"), "{detail}");
}

#[tokio::test]
async fn a_command_takes_a_list_of_endpoints_and_repeats_none_that_is_wrong() {
    let chain = Chain::start().await;
    chain.a.set(Weather::Status(503, None));
    let dir = tempfile::tempdir().unwrap();
    let show = |urls: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamda-node"));
        command.args(["contract", "show", "--json", "--rpc-url", urls]);
        command.current_dir(dir.path()).env_clear().env("HOME", dir.path());
        command.env("REPUTATION_CONTRACT_ADDRESS", chain.contract.to_string());
        command.output().unwrap()
    };
    let output = show(&format!("{}/v2/hunter2, {}", chain.a.url(), chain.b.url()));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["chain_id"], &shown["providers"]), (&json!(CHAIN_ID), &json!(0)));
    assert!(chain.a.connections() > 0);

    let wrong = show("http://hunter2.example,hunter2");
    let told = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(64));
    assert!(told.contains("--rpc-url: its URL 2 is not") && !told.contains("hunter2"), "{told}");
}

/// The proxy itself, seen by a program that this project did not write.
#[test]
fn the_proxy_makes_the_weather_that_it_is_told() {
    let anvil = Anvil::start();
    let proxy = RpcProxy::start(&anvil.rpc_url);
    let ask = |args: &[&str]| cast(&[args, &["--rpc-url", proxy.url()]].concat());
    let to = Anvil::key(2).address().to_string();
    let pay = ["send", "--async", &to, "--value", "1", "--private-key", Anvil::key_hex(1)];
    let account = Anvil::key(1).address().to_string();
    let nonce = |of: &dyn Fn(&[&str]) -> String| of(&["nonce", &account]);
    let direct = |args: &[&str]| anvil.cast(args);

    proxy.set(Weather::DropSends);
    let hash = ask(&pay);
    assert!(hash.starts_with("0x") && hash.len() == 66, "{hash}");
    assert_eq!(nonce(&direct), "0");
    proxy.clear();
    assert_eq!(ask(&pay), hash, "it would have been that one");
    assert_eq!(nonce(&direct), "1");

    proxy.set(Weather::StaleHead { nonces: true });
    direct(&pay);
    direct(&["rpc", "anvil_mine", "0x5"]);
    assert_eq!((nonce(&ask).as_str(), nonce(&direct).as_str()), ("1", "2"));
    assert_eq!((ask(&["block-number"]).as_str(), direct(&["block-number"]).as_str()), ("1", "7"));
    proxy.set(Weather::StaleHead { nonces: false });
    assert_eq!(nonce(&ask), "2");
    proxy.clear();

    for (at, before, during) in [(Hold::Request, "2", "2"), (Hold::Answer, "2", "3")] {
        assert_eq!(nonce(&direct), before);
        let sent = proxy.seen(SEND).len();
        let held = proxy.hold(SEND, at);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| ask(&pay));
            let limit = Duration::from_secs(20);
            eventually("it is sent", limit, || (proxy.seen(SEND).len() > sent).then_some(()));
            eventually("it is held", limit, || (nonce(&direct) == during).then_some(()));
            assert!(!sending.is_finished());
            if at == Hold::Request {
                proxy.queue(SEND, &[Weather::DropSends]);
            }
            drop(held);
            sending.join().unwrap();
        });
    }
    let raw: Vec<Value> = proxy.seen(SEND);
    assert_eq!(raw[2], raw[3], "the dropped one and the next have one nonce");
}
