//! The chain: one suite over the fake and over a real EVM node, and what can go wrong on the way to a
//! block. An independent tool, foundry's `cast`, reads back what was written.

#![expect(clippy::unwrap_used, reason = "clippy exempts only functions marked as tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use lamda_node::chain::deploy::deploy;
use lamda_node::chain::fake::FakeChain;
use lamda_node::chain::key::recover;
use lamda_node::chain::{Chain, Config, EndpointLimits, Error, Evm, Key, Quote, Reader, keystore};
use lamda_node::ids::Hash;
use lamda_node::reputation::Call;
use lamda_node::reputation::tx::{Answer, Outcome};
use lamda_node::secret::Secret;

use super::support::anvil::{Anvil, CHAIN_ID, cast, mined};
use super::support::tools::free_port;

const H100: &str = "NVIDIA H100 80GB HBM3";

/// A registration.
fn register(model: &str, vram_mib: u64) -> Call {
    Call::Register { gpu_model: model.to_owned(), vram_mib }
}

/// Has one call mined, as the pipeline does if nothing goes wrong.
async fn carry_out(node: &impl Chain, call: &Call) -> Result<Outcome, Error> {
    let (quote, account) = (node.quote(call).await?, node.account().await?);
    let signed = node.sign(call, account.nonce, quote).await?;
    let twin = node.sign(call, account.nonce, quote).await?;
    assert_eq!(signed, twin, "the same fields give the same bytes");
    assert_eq!(node.included(signed.hash).await?, None);
    assert_eq!(node.send(&signed.raw).await?, Answer::Taken);
    assert_eq!(node.send(&signed.raw).await?, Answer::Taken, "repeating it does no harm");
    let outcome = mined(node, signed.hash).await;
    assert_eq!(outcome.hash, signed.hash);
    assert_eq!(node.account().await?.nonce, account.nonce + 1, "once");
    Ok(outcome)
}

/// The suite that every chain must pass. `node` is not registered yet.
async fn chain_contract(node: &impl Chain) {
    let account = node.address();
    let facts = node.check().await.unwrap();
    assert_eq!(facts.chain_id, CHAIN_ID);
    assert_ne!(facts.balance_wei, "0");
    assert_eq!(node.provider(account).await.unwrap(), None, "a stranger");

    let early = node.quote(&Call::Heartbeat).await.unwrap_err();
    assert!(matches!(&early, Error::Reverted { reason } if reason.contains("not registered")));
    for model in [String::new(), "x".repeat(129)] {
        let refused = node.quote(&register(&model, 1)).await.unwrap_err();
        let told = "the contract refuses: NodeReputation: the GPU model must be 1 to 128 bytes";
        assert_eq!(refused.to_string(), told);
    }

    let registered = carry_out(node, &register(H100, 81_559)).await.unwrap();
    assert!(registered.success && registered.block > facts.block);
    assert!(registered.gas_used > 21_000 && registered.fee_wei > 0);
    let record = node.provider(account).await.unwrap().unwrap();
    assert_eq!((record.gpu_model.as_str(), record.vram_mib), (H100, 81_559));
    assert_eq!((record.jobs, record.active), (0, true));

    let before = node.account().await.unwrap();
    let beat = carry_out(node, &Call::Heartbeat).await.unwrap();
    assert!(beat.block > registered.block);
    assert_ne!(beat.hash, registered.hash);
    let seen = node.provider(account).await.unwrap().unwrap();
    assert!(seen.last_seen_s >= record.last_seen_s);
    assert!(before.balance_wei >= node.account().await.unwrap().balance_wei);

    if node.has_extension().await.unwrap() {
        let root = Hash([7; 32]);
        let call = Call::HeartbeatWithReceipts { root, completed: 2, failed: 1 };
        assert!(carry_out(node, &call).await.unwrap().success);
    }
    carry_out(node, &register("NVIDIA A10", 24_576)).await.unwrap();
    let changed = node.provider(account).await.unwrap().unwrap();
    assert_eq!((changed.gpu_model.as_str(), changed.vram_mib), ("NVIDIA A10", 24_576));

    let stranger = Key::random().address();
    assert_eq!(node.provider(stranger).await.unwrap(), None);
}

/// A chain with the contract, and account 1 as its node.
async fn node_on_anvil() -> (Anvil, Evm) {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    let node = Evm::new(anvil.config(contract), Anvil::key(1)).unwrap();
    (anvil, node)
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    chain_contract(&FakeChain::new(Anvil::key(1).address())).await;
}

#[tokio::test]
async fn a_real_node_keeps_the_contract() {
    let (anvil, node) = node_on_anvil().await;
    chain_contract(&node).await;
    drop(anvil);
}

#[tokio::test]
async fn a_chain_without_eip1559_is_paid_in_its_own_way() {
    let anvil = Anvil::start_with(&["--hardfork", "berlin"]);
    let contract = anvil.deploy().await;
    let node = Evm::new(anvil.config(contract), Anvil::key(1)).unwrap();
    let mined = carry_out(&node, &register(H100, 81_559)).await.unwrap();
    let told = anvil.cast(&["tx", &mined.hash.to_string(), "--json"]);
    assert!(told.contains("gasPrice") && !told.contains("maxFeePerGas"), "{told}");
}

#[tokio::test]
async fn what_was_registered_can_be_read_with_cast() {
    let (anvil, node) = node_on_anvil().await;
    let mined = carry_out(&node, &register(H100, 81_559)).await.unwrap();
    let hash = mined.hash.to_string();
    let (contract, account) = (node.reader().contract().to_string(), node.address().to_string());

    let signature = "getProviderInfo(address)((string,uint256,uint256,bool),uint256)";
    let told = anvil.cast(&["call", &contract, signature, &account]);
    assert!(told.contains(&format!("(\"{H100}\", 81559 ")), "{told}");
    assert_eq!(anvil.cast(&["receipt", &hash, "blockNumber"]), mined.block.to_string());
    let input = anvil.cast(&["tx", &hash, "input"]);
    assert!(input.starts_with("0xf3ef747f"), "{input}");

    let key = Anvil::key_hex(0);
    anvil.cast(&["send", &contract, "incrementJobs(address)", &account, "--private-key", key]);
    assert_eq!(node.provider(node.address()).await.unwrap().unwrap().jobs, 1);
}

#[tokio::test]
async fn anybody_can_read_without_a_key() {
    let (anvil, node) = node_on_anvil().await;
    let reader = Reader::new(anvil.config(node.reader().contract())).unwrap();
    assert_eq!(reader.owner().await.unwrap(), Anvil::key(0).address());
    assert_eq!(reader.total_providers().await.unwrap(), 0);
    carry_out(&node, &register(H100, 81_559)).await.unwrap();
    assert_eq!(reader.total_providers().await.unwrap(), 1);
    assert_eq!(reader.active_count().await.unwrap(), 1);

    anvil.cast(&["rpc", "evm_increaseTime", "901"]);
    anvil.cast(&["rpc", "evm_mine"]);
    assert_eq!(reader.active_count().await.unwrap(), 0);
    let record = reader.provider(node.address()).await.unwrap().unwrap();
    assert!(!record.active, "silent for more than fifteen minutes");
}

#[tokio::test]
async fn a_wrong_chain_is_told_before_anything_is_sent() {
    let (anvil, node) = node_on_anvil().await;
    let config = Config { chain_id: Some(5611), ..anvil.config(node.reader().contract()) };
    let lost = Evm::new(config, Anvil::key(1)).unwrap();
    for error in
        [lost.check().await.unwrap_err(), lost.quote(&register(H100, 1)).await.unwrap_err()]
    {
        assert!(matches!(error, Error::WrongChain { expected: 5611, actual: CHAIN_ID, .. }));
        assert!(!error.is_transient());
    }
    assert_eq!(anvil.cast(&["nonce", &node.address().to_string()]), "0");
}

#[tokio::test]
async fn an_address_without_code_is_no_contract() {
    let anvil = Anvil::start();
    let nobody = Key::random().address();
    let node = Evm::new(anvil.config(nobody), Anvil::key(1)).unwrap();
    for error in
        [node.check().await.unwrap_err(), node.quote(&register(H100, 1)).await.unwrap_err()]
    {
        assert!(matches!(error, Error::NoContract(address) if address == nobody), "{error}");
    }
}

#[tokio::test]
async fn an_empty_account_is_told_that_it_can_not_pay() {
    let (anvil, node) = node_on_anvil().await;
    let key = Key::random();
    let poor = Evm::new(anvil.config(node.reader().contract()), key.clone()).unwrap();
    assert_eq!(poor.check().await.unwrap().balance_wei, "0");
    let quote = Quote { gas_limit: 100_000, fees: poor.fees().await.unwrap() };
    let signed = poor.sign(&register(H100, 81_559), 0, quote).await.unwrap();
    let error = poor.send(&signed.raw).await.unwrap_err();
    assert!(matches!(error, Error::Unpaid { account } if account == key.address()), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_unreachable_and_its_key_stays_hidden() {
    let secret = "AbCdEf0123456789AbCdEf";
    let config = Config {
        rpc_urls: vec![format!("http://127.0.0.1:{}/v2/{secret}", free_port())],
        chain_id: None,
        contract: Anvil::key(0).address(),
        request_timeout: Duration::from_secs(1),
        endpoints: EndpointLimits::default(),
    };
    assert!(!format!("{config:?}").contains(secret));
    let error = Reader::new(config).unwrap().owner().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.is_transient());
    assert!(!told(&error).contains(secret), "{}", told(&error));
}

#[tokio::test]
async fn an_endpoint_that_answers_rubbish_is_told_apart() {
    let padding = "x".repeat(5 * 1024 * 1024);
    let huge = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"0x1","padding":"{padding}"}}"#);
    for (status, body, expected) in [
        ("200 OK", "<html>Welcome</html>", "not JSON-RPC"),
        ("200 OK", huge.as_str(), "more than 4194304 bytes"),
        ("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":{"no":"number"}}"#, "another form"),
        ("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":null}"#, "another form"),
        ("502 Bad Gateway", "<html>nginx</html>", "does not answer: HTTP 502"),
        ("429 Too Many Requests", r#"{"error":{"code":-32005,"message":"slow"}}"#, "answer: slow"),
        ("301 Moved Permanently", "", "does not answer: HTTP 301"),
    ] {
        let url = answering(status, body);
        let deployed = deploy(&[url], &Anvil::key(1), None, Duration::from_secs(1)).await;
        let told = told(&deployed.unwrap_err());
        assert!(told.contains(expected) && told.len() < 500, "{status}: {told}");
    }
}

#[test]
fn keystores_and_cast_read_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let passphrase = Secret::new("correct horse");
    let with = ["--keystore-dir", folder, "--unsafe-password", passphrase.expose()];

    keystore::import(&dir.path().join("ours"), &Anvil::key(1), &passphrase).unwrap();
    let told = cast(&[&["wallet", "decrypt-keystore", "ours"], &with[..]].concat());
    assert!(told.contains(Anvil::key_hex(1)), "{told}");

    let key = ["--private-key", Anvil::key_hex(2)];
    cast(&[&["wallet", "import", "theirs"], &key[..], &with[..]].concat());
    let theirs = dir.path().join("theirs");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
    let key = keystore::load(&theirs, &passphrase).unwrap();
    assert_eq!(key.address(), Anvil::key(2).address());
}

#[test]
fn signatures_and_cast_agree() {
    let digest = [0x5a; 32];
    let hex = format!("0x{}", "5a".repeat(32));
    let key = Anvil::key(1);
    let address = key.address().to_string();

    let theirs = cast(&["wallet", "sign", "--no-hash", &hex, "--private-key", Anvil::key_hex(1)]);
    let theirs = alloy::hex::decode_to_array::<_, 65>(&theirs).unwrap();
    assert_eq!(recover(&digest, &theirs), Ok(key.address()));

    let ours = alloy::hex::encode_prefixed(key.sign_digest(&digest));
    cast(&["wallet", "verify", "--no-hash", "--address", &address, &hex, &ours]);
}

/// The error with all its causes, as in a log.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The URL of a server that gives every request this answer until the test's process ends.
fn answering(status: &str, body: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}", body.len());
    let answer = format!("{head}\r\n\r\n{body}");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // All requests of these tests come in one piece.
            let _read = stream.read(&mut request).unwrap_or_default();
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    url
}
