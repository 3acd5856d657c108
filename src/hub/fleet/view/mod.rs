//! Pages of the fleet: filtered, sorted, and cut by a cursor, as somebody's list asks for them.
//!
//! Must hold: a page follows the row that its cursor names, whatever came and went before it; what is not known
//! sorts last in both directions, and is left out of a row, never 0.

mod query;
mod row;

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;

use super::{Fleet, Node};
use crate::fleet::clocks::Standing;

pub use query::{InvalidQuery, Query, ROWS_MAX, Written};
pub use row::{Cards, Row};

use query::{Column, Cursor, Value};

/// How many tags the list offers.
const TAGS_MAX: usize = 12;

/// How many nodes stand in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Two programs use their key.
    pub clash: usize,
    /// They are down.
    pub down: usize,
    /// Only the chain hears them.
    pub zombie: usize,
    /// Nobody has listened for long enough.
    pub not_watched: usize,
    /// They are up.
    pub up: usize,
}

impl Counts {
    /// The counts of these nodes.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Arc<Node>>) -> Self {
        let mut counts = Self::default();
        for node in nodes {
            counts.total += 1;
            *match node.standing {
                Standing::Clash => &mut counts.clash,
                Standing::Down => &mut counts.down,
                Standing::Zombie => &mut counts.zombie,
                Standing::NotWatched => &mut counts.not_watched,
                Standing::Up => &mut counts.up,
            } += 1;
        }
        counts
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// The counts of the whole fleet, whatever is filtered.
    pub counts: Counts,
    /// The tags that most nodes have, and how many have them.
    pub tags: Vec<(String, usize)>,
    /// How many rows the list has.
    pub total: usize,
    /// How many rows of the list come before this page.
    pub skipped: usize,
    /// The rows.
    pub rows: Vec<Row>,
    /// The cursor of the page after this one, if there is one.
    pub next: Option<String>,
}

/// The page that this asks for.
pub fn page(fleet: &Fleet, query: &Query) -> Page {
    let all = fleet.all();
    let (counts, tags) = (Counts::of(&all), common_tags(&all));
    let mut list: Vec<(Value, Arc<Node>)> = all
        .into_iter()
        .filter(|node| query.takes(node))
        .map(|node| (query.column.value(&node), node))
        .collect();
    // The nodes come sorted by name, which decides between equals.
    if query.column != Column::Name || query.is_descending {
        list.sort_by(|(a, _), (b, _)| in_order(a, b, query.is_descending));
    }
    let begin = query.after.as_ref().map_or(0, |cursor| {
        list.partition_point(|(value, node)| !is_after(value, node, cursor, query.is_descending))
    });
    let begin = begin.saturating_add(query.skip).min(list.len());
    let end = begin.saturating_add(query.limit).min(list.len());
    let cut = list.get(begin..end).unwrap_or_default();
    let next = match cut.last() {
        Some((value, node)) if end < list.len() => Some(Cursor::at(value.clone(), node).to_text()),
        _ => None,
    };
    let rows = cut.iter().map(|(_, node)| Row::of(node)).collect();
    Page { counts, tags, total: list.len(), skipped: begin, rows, next }
}

/// What is not known is last, in both directions.
fn in_order(a: &Value, b: &Value, is_descending: bool) -> Ordering {
    match (a, b) {
        (Value::Unknown, Value::Unknown) => Ordering::Equal,
        (Value::Unknown, _) => Ordering::Greater,
        (_, Value::Unknown) => Ordering::Less,
        _ if is_descending => b.cmp(a),
        _ => a.cmp(b),
    }
}

fn is_after(value: &Value, node: &Node, cursor: &Cursor, is_descending: bool) -> bool {
    let order = in_order(value, &cursor.value, is_descending);
    order.then_with(|| node.name.cmp(&cursor.name)) == Ordering::Greater
}

fn common_tags(nodes: &[Arc<Node>]) -> Vec<(String, usize)> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for tag in nodes.iter().flat_map(|node| &node.tags) {
        *counts.entry(tag).or_default() += 1;
    }
    let mut ranked: BTreeSet<(usize, &str)> = BTreeSet::new();
    for (tag, count) in counts {
        ranked.insert((usize::MAX - count, tag));
        if ranked.len() > TAGS_MAX {
            ranked.pop_last();
        }
    }
    ranked.into_iter().map(|(rank, tag)| (tag.to_owned(), usize::MAX - rank)).collect()
}

#[cfg(test)]
mod tests;
