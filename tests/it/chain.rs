//! The chain: one suite over the fake and over a real EVM node, and what can go wrong on the way
//! to a block. What was written is read again with foundry's `cast`, which this project did not
//! write.

#![expect(clippy::unwrap_used, reason = "clippy takes only what is marked as a test for one")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use lamda_node::chain::deploy::deploy;
use lamda_node::chain::fake::FakeChain;
use lamda_node::chain::key::recover;
use lamda_node::chain::keystore;
use lamda_node::chain::{Chain, Config, EndpointLimits, Error, Evm, Key, Reader};
use lamda_node::node::Address;
use lamda_node::secret::Secret;

use super::support::anvil::{Anvil, CHAIN_ID, cast};
use super::support::tools::{eventually, free_port};

const H100: &str = "NVIDIA H100 80GB HBM3";

/// What every chain does. `node` is the chain seen by `account`, which is not registered yet.
async fn chain_contract(node: &impl Chain, account: Address) {
    let facts = node.check().await.unwrap();
    assert_eq!(facts.chain_id, CHAIN_ID);
    assert_ne!(facts.balance_wei, "0");
    assert_eq!(node.provider(account).await.unwrap(), None, "a stranger");

    let early = node.heartbeat().await.unwrap_err();
    assert!(matches!(&early, Error::Reverted { reason } if reason.contains("not registered")));
    for model in [String::new(), "x".repeat(129)] {
        let refused = node.register(&model, 1).await.unwrap_err();
        let told = "the contract refuses: NodeReputation: the GPU model must be 1 to 128 bytes";
        assert_eq!(refused.to_string(), told);
    }
    assert_eq!(node.provider(account).await.unwrap(), None, "a refusal leaves no trace");

    let registered = node.register(H100, 81_559).await.unwrap();
    assert!(registered.tx_hash.starts_with("0x") && registered.tx_hash.len() == 66);
    assert!(registered.block > facts.block && registered.gas_used > 21_000);
    let record = node.provider(account).await.unwrap().unwrap();
    assert_eq!((record.gpu_model.as_str(), record.vram_mib), (H100, 81_559));
    assert_eq!((record.jobs, record.active), (0, true));

    let beat = node.heartbeat().await.unwrap();
    assert!(beat.block > registered.block);
    assert_ne!(beat.tx_hash, registered.tx_hash);
    let seen = node.provider(account).await.unwrap().unwrap();
    assert!(seen.last_seen_s >= record.last_seen_s);

    node.register("NVIDIA A10", 24_576).await.unwrap();
    let changed = node.provider(account).await.unwrap().unwrap();
    assert_eq!((changed.gpu_model.as_str(), changed.vram_mib), ("NVIDIA A10", 24_576));

    let stranger = Key::random().address();
    assert_eq!(node.provider(stranger).await.unwrap(), None);
}

/// A chain with the contract on it, and account 1 as its node.
async fn node_on_anvil() -> (Anvil, Evm) {
    let anvil = Anvil::start();
    let contract = anvil.deploy().await;
    let node = Evm::new(anvil.config(contract), Anvil::key(1)).unwrap();
    (anvil, node)
}

#[tokio::test]
async fn the_fake_keeps_the_contract() {
    let account = Anvil::key(1).address();
    chain_contract(&FakeChain::new(account), account).await;
}

#[tokio::test]
async fn a_real_node_keeps_the_contract() {
    let (anvil, node) = node_on_anvil().await;
    chain_contract(&node, node.address()).await;
    let sent = anvil.cast(&["nonce", &node.address().to_string()]);
    assert_eq!(sent, "3", "what was refused was not paid for");
}

#[tokio::test]
async fn a_chain_without_eip1559_is_paid_in_its_own_way() {
    let anvil = Anvil::start_with(&["--hardfork", "berlin"]);
    let contract = anvil.deploy().await;
    let node = Evm::new(anvil.config(contract), Anvil::key(1)).unwrap();
    let mined = node.register(H100, 81_559).await.unwrap();
    let told = anvil.cast(&["tx", &mined.tx_hash, "--json"]);
    assert!(told.contains("gasPrice") && !told.contains("maxFeePerGas"), "{told}");
}

#[tokio::test]
async fn what_was_registered_can_be_read_with_cast() {
    let (anvil, node) = node_on_anvil().await;
    let mined = node.register(H100, 81_559).await.unwrap();
    let (contract, account) = (node.reader().contract().to_string(), node.address().to_string());

    let signature = "getProviderInfo(address)((string,uint256,uint256,bool),uint256)";
    let told = anvil.cast(&["call", &contract, signature, &account]);
    assert!(told.contains(&format!("(\"{H100}\", 81559 ")), "{told}");
    assert_eq!(anvil.cast(&["receipt", &mined.tx_hash, "blockNumber"]), mined.block.to_string());
    let input = anvil.cast(&["tx", &mined.tx_hash, "input"]);
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
    node.register(H100, 81_559).await.unwrap();
    assert_eq!(reader.total_providers().await.unwrap(), 1);
    assert_eq!(reader.active_count().await.unwrap(), 1);

    anvil.cast(&["rpc", "evm_increaseTime", "901"]);
    anvil.cast(&["rpc", "evm_mine"]);
    assert_eq!(reader.active_count().await.unwrap(), 0);
    let record = reader.provider(node.address()).await.unwrap().unwrap();
    assert!(!record.active, "silent for more than fifteen minutes");
}

#[tokio::test]
async fn two_transactions_at_once_get_two_nonces() {
    let (anvil, node) = node_on_anvil().await;
    node.register(H100, 81_559).await.unwrap();
    let (one, two, three) =
        tokio::try_join!(node.heartbeat(), node.register("NVIDIA A10", 1), node.heartbeat())
            .unwrap();
    assert!(one.tx_hash != two.tx_hash && two.tx_hash != three.tx_hash);
    let account = node.address().to_string();
    assert_eq!(anvil.cast(&["nonce", &account]), "4");
}

#[tokio::test]
async fn a_wrong_chain_is_told_before_anything_is_sent() {
    let (anvil, node) = node_on_anvil().await;
    let config = Config { chain_id: Some(5611), ..anvil.config(node.reader().contract()) };
    let lost = Evm::new(config, Anvil::key(1)).unwrap();
    for error in [lost.check().await.unwrap_err(), lost.register(H100, 1).await.unwrap_err()] {
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
    for error in [node.check().await.unwrap_err(), node.register(H100, 1).await.unwrap_err()] {
        assert!(matches!(error, Error::NoContract(address) if address == nobody), "{error}");
    }
}

#[tokio::test]
async fn an_empty_account_is_told_that_it_can_not_pay() {
    let (anvil, node) = node_on_anvil().await;
    let key = Key::random();
    let poor = Evm::new(anvil.config(node.reader().contract()), key.clone()).unwrap();
    assert_eq!(poor.check().await.unwrap().balance_wei, "0");
    let error = poor.register(H100, 81_559).await.unwrap_err();
    assert!(matches!(error, Error::Unpaid { account } if account == key.address()), "{error}");
}

#[tokio::test]
async fn a_transaction_that_no_block_takes_is_given_up_at_the_deadline() {
    let (anvil, node) = node_on_anvil().await;
    anvil.cast(&["rpc", "evm_setAutomine", "false"]);
    let receipt_deadline = Duration::from_secs(2);
    let config = Config { receipt_deadline, ..anvil.config(node.reader().contract()) };
    let hurried = Evm::new(config, Anvil::key(1)).unwrap();
    let error = hurried.register(H100, 81_559).await.unwrap_err();
    let Error::NotMined { tx_hash, seconds: 2 } = error else { panic!("{error}") };

    anvil.cast(&["rpc", "evm_mine"]);
    let status = anvil.cast(&["receipt", &tx_hash, "status"]);
    assert!(status.starts_with('1') || status == "true", "the hash was the right one: {status}");
}

#[tokio::test]
async fn a_transaction_that_fails_in_its_block_tells_why() {
    let (anvil, node) = node_on_anvil().await;
    anvil.cast(&["rpc", "evm_setAutomine", "false"]);
    let (contract, account) = (node.reader().contract().to_string(), node.address().to_string());
    // While it waits for a block, the contract becomes one that always reverts.
    let meddle = tokio::task::spawn_blocking(move || {
        eventually("the transaction is sent", Duration::from_secs(20), || {
            (anvil.cast(&["nonce", &account, "--block", "pending"]) == "1").then_some(())
        });
        anvil.cast(&["rpc", "anvil_setCode", &contract, "0x60006000fd"]);
        anvil.cast(&["rpc", "evm_mine"]);
        anvil
    });
    let (sent, anvil) = tokio::join!(node.register(H100, 81_559), meddle);
    let error = sent.unwrap_err();
    assert!(matches!(error, Error::Reverted { .. }), "{error}");
    drop(anvil);
}

#[tokio::test]
async fn a_chain_that_forgot_a_transaction_is_told_again() {
    let (anvil, node) = node_on_anvil().await;
    anvil.cast(&["rpc", "evm_setAutomine", "false"]);
    let account = node.address().to_string();
    let meddle = tokio::task::spawn_blocking(move || {
        let pending = || anvil.cast(&["nonce", &account, "--block", "pending"]);
        let limit = Duration::from_secs(20);
        eventually("it is sent", limit, || (pending() == "1").then_some(()));
        anvil.cast(&["rpc", "anvil_dropAllTransactions"]);
        eventually("it is sent again", limit, || (pending() == "1").then_some(()));
        anvil.cast(&["rpc", "evm_mine"]);
        anvil
    });
    let (sent, anvil) = tokio::join!(node.register(H100, 81_559), meddle);
    sent.unwrap();
    drop(anvil);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_unreachable_and_its_key_stays_hidden() {
    let secret = "AbCdEf0123456789AbCdEf";
    let config = Config {
        rpc_urls: vec![format!("http://127.0.0.1:{}/v2/{secret}", free_port())],
        chain_id: None,
        contract: Anvil::key(0).address(),
        receipt_deadline: Duration::from_secs(1),
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

/// The error with all its causes, as a log would have it.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The URL of a server that gives every request this answer. It ends with the test's process.
fn answering(status: &str, body: &str) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}", body.len());
    let answer = format!("{head}\r\n\r\n{body}");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            // Every request of these tests comes in one piece.
            let _read = stream.read(&mut request).unwrap_or_default();
            stream.write_all(answer.as_bytes()).ok();
        }
    });
    url
}
