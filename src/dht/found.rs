//! The answer to `rpc_find`: what one node holds under each key, and which nodes it knows near it.
//!
//! Must hold: it is read as it comes, and only what was asked for is kept, so that strangers' values, which make up
//! most of it, are nowhere in memory.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::AsyncRead;
use libp2p_core::PeerId;

use super::dictionary;
use super::fault::Fault;
use super::key::Id;
use super::source::{Field, Source};

/// How many nodes near a key are kept of an answer. Hivemind's nodes tell twenty.
const NEAREST_MAX: usize = 20;

/// What one node says of one key.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) held: Held,
    pub(super) nearest: Vec<(Id, PeerId)>,
}

/// What one node holds under a key.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Held {
    #[default]
    Nothing,
    /// A value without subkeys, which tells nothing of who published it.
    Regular,
    Dictionary(Entries),
}

/// The entries of a dictionary.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entries {
    /// The expirations of those that were asked for, in Unix seconds, as the node tells them.
    pub(super) of_interest: BTreeMap<String, f64>,
    /// The expirations of all others: how many, and the latest.
    pub(super) others: usize,
    pub(super) others_latest: f64,
}

/// What one node answers to `rpc_find`: its own id, if it tells one, and what it says of each key.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) node: Option<Id>,
    pub(super) told: Vec<Told>,
}

/// What is looked for in all nodes of a round.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) keys: Vec<Id>,
    pub(super) peers: BTreeSet<String>,
    /// The largest answer, in bytes.
    pub(super) answer_max: usize,
    /// Which expirations are taken for real, in Unix seconds.
    pub(super) expires_min: f64,
    pub(super) expires_max: f64,
}

/// Reads the answer to the call, of `end` bytes.
pub(super) async fn read<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
    wanted: &Wanted,
) -> Result<Answer, Fault> {
    while let Some((number, field)) = from.field(end).await? {
        match (number, field) {
            (4, Field::Until(end)) => return read_call(from, end, wanted).await,
            (_, Field::Until(until)) => from.skip(until).await?,
            _ => {}
        }
    }
    Err(Fault::Garbled("it is no answer to a call"))
}

async fn read_call<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
    wanted: &Wanted,
) -> Result<Answer, Fault> {
    match from.field(end).await? {
        Some((1, Field::Until(end))) => read_response(from, end, wanted).await,
        Some((2, Field::Until(end))) => {
            Err(Fault::refused(&from.keep(end).await?.unwrap_or_default()))
        }
        _ => Err(Fault::Garbled("it is no answer to a call")),
    }
}

async fn read_response<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
    wanted: &Wanted,
) -> Result<Answer, Fault> {
    let mut answer = Answer { node: None, told: Vec::new() };
    while let Some((number, field)) = from.field(end).await? {
        match (number, field) {
            (2, Field::Until(end)) if answer.told.len() < wanted.keys.len() => {
                answer.told.push(read_result(from, end, wanted).await?);
            }
            (2, _) => return Err(Fault::Garbled("it has more results than there were keys")),
            (3, Field::Until(until)) => {
                let node = from.keep(until).await?.unwrap_or_default();
                answer.node = super::call::node_id(&node)?;
            }
            (_, Field::Until(until)) => from.skip(until).await?,
            _ => {}
        }
    }
    if answer.told.len() != wanted.keys.len() {
        return Err(Fault::Garbled("it has fewer results than there were keys"));
    }
    Ok(answer)
}

async fn read_result<S: AsyncRead + Unpin>(
    from: &mut Source<S>,
    end: u64,
    wanted: &Wanted,
) -> Result<Told, Fault> {
    let (mut held, mut ids, mut peers) = (Held::Nothing, Vec::new(), Vec::new());
    while let Some((number, field)) = from.field(end).await? {
        match (number, field) {
            // The kind is written before the value.
            (1, Field::Number(kind)) => {
                held = match kind {
                    0 => Held::Nothing,
                    1 => Held::Regular,
                    2 => Held::Dictionary(Entries::default()),
                    _ => return Err(Fault::Garbled("a result is of an unknown kind")),
                };
            }
            (2, Field::Until(until)) => {
                if let Held::Dictionary(entries) = &mut held {
                    let each = |subkey: &str, expires| entries.take(subkey, expires, wanted);
                    dictionary::read(from, until, each).await?;
                }
                from.skip(until).await?;
            }
            (4, Field::Until(until)) if ids.len() < NEAREST_MAX => {
                ids.push(from.keep(until).await?.and_then(|id| Id::of(&id)));
            }
            (5, Field::Until(until)) if peers.len() < NEAREST_MAX => {
                peers.push(from.keep(until).await?.and_then(|id| PeerId::from_bytes(&id).ok()));
            }
            (_, Field::Until(until)) => from.skip(until).await?,
            _ => {}
        }
    }
    let nearest = ids.into_iter().zip(peers).filter_map(|(id, peer)| Some((id?, peer?)));
    Ok(Told { held, nearest: nearest.collect() })
}

impl Entries {
    /// Counts one entry, if its expiration is real.
    fn take(&mut self, subkey: &str, expires: f64, wanted: &Wanted) {
        // Not for what is no number.
        let is_real = expires >= wanted.expires_min && expires <= wanted.expires_max;
        if !is_real {
            return;
        }
        if wanted.peers.contains(subkey) {
            let known = self.of_interest.entry(subkey.to_owned()).or_insert(expires);
            *known = known.max(expires);
        } else {
            self.others += 1;
            self.others_latest = self.others_latest.max(expires);
        }
    }
}
