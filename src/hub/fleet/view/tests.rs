use std::time::Instant;

use serde_json::json;

use super::*;
use crate::clock::Timestamp;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn asked(written: Written) -> Query {
    Query::try_from(written).unwrap()
}

fn sorted(sort: &str, dir: &str) -> Written {
    Written { sort: sort.to_owned(), dir: dir.to_owned(), ..Written::default() }
}

fn filtered(q: &str) -> Written {
    Written { q: q.to_owned(), ..Written::default() }
}

fn node(name: &str, change: impl FnOnce(&mut Node)) -> Node {
    let mut node = Node::new(name.to_owned(), at(1));
    change(&mut node);
    node
}

fn cards(count: usize, model: &str) -> Arc<serde_json::Value> {
    let card = json!({"model": model, "vram_mib": 1000, "health": "ok"});
    let said = json!({"gpus": vec![card; count], "slots": 2, "free_slots": 1, "version": "1"});
    Arc::new(said)
}

fn names(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|row| &*row.name).collect()
}

fn four() -> Fleet {
    Fleet::new([
        node("a", |it| it.heard.own = Some(at(5_000))),
        node("b", |it| {
            it.standing = Standing::Down;
            it.heard.own = Some(at(9_000));
            it.tags = vec!["EU".to_owned()];
            it.presence = Some(cards(1, "NVIDIA L40S"));
        }),
        node("c", |it| it.standing = Standing::NotWatched),
        node("d", |it| {
            it.ip = "203.0.113.9".to_owned();
            it.heard.own = Some(at(7_000));
            it.presence = Some(cards(8, "NVIDIA H100"));
        }),
    ])
}

#[test]
fn trouble_is_first_and_what_is_unknown_last_in_both_directions() {
    let fleet = four();
    assert_eq!(names(&page(&fleet, &asked(Written::default()))), ["b", "c", "a", "d"]);
    assert_eq!(names(&page(&fleet, &asked(sorted("name", "desc")))), ["d", "c", "b", "a"]);
    assert_eq!(names(&page(&fleet, &asked(sorted("own", "asc")))), ["b", "d", "a", "c"]);
    assert_eq!(names(&page(&fleet, &asked(sorted("own", "desc")))), ["a", "d", "b", "c"]);
    assert_eq!(names(&page(&fleet, &asked(sorted("gpus", "asc")))), ["d", "b", "a", "c"]);
}

#[test]
fn words_tags_and_standings_choose_nodes_and_counts_are_of_all() {
    let fleet = four();
    for (q, expected) in [
        ("state:not", &["c"][..]),
        ("state:down", &["b"]),
        ("tag:eu", &["b"]),
        ("h100", &["d"]),
        ("203.0.113", &["d"]),
        ("nvidia state:up", &["d"]),
        ("nothing-like-it", &[]),
    ] {
        let page = page(&fleet, &asked(filtered(q)));
        assert_eq!(names(&page), expected, "{q}");
        assert_eq!(page.total, expected.len(), "{q}");
        assert_eq!((page.counts.total, page.counts.down, page.counts.up), (4, 1, 2), "{q}");
    }
    let chip = Written { standing: "up".to_owned(), ..Written::default() };
    assert_eq!(names(&page(&fleet, &asked(chip))), ["a", "d"]);
    let tags = Written { tag: "EU".to_owned(), ..Written::default() };
    let page = page(&fleet, &asked(tags));
    assert_eq!((names(&page), &*page.tags), (vec!["b"], &[("EU".to_owned(), 1)][..]));
}

#[test]
fn a_cursor_goes_on_after_its_row_whatever_comes_and_goes() {
    let fleet = Fleet::new((0..10).map(|n| node(&format!("n{n}"), |_| ())));
    let first = page(&fleet, &asked(Written { limit: Some(4), ..sorted("name", "") }));
    assert_eq!(names(&first), ["n0", "n1", "n2", "n3"]);
    // The row at which the page ended goes, another one comes before it.
    fleet.remove("n3");
    fleet.update("n1a", at(2), |_| ());
    let cursor = first.next.unwrap();
    let next = Written { limit: Some(4), cursor: cursor.clone(), ..sorted("name", "") };
    let next = page(&fleet, &asked(next));
    assert_eq!(names(&next), ["n4", "n5", "n6", "n7"], "none twice, none left out");
    let rest = Written { cursor: next.next.unwrap(), ..sorted("name", "") };
    let rest = page(&fleet, &asked(rest));
    assert_eq!((names(&rest), &rest.next), (vec!["n8", "n9"], &None));
    let far = Written { skip: Some(7), limit: Some(2), ..sorted("name", "") };
    let far = page(&fleet, &asked(far));
    assert_eq!((names(&far), far.skipped), (vec!["n7", "n8"], 7));
}

#[test]
fn a_cursor_holds_among_equals_in_both_directions() {
    let standing = |n: usize| if n.is_multiple_of(3) { Standing::Down } else { Standing::Up };
    let fleet =
        Fleet::new((0..25).map(|n| node(&format!("n{n:02}"), |it| it.standing = standing(n))));
    for dir in ["asc", "desc"] {
        let whole = page(&fleet, &asked(sorted("standing", dir)));
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let query = Written { limit: Some(4), cursor, ..sorted("standing", dir) };
            let page = page(&fleet, &asked(query));
            seen.extend(page.rows);
            let Some(next) = page.next else { break };
            cursor = next;
        }
        assert_eq!(seen, whole.rows, "{dir}");
    }
}

#[test]
fn hostile_queries_are_refused_and_hostile_names_pass_as_they_are() {
    for (written, why) in [
        (sorted("password", ""), InvalidQuery::Column),
        (sorted("name", "up"), InvalidQuery::Direction),
        (Written { standing: "dead".to_owned(), ..Written::default() }, InvalidQuery::Standing),
        (filtered(&"x".repeat(201)), InvalidQuery::TooLong),
        (filtered(&"x ".repeat(17)), InvalidQuery::TooLong),
        (Written { cursor: "%%".to_owned(), ..Written::default() }, InvalidQuery::Cursor),
        (Written { cursor: "e30".to_owned(), ..Written::default() }, InvalidQuery::Cursor),
        (Written { cursor: "A".repeat(5_000), ..Written::default() }, InvalidQuery::Cursor),
    ] {
        assert_eq!(Query::try_from(written.clone()), Err(why), "{written:?}");
    }
    let hostile = "<img src=x onerror=alert(1)>\u{202e}";
    let fleet = Fleet::new([node(hostile, |_| ())]);
    let page = page(&fleet, &asked(Written { limit: Some(usize::MAX), ..Written::default() }));
    assert_eq!(names(&page), [hostile]);
}

#[test]
fn a_row_leaves_out_what_is_not_known() {
    let row = serde_json::to_value(Row::of(&node("a", |_| ()))).unwrap();
    let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["first", "name", "since", "standing"]);
    let known = node("a", |it| it.presence = Some(cards(2, "NVIDIA H100")));
    let row = serde_json::to_value(Row::of(&known)).unwrap();
    let expected = json!({"count": 2, "model": "NVIDIA H100", "vram_mib": 2000});
    assert_eq!((&row["gpus"], &row["jobs"]), (&expected, &json!([1, 2])));
    let public = serde_json::to_value(Row::in_public(&known)).unwrap();
    assert_eq!(public.as_object().unwrap().len(), 4, "{public}");
}

#[test]
fn ten_thousand_nodes_are_sorted_in_no_time() {
    let fleet = Fleet::new((0..10_000_u64).map(|n| {
        node(&format!("node-{:05}", n * 7_919 % 10_000), |it| {
            it.heard.own = Some(at(n * 31 % 977));
            it.presence =
                Some(cards(4, if n.is_multiple_of(2) { "NVIDIA L40S" } else { "NVIDIA H100" }));
        })
    }));
    let begun = Instant::now();
    for column in ["standing", "name", "gpus", "own", "tags"] {
        assert_eq!(page(&fleet, &asked(sorted(column, "desc"))).rows.len(), ROWS_MAX);
    }
    // A build without optimisation, beside other tests: some ten times what it takes otherwise.
    assert!(begun.elapsed().as_millis() < 5 * 1_000, "{:?}", begun.elapsed());
}
