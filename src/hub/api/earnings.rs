//! What the pages ask about what nodes earn and how long they idle.
//!
//! Must hold: a sum says of how many nodes something is not known; since it is read from all that nodes ever did, an
//! answer is kept for a while and worked out once.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::earned::{OfDay, OfNode, Sum, Told};
use super::fleet::{find, key_of};
use super::pages::{Asked, Pages, Refused, answer};
use crate::hub::fleet::Node;
use crate::hub::store::earned::{DAY_MS, Days, Earned, There};
use crate::web::Router;
use crate::web::extract::State;
use crate::web::http::HeaderMap;
use crate::web::response::Response;
use crate::web::routing::get;

/// The most days, and the most nodes in an answer.
const DAYS_MAX: u64 = 90;
const NODES_MAX: usize = 500;

pub(super) fn routes() -> Router<Pages> {
    Router::new().route("/api/earnings", get(earnings))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AskedDays {
    days: Option<u64>,
    node: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    told: &'a Told,
    at: u64,
}

async fn earnings(
    state: State<Pages>,
    asked: HeaderMap,
    Asked(AskedDays { days, node }): Asked<AskedDays>,
) -> Result<Response, Refused> {
    state.all()?;
    let now = state.now.get();
    let last = now.unix_ms() / DAY_MS.cast_unsigned();
    let first = (last + 1).saturating_sub(days.unwrap_or(14).clamp(1, DAYS_MAX));
    let only = if node.is_empty() { None } else { Some(find(&state, &node)?) };
    let key = (first, only.as_ref().map(|node| node.name.clone()));
    let work = async {
        let names = only.as_ref().map(|node| (node.name.clone(), key_of(node)));
        let known = state.eyes.days(first, now, names).await?;
        let nodes = only.map_or_else(|| state.fleet.all(), |node| vec![node]);
        let nodes: Vec<&Node> = nodes.iter().map(AsRef::as_ref).collect();
        Ok::<_, Refused>(told(&nodes, &known, (first, last), now.unix_ms()))
    };
    let told = state.earned.get(key, &state.now, work).await?;
    Ok(answer(&asked, &Answer { told: &told, at: state.now.get().unix_ms() }))
}

fn told(nodes: &[&Node], known: &Days, (first, last): (u64, u64), of: u64) -> Told {
    let mut of_days: BTreeMap<u64, Sum> = (first..=last).map(|day| (day, Sum::default())).collect();
    let mut rows: Vec<OfNode> = nodes.iter().map(|node| OfNode::new(node)).collect();
    let mut total =
        Sum { cards_unknown: rows.iter().map(|row| row.sum.cards_unknown).sum(), ..Sum::default() };
    for sum in of_days.values_mut() {
        sum.cards_unknown = total.cards_unknown;
    }
    let keys: HashMap<String, usize> = nodes.iter().map(|node| key_of(node)).zip(0..).collect();
    let names: HashMap<&str, usize> = nodes.iter().map(|node| &*node.name).zip(0..).collect();
    let earned = known
        .earned
        .iter()
        .map(|((key, day), earned)| (keys.get(key), *day, earned, There::default()));
    let none = Earned::default();
    let there = known
        .there
        .iter()
        .map(|((name, day), there)| (names.get(name.as_str()), *day, &none, *there));
    for (place, day, earned, there) in earned.chain(there) {
        // Of a node that is known no more, nothing is told.
        let Some(row) = place.and_then(|place| rows.get_mut(*place)) else { continue };
        let cards = row.cards;
        let sums = [of_days.get_mut(&day), Some(&mut row.sum), Some(&mut total)];
        for sum in sums.into_iter().flatten() {
            sum.add(earned, there, cards);
        }
    }
    rows.sort_by(|a, b| b.worth().cmp(&a.worth()).then_with(|| a.name.cmp(&b.name)));
    let left_out = rows.len().saturating_sub(NODES_MAX);
    rows.truncate(NODES_MAX);
    let day_ms = DAY_MS.cast_unsigned();
    let days = of_days.into_iter().map(|(day, sum)| OfDay { day: day * day_ms, sum }).collect();
    Told { days, nodes: rows, total, left_out, of }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn sums_are_of_all_nodes_and_say_of_how_many_the_cards_are_not_known() {
        let mut card = Node::new("b".to_owned(), Timestamp::from_unix_ms(0));
        card.presence = Some(Arc::new(json!({"gpus": [{}, {}]})));
        let silent = Node::new("a".to_owned(), Timestamp::from_unix_ms(0));
        let mut known = Days::default();
        let earned = Earned { completed: 1, card_ms: 500, busy_ms: 400, ..Earned::default() };
        known.earned.insert(("b".to_owned(), 3), earned);
        known.there.insert(("b".to_owned(), 3), There { up_ms: 1_000, known_ms: 2_000 });
        known.there.insert(("a".to_owned(), 2), There { up_ms: 70, known_ms: 70 });
        let told = told(&[&silent, &card], &known, (2, 3), 0);
        let names: Vec<_> = told.nodes.iter().map(|row| (&*row.name, row.cards)).collect();
        assert_eq!(names, [("b", Some(2)), ("a", None)], "who earns most is first");
        assert_eq!((told.days[1].sum.cards_there_ms, told.days[0].sum.there.up_ms), (2_000, 70));
        assert_eq!((told.total.cards_unknown, told.total.earned.completed), (1, 1));
    }
}
