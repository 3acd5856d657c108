//! The coordinator's present figures, all of one block.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy::hex;
use alloy::primitives::{Bytes, U64};
use alloy::sol_types::SolCall;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bindings::SwarmCoordinator as Contract;
use super::cause::cause_of_revert;
use super::data::{Data, account, amount, number};
use super::{Amount, Coordinator, Error, PEERS_MAX, Point, TEXT_CHARS_MAX, Told};
use crate::chain::revert;
use crate::chain::rpc::{Call, ErrorObject, words};
use crate::ids::Address;

/// The most bootnodes that are kept.
const BOOTNODES_MAX: usize = 64;

/// How often the calls that an endpoint put off are made again within one look, and how long after.
const ROUNDS_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);

const HASTE: &str = "the endpoint asks for fewer calls";

/// With this begins each reason that is the contract's, not the endpoint's.
const CONTRACT: &str = "the contract ";

/// What the coordinator says of its swarm and of some peers, at one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The block.
    pub head: Point,
    /// The swarm's round.
    pub round: Told<u64>,
    /// The round's stage; unknown of versions without stages.
    pub stage: Told<u64>,
    /// The swarm's bootnodes, at most 64, each of at most [`TEXT_CHARS_MAX`] characters.
    pub bootnodes: Told<Vec<String>>,
    /// The figures of each peer that was asked for.
    pub peers: BTreeMap<String, PeerFigures>,
}

/// What the coordinator says of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFigures {
    /// The sum of its rewards; it may be negative.
    pub rewards: Told<Amount>,
    /// How often others voted for it.
    pub wins: Told<u64>,
    /// In how many rounds it voted.
    pub votes: Told<u64>,
    /// The account that registered it; `None` if none did.
    pub eoa: Told<Option<Address>>,
}

/// An answer to one question: its bytes, or why there are none.
type Reply = Result<Bytes, String>;

/// The questions of a look: five about all, then two about each peer.
struct Questions<'a> {
    calls: Vec<Call>,
    peers: Vec<&'a String>,
}

impl Coordinator {
    /// The figures of the latest block. Two requests, a block and one batch of 5 calls and 2 a peer, unless the
    /// endpoint takes only smaller batches or puts calls off.
    ///
    /// Of more than [`PEERS_MAX`] peers, or of one with a longer id than [`TEXT_CHARS_MAX`] bytes, nothing is asked;
    /// their figures are unknown. [`Error::NoCoordinator`] if the contract answers nothing at all.
    pub async fn look(&self, peers: &[String]) -> Result<Look, Error> {
        self.reader.chain_id().await?;
        let head = self.reader.rpc.head().await?;
        let (asked, left_out) = chosen(peers);
        let questions = self.questions(&asked, head.number);
        let replies = self.replies(&questions.calls).await?;
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or_else(|| Err(HASTE.to_owned()));
        let (round, stage, bootnodes) = (next(), next(), next());
        let count = questions.peers.len();
        let rewards = each(next(), count, |word| Some(amount(word)));
        let eoas = each(next(), count, |word| account(word).map(Some));
        let (mut figures, mut wins) = (BTreeMap::new(), Vec::new());
        wins.resize_with(count, &mut next);
        let votes = std::iter::repeat_with(next);
        for ((peer, (rewards, eoa)), (wins, votes)) in questions
            .peers
            .iter()
            .zip(rewards.into_iter().zip(eoas))
            .zip(wins.into_iter().zip(votes))
        {
            let (wins, votes, eoa) = (counted(wins), counted(votes), registered(eoa));
            figures.insert((*peer).clone(), PeerFigures { rewards, wins, votes, eoa });
        }
        figures.extend(left_out);
        let head = Point::new(head.number, head.timestamp_s);
        let (round, stage, bootnodes) = (counted(round), counted(stage), multiaddresses(bootnodes));
        self.is_coordinator(Look { head, round, stage, bootnodes, peers: figures })
    }

    fn questions<'a>(&self, peers: &BTreeSet<&'a String>, block: u64) -> Questions<'a> {
        let peers: Vec<&String> = peers.iter().copied().collect();
        let ids = || peers.iter().map(|peer| (*peer).clone());
        let all: Vec<String> = ids().collect();
        let mut data = vec![
            Contract::currentRoundCall {}.abi_encode(),
            Contract::currentStageCall {}.abi_encode(),
            Contract::getBootnodesCall {}.abi_encode(),
            Contract::getTotalRewardsCall { peerIds: all.clone() }.abi_encode(),
            Contract::getEoaCall { peerIds: all }.abi_encode(),
        ];
        data.extend(ids().map(|peer| Contract::getTotalWinsCall { peerId: peer }.abi_encode()));
        data.extend(
            ids().map(|peer| Contract::getVoterVoteCountCall { peerId: peer }.abi_encode()),
        );
        let call = |data: Vec<u8>| -> Call {
            let call = json!({"to": self.contract(), "data": hex::encode_prefixed(data)});
            ("eth_call", json!([call, U64::from(block)]))
        };
        Questions { calls: data.into_iter().map(call).collect(), peers }
    }

    /// The answers to these calls. Those that the endpoint puts off are made again a few times.
    async fn replies(&self, calls: &[Call]) -> Result<Vec<Reply>, Error> {
        let mut replies: Vec<Option<Reply>> = vec![None; calls.len()];
        for round in 0..ROUNDS_MAX {
            let open: Vec<usize> =
                (0..calls.len()).filter(|place| replies[*place].is_none()).collect();
            if open.is_empty() {
                break;
            }
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let again: Vec<Call> = open.iter().map(|place| calls[*place].clone()).collect();
            let items = match self.reader.rpc.batch(&again).await {
                Ok(items) => items,
                // What was answered before the endpoint had enough is worth keeping.
                Err(_) if round > 0 => break,
                Err(err) => return Err(err),
            };
            for (place, item) in open.into_iter().zip(items) {
                replies[place] = reply(item);
            }
        }
        Ok(replies
            .into_iter()
            .map(|reply| reply.unwrap_or_else(|| Err(HASTE.to_owned())))
            .collect())
    }

    /// The look, unless nothing at all was answered.
    fn is_coordinator(&self, look: Look) -> Result<Look, Error> {
        let is_silent = look.round.known().is_none()
            && look.stage.known().is_none()
            && look.bootnodes.known().is_none()
            && look.peers.values().all(|peer| peer.rewards.known().is_none());
        match look.round.reason().filter(|_| is_silent) {
            None => Ok(look),
            Some(reason) if reason.starts_with(CONTRACT) => Err(Error::NoCoordinator {
                contract: self.contract(),
                reason: format!("asked for its round, {reason}"),
            }),
            Some(reason) => Err(Error::Unexpected { reason: reason.to_owned() }),
        }
    }
}

/// The peers to ask about, and the figures of the others.
fn chosen(peers: &[String]) -> (BTreeSet<&String>, BTreeMap<String, PeerFigures>) {
    let (mut asked, mut left_out) = (BTreeSet::new(), BTreeMap::new());
    for peer in peers {
        let reason = if peer.len() > TEXT_CHARS_MAX {
            format!("the peer id has more than {TEXT_CHARS_MAX} bytes")
        } else if asked.len() >= PEERS_MAX && !asked.contains(peer) {
            format!("more than {PEERS_MAX} peers are not asked about")
        } else {
            asked.insert(peer);
            continue;
        };
        left_out.insert(
            peer.clone(),
            PeerFigures {
                rewards: Told::Unknown(reason.clone()),
                wins: Told::Unknown(reason.clone()),
                votes: Told::Unknown(reason.clone()),
                eoa: Told::Unknown(reason),
            },
        );
    }
    (asked, left_out)
}

/// What came of a call; `None` if the endpoint put it off.
fn reply(item: Result<Value, ErrorObject>) -> Option<Reply> {
    match item {
        Ok(found) => {
            let bytes = serde_json::from_value::<Bytes>(found);
            Some(bytes.map_err(|_| "the endpoint's answer is no data".to_owned()))
        }
        Err(refusal) if refusal.is_throttling("eth_call", &Value::Null) => None,
        Err(refusal) => Some(Err(refused(&refusal))),
    }
}

fn refused(refusal: &ErrorObject) -> String {
    let Some(reason) = revert::reason(refusal) else {
        return format!("the endpoint refuses: {}", words(&refusal.message));
    };
    let data = revert::revert_data(&refusal.data).unwrap_or_default();
    match cause_of_revert(&data) {
        Some(cause) => format!("the contract refuses: {} ({})", cause.meaning, cause.name),
        // A contract without this function reverts without a word.
        None if data.is_empty() => format!("the contract has no answer ({reason})"),
        None => format!("the contract refuses: {reason}"),
    }
}

fn other_form() -> String {
    "the contract answers in another form".to_owned()
}

fn counted(reply: Reply) -> Told<u64> {
    told(reply, |data| data.word().map(number))
}

fn multiaddresses(reply: Reply) -> Told<Vec<String>> {
    told(reply, |data| Some(data.texts_at(0, BOOTNODES_MAX, TEXT_CHARS_MAX)?.texts))
}

/// The zero address is that of no account.
fn registered(eoa: Told<Option<Address>>) -> Told<Option<Address>> {
    match eoa {
        Told::Known(eoa) => Told::Known(eoa.filter(|eoa| *eoa.as_bytes() != [0; 20])),
        unknown @ Told::Unknown(_) => unknown,
    }
}

fn told<T>(reply: Reply, read: impl FnOnce(Data<'_>) -> Option<T>) -> Told<T> {
    match reply {
        Ok(bytes) => read(Data(&bytes)).map_or_else(|| Told::Unknown(other_form()), Told::Known),
        Err(reason) => Told::Unknown(reason),
    }
}

/// The values of a list of `count` words.
fn each<T>(reply: Reply, count: usize, read: impl Fn([u8; 32]) -> Option<T>) -> Vec<Told<T>> {
    let list = told(reply, |data| data.words(count));
    let one = |place: usize| match &list {
        Told::Known(words) => {
            let value = words.get(place).and_then(|word| read(*word));
            value.map_or_else(|| Told::Unknown(other_form()), Told::Known)
        }
        Told::Unknown(reason) => Told::Unknown(reason.clone()),
    };
    (0..count).map(one).collect()
}
