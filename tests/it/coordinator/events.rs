//! The events, as long as nothing goes wrong.

use lamda_node::chain::coordinator::{Cursor, Happened, What};
use serde_json::{Value, json};

use super::gate::{Fate, methods, range};
use super::{NOBODYS, OURS, Swarm, THEIRS, account, all_news, rewards};

#[tokio::test]
async fn every_kind_of_event_is_told_of_ours_and_of_others() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    swarm.reward(1, "-12");
    let round_only = "submitReward(uint256,int256,string)";
    let receipt = swarm.send(2, &[round_only, "1", "30", THEIRS]);
    let vote = "submitWinners(uint256,string[],string)";
    swarm.send(2, &[vote, "1", &format!("[\"{OURS}\",\"{NOBODYS}\"]"), THEIRS]);

    let news = swarm.coordinator().news(&Cursor::default()).await.unwrap();
    assert_eq!((news.void_after, news.unread, news.unreadable), (None, None, 0));
    assert_eq!((news.is_behind, news.head.block), (false, swarm.head()));
    let (one, two) = (account(1), account(2));
    let told: Vec<Value> = news.happened.iter().map(|one| json!(one.what)).collect();
    let expected = [
        json!({"what": "peer_registered", "account": one, "peer": OURS}),
        json!({"what": "peer_registered", "account": two, "peer": THEIRS}),
        json!({"what": "stage_advanced", "round": 0, "stage": 1}),
        json!({"what": "stage_advanced", "round": 0, "stage": 2}),
        json!({"what": "round_advanced", "round": 1}),
        json!({"what": "stage_advanced", "round": 1, "stage": 0}),
        json!({"what": "reward_submitted", "account": one, "round": 1, "stage": 0, "reward": "-12",
               "peer": OURS}),
        json!({"what": "cumulative_rewards_updated", "account": one, "peer": OURS, "total": "-12"}),
        json!({"what": "reward_submitted", "account": two, "round": 1, "stage": null,
               "reward": "30", "peer": THEIRS}),
        json!({"what": "cumulative_rewards_updated", "account": two, "peer": THEIRS, "total": "30"}),
        json!({"what": "winner_submitted", "account": two, "peer": THEIRS, "round": 1,
               "winners": [OURS, NOBODYS], "more": 0}),
    ];
    assert_eq!(told, expected);
    let theirs = &news.happened[8];
    let written = serde_json::to_value(theirs).unwrap();
    assert_eq!(written["hash"], receipt["blockHash"]);
    assert_eq!(written["tx"], receipt["transactionHash"]);
    assert_eq!((theirs.index, news.happened[9].index), (0, 1));
    let block = receipt["blockNumber"].as_str().unwrap();
    assert_eq!(format!("{:#x}", theirs.block), block);
    let time = swarm.anvil.cast(&["block", block, "-f", "timestamp"]);
    assert_eq!((theirs.at.unwrap().unix_ms() / 1000).to_string(), time);
    assert_eq!(serde_json::from_value::<Happened>(written).unwrap(), *theirs);
}

#[tokio::test]
async fn each_event_is_told_once_and_a_cursor_outlives_a_restart() {
    let swarm = Swarm::start();
    swarm.rounds(2);
    swarm.reward(0, "1");
    let (first, cursor) = all_news(&swarm.coordinator(), &Cursor::default()).await;
    assert_eq!(rewards(&first), ["1"]);
    let coordinator = swarm.coordinator();
    let (none, cursor) = all_news(&coordinator, &cursor).await;
    assert_eq!(none, []);
    swarm.reward(1, "2");
    let written = serde_json::to_string(&cursor).unwrap();
    let (second, cursor) = all_news(&coordinator, &serde_json::from_str(&written).unwrap()).await;
    assert_eq!(rewards(&second), ["2"]);
    assert_eq!(second.len(), 2, "{second:?}");
    assert_eq!(cursor.read_to(), Some(swarm.head()));
    let other = swarm.coordinator_at(account(1));
    assert!(other.news(&cursor).await.unwrap_err().to_string().contains("there is no contract"));
}

#[tokio::test]
async fn a_look_for_news_costs_three_requests() {
    let swarm = Swarm::start();
    swarm.mine(200);
    let coordinator = swarm.coordinator();
    let (_, cursor) = all_news(&coordinator, &Cursor::default()).await;
    swarm.gate.seen();
    swarm.reward(0, "1");
    let news = coordinator.news(&cursor).await.unwrap();
    assert_eq!(rewards(&news.happened), ["1"]);
    let asked = methods(&swarm.gate.seen());
    assert_eq!(asked, ["eth_getBlockByNumber", "eth_getBlockByNumber", "eth_getLogs"]);
}

#[tokio::test]
async fn a_first_reading_begins_seven_hours_ago() {
    let swarm = Swarm::start();
    // A block in ten seconds: 2,520 of them.
    swarm.rounds(1);
    swarm.reward(0, "1");
    swarm.anvil.cast(&["rpc", "anvil_mine", "2000", "10"]);
    swarm.reward(1, "2");
    swarm.anvil.cast(&["rpc", "anvil_mine", "1500", "10"]);
    let (happened, _) = all_news(&swarm.coordinator(), &Cursor::default()).await;
    assert_eq!(rewards(&happened), ["2"]);
}

#[tokio::test]
async fn of_too_many_blocks_at_once_the_oldest_stay_unread_and_that_is_said() {
    let swarm = Swarm::start();
    swarm.rounds(1);
    let coordinator = swarm.coordinator();
    let (_, cursor) = all_news(&coordinator, &Cursor::default()).await;
    let read_to = cursor.read_to().unwrap();
    swarm.gate.seen();
    // A chain of so many blocks takes too long to make.
    swarm.gate.rule(|request| match request["params"][0].as_str() {
        Some("latest") => Fate::Change(|_, answer| answer["result"]["number"] = json!("0x40000")),
        None if range(request).is_some() => Fate::Change(|_, answer| {
            answer.as_object_mut().unwrap().remove("error");
            answer["result"] = json!([]);
        }),
        _ => Fate::Forward,
    });
    let news = coordinator.news(&cursor).await.unwrap();
    assert_eq!(news.unread, Some((read_to + 1, 0x40000 - 200_001)));
    let first = swarm.gate.seen().iter().find_map(range).unwrap();
    assert_eq!(first.0, 0x40000 - 200_000);
    assert_eq!(news.cursor.read_to(), Some(0x40000));
}

#[tokio::test]
async fn times_that_the_endpoint_does_not_tell_with_the_events_can_be_asked_for() {
    let swarm = Swarm::start();
    swarm.reward(0, "1");
    swarm.gate.rule(|request| match request["method"].as_str() {
        Some("eth_getLogs") => Fate::Change(|_, answer| {
            for log in answer["result"].as_array_mut().unwrap() {
                log.as_object_mut().unwrap().remove("blockTimestamp");
            }
        }),
        _ => Fate::Forward,
    });
    let coordinator = swarm.coordinator();
    let (happened, _) = all_news(&coordinator, &Cursor::default()).await;
    assert!(happened.iter().all(|one| one.at.is_none()));
    let blocks: Vec<u64> = happened.iter().map(|one| one.block).chain([99_999]).collect();
    let times = coordinator.times(&blocks).await.unwrap();
    assert_eq!(times.len(), happened.len(), "a block that isn't there has none");
    let last = times.last().unwrap();
    let time = swarm.anvil.cast(&["block", &last.block.to_string(), "-f", "timestamp"]);
    assert_eq!((last.at.unix_ms() / 1000).to_string(), time);
}

#[tokio::test]
async fn an_event_of_another_version_is_counted_and_a_log_unasked_is_refused() {
    let swarm = Swarm::start();
    swarm.reward(0, "1");
    let coordinator = swarm.coordinator();
    swarm.gate.rule(|request| match request["method"].as_str() {
        Some("eth_getLogs") => Fate::Change(|_, answer| {
            answer["result"][0]["data"] = json!("0x");
        }),
        _ => Fate::Forward,
    });
    let news = coordinator.news(&Cursor::default()).await.unwrap();
    assert_eq!((news.unreadable, rewards(&news.happened)), (1, vec!["1".to_owned()]));
    assert_eq!(coordinator.news(&news.cursor).await.unwrap().unreadable, 0, "it is counted once");
    for change in [
        |_: &Value, answer: &mut Value| answer["result"][0]["address"] = json!(account(1)),
        |_: &Value, answer: &mut Value| {
            answer["result"][0]["topics"][0] = json!(format!("0x{}", "11".repeat(32)));
        },
        |_: &Value, answer: &mut Value| answer["result"][0]["blockNumber"] = json!("0xffff"),
        |_: &Value, answer: &mut Value| answer["result"][0]["blockHash"] = Value::Null,
    ] {
        swarm.gate.rule(move |request| match request["method"].as_str() {
            Some("eth_getLogs") => Fate::Change(change),
            _ => Fate::Forward,
        });
        // The first reading notes where it begins; the second has nothing to tell.
        let cursor = coordinator.news(&Cursor::default()).await.unwrap().cursor;
        let told = coordinator.news(&cursor).await.unwrap_err().to_string();
        assert!(told.contains("unasked"), "{told}");
    }
}

#[tokio::test]
async fn nobody_else_passes_for_a_peer_by_a_name_that_looks_like_it() {
    let swarm = Swarm::start();
    for name in [format!("\u{202e}{OURS}"), format!("{OURS}\u{200e}"), format!("{OURS}\u{feff}")] {
        swarm.send(2, &["registerPeer(string)", &name]);
    }
    let (happened, _) = all_news(&swarm.coordinator(), &Cursor::default()).await;
    let is_ours =
        |one: &&Happened| matches!(&one.what, What::PeerRegistered { peer, .. } if peer == OURS);
    assert_eq!(happened.iter().filter(is_ours).count(), 1);
    assert_eq!(happened.len(), 5);
}
