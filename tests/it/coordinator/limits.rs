//! What public endpoints allow.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lamda_node::chain::Error;
use lamda_node::chain::coordinator::Cursor;
use serde_json::Value;

use super::gate::{Fate, range, refusal};
use super::{Swarm, all_news, rewards};

/// A range of blocks.
type Blocks = (u64, u64);

/// The ranges of blocks of which logs were asked for: those that were allowed, and how many were not.
fn ranges(requests: &[Value], blocks_max: u64) -> (Vec<Blocks>, usize) {
    let all: Vec<Blocks> = requests.iter().filter_map(range).collect();
    let is_allowed = |(from, to): &Blocks| to - from < blocks_max;
    let allowed: Vec<Blocks> = all.iter().copied().filter(is_allowed).collect();
    let refused = all.len() - allowed.len();
    (allowed, refused)
}

#[tokio::test]
async fn the_limit_of_an_endpoint_is_found_out_in_its_own_words() {
    let swarm = Swarm::start();
    swarm.rounds(3);
    for round in 0..3 {
        swarm.mine(350);
        swarm.reward(round, &(round + 1).to_string());
    }
    for (blocks_max, code, message) in [
        (500, -32602, "range 1000000 exceeds limit of 500"),
        (500, -32005, "query returned more than 10000 results"),
        (100, -32005, "block range too large, max range: 100"),
        (100, -32005, "limit exceeded"),
        (100, -32602, "Log response size exceeded. Please reduce query block range."),
        (100, -32614, "eth_getLogs is limited to a 100 range"),
        (
            10,
            -32600,
            "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range",
        ),
        (2, -32000, "query block range exceeds server limit, narrow your filter: 2"),
    ] {
        let coordinator = swarm.coordinator();
        swarm.gate.rule(move |request| match range(request) {
            Some((from, to)) if to - from >= blocks_max => {
                Fate::Answer(refusal(request, code, message))
            }
            _ => Fate::Forward,
        });
        swarm.gate.seen();
        let (happened, cursor) = all_news(&coordinator, &Cursor::default()).await;
        assert_eq!(rewards(&happened), ["1", "2", "3"], "{message}");
        let (allowed, refused) = ranges(&swarm.gate.seen(), blocks_max);
        let (first, last) = (allowed[0].0, allowed.last().unwrap().1);
        assert_eq!((first, last), (0, swarm.head()), "{message}");
        let covers = |pair: &[Blocks]| pair[1].0 <= pair[0].1 + 1;
        assert!(allowed.windows(2).all(covers), "{message}: {allowed:?}");
        let tries = usize::try_from(allowed.len() as u64 / 8 + 16).unwrap();
        assert!((1..tries).contains(&refused), "{message}: {refused} of {}", allowed.len());
        assert_eq!(all_news(&coordinator, &cursor).await.0, [], "{message}");
        let (allowed, refused) = ranges(&swarm.gate.seen(), blocks_max);
        assert!(refused <= 1 + allowed.len() / 8, "{message}: it is not forgotten: {refused}");
    }
}

#[tokio::test]
async fn the_limit_that_even_one_block_exceeds_is_one_of_haste_and_is_not_run_up_against() {
    let swarm = Swarm::start();
    swarm.mine(50);
    let coordinator = swarm.coordinator();
    let (_, cursor) = all_news(&coordinator, &Cursor::default()).await;
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&asked);
    swarm.gate.rule(move |request| match range(request) {
        Some(_) => {
            noted.lock().unwrap().push(Instant::now());
            Fate::Answer(refusal(request, -32005, "limit exceeded"))
        }
        None => Fate::Forward,
    });
    let told = coordinator.news(&cursor).await.unwrap_err();
    assert!(matches!(told, Error::Unreachable { .. }), "{told}");
    let asked = asked.lock().unwrap();
    assert!((5..12).contains(&asked.len()), "{}", asked.len());
    let pauses = asked.windows(2).map(|two| two[1] - two[0]);
    let short = pauses.filter(|pause| *pause < Duration::from_millis(150)).count();
    assert!(short <= 1, "the last one is tried again at once: {short} of {}", asked.len());
}

#[tokio::test]
async fn a_storm_of_429_is_waited_out_and_loses_nothing() {
    let swarm = Swarm::start();
    swarm.rounds(2);
    swarm.reward(0, "1");
    let coordinator = swarm.coordinator();
    let (first, cursor) = all_news(&coordinator, &Cursor::default()).await;
    assert_eq!(rewards(&first), ["1"]);
    swarm.reward(1, "2");
    swarm.gate.rule(|_| Fate::Status(429, "retry-after: 1\r\n"));
    swarm.gate.seen();
    let (began, mut failed) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(3) {
        let told = coordinator.news(&cursor).await.unwrap_err();
        assert!(matches!(told, Error::Unreachable { .. }), "{told}");
        let told = coordinator.look(&[]).await.unwrap_err();
        assert!(matches!(told, Error::Unreachable { .. }), "{told}");
        failed += 2;
    }
    let asked = swarm.gate.seen().len();
    assert!(failed >= 2 && asked <= 6, "{asked} requests in three seconds");
    swarm.gate.open();
    let (second, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!((rewards(&second), second.len()), (vec!["2".to_owned()], 2));
    assert_eq!(all_news(&coordinator, &cursor).await.0, []);
}

#[tokio::test]
async fn what_was_read_before_an_endpoint_gave_up_is_kept() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    swarm.reward(0, "1");
    swarm.mine(300);
    swarm.reward(1, "2");
    let end = swarm.head() - 100;
    let coordinator = swarm.coordinator();
    swarm.gate.rule(move |request| match range(request) {
        Some((from, to)) if to - from >= 50 => {
            Fate::Answer(refusal(request, -32602, "block range is too wide"))
        }
        Some((_, to)) if to > end => Fate::Status(503, ""),
        _ => Fate::Forward,
    });
    let news = coordinator.news(&Cursor::default()).await.unwrap();
    assert_eq!((rewards(&news.happened), news.is_behind), (vec!["1".to_owned()], true));
    let told = coordinator.news(&news.cursor).await;
    swarm.gate.open();
    let cursor = told.map_or(news.cursor, |more| more.cursor);
    assert_eq!(rewards(&all_news(&coordinator, &cursor).await.0), ["2"]);
}
