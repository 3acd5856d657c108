//! What the programs' peers keep of them: one round of questions a swarm, for all programs in it.
//!
//! Invariant: what too few nodes answered is unknown, never absent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::again;
use super::chain::peer;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::dht::{Bootnode, Key, Sought, Witness};
use crate::sidecar::program::Program;
use crate::supervise::Failure;
use crate::watch::observation::{DHT, Kept, Seen};
use crate::watch::profile::{Bootnodes, Dht};

/// How often a swarm is asked: a value stays for ten minutes.
const EVERY: Duration = Duration::from_mins(4);

/// How long it waits for bootnodes that the contract names.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Asks one swarm. One service.
#[derive(Debug, Clone)]
pub struct DhtProbe {
    /// Where the swarm keeps what was published.
    pub dht: Dht<String>,
    /// The programs in it.
    pub programs: Vec<Arc<Program>>,
    /// The bootnodes that the contract names.
    pub named: tokio::sync::watch::Receiver<Vec<String>>,
    /// Who asks.
    pub witness: Witness,
}

impl DhtProbe {
    /// Asks until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let clock = SystemClock;
        loop {
            let (bootnodes, refused) = self.bootnodes();
            if bootnodes.is_empty() {
                let why = match (refused, &self.dht.bootnodes) {
                    (Some(why), _) => why,
                    (None, Bootnodes::Chain) => "the contract has named no bootnode".to_owned(),
                    (None, Bootnodes::These(_)) => "the profile names no bootnode".to_owned(),
                };
                for program in &self.programs {
                    program.source(DHT, Some(why.clone())).await.map_err(again)?;
                }
                clock.sleep(LOOK_AGAIN).await;
                continue;
            }
            self.ask(&bootnodes, clock.now()).await?;
            clock.sleep(EVERY).await;
        }
    }

    /// The bootnodes that can be dialled, and why one of the others can't.
    fn bootnodes(&self) -> (Vec<Bootnode>, Option<String>) {
        let named = match &self.dht.bootnodes {
            Bootnodes::These(these) => these.clone(),
            Bootnodes::Chain => self.named.borrow().clone(),
        };
        let (mut bootnodes, mut refused) = (Vec::new(), None);
        for text in named {
            match text.parse::<Bootnode>() {
                Ok(bootnode) => bootnodes.push(bootnode),
                Err(err) => refused = Some(err.to_string()),
            }
        }
        (bootnodes, refused)
    }

    /// The keys, each with its name, for the current round.
    fn keys(&self) -> Vec<(String, Key)> {
        let rounds =
            self.programs.iter().filter_map(|it| it.look().state.chain.as_ref()?.last.round);
        let round = rounds.max();
        let bytes = self.dht.byte_keys.iter();
        let bytes = bytes.map(|key| (key.clone(), Key::Bytes(key.clone().into_bytes())));
        let texts = self.dht.text_keys.iter().filter_map(|key| {
            let key = match round {
                Some(round) => key.replace("{round}", &round.to_string()),
                None if key.contains("{round}") => return None,
                None => key.clone(),
            };
            Some((key.clone(), Key::Text(key)))
        });
        bytes.chain(texts).collect()
    }

    async fn ask(&self, bootnodes: &[Bootnode], now: Timestamp) -> Result<(), Failure> {
        let keys = self.keys();
        let peers: Vec<String> = self.programs.iter().filter_map(|it| peer(it)).collect();
        let only: Vec<Key> = keys.iter().map(|(_, key)| key.clone()).collect();
        let round = self.witness.round(bootnodes, &only, &peers, now).await;
        let asked = u32::try_from(round.asked.len()).unwrap_or(u32::MAX);
        let alive = round.asked.iter().filter(|it| it.answer.is_ok()).count();
        let alive = u32::try_from(alive).unwrap_or(u32::MAX);
        for program in &self.programs {
            let peer = peer(program);
            let kept: BTreeMap<String, Kept> = keys
                .iter()
                .zip(&round.sought)
                .map(|((name, _), sought)| (name.clone(), self.kept(sought, peer.as_deref())))
                .collect();
            program.saw(Seen::Dht { asked, alive, kept }).await.map_err(again)?;
        }
        Ok(())
    }

    /// What a key holds of a program.
    fn kept(&self, sought: &Sought, peer: Option<&str>) -> Kept {
        let unknown = |why: &str| Kept::Unknown { why: why.to_owned() };
        let Some(peer) = peer else { return unknown("its peer id is not known yet") };
        match sought {
            Sought::Found { peers, is_complete, .. } => match peers.get(peer) {
                Some(publish) => Kept::Published { at: self.published(publish.expires) },
                None if *is_complete => Kept::Absent,
                None => unknown("too few of the nodes that hold the key answered"),
            },
            Sought::Absent { .. } => Kept::Absent,
            Sought::Unknown { why } => unknown(why),
        }
    }

    /// A value was stored so long before it expires.
    fn published(&self, expires: Timestamp) -> Timestamp {
        let stays = u64::try_from(self.dht.expiration.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_unix_ms(expires.unix_ms().saturating_sub(stays))
    }
}
