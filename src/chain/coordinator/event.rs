//! What the coordinator's events tell.

use alloy::primitives::B256;
use alloy::sol_types::SolEvent as _;
use serde::{Deserialize, Serialize};

use super::bindings::SwarmCoordinator as Contract;
use super::data::{Data, account, amount, number};
use super::{Amount, TEXT_CHARS_MAX};
use crate::chain::logs::Log;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// The most winners of a vote that are kept.
const WINNERS_MAX: usize = 32;

/// One event, known by its block's hash and its place in that block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    /// The block's number.
    pub block: u64,
    /// The block's hash.
    pub hash: Hash,
    /// The event's place among all events of the block.
    pub index: u32,
    /// The block's time, if the endpoint tells it with the event.
    pub at: Option<Timestamp>,
    /// The transaction; `None` of what was taken back.
    pub tx: Option<Hash>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of events. Peer ids and other texts are strangers': at most [`TEXT_CHARS_MAX`] characters, and `…` at
/// the end of each that is shown otherwise than it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A peer's reward was submitted.
    RewardSubmitted {
        /// Who submitted it.
        account: Address,
        /// The round.
        round: u64,
        /// The stage; `None` in versions without stages.
        stage: Option<u64>,
        /// The reward; it may be negative.
        reward: Amount,
        /// The peer.
        peer: String,
    },
    /// The sum of a peer's rewards changed.
    CumulativeRewardsUpdated {
        /// Who submitted the last reward.
        account: Address,
        /// The peer.
        peer: String,
        /// The sum; it may be negative.
        total: Amount,
    },
    /// A peer voted.
    WinnerSubmitted {
        /// Who submitted the vote.
        account: Address,
        /// The peer that voted.
        peer: String,
        /// The round.
        round: u64,
        /// The peers that it voted for, at most 32.
        winners: Vec<String>,
        /// How many more there are.
        more: u64,
    },
    /// A peer id was registered.
    PeerRegistered {
        /// Its account.
        account: Address,
        /// The peer.
        peer: String,
    },
    /// A round began.
    RoundAdvanced {
        /// The round.
        round: u64,
    },
    /// A stage began.
    StageAdvanced {
        /// The round.
        round: u64,
        /// The stage.
        stage: u64,
    },
    /// An event that was told before is not on the chain any more: a reorganisation took its block away.
    TakenBack,
}

/// The signatures of the events that are asked for.
pub(super) const SIGNATURES: [B256; 7] = [
    Contract::RewardSubmitted_0::SIGNATURE_HASH,
    Contract::RewardSubmitted_1::SIGNATURE_HASH,
    Contract::CumulativeRewardsUpdated::SIGNATURE_HASH,
    Contract::WinnerSubmitted::SIGNATURE_HASH,
    Contract::PeerRegistered::SIGNATURE_HASH,
    Contract::RoundAdvanced::SIGNATURE_HASH,
    Contract::StageAdvanced::SIGNATURE_HASH,
];

const REWARD: B256 = Contract::RewardSubmitted_0::SIGNATURE_HASH;
const REWARD_OF_ROUND: B256 = Contract::RewardSubmitted_1::SIGNATURE_HASH;
const TOTAL: B256 = Contract::CumulativeRewardsUpdated::SIGNATURE_HASH;
const VOTE: B256 = Contract::WinnerSubmitted::SIGNATURE_HASH;
const PEER: B256 = Contract::PeerRegistered::SIGNATURE_HASH;
const ROUND: B256 = Contract::RoundAdvanced::SIGNATURE_HASH;
const STAGE: B256 = Contract::StageAdvanced::SIGNATURE_HASH;

/// What a log tells; `None` if it has another form than its signature says.
pub(super) fn what(log: &Log) -> Option<What> {
    let data = Data(&log.data);
    let text = |at: usize| data.text_at(at, TEXT_CHARS_MAX);
    let (signature, indexed) = log.topics.split_first()?;
    Some(match (*signature, indexed) {
        (REWARD, [eoa, round, stage]) => What::RewardSubmitted {
            account: account(eoa.0)?,
            round: number(round.0),
            stage: Some(number(stage.0)),
            reward: amount(data.word_at(0)?),
            peer: text(32)?,
        },
        (REWARD_OF_ROUND, [eoa, round]) => What::RewardSubmitted {
            account: account(eoa.0)?,
            round: number(round.0),
            stage: None,
            reward: amount(data.word_at(0)?),
            peer: text(32)?,
        },
        (TOTAL, [eoa]) => What::CumulativeRewardsUpdated {
            account: account(eoa.0)?,
            peer: text(0)?,
            total: amount(data.word_at(32)?),
        },
        (VOTE, [eoa, round]) => {
            let winners = data.texts_at(32, WINNERS_MAX, TEXT_CHARS_MAX)?;
            What::WinnerSubmitted {
                account: account(eoa.0)?,
                peer: text(0)?,
                round: number(round.0),
                winners: winners.texts,
                more: winners.more,
            }
        }
        (PEER, [eoa]) => What::PeerRegistered { account: account(eoa.0)?, peer: text(0)? },
        (ROUND, [round]) => What::RoundAdvanced { round: number(round.0) },
        (STAGE, [round]) => {
            What::StageAdvanced { round: number(round.0), stage: number(data.word()?) }
        }
        _ => return None,
    })
}
