//! One round: all bootnodes at once, then the nodes that are nearest to the keys, a few at a time.
//!
//! Must hold: no task outlives the round. Everything runs within the future of [`round`]; its end drops it all.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use libp2p_core::PeerId;
use tokio::time::{Instant, timeout, timeout_at};

use super::address::Place;
use super::call;
use super::fault::Fault;
use super::found::{Entries, Wanted};
use super::link::Link;
use super::search::{End, Next, Search};
use super::{
    Alive, Asked, BOOTNODES_MAX, Bootnode, Config, KEYS_MAX, Key, Others, PEERS_MAX, Publish,
    Round, Sought, Witness,
};
use crate::clock::Timestamp;

/// How many bootnodes are asked at a time, and how many other nodes.
const BOOTNODES_AT_ONCE: usize = 16;
const ALPHA: usize = 3;

/// The largest answer, in bytes. Hivemind's network program sends no larger one.
const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// How long ago an expiration may be: clocks differ.
const PAST_MAX: Duration = Duration::from_mins(5);

/// How many addresses of a node are tried.
const DIALS_MAX: usize = 3;

/// How often a node is asked where others are.
const WHEREABOUTS_MAX: usize = 5;

/// What the visits of one round share.
struct Shared<'a> {
    witness: &'a Witness,
    wanted: Wanted,
    search: Mutex<Search>,
}

impl Shared<'_> {
    /// Never held over a wait.
    fn search(&self) -> MutexGuard<'_, Search> {
        self.search.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn config(&self) -> &Config {
        &self.witness.config
    }
}

/// See [`Witness::round`].
pub(super) async fn round(
    witness: &Witness,
    bootnodes: &[Bootnode],
    keys: &[Key],
    peers: &[String],
    now: Timestamp,
) -> Round {
    let deadline = Instant::now() + witness.config.whole;
    let ids: Vec<_> = keys.iter().take(KEYS_MAX).map(Key::id).collect();
    let dialled = bootnodes.iter().take(BOOTNODES_MAX);
    let shared = Shared {
        witness,
        search: Mutex::new(Search::begin(&ids, dialled.clone().map(|node| node.peer))),
        wanted: Wanted {
            keys: ids,
            peers: peers.iter().take(PEERS_MAX).cloned().collect(),
            answer_max: ANSWER_MAX,
            expires_min: seconds(now) - PAST_MAX.as_secs_f64(),
            expires_max: seconds(now) + witness.config.ahead_max.as_secs_f64(),
        },
    };
    let mut answers: Vec<Option<Result<Alive, Fault>>> = vec![None; bootnodes.len()];
    // What is under way at the deadline stays unanswered.
    let _ = timeout_at(deadline, ask_all(&shared, bootnodes, &mut answers)).await;
    let answers = answers.into_iter().enumerate().map(|(at, answer)| match answer {
        Some(answer) => answer.map_err(|fault| fault.to_string()),
        None if at >= BOOTNODES_MAX => Err(format!("only {BOOTNODES_MAX} are asked in one round")),
        None => Err("the round was over before it answered".to_owned()),
    });
    let asked: Vec<_> = bootnodes
        .iter()
        .zip(answers)
        .map(|(bootnode, answer)| Asked { bootnode: bootnode.clone(), answer })
        .collect();
    let search = shared.search.into_inner().unwrap_or_else(PoisonError::into_inner);
    let answered = search.nodes_answered();
    let mut ends = search.end().into_iter();
    let sought = keys.iter().map(|_| match ends.next() {
        Some(end) => sought(end, &asked),
        None => Sought::Unknown { why: format!("only {KEYS_MAX} keys are asked in one round") },
    });
    Round { sought: sought.collect(), asked, answered }
}

/// Asks all bootnodes and as many other nodes as the search needs.
async fn ask_all(
    shared: &Shared<'_>,
    bootnodes: &[Bootnode],
    answers: &mut [Option<Result<Alive, Fault>>],
) {
    let mut waiting = bootnodes.iter().take(BOOTNODES_MAX).enumerate();
    let mut boots = FuturesUnordered::new();
    let mut visits = FuturesUnordered::new();
    loop {
        while boots.len() < BOOTNODES_AT_ONCE
            && let Some((at, bootnode)) = waiting.next()
        {
            boots.push(async move { (at, ask_bootnode(shared, bootnode).await) });
        }
        while visits.len() < ALPHA
            && let Some(next) = shared.search().next()
        {
            visits.push(ask_node(shared, next));
        }
        tokio::select! {
            Some((at, answer)) = boots.next() => {
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
            Some(()) = visits.next() => {}
            else => return,
        }
    }
}

async fn ask_bootnode(shared: &Shared<'_>, bootnode: &Bootnode) -> Result<Alive, Fault> {
    let peer = bootnode.peer;
    let looked_up = within(shared.config().dial, "address", bootnode.way.resolve(DIALS_MAX));
    let found = match looked_up.await {
        Ok(found) => {
            let places: Vec<_> = found.into_iter().map(|at| Place { at, relay: None }).collect();
            dial(shared, &places, peer).await
        }
        Err(fault) => Err(fault),
    };
    let answer = match &found {
        Ok(link) => link.drive(greet(shared, link)).await,
        Err(fault) => Err(fault.clone()),
    };
    let is_heard = match (&found, &answer) {
        (Ok(link), Ok(_)) => link.drive(ask(shared, link, peer)).await.is_ok(),
        _ => false,
    };
    if !is_heard {
        shared.search().failed(peer);
    }
    answer
}

/// Finds out that a Hivemind node is there, and its program.
async fn greet(shared: &Shared<'_>, link: &Link) -> Result<Alive, Fault> {
    let call = shared.config().call;
    let begun = Instant::now();
    within(call, "answer to a ping", call::ping(link)).await?;
    let rtt = begun.elapsed();
    // A node that doesn't tell its program is as good.
    let agent = within(call, "name of its program", call::agent(link)).await.unwrap_or_default();
    Ok(Alive { rtt, agent })
}

async fn ask_node(shared: &Shared<'_>, next: Next) {
    let asked = match dial(shared, &next.addresses, next.peer).await {
        Ok(link) => link.drive(ask(shared, &link, next.peer)).await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = asked {
        tracing::debug!(peer = %next.peer, "a node of the DHT gave no answer: {fault}");
        shared.search().failed(next.peer);
    }
}

/// Asks a node for the keys, and then where the nodes are that it told of.
async fn ask(shared: &Shared<'_>, link: &Link, peer: PeerId) -> Result<(), Fault> {
    let call = shared.config().call;
    let found = call::find(link, &shared.wanted);
    let answer = within(call, "answer to a search", found).await?;
    shared.search().answered(peer, answer);
    let mut tried = std::collections::BTreeSet::new();
    while tried.len() < WHEREABOUTS_MAX {
        let lost = shared.search().lost();
        let Some(lost) = lost.into_iter().find(|lost| !tried.contains(lost)) else { break };
        tried.insert(lost);
        // Another node may know it.
        match within(call, "address of another node", call::whereabouts(link, lost)).await {
            Ok(found) => shared.search().located(found),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Connects to a node at whichever of its places answers first.
async fn dial(shared: &Shared<'_>, to: &[Place], peer: PeerId) -> Result<Link, Fault> {
    let all = async {
        let key = &shared.witness.key;
        let mut dials: FuturesUnordered<_> =
            to.iter().map(|place| Link::dial(key, *place, peer)).collect();
        let mut last = Fault::Unreached("nobody tells where it is".to_owned());
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(link) => return Ok(link),
                Err(fault) => last = fault,
            }
        }
        Err(last)
    };
    within(shared.config().dial, "connection", all).await
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or(Err(Fault::Slow { what, within: limit }))
}

/// What follows for one key.
fn sought(end: End, asked: &[Asked]) -> Sought {
    match end {
        End::Found { entries, is_complete } => {
            let Entries { of_interest, others, others_latest } = entries;
            let publish = |expires: f64| Publish { expires: timestamp(expires) };
            Sought::Found {
                peers: of_interest.into_iter().map(|(peer, at)| (peer, publish(at))).collect(),
                others: Others {
                    count: others,
                    latest: (others > 0).then(|| timestamp(others_latest)),
                },
                is_complete,
            }
        }
        End::Absent { answered } => Sought::Absent { asked: answered },
        End::Unknown { nearest: 0, .. } => Sought::Unknown { why: no_bootnode(asked) },
        End::Unknown { answered, nearest } => Sought::Unknown {
            why: format!("only {answered} of the {nearest} nodes nearest to the key answered"),
        },
    }
}

/// Why nothing is known of the DHT.
fn no_bootnode(asked: &[Asked]) -> String {
    let silent = asked.iter().filter_map(|asked| Some((asked, asked.answer.as_ref().err()?)));
    match (silent.clone().next(), silent.count(), asked.len()) {
        (None, _, 0) => "no bootnode is known".to_owned(),
        (None, ..) => "no bootnode said what it holds".to_owned(),
        (Some((node, why)), silent, all) if silent == all => {
            format!("none of {all} bootnodes answered, {} because {why}", node.bootnode)
        }
        (_, silent, all) => {
            format!(
                "{silent} of {all} bootnodes didn't answer, the others don't say what they hold"
            )
        }
    }
}

fn seconds(at: Timestamp) -> f64 {
    Duration::from_millis(at.unix_ms()).as_secs_f64()
}

fn timestamp(seconds: f64) -> Timestamp {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
