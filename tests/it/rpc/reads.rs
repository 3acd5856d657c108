//! Reads go on at the next endpoint, and a failed endpoint rests.

use std::time::Duration;

use lamda_node::backoff::Backoff;
use lamda_node::chain::{Chain as _, Config, EndpointLimits, Error, Reader};
use lamda_node::reputation::Call;

use super::{Chain, READ, busy, no_rests};
use crate::support::anvil::Anvil;
use crate::support::rpc_proxy::{Garbage, Weather, long_rests};

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
        assert_eq!(
            chain.a.seen(READ).len(),
            turn,
            "the endpoint rests after one failure: {weather:?}"
        );
        assert_eq!(chain.b.seen(READ).len(), 2 * turn, "{weather:?}");
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
    assert_eq!(chain.a.seen(READ).len() - before, 3, "the rest has an upper bound");
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
async fn a_huge_answer_is_cut_off() {
    let chain = Chain::start().await;
    for endpoint in [&chain.a, &chain.b] {
        endpoint.set(Weather::Garbage(Garbage::Huge));
    }
    let error = chain.reader(long_rests()).owner().await.unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes") && error.len() < 200, "{error}");
}
