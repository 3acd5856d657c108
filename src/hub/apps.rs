//! The applications that are registered with the hub, as with SOLLOL's dashboard: each says every few seconds that it
//! is there.
//!
//! Must hold: there are at most [`APPS_MAX`], each bounded; one that is silent for [`GONE`] is forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::{Clock, Timestamp};
use crate::fleet::seed_view::sockets;
use crate::report::one_line;

/// The most applications at a time.
pub const APPS_MAX: usize = 256;

/// One that is silent for so long is shown as stale.
pub const STALE: Duration = Duration::from_secs(30);

/// One that is silent for so long is forgotten.
pub const GONE: Duration = Duration::from_mins(1);

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 128;

/// The longest other text, in characters; longer ones are cut.
const TEXT_CHARS_MAX: usize = 200;

/// The longest metadata, in bytes of JSON.
const METADATA_BYTES_MAX: usize = 4 * 1024;

/// What an application says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its id, which it has made itself.
    pub id: String,
    name: Option<String>,
    router: Option<String>,
    version: Option<String>,
    metadata: Option<Map<String, Value>>,
}

/// Why what an application says is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It names no id.
    #[error("app_id required")]
    NoId,
    /// The id can't be one.
    #[error("app_id must have 1 to {ID_BYTES_MAX} bytes without control characters")]
    Id,
    /// The metadata is no object, or too long.
    #[error("metadata must be an object of at most {METADATA_BYTES_MAX} bytes")]
    Metadata,
}

impl Told {
    /// Reads the body of a call.
    pub fn of(body: &Map<String, Value>) -> Result<Self, Invalid> {
        let id = body.get("app_id").and_then(Value::as_str).unwrap_or_default();
        if id.is_empty() {
            return Err(Invalid::NoId);
        }
        if id.len() > ID_BYTES_MAX || id.chars().any(char::is_control) {
            return Err(Invalid::Id);
        }
        let text = |key: &str| {
            let text = body.get(key)?.as_str()?;
            Some(one_line(text, TEXT_CHARS_MAX)).filter(|text| !text.is_empty())
        };
        let metadata = match body.get("metadata") {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map.clone()),
            Some(_) => return Err(Invalid::Metadata),
        };
        let told = Self {
            id: id.to_owned(),
            name: text("name"),
            router: text("router_type"),
            version: text("version"),
            metadata,
        };
        if told.metadata.as_ref().is_some_and(is_too_long) {
            return Err(Invalid::Metadata);
        }
        Ok(told)
    }
}

fn is_too_long(metadata: &Map<String, Value>) -> bool {
    !serde_json::to_string(metadata).is_ok_and(|text| text.len() <= METADATA_BYTES_MAX)
}

#[derive(Debug, Clone)]
struct App {
    name: String,
    router: String,
    version: String,
    metadata: Map<String, Value>,
    since: Timestamp,
    heard: Timestamp,
    /// [`App::since`] and [`App::heard`] on the clock that never steps.
    since_on: Duration,
    heard_on: Duration,
}

/// All applications. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Apps(Arc<Mutex<BTreeMap<String, App>>>);

/// There are [`APPS_MAX`] already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{APPS_MAX} applications are registered already")]
pub struct Full;

impl Apps {
    /// Takes what an application says; one that was not known is from now on.
    pub fn take(&self, told: Told, clock: &impl Clock) -> Result<(), Full> {
        let (now, on) = (clock.now(), clock.monotonic());
        let mut apps = self.lock(on);
        if apps.len() >= APPS_MAX && !apps.contains_key(&told.id) {
            return Err(Full);
        }
        let unknown = || "unknown".to_owned();
        let app = apps.entry(told.id).or_insert_with(|| App {
            name: unknown(),
            router: unknown(),
            version: unknown(),
            metadata: Map::new(),
            since: now,
            heard: now,
            since_on: on,
            heard_on: on,
        });
        (app.heard, app.heard_on) = (now, on);
        let put = |place: &mut String, text: Option<String>| {
            if let Some(text) = text {
                *place = text;
            }
        };
        put(&mut app.name, told.name);
        put(&mut app.router, told.router);
        put(&mut app.version, told.version);
        if let Some(metadata) = told.metadata {
            app.metadata = metadata;
        }
        Ok(())
    }

    /// Forgets an application. Whether it was known.
    pub fn forget(&self, id: &str, clock: &impl Clock) -> bool {
        self.lock(clock.monotonic()).remove(id).is_some()
    }

    /// All applications as the dashboard lists them.
    pub fn list(&self, clock: &impl Clock) -> Value {
        let on = clock.monotonic();
        let apps = self.lock(on);
        let shown: Vec<Value> = apps.iter().map(|(id, app)| app.shown(id, on)).collect();
        let active = shown.iter().filter(|app| app["status"] == "active").count();
        json!({"applications": shown, "total": shown.len(), "active": active})
    }

    /// The name of each application, its kind, and whether it is stale, by id.
    pub fn names(&self, clock: &impl Clock) -> BTreeMap<String, Name> {
        let on = clock.monotonic();
        let name = |app: &App| Name {
            name: app.name.clone(),
            router: app.router.clone(),
            is_stale: on.saturating_sub(app.heard_on) >= STALE,
        };
        self.lock(on).iter().map(|(id, app)| (id.clone(), name(app))).collect()
    }

    /// The applications, without those that are gone.
    fn lock(&self, on: Duration) -> std::sync::MutexGuard<'_, BTreeMap<String, App>> {
        let mut apps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        apps.retain(|_, app| on.saturating_sub(app.heard_on) <= GONE);
        apps
    }
}

/// What is told of an application when it comes, or when it is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// What it calls itself.
    pub name: String,
    /// Its kind.
    pub router: String,
    /// Whether it has been silent for [`STALE`].
    pub is_stale: bool,
}

impl App {
    fn shown(&self, id: &str, on: Duration) -> Value {
        let silent = on.saturating_sub(self.heard_on);
        // The keys of both versions of the dashboard.
        json!({
            "app_id": id,
            "name": self.name,
            "router_type": self.router,
            "version": self.version,
            "status": if silent < STALE { "active" } else { "stale" },
            "start_time": sockets::of(self.since),
            "started_at": sockets::of(self.since),
            "last_heartbeat": sockets::of(self.heard),
            "uptime_seconds": on.saturating_sub(self.since_on).as_secs(),
            "last_seen_seconds": silent.as_secs(),
            "metadata": self.metadata,
        })
    }
}

/// What is told of applications between two looks.
pub fn changes(
    before: &BTreeMap<String, Name>,
    after: &BTreeMap<String, Name>,
    now: Timestamp,
) -> Vec<String> {
    let at = sockets::of(now);
    let mut told = Vec::new();
    for (id, app) in after {
        let name = &app.name;
        let known = before.get(id);
        if known.is_none() {
            told.push(json!({
                "type": "app_registered", "timestamp": at, "app_id": id, "name": name,
                "router_type": app.router,
                "message": format!("Application started: {name} ({})", app.router),
            }));
        }
        if app.is_stale && !known.is_some_and(|known| known.is_stale) {
            told.push(json!({
                "type": "app_stale", "timestamp": at, "app_id": id, "name": name,
                "message": format!("Application not responding: {name}"),
            }));
        }
    }
    for id in before.keys().filter(|id| !after.contains_key(*id)) {
        told.push(json!({
            "type": "app_unregistered", "timestamp": at, "app_id": id,
            "message": format!("Application stopped: {id}"),
        }));
    }
    told.into_iter().map(|message| message.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct At(AtomicU64);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            Timestamp::from_unix_ms(1_700_000_000_000 + self.0.load(Ordering::Relaxed) * 1_000)
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        async fn sleep(&self, _: Duration) {}

        async fn sleep_until(&self, _: Timestamp) {}
    }

    fn told(body: &Value) -> Result<Told, Invalid> {
        Told::of(body.as_object().unwrap())
    }

    #[test]
    fn an_application_that_is_silent_is_stale_then_gone_and_its_next_word_registers_it_anew() {
        let (apps, clock) = (Apps::default(), At::default());
        let app = told(&json!({"app_id": "a", "name": "Mine", "router_type": "R"})).unwrap();
        apps.take(app, &clock).unwrap();
        let status = || apps.list(&clock)["applications"][0]["status"].clone();
        clock.0.store(29, Ordering::Relaxed);
        assert_eq!(status(), "active");
        let before = apps.names(&clock);
        clock.0.store(30, Ordering::Relaxed);
        assert_eq!(status(), "stale");
        let stale = apps.names(&clock);
        let types = |told: Vec<String>| -> Vec<Value> {
            told.iter()
                .map(|it| serde_json::from_str::<Value>(it).unwrap()["type"].clone())
                .collect()
        };
        assert_eq!(types(changes(&before, &stale, clock.now())), ["app_stale"]);
        clock.0.store(61, Ordering::Relaxed);
        assert_eq!(apps.list(&clock)["total"], 0);
        let gone = apps.names(&clock);
        assert_eq!(types(changes(&stale, &gone, clock.now())), ["app_unregistered"]);
        apps.take(told(&json!({"app_id": "a"})).unwrap(), &clock).unwrap();
        let list = apps.list(&clock);
        assert_eq!(
            (&list["applications"][0]["name"], &list["active"]),
            (&"unknown".into(), &1.into())
        );
        assert_eq!(types(changes(&gone, &apps.names(&clock), clock.now())), ["app_registered"]);
    }

    #[test]
    fn a_heartbeat_that_says_less_changes_less() {
        let (apps, clock) = (Apps::default(), At::default());
        let body =
            json!({"app_id": "a", "name": "Mine", "version": "1", "metadata": {"node": "x"}});
        apps.take(told(&body).unwrap(), &clock).unwrap();
        clock.0.store(10, Ordering::Relaxed);
        apps.take(told(&json!({"app_id": "a", "version": "2"})).unwrap(), &clock).unwrap();
        let app = apps.list(&clock)["applications"][0].clone();
        assert_eq!((&app["name"], &app["version"]), (&"Mine".into(), &"2".into()));
        assert_eq!((&app["metadata"]["node"], &app["uptime_seconds"]), (&"x".into(), &10.into()));
        assert_eq!(app["last_seen_seconds"], 0);
    }

    #[test]
    fn there_is_a_limit_to_applications_and_to_what_each_says() {
        let (apps, clock) = (Apps::default(), At::default());
        for number in 0..APPS_MAX {
            let app = told(&json!({"app_id": format!("a{number}")})).unwrap();
            apps.take(app, &clock).unwrap();
        }
        let more = || told(&json!({"app_id": "more"})).unwrap();
        assert_eq!(apps.take(more(), &clock), Err(Full));
        apps.take(told(&json!({"app_id": "a7"})).unwrap(), &clock).unwrap();
        clock.0.store(61, Ordering::Relaxed);
        apps.take(more(), &clock).unwrap();
        let long = "x".repeat(METADATA_BYTES_MAX);
        for (body, why) in [
            (json!({}), Invalid::NoId),
            (json!({"app_id": 7}), Invalid::NoId),
            (json!({"app_id": "a\nb"}), Invalid::Id),
            (json!({"app_id": "x".repeat(129)}), Invalid::Id),
            (json!({"app_id": "a", "metadata": [1]}), Invalid::Metadata),
            (json!({"app_id": "a", "metadata": {"x": long}}), Invalid::Metadata),
        ] {
            assert_eq!(told(&body), Err(why), "{body}");
        }
    }
}
