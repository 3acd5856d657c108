//! What SOLLOL's dashboard sends to its pages over each `WebSocket`, made of our events and of how our nodes stand.
//!
//! Must hold: each message is one JSON object with a `type`, the keys of both versions of that dashboard, and a
//! `message` for people; times are seconds since 1970 as a float.

use serde_json::{Value, json};

use super::table::{self, Feed};
use super::{feeds, log, observer, routing, seconds};
use crate::clock::Timestamp;
use crate::fleet::event::Event;

/// What a socket shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Every event as a line of a log.
    Logs,
    /// Which nodes there are, and how they stand.
    Nodes,
    /// Which of them take jobs.
    Backends,
    /// Images that are pulled, where the original has models.
    OllamaActivity,
    /// Jobs, links and cards.
    RpcActivity,
    /// What happens to each job.
    Traces,
    /// Where jobs go.
    RoutingEvents,
    /// Which applications are registered.
    Applications,
}

impl View {
    /// All views.
    pub const ALL: [Self; 8] = [
        Self::Logs,
        Self::Nodes,
        Self::Backends,
        Self::OllamaActivity,
        Self::RpcActivity,
        Self::Traces,
        Self::RoutingEvents,
        Self::Applications,
    ];

    /// Where it is, on a dashboard.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Logs => "/ws/logs",
            Self::Nodes => "/ws/network/nodes",
            Self::Backends => "/ws/network/backends",
            Self::OllamaActivity => "/ws/network/ollama_activity",
            Self::RpcActivity => "/ws/network/rpc_activity",
            Self::Traces => "/ws/traces",
            Self::RoutingEvents => "/ws/routing_events",
            Self::Applications => "/ws/applications",
        }
    }

    /// What is sent first, if the original sends something.
    pub fn greeting(self, now: Timestamp) -> Option<String> {
        let stream = match self {
            Self::OllamaActivity => "Ollama activity stream",
            Self::RpcActivity => "llama.cpp activity stream",
            Self::Traces => "distributed traces stream",
            Self::RoutingEvents => "SOLLOL routing stream",
            Self::Logs | Self::Nodes | Self::Backends | Self::Applications => return None,
        };
        let message = format!("Connected to {stream}");
        Some(json!({"type": "connected", "timestamp": of(now), "message": message}).to_string())
    }
}

/// What each view shows of an event.
pub fn messages(event: &Event) -> Vec<(View, String)> {
    let Some(seen) = table::seen(event) else { return Vec::new() };
    let is_fed = |feed| feeds(feed, event, seen);
    let mut told = vec![(View::Logs, log(event, seen))];
    if is_fed(Feed::Observed(table::OLLAMA)) {
        told.push((View::OllamaActivity, activity(event, &observer(event, seen))));
    }
    if is_fed(Feed::Observed(table::RPC)) {
        told.push((View::RpcActivity, activity(event, &observer(event, seen))));
    }
    if is_fed(Feed::OfJobs) {
        told.push((View::Traces, trace(event)));
    }
    if is_fed(Feed::Routed) {
        told.push((View::RoutingEvents, routed(&routing(event, seen))));
    }
    told.into_iter().map(|(view, message)| (view, message.to_string())).collect()
}

/// An observer's event as the dashboard passes it on.
fn activity(event: &Event, observed: &Value) -> Value {
    let part = |key: &str| observed.get(key).cloned().unwrap_or_default();
    let (kind, backend) = (part("event_type"), part("backend"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    json!({
        "type": kind,
        "timestamp": part("timestamp"),
        "backend": backend,
        "details": part("details"),
        "message": format!("{} on {}: {}", text(&kind), text(&backend), event.message()),
        "event": observed,
    })
}

/// A step of a job as a trace. The original has the two ends of a trace alone, under `trace_start` and
/// `trace_complete`.
fn trace(event: &Event) -> Value {
    let step = event.event_type.as_str();
    let (kind, status) = match step {
        "accepted" => ("trace_start", "in_progress"),
        "completed" => ("trace_complete", "completed"),
        "failed" | "timed_out" | "rejected" => ("trace_complete", "error"),
        "cancelled" => ("trace_complete", "cancelled"),
        _ => ("trace_update", "in_progress"),
    };
    json!({
        "type": kind,
        "timestamp": seconds(event),
        "message": event.message(),
        "trace": {
            "trace_id": event.trace_id,
            "job_id": event.job_id,
            "node": event.node,
            "backend": event.node,
            "step": format!("{}.{step}", event.component),
            "status": status,
            "at": seconds(event),
            "details": event.details(),
        },
    })
}

/// A routing event as the dashboard passes it on.
fn routed(event: &Value) -> Value {
    let part = |key: &str| event.get(key).cloned().unwrap_or_default();
    let text = |key: &str| part(key).as_str().unwrap_or_default().to_owned();
    json!({
        "type": "routing_event",
        "event_type": part("event_type"),
        "timestamp": part("timestamp"),
        "instance_id": part("instance_id"),
        "model": part("model"),
        "backend": part("backend"),
        "reason": part("reason"),
        "message": format!("{}: {} on {}", text("event_type"), text("reason"), text("worker")),
        "full_event": event,
    })
}

/// How a node is there, in the words of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// Whether it can be relied on: `healthy`.
    pub is_healthy: bool,
    /// Whether it is one of ours, which takes jobs.
    pub is_backend: bool,
}

impl There {
    const fn status(self) -> &'static str {
        if self.is_healthy { "healthy" } else { "unhealthy" }
    }
}

/// What is told of a node whose way of being there changes; `None`: it was not known, or is known no more.
pub fn changed(
    name: &str,
    before: Option<There>,
    after: Option<There>,
    now: Timestamp,
) -> Vec<(View, String)> {
    let mut told = Vec::new();
    let at = of(now);
    let node = match (before, after) {
        (None, Some(there)) => Some(json!({
            "type": "node_discovered", "timestamp": at, "node": name, "status": there.status(),
            "message": format!("New node discovered: {name}"),
        })),
        (Some(_), None) => Some(json!({
            "type": "node_removed", "timestamp": at, "node": name,
            "message": format!("Node removed: {name}"),
        })),
        (Some(old), Some(new)) if old.is_healthy != new.is_healthy => Some(json!({
            "type": "status_change", "timestamp": at, "node": name,
            "old_status": old.status(), "new_status": new.status(),
            "message": format!("Node {name}: {} -> {}", old.status(), new.status()),
        })),
        _ => None,
    };
    told.extend(node.map(|message| (View::Nodes, message.to_string())));
    let is_there = |there: Option<There>| there.is_some_and(|it| it.is_backend && it.is_healthy);
    let word = match (is_there(before), is_there(after)) {
        (false, true) => "connected",
        (true, false) => "disconnected",
        _ => return told,
    };
    let message = json!({
        "type": format!("backend_{word}"), "timestamp": at, "backend": name,
        "message": format!("Backend {word}: {name}"),
    });
    told.push((View::Backends, message.to_string()));
    told
}

/// What says that there is no news: how many are watched.
pub fn heartbeat(view: View, count: usize, now: Timestamp) -> Option<String> {
    let (key, what) = match view {
        View::Nodes => ("nodes_count", "nodes"),
        View::Backends => ("backends_count", "backends"),
        View::Applications => ("apps_count", "applications"),
        _ => return None,
    };
    let message = format!("Monitoring {count} {what}");
    Some(
        json!({"type": "heartbeat", "timestamp": of(now), key: count, "message": message})
            .to_string(),
    )
}

/// A moment as the dashboard writes it.
pub fn of(at: Timestamp) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    let ms = at.unix_ms() as f64;
    ms / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Kind, kinds};
    use crate::ids::Address;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_704_067_200_500);

    fn shown(kind: Kind, job: Option<&str>) -> Vec<(View, Value)> {
        let event = Event::new(kind, Address::new([7; 20]), NOW, "it was said");
        let event = match job {
            Some(job) => event.about(&job.parse().unwrap()).with("run_ms", 1500),
            None => event,
        };
        let read = |(view, text): (View, String)| (view, serde_json::from_str(&text).unwrap());
        messages(&event).into_iter().map(read).collect()
    }

    fn of_view(told: &[(View, Value)], wanted: View) -> Option<&Value> {
        told.iter().find(|(view, _)| *view == wanted).map(|(_, value)| value)
    }

    #[test]
    fn a_job_that_ends_is_in_each_view_in_the_dashboards_form() {
        let told = shown(kinds::JOB_COMPLETED, Some("j"));
        let log = of_view(&told, View::Logs).unwrap();
        assert_eq!((&log["level"], &log["timestamp"]), (&"info".into(), &1_704_067_200.5.into()));
        let trace = of_view(&told, View::Traces).unwrap();
        assert_eq!(
            (&trace["type"], &trace["trace"]["job_id"]),
            (&"trace_complete".into(), &"j".into())
        );
        let routed = of_view(&told, View::RoutingEvents).unwrap();
        assert_eq!(
            (&routed["type"], &routed["event_type"]),
            (&"routing_event".into(), &"TASK_COMPLETE".into())
        );
        assert_eq!(routed["full_event"]["duration"], 1.5);
        let activity = of_view(&told, View::RpcActivity).unwrap();
        assert_eq!(activity["type"], "rpc_response");
        assert_eq!(activity["event"]["severity"], "info");
        assert!(of_view(&told, View::OllamaActivity).is_none());
    }

    #[test]
    fn an_image_is_a_model_and_an_event_without_a_job_is_no_trace() {
        let told = shown(kinds::PULL_DONE, None);
        assert_eq!(of_view(&told, View::OllamaActivity).unwrap()["type"], "ollama_model_load");
        assert!(of_view(&told, View::Traces).is_none());
    }

    #[test]
    fn a_node_is_told_when_it_comes_changes_and_goes_and_not_in_between() {
        let there = |is_healthy, is_backend| Some(There { is_healthy, is_backend });
        let kinds = |before, after| -> Vec<String> {
            let kind = |(_, text): (View, String)| {
                let value: Value = serde_json::from_str(&text).unwrap();
                value["type"].as_str().unwrap().to_owned()
            };
            changed("n", before, after, NOW).into_iter().map(kind).collect()
        };
        assert_eq!(kinds(None, there(true, true)), ["node_discovered", "backend_connected"]);
        assert_eq!(kinds(None, there(true, false)), ["node_discovered"]);
        assert!(kinds(there(true, true), there(true, true)).is_empty());
        assert_eq!(
            kinds(there(true, true), there(false, true)),
            ["status_change", "backend_disconnected"]
        );
        assert_eq!(kinds(there(false, true), None), ["node_removed"]);
    }

    #[test]
    fn each_view_has_a_place_of_its_own() {
        let mut paths: Vec<_> = View::ALL.iter().map(|view| view.path()).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), View::ALL.len());
    }
}
