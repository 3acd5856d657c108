//! The original monitor's API: `POST /api/heartbeat` and `GET /api/nodes`, to the letter.
//!
//! Invariant: a beat is answered with `{"ok":true}` only once it is on the disk.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::error::Refusal;
use super::{Shared, auth, body, count, people, signed};
use crate::clock::{Clock as _, Timestamp};
use crate::fleet::beat::Beat;
use crate::fleet::clocks::Standing;
use crate::hub::fleet::Node;
use crate::hub::settings::Public;
use crate::web::extract::{ConnectInfo, Request, State};
use crate::web::http::HeaderMap;
use crate::web::response::{IntoResponse as _, Response};
use crate::web::routing::{get, post};
use crate::web::{Json, Peer, Router};

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/api/heartbeat", post(heartbeat)).route("/api/nodes", get(nodes))
}

async fn heartbeat(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (head, body) = request.into_parts();
    let wrong = || {
        count(&shared.counted.unauthorized);
        shared.refuse(&peer)
    };
    if let Some(seal) = signed::seal(&shared, &peer, &head.headers)? {
        let bytes = body::bytes(&head.headers, body).await.inspect_err(|_| {
            count(&shared.counted.invalid);
        })?;
        signed::take(&shared, &peer, seal, &bytes).await?;
        count(&shared.counted.beats);
        return Ok(Json(json!({"ok": true})));
    }
    if !auth::has_token(&head.headers) {
        return Err(wrong());
    }
    let bytes = body::bytes(&head.headers, body).await.inspect_err(|_| {
        count(&shared.counted.invalid);
    })?;
    let beat = Beat::parse(&bytes)
        .map(|beat| Beat { node_id: shared.kept_name(beat.node_id.clone()), ..beat });
    let node = beat.as_ref().ok().map(|beat| beat.node_id.as_str());
    if !shared.tokens.may_beat(&head.headers, node) {
        return Err(wrong());
    }
    let beat = beat.inspect_err(|_| count(&shared.counted.invalid))?;
    if shared.has_key(&beat.node_id) {
        count(&shared.counted.unauthorized);
        return Err(signed::only_its_key(&beat.node_id));
    }
    take(&shared, beat).await?;
    count(&shared.counted.beats);
    Ok(Json(json!({"ok": true})))
}

/// Takes a beat into the store, then into memory.
async fn take(shared: &Shared, beat: Beat) -> Result<(), Refusal> {
    let now = shared.clock.now();
    let (fleet, poke, told) = (shared.fleet.clone(), Arc::clone(&shared.poke), beat.clone());
    let then = move |gswarm: &Option<Map<String, Value>>| {
        let name = told.node_id.clone();
        let node = fleet.update(&name, now, |node| node.beats(told, gswarm.as_ref(), now));
        // What changes how a node stands is told at once.
        if node.heard.says_down == (node.standing == Standing::Up) {
            poke.notify_one();
        }
    };
    shared.store.beat(beat, now, then).await.inspect_err(|_| {
        // What could not be kept was not listened to.
        shared.listening.send_modify(|listening| listening.own = shared.clock.now());
    })?;
    Ok(())
}

async fn nodes(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    head: HeaderMap,
) -> Result<Response, Refusal> {
    let sight = people::sight(&shared, &head).await?;
    if sight == Public::Off {
        return Err(if auth::has_token(&head) {
            shared.refuse(&peer)
        } else {
            Refusal::Unauthorized
        });
    }
    let (now, threshold) = (shared.clock.now(), shared.settings.down_threshold.as_secs());
    let all = shared.fleet.all();
    let shown = all.iter().map(|node| Shown::of(node, now, threshold));
    Ok(match sight {
        Public::Full => Json(shown.collect::<Vec<_>>()).into_response(),
        Public::Status | Public::Off => {
            let few = |it: Shown<'_>| json!({"node_id": it.node_id, "computed": it.computed});
            Json(shown.map(few).collect::<Vec<_>>()).into_response()
        }
    })
}

/// A node as the original shows it.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    node_id: &'a str,
    ip: &'a str,
    last_seen: u64,
    computed: &'static str,
    last_state: &'static str,
    meta: Option<&'a str>,
    age_sec: u64,
    reported: &'static str,
    gswarm: Gswarm<'a>,
    gswarm_alert: bool,
}

#[derive(Debug, Serialize)]
struct Gswarm<'a> {
    eoa: Option<&'a Value>,
    peer_ids: Option<&'a Value>,
    stats: Option<&'a Value>,
    updated: Option<&'a Value>,
    tgid: Option<&'a Value>,
    alert: bool,
}

const NO_PEERS: &Value = &Value::Array(Vec::new());

const fn word(is_up: bool) -> &'static str {
    if is_up { "UP" } else { "DOWN" }
}

impl<'a> Shown<'a> {
    fn of(node: &'a Node, now: Timestamp, threshold_s: u64) -> Self {
        let heard = &node.heard;
        let seen = heard.own.max(heard.nats).max(heard.chain).unwrap_or(node.first);
        let last_seen = seen.unix_ms() / 1_000;
        let age_sec = (now.unix_ms() / 1_000).saturating_sub(last_seen);
        let is_up = match heard.own {
            // In whole seconds, as the original counts.
            Some(_) if !heard.is_ours => age_sec <= threshold_s && !heard.says_down,
            _ => node.standing == Standing::Up,
        };
        let alert = alert(node.gswarm.as_ref());
        let key = |name| node.gswarm.as_ref().and_then(|map| map.get(name));
        Self {
            node_id: &node.name,
            ip: &node.ip,
            last_seen,
            computed: word(is_up),
            last_state: word(matches!(node.standing, Standing::Up | Standing::NotWatched)),
            meta: Some(node.meta.as_str()).filter(|it| !it.is_empty()),
            age_sec,
            reported: word(!heard.says_down),
            gswarm: Gswarm {
                eoa: key("eoa"),
                peer_ids: key("peer_ids").or(Some(NO_PEERS)),
                stats: key("stats"),
                updated: key("updated"),
                tgid: key("tgid"),
                alert,
            },
            gswarm_alert: alert,
        }
    }
}

/// Whether somebody wants to be told of a node's rank: yes, unless it was turned off.
fn alert(gswarm: Option<&Map<String, Value>>) -> bool {
    gswarm.and_then(|map| map.get("alert")).and_then(Value::as_bool).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const T0: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

    #[test]
    fn a_node_has_exactly_the_originals_keys_in_its_forms() {
        let mut node = Node::new("a".to_owned(), T0);
        node.heard.own = Some(T0);
        let now = T0.plus(Duration::from_millis(12_900));
        let shown = serde_json::to_value(Shown::of(&node, now, 180)).unwrap();
        let expected = json!({
            "node_id": "a", "ip": "", "last_seen": 1_800_000_000, "computed": "UP", "last_state": "UP",
            "meta": null, "age_sec": 12, "reported": "UP", "gswarm_alert": true,
            "gswarm": {"eoa": null, "peer_ids": [], "stats": null, "updated": null, "tgid": null,
                       "alert": true},
        });
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_node_is_up_for_as_long_as_the_threshold_and_while_it_says_so() {
        let mut node = Node::new("a".to_owned(), T0);
        node.heard.own = Some(T0);
        let computed = |node: &Node, seconds| {
            Shown::of(node, T0.plus(Duration::from_secs(seconds)), 180).computed
        };
        assert_eq!((computed(&node, 180), computed(&node, 181)), ("UP", "DOWN"));
        node.heard.says_down = true;
        assert_eq!(computed(&node, 0), "DOWN");
        // The clock of the host was set back.
        assert_eq!(Shown::of(&node, Timestamp::default(), 180).age_sec, 0);
        node.standing = Standing::Zombie;
        assert_eq!(Shown::of(&node, T0, 180).last_state, "DOWN");
    }
}
