//! A chain whose past changes.

use std::collections::BTreeSet;

use lamda_node::chain::coordinator::{Cursor, Happened, What};
use lamda_node::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::gate::{Fate, refusal};
use super::{OURS, Swarm, all_news, rewards};
use crate::support::anvil::Anvil;

/// What identifies an event.
fn key(one: &Happened) -> (u64, String, u32) {
    (one.block, one.hash.to_string(), one.index)
}

fn taken_back(happened: &[Happened]) -> BTreeSet<(u64, String, u32)> {
    happened.iter().filter(|one| one.what == What::TakenBack).map(key).collect()
}

fn snapshot(swarm: &Swarm) -> String {
    swarm.anvil.cast(&["rpc", "evm_snapshot"]).trim_matches('"').to_owned()
}

fn revert(swarm: &Swarm, to: &str) {
    assert_eq!(swarm.anvil.cast(&["rpc", "evm_revert", to]), "true");
}

#[tokio::test]
async fn what_ten_reorganised_blocks_held_is_taken_back_exactly() {
    let swarm = Swarm::start();
    swarm.rounds(4);
    swarm.reward(0, "1");
    swarm.mine(100);
    swarm.reward(1, "2");
    swarm.mine(4);
    swarm.reward(2, "3");
    swarm.mine(4);
    let head = swarm.head();
    let coordinator = swarm.coordinator();
    let (before, cursor) = all_news(&coordinator, &Cursor::default()).await;
    assert_eq!(rewards(&before), ["1", "2", "3"]);

    swarm.anvil.cast(&["rpc", "anvil_reorg", "10", "[]"]);
    assert_eq!(swarm.head(), head);
    let gone: BTreeSet<_> = before.iter().filter(|one| one.block > head - 10).map(key).collect();
    assert_eq!(gone.len(), 4, "two rewards and two sums");
    let (after, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!(taken_back(&after), gone);
    assert_eq!(after.len(), gone.len());
    swarm.reward(2, "4");
    let (last, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!((rewards(&last), last.len()), (vec!["4".to_owned()], 2));
    assert_eq!(all_news(&coordinator, &cursor).await.0, []);
}

#[tokio::test]
async fn an_event_that_moves_to_another_block_is_taken_back_and_told_anew() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    let place = snapshot(&swarm);
    swarm.reward(0, "1");
    let coordinator = swarm.coordinator();
    let (before, cursor) = all_news(&coordinator, &Cursor::default()).await;
    revert(&swarm, &place);
    swarm.mine(1);
    swarm.reward(0, "1");
    let news = coordinator.news(&cursor).await.unwrap();
    assert_eq!(news.stands_to(), Some(before.last().unwrap().block - 1));
    assert_eq!(coordinator.news(&news.cursor).await.unwrap().stands_to(), None);
    let after = news.happened;
    assert_eq!(taken_back(&after), before.iter().rev().take(2).map(key).collect());
    assert_eq!(rewards(&after), ["1"]);
    assert!(after[..2].iter().all(|one| one.what == What::TakenBack), "first of all");
    assert_eq!(after.len(), 4);
}

#[tokio::test]
async fn a_chain_that_goes_back_takes_nothing_back_before_it_shows_other_blocks() {
    let swarm = Swarm::start();
    swarm.rounds(2);
    swarm.mine(100);
    let place = snapshot(&swarm);
    swarm.reward(0, "1");
    swarm.mine(20);
    let coordinator = swarm.coordinator();
    let (_, cursor) = all_news(&coordinator, &Cursor::default()).await;
    let read_to = cursor.read_to().unwrap();
    revert(&swarm, &place);
    let news = coordinator.news(&cursor).await.unwrap();
    assert_eq!((news.happened, news.void_after, news.is_behind), (vec![], None, false));
    assert!(news.head.block < read_to);
    assert_eq!(news.cursor.read_to(), Some(read_to));
    swarm.mine(5);
    let (happened, cursor) = all_news(&coordinator, &news.cursor).await;
    assert_eq!(taken_back(&happened).len(), 2);
    swarm.reward(1, "2");
    let (happened, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!(rewards(&happened), ["2"], "although that block was read before");
    swarm.mine(50);
    assert_eq!(all_news(&coordinator, &cursor).await.0, []);
}

#[tokio::test]
async fn deeper_changes_void_everything_after_the_last_block_that_stayed() {
    let swarm = Swarm::start();
    swarm.rounds(3);
    swarm.reward(0, "1");
    let coordinator = swarm.coordinator();
    let (mut told, mut cursor) = (Vec::new(), Cursor::default());
    let mut place = String::new();
    for step in 0..10 {
        swarm.mine(40);
        if step == 5 {
            place = snapshot(&swarm);
            swarm.reward(1, "2");
        }
        let (happened, next) = all_news(&coordinator, &cursor).await;
        told.extend(happened);
        cursor = next;
    }
    assert_eq!(rewards(&told), ["1", "2"]);
    revert(&swarm, &place);
    let stayed = swarm.head();
    swarm.reward(1, "5");
    swarm.mine(200);
    let news = coordinator.news(&cursor).await.unwrap();
    let void_after = news.stands_to().unwrap();
    assert_eq!(news.void_after, Some(void_after));
    assert!((stayed - 100..=stayed).contains(&void_after), "{void_after} of {stayed}");
    told.retain(|one| one.block <= void_after);
    told.extend(news.happened);
    assert_eq!(rewards(&told), ["1", "5"]);
    let (none, _) = all_news(&coordinator, &news.cursor).await;
    assert_eq!(none, []);
}

#[tokio::test]
async fn blocks_that_an_endpoint_does_not_show_are_not_taken_for_changed_ones() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    let (coordinator, mut cursor) = (swarm.coordinator(), Cursor::default());
    let mut place = String::new();
    for step in 0..10 {
        swarm.mine(40);
        if step == 7 {
            place = snapshot(&swarm);
            swarm.reward(0, "1");
        }
        (_, cursor) = all_news(&coordinator, &cursor).await;
    }
    revert(&swarm, &place);
    let stayed = swarm.head();
    swarm.reward(0, "2");
    swarm.mine(200);
    let hide: fn(&Value, &mut Value) = |_, answers| {
        for answer in answers.as_array_mut().unwrap() {
            answer["result"] = Value::Null;
        }
    };
    let put_off: fn(&Value, &mut Value) = |_, answers| {
        if let Some((_, first)) = answers.as_array_mut().unwrap().split_last_mut() {
            for one in first {
                *one = refusal(one, 429, "slow down");
            }
        }
    };
    for (change, why) in [(hide, "it doesn't show block"), (put_off, "slow down")] {
        swarm.gate.rule(move |request| match request {
            Value::Array(_) => Fate::Change(change),
            _ => Fate::Forward,
        });
        let told = coordinator.news(&cursor).await.unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
    swarm.gate.open();
    let void_after = coordinator.news(&cursor).await.unwrap().void_after.unwrap();
    assert!((stayed - 100..=stayed).contains(&void_after), "{void_after} of {stayed}");
}

#[tokio::test]
async fn another_chain_in_its_place_voids_everything() {
    let old = Swarm::start();
    old.rounds(1);
    old.mine(300);
    old.reward(0, "1");
    let (_, cursor) = all_news(&old.coordinator(), &Cursor::default()).await;
    // Chains that begin in the same second have the same first block.
    let before = SystemClock.now().unix_ms() / 1_000 - 100;
    let new = Swarm::of(Anvil::start_with(&["--timestamp", &before.to_string()]));
    assert_eq!(new.contract, old.contract);
    new.rounds(1);
    new.reward(0, "9");
    let news = new.coordinator().news(&cursor).await.unwrap();
    assert_eq!((news.void_after, rewards(&news.happened)), (Some(0), vec!["9".to_owned()]));
    assert_eq!(news.cursor.read_to(), Some(new.head()));
}

#[tokio::test]
async fn an_endpoint_that_lags_far_behind_is_not_taken_for_another_chain() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    swarm.reward(0, "1");
    swarm.mine(500);
    let (_, cursor) = all_news(&swarm.coordinator(), &Cursor::default()).await;
    swarm.gate.rule(|request| match request["params"][0].as_str() {
        Some("latest") => Fate::Change(|_, answer| answer["result"]["number"] = json!("0x20")),
        _ => Fate::Forward,
    });
    let news = swarm.coordinator().news(&cursor).await.unwrap();
    assert_eq!((news.head.block, news.void_after, news.happened), (0x20, None, vec![]));
    assert_eq!(news.cursor, cursor);
}

#[tokio::test]
async fn an_endpoint_that_leaves_events_out_takes_nothing_back() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    swarm.reward(0, "1");
    let coordinator = swarm.coordinator();
    let (_, cursor) = all_news(&coordinator, &Cursor::default()).await;
    swarm.gate.rule(|request| match request["method"].as_str() {
        Some("eth_getLogs") => Fate::Change(|_, answer| answer["result"] = json!([])),
        _ => Fate::Forward,
    });
    let told = coordinator.news(&cursor).await.unwrap_err().to_string();
    assert!(told.contains("it leaves out events of block"), "{told}");
    swarm.gate.open();
    assert_eq!(all_news(&coordinator, &cursor).await.0, []);
    // Nor one that does not show the blocks.
    swarm.gate.rule(|request| match request {
        Value::Array(_) => Fate::Change(|_, answers| {
            for answer in answers.as_array_mut().unwrap() {
                *answer = refusal(answer, -32000, "block not found");
            }
        }),
        _ if request["method"] == "eth_getLogs" => {
            Fate::Change(|_, answer| answer["result"] = json!([]))
        }
        _ => Fate::Forward,
    });
    let (none, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!(none, []);
    swarm.gate.open();
    assert_eq!(all_news(&coordinator, &cursor).await.0, [], "{OURS} is still known");
}
