//! Somebody else's contract: the coordinator of a swarm, which counts what its peers earn.
//!
//! [`Coordinator::look`] reads the present figures in one batch, [`Coordinator::news`] the events since a
//! [`Cursor`]. Only reads: there is no key here.
//!
//! Must hold: what the contract or the endpoint does not tell is unknown, with a reason, and never zero. A contract
//! is hostile: nothing that it answers takes more than a bounded amount of memory or passes for something else. The
//! events that a cursor has passed are exactly those of the chain that the endpoint showed last; what a
//! reorganisation took away is told.

mod bindings;
mod cause;
mod cursor;
mod data;
mod event;
mod look;
mod news;

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use alloy::primitives::{B256, I256, U64};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use cause::{Cause, cause_of_revert};
pub use cursor::Cursor;
pub use event::{Happened, What};
pub use look::{Look, PeerFigures};
pub use news::News;

use super::logs;
use super::rpc::{Call, words};
use super::{Config, Error, Reader};
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// The most peers of which figures are asked for.
pub const PEERS_MAX: usize = 256;

/// The most characters of a peer id, as of every other text of the contract.
pub const TEXT_CHARS_MAX: usize = 256;

/// Reads a swarm's coordinator. Makes no connection before the first question.
#[derive(Debug)]
pub struct Coordinator {
    reader: Reader,
    /// How many blocks the endpoints allow in a request for logs, as far as that was found out.
    span: Mutex<Span>,
}

/// A block, as an endpoint told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Its number.
    pub block: u64,
    /// Its time.
    pub at: Timestamp,
}

/// A value, or why it is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told<T> {
    /// The contract's answer.
    Known(T),
    /// Why there is none, in words.
    Unknown(String),
}

/// A whole number of up to 256 bits with a sign, as decimal text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount(I256);

/// A text that is no whole number of at most 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole number of at most 256 bits")]
pub struct InvalidAmount;

/// How many blocks one request for logs covers.
#[derive(Debug, Clone, Copy)]
struct Span {
    blocks: u64,
    /// Requests that were answered since the number was last changed.
    answered: u32,
}

/// The fields of a block that tell it from another one.
#[derive(Debug, Deserialize)]
struct Header {
    hash: B256,
    number: U64,
    timestamp: U64,
}

impl Coordinator {
    /// [`Error::BadUrl`] if an endpoint is not an `http` or `https` URL. `config.contract` is the coordinator.
    pub fn new(config: Config) -> Result<Self, Error> {
        let span = Mutex::new(Span { blocks: logs::BLOCKS_MAX, answered: 0 });
        Ok(Self { reader: Reader::new(config)?, span })
    }

    /// The contract's address.
    pub fn contract(&self) -> Address {
        self.reader.contract()
    }

    /// The times of these blocks, of at most a thousand; a block that the endpoint does not show is left out. For
    /// events of endpoints that don't tell them with the logs.
    pub async fn times(&self, blocks: &[u64]) -> Result<Vec<Point>, Error> {
        let headers = self.headers(blocks.get(..1000).unwrap_or(blocks)).await?;
        Ok(headers.iter().flatten().map(Header::point).collect())
    }

    /// The headers of the blocks with these numbers; `None` for each that the endpoint doesn't have.
    async fn headers(&self, blocks: &[u64]) -> Result<Vec<Option<Header>>, Error> {
        const METHOD: &str = "eth_getBlockByNumber";
        let question = |block: &u64| -> Call { (METHOD, json!([U64::from(*block), false])) };
        let calls: Vec<Call> = blocks.iter().map(question).collect();
        let items = self.reader.rpc.batch(&calls).await?;
        let header = |(block, item): (&u64, super::rpc::Item)| {
            let found = match item {
                Err(refusal) if refusal.is_throttling(METHOD, &Value::Null) => {
                    let reason = format!("it puts off {METHOD}: {}", words(&refusal.message));
                    return Err(Error::Unexpected { reason });
                }
                // Some clients refuse to tell of a block that they don't have.
                Ok(Value::Null) | Err(_) => return Ok(None),
                Ok(found) => serde_json::from_value::<Header>(found).ok(),
            };
            found.filter(|header| header.number.to::<u64>() == *block).map(Some).ok_or_else(|| {
                Error::Unexpected { reason: format!("block {block} is none that can be read") }
            })
        };
        blocks.iter().zip(items).map(header).collect()
    }
}

impl Header {
    fn hash(&self) -> Hash {
        Hash(self.hash.0)
    }

    fn point(&self) -> Point {
        Point::new(self.number.to(), self.timestamp.to())
    }
}

impl Point {
    fn new(block: u64, timestamp_s: u64) -> Self {
        Self { block, at: Timestamp::from_unix_ms(timestamp_s.saturating_mul(1000)) }
    }
}

impl<T> Told<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why it is not known.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(reason) => Some(reason),
        }
    }
}

impl Amount {
    fn new(number: I256) -> Self {
        Self(number)
    }

    /// The number, if it fits.
    pub fn as_i128(&self) -> Option<i128> {
        self.0.try_into().ok()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        I256::from_dec_str(text).map(Self).map_err(|_| InvalidAmount)
    }
}

crate::text::serde_as_text!(Amount);
