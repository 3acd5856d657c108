//! The node's own beat for readers of other systems: that it is alive, and what it uses itself.
//!
//! Lossy by design: the next message says it again. The interval is in each message, so that a reader can wait for three
//! of them before it takes the node for dead.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::link::Link;
use crate::bus::MetricsTopic;
use crate::clock::Clock;
use crate::host::{self, OwnUse};
use crate::ids::Address;
use crate::report::causes;
use crate::supervise::Failure;

/// What goes into `namespace`: the systems that read it know one, and this node has none.
const NAMESPACE: &str = "lamda";

/// Says each `every` that the node is there. A service.
pub(super) async fn run<C: Clock>(
    node: Address,
    link: Link,
    topic: MetricsTopic,
    every: Duration,
    clock: C,
) -> Result<(), Failure> {
    let mut before: Option<(OwnUse, Duration)> = None;
    loop {
        let now = clock.monotonic();
        let used = host::own_use();
        let metrics = metrics(
            node,
            &clock.now().to_string(),
            used,
            before.map(|(own, at)| (own, now.saturating_sub(at))),
        );
        before = used.map(|used| (used, now));
        if let Some(bus) = link.now() {
            let alive = json!({
                "proplet_id": node, "status": "alive", "namespace": NAMESPACE,
                "interval_seconds": every.as_secs(),
            });
            for (end, body) in [("alive", alive), ("metrics", metrics)] {
                if let Err(err) = bus.publish_beat(&topic, end, body.to_string().into()).await {
                    tracing::debug!("a beat is lost: {}", causes(&err));
                }
            }
        }
        clock.sleep(every).await;
    }
}

/// The message `metrics`. What is not known is left out. `before`: what had been used, and how long ago.
fn metrics(
    node: Address,
    at: &str,
    used: Option<OwnUse>,
    before: Option<(OwnUse, Duration)>,
) -> Value {
    let (mut cpu, mut memory) = (Map::new(), Map::new());
    if let Some(used) = used {
        cpu.insert("user_seconds".to_owned(), used.user.as_secs_f64().into());
        cpu.insert("system_seconds".to_owned(), used.system.as_secs_f64().into());
        if let Some((before, span)) = before.filter(|(_, span)| !span.is_zero()) {
            let all = |own: OwnUse| own.user.saturating_add(own.system);
            let share = all(used).saturating_sub(all(before)).as_secs_f64() / span.as_secs_f64();
            cpu.insert("percent".to_owned(), (share * 100.0).into());
        }
        memory.extend(used.resident_bytes.map(|bytes| ("rss_bytes".to_owned(), bytes.into())));
    }
    json!({
        "proplet_id": node, "namespace": NAMESPACE, "timestamp": at,
        "cpu_metrics": cpu, "memory_metrics": memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_has_what_is_known_and_nothing_else() {
        let node = Address::new([0x11; 20]);
        let own = |user: u64| OwnUse {
            user: Duration::from_millis(user),
            system: Duration::from_millis(500),
            resident_bytes: Some(1 << 20),
        };
        let first = metrics(node, "t", Some(own(1000)), None);
        assert_eq!(first["cpu_metrics"], json!({"user_seconds": 1.0, "system_seconds": 0.5}));
        assert_eq!(first["memory_metrics"], json!({"rss_bytes": 1 << 20}));
        let later = metrics(node, "t", Some(own(1500)), Some((own(1000), Duration::from_secs(10))));
        assert_eq!(later["cpu_metrics"]["percent"], json!(5.0));
        let unknown = metrics(node, "t", None, None);
        assert_eq!((&unknown["cpu_metrics"], &unknown["memory_metrics"]), (&json!({}), &json!({})));
    }
}
