//! What a list asks for: which nodes, in which order, from where on.
//!
//! Must hold: a query is bounded, whoever wrote it; a cursor that this program did not make is refused.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::super::Node;
use super::row::{Cards, jobs};
use crate::fleet::clocks::Standing;

/// The most rows in a page.
pub const ROWS_MAX: usize = 500;

/// The longest filter, in bytes.
const FILTER_BYTES_MAX: usize = 200;

/// The most words in a filter, and tags.
const WORDS_MAX: usize = 16;

/// The longest cursor, in bytes: a name and a value of [`TEXT_CHARS_MAX`], escaped and encoded.
const CURSOR_BYTES_MAX: usize = 4 * 1024;

/// By how much of a text a list is sorted, in characters.
const TEXT_CHARS_MAX: usize = 64;

/// A query as it is written in an address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Written {
    /// The column to sort by; `standing` if it is empty.
    pub sort: String,
    /// `desc`, or `asc`.
    pub dir: String,
    /// Words to filter by.
    pub q: String,
    /// The standing to filter by.
    pub standing: String,
    /// The tags to filter by, separated by commas.
    pub tag: String,
    /// Where the page before this one ended.
    pub cursor: String,
    /// How many rows to skip, after the cursor if there is one.
    pub skip: Option<usize>,
    /// How many rows at most.
    pub limit: Option<usize>,
}

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// There is no such column.
    #[error("there is no such column to sort by")]
    Column,
    /// A direction is one of two words.
    #[error("dir is asc or desc")]
    Direction,
    /// There is no such standing.
    #[error("standing is clash, down, zombie, not_watched or up")]
    Standing,
    /// It is too long.
    #[error("the filter is longer than {FILTER_BYTES_MAX} bytes or {WORDS_MAX} words")]
    TooLong,
    /// The cursor was not made here, or belongs to another order.
    #[error("the cursor is none of this list; begin without one")]
    Cursor,
}

/// What a list asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub(super) column: Column,
    pub(super) is_descending: bool,
    words: Vec<Word>,
    standing: Option<Standing>,
    tags: Vec<String>,
    pub(super) after: Option<Cursor>,
    pub(super) skip: usize,
    pub(super) limit: usize,
}

impl TryFrom<Written> for Query {
    type Error = InvalidQuery;

    fn try_from(written: Written) -> Result<Self, InvalidQuery> {
        let column = match &*written.sort {
            "" => Column::Standing,
            name => Column::parse(name).ok_or(InvalidQuery::Column)?,
        };
        let is_descending = match &*written.dir {
            "" | "asc" => false,
            "desc" => true,
            _ => return Err(InvalidQuery::Direction),
        };
        let standing = match &*written.standing {
            "" => None,
            name => Some(Standing::parse(name).ok_or(InvalidQuery::Standing)?),
        };
        let after = match &*written.cursor {
            "" => None,
            text => Some(Cursor::parse(text).ok_or(InvalidQuery::Cursor)?),
        };
        if written.q.len() > FILTER_BYTES_MAX || written.tag.len() > FILTER_BYTES_MAX {
            return Err(InvalidQuery::TooLong);
        }
        let words: Vec<Word> = written.q.split_whitespace().map(Word::of).collect();
        let tags = written.tag.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned);
        let tags: Vec<String> = tags.collect();
        if words.len() > WORDS_MAX || tags.len() > WORDS_MAX {
            return Err(InvalidQuery::TooLong);
        }
        let limit = written.limit.unwrap_or(ROWS_MAX).clamp(1, ROWS_MAX);
        let skip = written.skip.unwrap_or_default();
        Ok(Self { column, is_descending, words, standing, tags, after, skip, limit })
    }
}

impl Query {
    /// The same for somebody who may know names and standings only.
    #[must_use]
    pub fn in_public(mut self) -> Self {
        if !matches!(self.column, Column::Standing | Column::Name | Column::Since) {
            (self.column, self.after) = (Column::Standing, None);
        }
        self.tags.clear();
        for word in &mut self.words {
            if let Word::Any(part) | Word::Tag(part) = word {
                *word = Word::Name(std::mem::take(part));
            }
        }
        self
    }

    /// Whether the node is in the list.
    pub(super) fn takes(&self, node: &Node) -> bool {
        self.standing.is_none_or(|standing| standing == node.standing)
            && self.tags.iter().all(|tag| node.tags.contains(tag))
            && self.words.iter().all(|word| word.is_in(node))
    }
}

/// One word of a filter, in lower case.
#[derive(Debug, Clone, PartialEq)]
enum Word {
    /// How the standing's name begins.
    Standing(String),
    /// A tag.
    Tag(String),
    /// A part of any text that the list shows.
    Any(String),
    /// A part of the name.
    Name(String),
}

impl Word {
    fn of(text: &str) -> Self {
        let text = text.to_lowercase();
        match text.split_once(':') {
            Some(("state" | "standing", name)) => Self::Standing(name.to_owned()),
            Some(("tag", tag)) => Self::Tag(tag.to_owned()),
            _ => Self::Any(text),
        }
    }

    fn is_in(&self, node: &Node) -> bool {
        match self {
            Self::Standing(name) => node.standing.as_str().starts_with(name.as_str()),
            Self::Tag(tag) => node.tags.iter().any(|it| it.to_lowercase() == *tag),
            Self::Any(part) => is_shown(node, part),
            Self::Name(part) => node.name.to_lowercase().contains(part.as_str()),
        }
    }
}

fn is_shown(node: &Node, part: &str) -> bool {
    let holds = |text: &str| text.to_lowercase().contains(part);
    let address = || node.address.is_some_and(|address| address.lower_hex().contains(part));
    let model = || Cards::of(node).is_some_and(|cards| holds(&cards.model));
    [&node.name, &node.ip, &node.meta].into_iter().chain(&node.tags).any(|text| holds(text))
        || (part.starts_with("0x") && address())
        || model()
}

/// What a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Standing,
    Name,
    Ip,
    Meta,
    Gpus,
    Jobs,
    Since,
    Own,
    Nats,
    Chain,
    Tags,
}

impl Column {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "standing" => Self::Standing,
            "name" => Self::Name,
            "ip" => Self::Ip,
            "meta" => Self::Meta,
            "gpus" => Self::Gpus,
            "jobs" => Self::Jobs,
            "since" => Self::Since,
            "own" => Self::Own,
            "nats" => Self::Nats,
            "chain" => Self::Chain,
            "tags" => Self::Tags,
            _ => return None,
        })
    }

    /// What the node has in this column. Times are sorted by their age: the newest is the least.
    pub(super) fn value(self, node: &Node) -> Value {
        let age = |at: Option<crate::clock::Timestamp>| match at {
            Some(at) => Value::Number(u64::MAX - at.unix_ms()),
            None => Value::Unknown,
        };
        match self {
            Self::Standing => Value::Number(node.standing as u64),
            Self::Name => Value::text(&node.name),
            Self::Ip => Value::text(&node.ip),
            Self::Meta => Value::text(&node.meta),
            Self::Gpus => Cards::of(node).map_or(Value::Unknown, |cards| {
                Value::text(&format!("{} {:04}", cards.model, cards.count))
            }),
            Self::Jobs => jobs(node).map_or(Value::Unknown, |(held, _)| held.into()),
            Self::Since => age(Some(node.standing_since)),
            Self::Own => age(node.heard.own),
            Self::Nats => age(node.heard.nats),
            Self::Chain => age(node.heard.chain),
            Self::Tags => Value::text(&node.tags.join(" ")),
        }
    }
}

/// What a node has in the column that sorts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(u64),
    Text(String),
    Unknown,
}

impl Value {
    fn text(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Unknown;
        }
        // Cut, so that a cursor is bounded; the name decides between those that are cut alike.
        Self::Text(text.chars().take(TEXT_CHARS_MAX).collect())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// A place in a list: after this row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    pub(super) value: Value,
    pub(super) name: String,
}

impl Cursor {
    pub(super) fn at(value: Value, node: &Node) -> Self {
        Self { value, name: node.name.clone() }
    }

    pub(super) fn to_text(&self) -> String {
        // Texts and numbers always have a form in JSON.
        BASE64URL_NOPAD.encode(&serde_json::to_vec(self).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        if text.len() > CURSOR_BYTES_MAX {
            return None;
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
