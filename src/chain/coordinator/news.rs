//! The coordinator's events since a cursor, range of blocks by range.
//!
//! Must hold: a cursor moves on only over blocks whose events are in the same [`News`]. An event is taken back only
//! if the endpoint shows another block in the place of its own; blocks that it does not show, or events that it
//! leaves out, prove nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::PoisonError;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cursor::{Cursor, Key, Mark};
use super::event::{Happened, SIGNATURES, What, what};
use super::{Coordinator, Error, Header, Point, Span};
use crate::chain::logs::{BLOCKS_MAX, Log, Ranges};
use crate::chain::reader::word;
use crate::chain::rpc::Head;
use crate::clock::Timestamp;
use crate::ids::{Address, Hash};

/// How far back a first reading begins: two of the periods in which a peer submits, and a round.
const FIRST_SECONDS: u64 = 7 * 3600;

/// The most blocks of a first reading.
const FIRST_BLOCKS_MAX: u64 = 50_000;

/// The blocks over which the time between two blocks is measured.
const SAMPLE_BLOCKS: u64 = 1000;

/// The most blocks that are caught up with; the ones before them stay unread.
const BACKLOG_MAX: u64 = 200_000;

/// The most requests for logs of new blocks, and the most events after which no further one is made.
const RANGES_MAX: u32 = 32;
const EVENTS_MAX: usize = 20_000;

/// After this many requests that were answered, twice as many blocks are asked for at once.
const ANSWERED_BEFORE_MORE: u32 = 8;

/// What happened since a cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// The latest block. If it is older than what was read before, the endpoint lags behind.
    pub head: Point,
    /// Everything that was told of blocks after this one is void: the chain has others there. It comes before
    /// `happened`. `Some(0)` if it is another chain altogether.
    pub void_after: Option<u64>,
    /// The first and the last block that are never read, because too many came since the cursor.
    pub unread: Option<(u64, u64)>,
    /// The events, in the order of their blocks; what was taken back comes before what took its place.
    pub happened: Vec<Happened>,
    /// Events that could not be read: of another version of the contract.
    pub unreadable: u64,
    /// Whether there is more to read already.
    pub is_behind: bool,
    /// Where to go on.
    pub cursor: Cursor,
}

impl Coordinator {
    /// The events since `cursor`, in a bounded number of requests: while [`News::is_behind`], there is more. A first
    /// reading begins seven hours, but at most 50,000 blocks ago.
    ///
    /// Usually three requests: the latest block, a mark, and the logs of the last 64 blocks and the new ones. An
    /// error means that nothing new was read; what was read before one is kept.
    pub async fn news(&self, cursor: &Cursor) -> Result<News, Error> {
        let chain = self.reader.chain_id().await?;
        let head = self.reader.rpc.head().await?;
        let mut news = News::none(&head, cursor.clone());
        self.find_place(chain, &head, &mut news).await?;
        news.skip_backlog();
        match self.read_on(&mut news).await {
            Ok(()) => self.mark(&mut news.cursor).await,
            Err(err) if news == News::none(&head, cursor.clone()) => return Err(err),
            Err(_) => {}
        }
        news.is_behind = news.cursor.next() <= news.head.block;
        Ok(news)
    }

    /// Makes sure that the chain is the one that the cursor is of, as far as its marks show; goes back otherwise.
    async fn find_place(&self, chain: u64, head: &Head, news: &mut News) -> Result<(), Error> {
        let of = (chain, self.contract());
        if !news.cursor.is_of(of) {
            news.cursor = self.first_reading(of, head).await?;
            return Ok(());
        }
        if !news.cursor.has_marks() {
            return Ok(());
        }
        let marks = news.cursor.marks_to(head.number);
        if let Some(mark) = marks.first() {
            let found = self.headers(&[mark.block]).await?;
            if shown(mark, found.into_iter().flatten().next())?.hash() == mark.hash {
                return Ok(());
            }
        }
        let blocks: Vec<u64> = marks.iter().map(|mark| mark.block).collect();
        for (mark, header) in marks.iter().zip(self.headers(&blocks).await?) {
            if shown(mark, header)?.hash() == mark.hash {
                news.cursor.go_back_to(mark.block);
                news.void_after = Some(mark.block);
                return Ok(());
            }
        }
        news.cursor = self.first_reading(of, head).await?;
        news.void_after = Some(0);
        Ok(())
    }

    /// A cursor for a first reading. Its first block is marked, so that an endpoint that lags far behind is not
    /// taken for another chain.
    async fn first_reading(&self, of: (u64, Address), head: &Head) -> Result<Cursor, Error> {
        let block = self.first_block(head).await?;
        let mut cursor = Cursor::first(of, block);
        if let Some(header) = self.headers(&[block]).await?.into_iter().flatten().next() {
            cursor.mark(Mark { block, hash: header.hash() });
        }
        Ok(cursor)
    }

    /// The block with which a first reading begins.
    async fn first_block(&self, head: &Head) -> Result<u64, Error> {
        let Some(sample) = head.number.checked_sub(SAMPLE_BLOCKS) else { return Ok(0) };
        let found = self.headers(&[sample]).await?;
        let then = found.into_iter().flatten().next().map(|header| header.timestamp.to::<u64>());
        let seconds = head.timestamp_s.saturating_sub(then.unwrap_or(head.timestamp_s));
        let blocks = (FIRST_SECONDS * SAMPLE_BLOCKS).checked_div(seconds);
        let blocks = blocks.unwrap_or(FIRST_BLOCKS_MAX).min(FIRST_BLOCKS_MAX);
        Ok(head.number.saturating_sub(blocks))
    }

    /// Reads the blocks up to the head, as far as the limits allow.
    async fn read_on(&self, news: &mut News) -> Result<(), Error> {
        let filter = json!({"address": self.contract(), "topics": [SIGNATURES]});
        let mut ranges = Ranges::of_span(news.cursor.from(), news.head.block, self.span().blocks);
        // What is read again is bounded by itself, and counts not: else an endpoint that allows one block
        // a request would never come to new ones.
        let (next, mut left) = (news.cursor.next(), RANGES_MAX);
        while left > 0 {
            let Some((blocks, logs)) = self.next_range(&mut ranges, &filter).await? else { break };
            let (found, unreadable) = self.found(&blocks, logs, next)?;
            let keys: BTreeSet<Key> = found.keys().copied().collect();
            let seen = news.cursor.seen_in(&blocks);
            let (taken_back, waiting) =
                self.gone(seen.difference(&keys).copied().collect()).await?;
            news.happened.extend(taken_back.into_iter().map(taken_back_as));
            news.happened.extend(
                found
                    .into_iter()
                    .filter(|(key, _)| !seen.contains(key))
                    .map(|(_, happened)| happened),
            );
            news.unreadable = news.unreadable.saturating_add(unreadable);
            news.cursor.take(&blocks, &keys.union(&waiting).copied().collect());
            if *blocks.end() >= next {
                left = if news.happened.len() < EVENTS_MAX { left - 1 } else { 0 };
            }
        }
        Ok(())
    }

    async fn next_range(
        &self,
        ranges: &mut Ranges,
        filter: &Value,
    ) -> Result<Option<(RangeInclusive<u64>, Vec<Log>)>, Error> {
        let before = ranges.span();
        let found = ranges.next(&self.reader.rpc, filter).await?;
        let mut span = self.span.lock().unwrap_or_else(PoisonError::into_inner);
        if ranges.span() < before {
            *span = Span { blocks: ranges.span(), answered: 0 };
        } else {
            span.answered = span.answered.saturating_add(1);
            if span.answered >= ANSWERED_BEFORE_MORE {
                let blocks = span.blocks.saturating_mul(2).min(BLOCKS_MAX);
                *span = Span { blocks, answered: 0 };
            }
        }
        Ok(found)
    }

    fn span(&self) -> Span {
        *self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events in an answer, and how many of those in blocks from `next` on can't be read.
    fn found(
        &self,
        asked: &RangeInclusive<u64>,
        logs: Vec<Log>,
        next: u64,
    ) -> Result<(BTreeMap<Key, Happened>, u64), Error> {
        let (contract, mut found, mut unreadable) = (word(self.contract()), BTreeMap::new(), 0);
        for log in logs.into_iter().filter(|log| !log.removed) {
            let block: u64 = log.block_number.to();
            let is_asked = log.address == contract
                && asked.contains(&block)
                && log.topics.first().is_some_and(|topic| SIGNATURES.contains(topic));
            let place = log.index.and_then(|index| u32::try_from(index.to::<u64>()).ok());
            let Some((hash, index)) = log.block_hash.zip(place).filter(|_| is_asked) else {
                let reason = format!("it answers eth_getLogs with a log of block {block} unasked");
                return Err(Error::Unexpected { reason });
            };
            let Some(what) = what(&log) else {
                unreadable += u64::from(block >= next);
                continue;
            };
            let at = log.block_timestamp.map(|time| seconds(time.to()));
            let (hash, tx) = (Hash(hash.0), Some(Hash(log.transaction_hash.0)));
            found.insert((block, hash, index), Happened { block, hash, index, at, tx, what });
        }
        Ok((found, unreadable))
    }

    /// Of events that are in the answer no more, those that were taken back and those of which nothing is known.
    async fn gone(&self, gone: Vec<Key>) -> Result<(Vec<Key>, BTreeSet<Key>), Error> {
        let blocks: BTreeSet<u64> = gone.iter().map(|(block, ..)| *block).collect();
        let blocks: Vec<u64> = blocks.into_iter().collect();
        let headers = self.headers(&blocks).await?;
        let now: BTreeMap<u64, Option<Hash>> = blocks
            .into_iter()
            .zip(headers.iter().map(|header| header.as_ref().map(Header::hash)))
            .collect();
        let (mut taken_back, mut waiting) = (Vec::new(), BTreeSet::new());
        for key @ (block, hash, _) in gone {
            match now.get(&block).copied().flatten() {
                None => drop(waiting.insert(key)),
                Some(now) if now == hash => {
                    let reason = format!("it leaves out events of block {block}");
                    return Err(Error::Unexpected { reason });
                }
                Some(_) => taken_back.push(key),
            }
        }
        Ok((taken_back, waiting))
    }

    /// Marks a block if that is due. Without it a deep reorganisation is noticed further back.
    async fn mark(&self, cursor: &mut Cursor) {
        let Some(block) = cursor.mark_due() else { return };
        let found = self.headers(&[block]).await.unwrap_or_default();
        if let Some(header) = found.into_iter().flatten().next() {
            cursor.mark(Mark { block, hash: header.hash() });
        }
    }
}

impl News {
    /// The last block of which everything that was told earlier still stands; `None` if all of it does. For callers
    /// that keep no single events: what was told of later blocks is void, and is in `happened` again where it is
    /// still so.
    pub fn stands_to(&self) -> Option<u64> {
        let taken_back = self.happened.iter().filter(|one| one.what == What::TakenBack);
        // The blocks after one that is not on the chain any more aren't either.
        let before = taken_back.map(|one| one.block.saturating_sub(1)).min();
        self.void_after.into_iter().chain(before).min()
    }

    fn none(head: &Head, cursor: Cursor) -> Self {
        Self {
            head: Point::new(head.number, head.timestamp_s),
            void_after: None,
            unread: None,
            happened: Vec::new(),
            unreadable: 0,
            is_behind: false,
            cursor,
        }
    }

    fn skip_backlog(&mut self) {
        let (next, first) = (self.cursor.next(), self.head.block.saturating_sub(BACKLOG_MAX));
        if next < first {
            self.unread = Some((next, first.saturating_sub(1)));
            self.cursor.skip_to(first);
        }
    }
}

/// The block in the place of a mark. One that is not shown proves nothing.
fn shown(mark: &Mark, header: Option<Header>) -> Result<Header, Error> {
    let missing = || Error::Unexpected { reason: format!("it doesn't show block {}", mark.block) };
    header.ok_or_else(missing)
}

fn taken_back_as((block, hash, index): Key) -> Happened {
    Happened { block, hash, index, at: None, tx: None, what: What::TakenBack }
}

fn seconds(unix_s: u64) -> Timestamp {
    Timestamp::from_unix_ms(unix_s.saturating_mul(1000))
}
