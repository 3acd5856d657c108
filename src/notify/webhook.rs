//! Alertmanager's webhook, version 4, so that whatever receives from it receives from a hub.
//!
//! Must hold: each node is one alert with a fingerprint that stays the same from firing to resolved; the key of a
//! notice is the same at each try.

use serde_json::{Map, Value, json};

use super::calls::{Target, client, post};
use super::form::{NAME_CHARS_MAX, SENTENCE_CHARS_MAX};
use super::{Accepted, Pace, Refused, Telling, seconds};
use crate::clock::Timestamp;
use crate::fleet::notice::{Notice, NoticeKind, NoticeNode};
use crate::http::{self, Client, InvalidUrl};
use crate::report::{BoxError, one_line};
use crate::secret::Secret;

/// The channel's name.
pub const NAME: &str = "webhook";

/// As Alertmanager, which sends a group at once.
pub const PACE: Pace = Pace { apart: std::time::Duration::ZERO, a_minute: 120 };

/// How this hub calls itself as a receiver of its own alerts.
const RECEIVER: &str = "lamda-hub";

/// When an alert ends that has not ended.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Earlier notices that one message tells.
const EARLIER_MAX: usize = 50;

/// Who receives.
#[derive(Debug, Clone)]
pub struct Config {
    url: Secret,
    /// Where people see the hub; empty if that isn't known.
    hub: String,
}

impl Config {
    /// A receiver, whose URL may hold a password or a key; and where people see the hub, or nothing.
    pub fn new(url: Secret, hub: &str) -> Result<Self, InvalidUrl> {
        http::url(url.expose())?;
        Ok(Self { url, hub: hub.to_owned() })
    }
}

/// A receiver.
#[derive(Debug, Clone)]
pub struct Webhook {
    client: Client,
    url: Target,
    hub: String,
}

impl Webhook {
    /// The receiver of this configuration. Nothing is called.
    pub fn new(config: &Config) -> Result<Self, BoxError> {
        let url = Target(http::url(config.url.expose())?);
        Ok(Self { client: client()?, url, hub: config.hub.clone() })
    }

    pub(super) async fn send(&self, telling: &Telling) -> Result<Accepted, Refused> {
        let mut request = self.client.post(self.url.0.clone()).json(&body(telling, &self.hub));
        request = request.header("idempotency-key", telling.key());
        if telling.may_be_repeat {
            request = request.header("x-may-be-repeat", "true");
        }
        post(request).await
    }
}

/// The message.
pub(super) fn body(telling: &Telling, hub: &str) -> Value {
    let notice = &telling.notice;
    let (name, severity) = (alert_name(notice), notice.severity.as_str());
    let mut group = json!({"alertname": name});
    if notice.incident > 0 {
        group["incident"] = json!(notice.incident.to_string());
    }
    let mut annotations = json!({"summary": one_line(&notice.title, SENTENCE_CHARS_MAX)});
    let remedy = one_line(&notice.remedy, SENTENCE_CHARS_MAX);
    for (key, text) in [("remedy", remedy), ("told_late", told_late(telling))] {
        if !text.is_empty() {
            annotations[key] = json!(text);
        }
    }
    if telling.may_be_repeat {
        annotations["may_be_repeat"] = json!("true");
    }
    let alerts = alerts(notice, hub);
    let is_firing = |alert: &Value| alert["status"] == "firing";
    json!({
        "version": "4",
        "groupKey": format!("{{}}:{{alertname={name:?}, incident=\"{}\"}}", notice.incident),
        "truncatedAlerts": notice.more,
        "status": if alerts.iter().any(is_firing) { "firing" } else { "resolved" },
        "receiver": RECEIVER,
        "groupLabels": group,
        "commonLabels": {"alertname": name, "severity": severity},
        "commonAnnotations": annotations,
        "externalURL": hub,
        "alerts": alerts,
    })
}

/// The rule's name, or what kind of notice it is.
fn alert_name(notice: &Notice) -> String {
    let name = if notice.rule.is_empty() { notice.kind.as_str() } else { &notice.rule };
    one_line(name, NAME_CHARS_MAX)
}

/// One alert a node; of a notice without nodes, one for all of it.
fn alerts(notice: &Notice, hub: &str) -> Vec<Value> {
    if notice.nodes.is_empty() {
        return vec![alert(notice, hub, None)];
    }
    notice.nodes.iter().map(|node| alert(notice, hub, Some(node))).collect()
}

fn alert(notice: &Notice, hub: &str, node: Option<&NoticeNode>) -> Value {
    let name = node.map(|node| one_line(&node.name, NAME_CHARS_MAX));
    let (alert, severity) = (alert_name(notice), notice.severity.as_str());
    // In the order of their names, as the fingerprint wants them.
    let labels: Vec<(&str, &str)> = [("alertname", alert.as_str())]
        .into_iter()
        .chain(name.as_deref().map(|name| ("node", name)))
        .chain([("severity", severity)])
        .collect();
    let end = ended(notice, node);
    let summary = match node {
        Some(node) if !node.why.is_empty() => &node.why,
        _ => &notice.title,
    };
    let mut annotations = json!({"summary": one_line(summary, SENTENCE_CHARS_MAX)});
    if let Some(ip) = node.map(|node| &node.ip).filter(|ip| !ip.is_empty()) {
        annotations["ip"] = json!(one_line(ip, NAME_CHARS_MAX));
    }
    if !notice.remedy.is_empty() && end.is_none() {
        annotations["remedy"] = json!(one_line(&notice.remedy, SENTENCE_CHARS_MAX));
    }
    let as_value = |(key, value): &(&str, &str)| ((*key).to_owned(), json!(value));
    json!({
        "status": if end.is_some() { "resolved" } else { "firing" },
        "labels": Value::Object(labels.iter().map(as_value).collect::<Map<_, _>>()),
        "annotations": annotations,
        "startsAt": node.map_or(notice.opened, |node| node.since),
        "endsAt": end.map_or_else(|| NEVER.to_owned(), |at| at.to_string()),
        "generatorURL": hub,
        "fingerprint": format!("{:016x}", fingerprint(&labels)),
    })
}

/// When the node was well again, if it is.
fn ended(notice: &Notice, node: Option<&NoticeNode>) -> Option<Timestamp> {
    let is_over = matches!(notice.kind, NoticeKind::Resolved | NoticeKind::Digest);
    node.and_then(|node| node.ended).or_else(|| is_over.then_some(notice.decided))
}

/// One sentence for each notice that was not told in its time.
fn told_late(telling: &Telling) -> String {
    let skipped = telling.earlier.len().saturating_sub(EARLIER_MAX);
    let untold = telling.left_out + skipped;
    let before = (untold > 0).then(|| format!("{untold} notices, and"));
    let told = telling.earlier.iter().skip(skipped).map(|earlier| {
        let notice = &earlier.notice;
        let doubt = if earlier.may_be_repeat { " (it may have arrived before)" } else { "" };
        let title = one_line(&notice.title, NAME_CHARS_MAX);
        format!("{} UTC {}: {title}{doubt}", seconds(notice.decided), notice.kind.as_str())
    });
    before.into_iter().chain(told).collect::<Vec<_>>().join("; ")
}

/// Prometheus's fingerprint of a set of labels, which are sorted by name: FNV-1a of 64 bits over each name and
/// value, each ended by a byte that UTF-8 has not.
pub(super) fn fingerprint(labels: &[(&str, &str)]) -> u64 {
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = texts.flat_map(|text| text.bytes().chain(std::iter::once(0xff)));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
