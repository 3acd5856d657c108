//! Beats that are signed by their node's key ([`crate::fleet::signed`]), on the route of the others.
//!
//! Invariants: a key speaks for one node, and for a node that has a key nobody else does, until its owner says so; what
//! is cheap is looked at first, and the chain is asked, at most `LOOKUPS_MAX` times a minute, only about keys that have
//! signed and whose nodes the hub knows already, so that no stranger enters the fleet; a beat is taken once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::Refusal;
use super::limit::Budget;
use super::{Shared, count};
use crate::chain::Reader;
use crate::chain::key::recover;
use crate::clock::{Clock as _, Timestamp};
use crate::fleet::beat::Beat;
use crate::fleet::clocks::Standing;
use crate::fleet::instances::{Clash, Run};
use crate::fleet::signed::{HEADER, Refused, Seal};
use crate::hub::store::identity::{Kept, Signed};
use crate::ids::Address;
use crate::web::Peer;
use crate::web::http::{HeaderMap, StatusCode};

/// How long the contract's word about a key counts.
const KNOWN: Duration = Duration::from_mins(1);

/// Most keys of which the contract's word is remembered.
const KNOWN_MAX: usize = 4_096;

/// How many keys the chain is asked about at a time, and how long it may take.
const ASKED_MAX: usize = 2;
const ANSWER: Duration = Duration::from_secs(8);

/// How often the chain is asked in a minute, whoever beats: the owner may pay for each call.
const LOOKUPS_MAX: u32 = 30;

/// The seal of a request that has one; `Err` if it can't be right whatever the body is.
pub(super) fn seal(
    shared: &Shared,
    peer: &Peer,
    head: &HeaderMap,
) -> Result<Option<Seal>, Refusal> {
    let Some(written) = head.get(HEADER) else { return Ok(None) };
    let seal = Seal::parse(written.to_str().unwrap_or_default());
    let fresh = |seal: Seal| seal.is_fresh(shared.clock.now()).map(|()| seal);
    seal.and_then(fresh).map(Some).map_err(|why| match why {
        // A wrong clock guesses nothing: others of the same address go on.
        Refused::Stale { .. } => {
            count(&shared.counted.unauthorized);
            Refusal::Plain(StatusCode::UNAUTHORIZED, why.to_string())
        }
        _ => wrong(shared, peer, why.to_string()),
    })
}

/// A node that has a key, and another proof than its signature.
pub(super) fn only_its_key(node: &str) -> Refusal {
    let what = format!("{node} has a key: only beats that it signs are taken");
    Refusal::Plain(StatusCode::FORBIDDEN, what)
}

fn wrong(shared: &Shared, peer: &Peer, why: String) -> Refusal {
    count(&shared.counted.unauthorized);
    shared.refuse_for(peer, why)
}

/// Takes a signed beat in.
pub(super) async fn take(
    shared: &Shared,
    peer: &Peer,
    seal: Seal,
    body: &[u8],
) -> Result<(), Refusal> {
    let beat = Beat::parse(body).inspect_err(|_| count(&shared.counted.invalid))?;
    let identities = shared.fleet.identities();
    let bound = identities.name_of(seal.node);
    let is_known = bound.is_some();
    let name = bound.unwrap_or_else(|| shared.fleet.name_of(seal.node));
    let own = [&name, &seal.node.lower_hex()].contains(&&beat.node_id)
        || beat.node_id.parse() == Ok(seal.node);
    if !own {
        let why = format!("the key {} does not speak for {}", seal.node, beat.node_id);
        return Err(wrong(shared, peer, why));
    }
    if recover(&seal.digest(body).0, &seal.signature.0) != Ok(seal.node) {
        let why = format!("the signature is not that of {} over this body", seal.node);
        return Err(wrong(shared, peer, why));
    }
    if !is_known && identities.is_bound(&name) {
        count(&shared.counted.unauthorized);
        return Err(only_its_key(&name));
    }
    if !is_known && !is_ours(shared, peer, seal.node, &name).await? {
        let why = format!(
            "the hub does not know the key {0}: lamda-node hub enroll --key {0} (on the hub's machine)",
            seal.node
        );
        return Err(wrong(shared, peer, why));
    }
    let (now, place) = (shared.clock.now(), peer.address.ip().to_canonical().to_string());
    let said = (seal.instance, Some(seal.at_ms));
    let clash = identities.hears(seal.node, said, &place, now);
    // Whoever has the key guesses nothing, and neither does who repeats what was signed by it.
    let clash = clash.map_err(|why| {
        count(&shared.counted.unauthorized);
        Refusal::Plain(StatusCode::UNAUTHORIZED, why.to_string())
    })?;
    let run = Run { instance: seal.instance, signed_ms: seal.at_ms, heard: now, place };
    let signed = Signed { beat: Beat { node_id: name.clone(), ..beat }, key: seal.node, run };
    if keep(shared, signed, clash, now).await? {
        return Ok(());
    }
    // Its owner has given the node another key, or the key another node, a moment ago.
    let why = format!("the key {} does not speak for {name} any more", seal.node);
    Err(wrong(shared, peer, why))
}

/// Whether a key that nobody enrolled is that of a node which the hub knows already, and which the contract calls active.
/// Anybody may register at the contract: that alone makes no stranger one of the owner's nodes.
async fn is_ours(shared: &Shared, peer: &Peer, key: Address, name: &str) -> Result<bool, Refusal> {
    if shared.fleet.get(name).is_none() {
        return Ok(false);
    }
    let now = shared.clock.monotonic();
    if let Some(word) = shared.providers.known(key, now) {
        return Ok(word);
    }
    if let Some(wait) = shared.guesses.is_over(peer.address.ip(), now) {
        return Err(Refusal::TooMany(wait));
    }
    shared.providers.ask(key, now).await
}

/// Takes a beat into the store, then into memory. Whether its key still speaks for its node.
async fn keep(
    shared: &Shared,
    signed: Signed,
    clash: Option<Clash>,
    now: Timestamp,
) -> Result<bool, Refusal> {
    let (fleet, poke) = (shared.fleet.clone(), Arc::clone(&shared.poke));
    let (told, key) = (signed.beat.clone(), signed.key);
    let then = move |kept: &Kept| {
        let Kept::Done(gswarm) = kept else { return };
        let name = told.node_id.clone();
        fleet.identities().bind(key, &name);
        let is_clash = clash.is_some();
        let node = fleet.update(&name, now, |node| {
            node.beats(told, gswarm.as_ref(), now);
            node.address = Some(key);
            node.heard.clash = clash.or(node.heard.clash.take());
        });
        // What changes how a node stands is told at once.
        let is_news = node.heard.says_down == (node.standing == Standing::Up);
        if is_news || (is_clash && node.standing != Standing::Clash) {
            poke.notify_one();
        }
    };
    let kept = shared.store.signed_beat(signed, now, then).await.inspect_err(|_| {
        // What could not be kept was not listened to.
        shared.listening.send_modify(|listening| listening.own = shared.clock.now());
    })?;
    Ok(kept != Kept::OfAnother)
}

/// Which keys the contract calls those of active nodes. Clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Providers(Option<Arc<Asked>>);

#[derive(Debug)]
struct Asked {
    reader: Reader,
    turns: Semaphore,
    budget: Budget,
    known: Mutex<HashMap<Address, (bool, Duration)>>,
}

impl Providers {
    /// Those of this contract; without one there are none.
    pub fn of(reader: Reader) -> Self {
        let (turns, budget) = (Semaphore::new(ASKED_MAX), Budget::new(LOOKUPS_MAX));
        Self(Some(Arc::new(Asked { reader, turns, budget, known: Mutex::default() })))
    }

    /// Whether this key is an active node's, if that is known without asking. `now`: of a clock that never steps back.
    fn known(&self, key: Address, now: Duration) -> Option<bool> {
        self.0.as_ref().map_or(Some(false), |asked| asked.known(key, now))
    }

    /// Asks the contract whether this key is an active node's.
    async fn ask(&self, key: Address, now: Duration) -> Result<bool, Refusal> {
        let Some(asked) = &self.0 else { return Ok(false) };
        let later = || {
            let what = "the chain can't be asked about this key now; try again".to_owned();
            Refusal::Plain(StatusCode::SERVICE_UNAVAILABLE, what)
        };
        let _turn = asked.turns.try_acquire().map_err(|_| later())?;
        if !asked.budget.take(now) {
            return Err(later());
        }
        let answer = timeout(ANSWER, asked.reader.provider(key)).await;
        let provider = answer.map_err(|_| later())?.map_err(|err| {
            tracing::debug!("the chain was not asked: {}", crate::report::causes(&err));
            later()
        })?;
        let word = provider.is_some_and(|provider| provider.active);
        asked.note(key, word, now);
        Ok(word)
    }
}

impl Asked {
    fn known(&self, key: Address, now: Duration) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (word, at) = known.get(&key)?;
        (now.saturating_sub(*at) <= KNOWN).then_some(*word)
    }

    fn note(&self, key: Address, word: bool, now: Duration) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.retain(|_, (_, at)| now.saturating_sub(*at) <= KNOWN);
        }
        if known.len() < KNOWN_MAX {
            known.insert(key, (word, now));
        }
    }
}
