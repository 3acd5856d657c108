//! The proxy itself, through foundry's `cast`.

use std::time::Duration;

use serde_json::Value;

use crate::support::anvil::{Anvil, cast};
use crate::support::rpc_proxy::{Hold, RpcProxy, SEND, Weather};
use crate::support::tools::eventually;

/// The proxy itself, through foundry's `cast`.
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
    assert_eq!(ask(&pay), hash, "the dropped transaction had the same hash");
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
