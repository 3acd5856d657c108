//! What a coordinator says of the programs of its swarm, and who was paid: one look a minute for all of them.
//!
//! Invariants: what was paid and the place up to which the events were read are one commit of each program; after a
//! kill events may be read again, which changes nothing; a payment that a reorganisation took away counts no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::again;
use crate::chain::coordinator::{Coordinator, Cursor, Happened, Look, News, PeerFigures, What};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::ids::Address;
use crate::report::causes;
use crate::sidecar::program::{Program, Taken};
use crate::supervise::Failure;
use crate::watch::observation::{CHAIN, ChainSeen, EVENTS, Seen, Whose};

/// How often the chain is asked.
const EVERY: Duration = Duration::from_mins(1);

/// Most rounds of reading events that follow each other at once, of a chain that is far ahead.
const CATCH_UP_MAX: usize = 20;

/// Most blocks whose times are asked for at once.
const TIMES_MAX: usize = 200;

/// What the contract says of its bootnodes, for who looks them up.
pub type Bootnodes = tokio::sync::watch::Sender<Vec<String>>;

/// Reads one coordinator. One service.
#[derive(Debug, Clone)]
pub struct ChainProbe {
    /// The contract.
    pub coordinator: Arc<Coordinator>,
    /// The programs of its swarm.
    pub programs: Vec<Arc<Program>>,
    /// Told the bootnodes that the contract names.
    pub bootnodes: Arc<Bootnodes>,
}

impl ChainProbe {
    /// Reads until it is aborted.
    pub async fn run(self) -> Result<(), Failure> {
        let mut cursor = self.oldest().await?;
        let mut known = self.peers();
        loop {
            let peers = self.peers();
            if peers != known {
                // Of a peer that was not known the payments were taken for others'.
                cursor = Cursor::default();
                known = peers;
            }
            match self.read(&mut cursor).await {
                Ok(()) => {}
                Err(Unread::Store(failure)) => return Err(failure),
                Err(Unread::Chain(source, why)) => {
                    for program in &self.programs {
                        program.source(source, Some(why.clone())).await.map_err(again)?;
                    }
                }
            }
            SystemClock.sleep(EVERY).await;
        }
    }

    /// The place of the program whose events were read the least far.
    async fn oldest(&self) -> Result<Cursor, Failure> {
        let mut oldest: Option<Cursor> = None;
        for program in &self.programs {
            let mark = program.mark(CHAIN).await.map_err(again)?;
            let cursor: Cursor =
                mark.and_then(|mark| serde_json::from_str(&mark).ok()).unwrap_or_default();
            if oldest.as_ref().is_none_or(|oldest| cursor.read_to() < oldest.read_to()) {
                oldest = Some(cursor);
            }
        }
        Ok(oldest.unwrap_or_default())
    }

    fn peers(&self) -> Vec<String> {
        self.programs.iter().filter_map(|it| peer(it)).collect()
    }

    async fn read(&self, cursor: &mut Cursor) -> Result<(), Unread> {
        let peers = self.peers();
        let look = self.coordinator.look(&peers).await.map_err(|err| Unread::chain(&err))?;
        if let Some(bootnodes) = look.bootnodes.known() {
            self.bootnodes.send_if_modified(|known| {
                let is_new = known != bootnodes;
                known.clone_from(bootnodes);
                is_new
            });
        }
        for program in &self.programs {
            let seen = seen(&look, peer(program).as_deref());
            program.saw(Seen::Chain(seen)).await.map_err(Unread::store)?;
        }
        for _ in 0..CATCH_UP_MAX {
            let news = self.coordinator.news(cursor).await.map_err(|err| Unread::events(&err))?;
            let times = self.times(&look, &news).await?;
            for program in &self.programs {
                let taken = paid(program, (&look, &times), &news);
                program.observe(taken).await.map_err(Unread::store)?;
            }
            for program in &self.programs {
                program.source(EVENTS, None).await.map_err(Unread::store)?;
            }
            *cursor = news.cursor;
            if !news.is_behind {
                break;
            }
        }
        Ok(())
    }

    /// The times of the blocks with payments to us, to our twins, and of the last one to anybody else, of which the
    /// endpoint didn't tell with the events.
    async fn times(&self, look: &Look, news: &News) -> Result<Times, Unread> {
        let (mut ours, mut others) = (Vec::new(), None);
        for happened in news.happened.iter().filter(|it| it.at.is_none()) {
            let What::RewardSubmitted { account, peer, .. } = &happened.what else { continue };
            let is_ours =
                |figures: &PeerFigures| figures.eoa.known().copied().flatten() == Some(*account);
            if look.peers.contains_key(peer) || look.peers.values().any(is_ours) {
                ours.push(happened.block);
            } else {
                others = Some(happened.block);
            }
        }
        ours.dedup();
        let mut blocks = ours.split_off(ours.len().saturating_sub(TIMES_MAX));
        blocks.extend(others);
        if blocks.is_empty() {
            return Ok(Times::new());
        }
        // Without an answer the events are read again.
        let points = self.coordinator.times(&blocks).await.map_err(|err| Unread::events(&err))?;
        Ok(points.into_iter().map(|point| (point.block, point.at)).collect())
    }
}

/// The times of blocks.
type Times = BTreeMap<u64, Timestamp>;

/// Why nothing was read.
enum Unread {
    /// The contract or its events, and why, in words.
    Chain(&'static str, String),
    /// The database.
    Store(Failure),
}

impl Unread {
    fn chain(err: &crate::chain::Error) -> Self {
        Self::Chain(CHAIN, causes(err))
    }

    fn events(err: &crate::chain::Error) -> Self {
        Self::Chain(EVENTS, causes(err))
    }

    fn store(err: crate::sidecar::store::Error) -> Self {
        Self::Store(again(err))
    }
}

/// The program's id among its peers, as its owner or its log says.
pub fn peer(program: &Program) -> Option<String> {
    program.watching.peer.clone().or_else(|| program.look().state.peer.clone())
}

/// What a look says of a program.
fn seen(look: &Look, peer: Option<&str>) -> ChainSeen {
    let mut unknown: Vec<String> =
        look.round.reason().map(|why| format!("round: {why}")).into_iter().collect();
    let figures = peer.and_then(|peer| look.peers.get(peer));
    if peer.is_none() {
        unknown.push("its peer id is not known yet".to_owned());
    }
    if let Some(PeerFigures { rewards, wins, votes, eoa }) = figures {
        let reasons = [
            ("rewards", rewards.reason()),
            ("wins", wins.reason()),
            ("votes", votes.reason()),
            ("account", eoa.reason()),
        ];
        unknown.extend(
            reasons.into_iter().filter_map(|(what, why)| Some(format!("{what}: {}", why?))),
        );
    }
    ChainSeen {
        block: look.head.block,
        round: look.round.known().copied(),
        rewards: figures.and_then(|it| it.rewards.known()).map(ToString::to_string),
        wins: figures.and_then(|it| it.wins.known().copied()),
        votes: figures.and_then(|it| it.votes.known().copied()),
        is_registered: figures.and_then(|it| it.eoa.known()).map(Option::is_some),
        unknown,
    }
}

/// The account of a program's peer.
fn account(look: &Look, peer: Option<&str>) -> Option<Address> {
    look.peers.get(peer?)?.eoa.known().copied().flatten()
}

/// Who was paid, as a program sees it, and the place up to which that was read.
fn paid(program: &Program, (look, times): (&Look, &Times), news: &News) -> Taken {
    let ours = peer(program);
    let account = account(look, ours.as_deref());
    let mut seen: Vec<Seen> =
        news.stands_to().map(|after| Seen::TakenBack { after }).into_iter().collect();
    // Of the others only the last matters.
    let mut last: BTreeMap<u8, Seen> = BTreeMap::new();
    let now = SystemClock.now();
    for happened in &news.happened {
        let Happened { block, at, what, .. } = happened;
        let What::RewardSubmitted { account: by, round, reward, peer, .. } = what else { continue };
        let whose = match &ours {
            Some(ours) if ours == peer => Whose::Ours,
            Some(_) if account == Some(*by) => Whose::Twin,
            _ => Whose::Other,
        };
        let Some(paid) = at.or_else(|| times.get(block).copied()) else { continue };
        let paid = paid.min(now);
        let (round, reward, block) = (*round, reward.to_string(), *block);
        let one = Seen::Paid { whose, round, reward, block, paid };
        if whose == Whose::Ours {
            let known = program.look().state.chain.as_ref().and_then(|it| it.paid);
            if known.is_none_or(|(_, known)| known < block || news.stands_to().is_some()) {
                seen.push(one);
            }
        } else {
            last.insert(u8::from(whose == Whose::Twin), one);
        }
    }
    seen.extend(last.into_values());
    let cursor = serde_json::to_string(&news.cursor).unwrap_or_default();
    // Without a peer nothing of it was read.
    let marks = ours.map(|_| (CHAIN.to_owned(), cursor)).into_iter().collect();
    Taken { seen, marks, reports: Vec::new() }
}
