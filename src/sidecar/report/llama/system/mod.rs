//! A coordinator and its backends: what an observation of them means in the words of `SynapticLlamas` and SOLLOL.
//!
//! Invariants: a start or an end that two witnesses saw is told once; a coordinator whose port is closed has no
//! heartbeat, whatever its log says; what is known of a backend is what its port said last.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::fleet::event::Level;
use crate::fleet::seed_view::llama::{BACKEND, COORDINATOR, Happened, MODEL, REGISTRY};
use crate::sidecar::probe::ports::ports;
use crate::watch::meaning::{Kind, Meaning};
use crate::watch::observation::{Observation, Seen};
use crate::watch::profile::Filled;
use crate::watch::state::Watched;

/// What was written so long before it was read says nothing of now.
const OLD: Duration = Duration::from_mins(10);

/// A coordinator, its backends, and what is known of them.
#[derive(Debug)]
pub struct System {
    program: String,
    /// `host:port` of the coordinator, and what its port is called.
    coordinator: Option<(String, String)>,
    /// `host:port` of each backend, by what its port is called.
    backends: BTreeMap<String, String>,
    /// Whether each port is open, as far as that is known.
    open: BTreeMap<String, bool>,
    model: Option<String>,
    is_up: Option<bool>,
    /// When its start was told last.
    started: Option<Timestamp>,
    /// Whether a stop, a crash or a closed port was seen after that start: then the next one is another. A large model
    /// loads for many minutes between what the port and what the log say of one start.
    has_ended: bool,
    restarts: u64,
}

impl System {
    /// The system that a program with this profile is, as far as it is known.
    pub fn of(program: &str, profile: &Filled, known: &Watched) -> Self {
        let own: Vec<&str> = profile.ports.iter().map(|it| it.name.as_str()).collect();
        let is_coordinator = |name: &str| name == COORDINATOR || name.ends_with(" coordinator");
        let others = ports(profile).into_iter().filter(|(name, _)| !own.contains(&name.as_str()));
        let (coordinators, backends): (Vec<_>, Vec<_>) =
            others.partition(|(name, _)| is_coordinator(name));
        let coordinator = coordinators.into_iter().next();
        let open: BTreeMap<String, bool> =
            known.ports.iter().map(|(name, (is_open, _))| (name.clone(), *is_open)).collect();
        let is_up = match &coordinator {
            Some((name, _)) => open.get(name).copied(),
            None => known.process.as_ref().map(|it| it.is_running),
        };
        Self {
            program: program.to_owned(),
            coordinator: coordinator.map(|(name, address)| (address, name)),
            backends: backends.into_iter().collect(),
            open,
            model: None,
            is_up,
            started: None,
            has_ended: false,
            restarts: 0,
        }
    }

    /// What an observation means: usually one thing; of a crash that ends the coordinator two.
    pub fn take(&mut self, observation: &Observation) -> Vec<Happened> {
        let at = observation.at;
        let happened = match &observation.seen {
            Seen::Port { name, is_open } => self.port(name, *is_open, at),
            Seen::Process { is_running, .. } if self.coordinator.is_none() => {
                self.turned(*is_running, at)
            }
            Seen::Told { said, .. } if said.is_some_and(|said| at.since(said) > OLD) => None,
            Seen::Told { log, meaning, text, .. } => {
                let source = source(log);
                let told = self.told(source, meaning, text, at);
                let is_crash = meaning.kind == Kind::Crash && source == COORDINATOR;
                let stop = is_crash.then(|| self.crashed(at)).flatten();
                return told.into_iter().chain(stop).collect();
            }
            _ => None,
        };
        happened.into_iter().collect()
    }

    fn port(&mut self, name: &str, is_open: bool, at: Timestamp) -> Option<Happened> {
        let was = self.open.insert(name.to_owned(), is_open);
        if self.coordinator.as_ref().is_some_and(|(_, port)| port == name) {
            let turned = self.turned(is_open, at);
            self.has_ended |= !is_open;
            return turned;
        }
        let address = self.backends.get(name)?.clone();
        if was == Some(is_open) {
            return None;
        }
        let (active, configured) = (self.active().len(), self.backends.len());
        let details = json!({
            "backend": address, "name": name, "total_configured": configured,
            "total_active": active,
        });
        let (kind, observed, level, words) = if is_open {
            ("connect", "rpc_backend_connect", Level::Info, "answers")
        } else {
            ("disconnect", "rpc_backend_disconnect", Level::Warning, "does not answer")
        };
        let message = format!("RPC backend {address} {words}");
        let of = (BACKEND, kind, Some(observed));
        Some(self.happened(at, of, address, (level, message, details)))
    }

    /// The coordinator is up or down, as a port or its host says.
    fn turned(&mut self, is_up: bool, at: Timestamp) -> Option<Happened> {
        if self.is_up.replace(is_up) == Some(is_up) {
            return None;
        }
        match is_up {
            // The log told it before the port was seen open.
            true if self.is_same_start() => None,
            true => Some(self.start(at)),
            false => Some(self.stop(at)),
        }
    }

    /// The coordinator's log tells of a crash. Where the port is open, that says more than the log.
    fn crashed(&mut self, at: Timestamp) -> Option<Happened> {
        let is_there = self.is_up == Some(true) || self.is_same_start();
        self.has_ended = true;
        (is_there && self.is_open() != Some(true)).then(|| self.stop(at))
    }

    /// Whether a start was told, and nothing of an end since.
    const fn is_same_start(&self) -> bool {
        self.started.is_some() && !self.has_ended
    }

    /// Whether the coordinator's port is open, as far as that is known.
    fn is_open(&self) -> Option<bool> {
        self.open.get(&self.coordinator.as_ref()?.1).copied()
    }

    fn start(&mut self, at: Timestamp) -> Happened {
        self.restarts += u64::from(self.started.is_some());
        // A log tells of a start before the next look at the port; while that is closed, only it can tell the rest.
        if self.is_open() != Some(false) {
            self.is_up = Some(true);
        }
        self.started = Some(at);
        self.has_ended = false;
        let mut details = json!({
            "rpc_backends": self.backends.values().collect::<Vec<_>>(), "model_path": self.model,
        });
        let port = self.coordinator.as_ref().and_then(|(address, _)| address.rsplit_once(':'));
        if let (Some((_, port)), Value::Object(map)) = (port, &mut details) {
            map.insert("port".to_owned(), json!(port.parse::<u16>().ok()));
        }
        let of = (COORDINATOR, "start", Some("coordinator_start"));
        let message = "llama.cpp coordinator started".to_owned();
        self.happened(at, of, self.place(), (Level::Info, message, details))
    }

    fn stop(&mut self, at: Timestamp) -> Happened {
        self.is_up = Some(false);
        self.has_ended = true;
        self.model = None;
        let of = (COORDINATOR, "stop", Some("coordinator_stop"));
        let message = "llama.cpp coordinator stopped".to_owned();
        self.happened(at, of, self.place(), (Level::Warning, message, json!({})))
    }

    fn told(
        &mut self,
        source: &'static str,
        meaning: &Meaning,
        text: &str,
        at: Timestamp,
    ) -> Option<Happened> {
        let is_backend = source == BACKEND;
        let said = |details: Value| (meaning.level, text.to_owned(), details);
        match meaning.kind {
            Kind::Start if is_backend => {
                Some(self.happened(at, (BACKEND, "start", None), self.place(), said(json!({}))))
            }
            Kind::Start => (!self.is_same_start()).then(|| self.start(at)),
            Kind::Stop if is_backend => {
                Some(self.happened(at, (BACKEND, "stop", None), self.place(), said(json!({}))))
            }
            Kind::Stop => {
                (self.is_up != Some(false) || self.is_same_start()).then(|| self.stop(at))
            }
            Kind::Model => {
                if let Some(model) = meaning.field("model") {
                    self.model = Some(model.to_owned());
                }
                let of = (MODEL, "model_load", Some("coordinator_model_load"));
                let details = json!({"model": self.model});
                Some(self.happened(at, of, self.place(), said(details)))
            }
            Kind::Connect => {
                Some(self.spoke_of(("connect", "rpc_backend_connect"), source, meaning, (text, at)))
            }
            Kind::Disconnect => Some(self.spoke_of(
                ("disconnect", "rpc_backend_disconnect"),
                source,
                meaning,
                (text, at),
            )),
            Kind::Crash | Kind::OutOfMemory | Kind::Error => {
                let details = json!({"kind": meaning.kind, "cause": meaning.cause});
                let of = (source, "error", Some("rpc_error"));
                Some(self.happened(at, of, self.place(), said(details)))
            }
            _ => None,
        }
    }

    /// A log tells that a backend came or went. SOLLOL's observer is told only where it is known which one.
    fn spoke_of(
        &self,
        (kind, observed): (&'static str, &'static str),
        source: &'static str,
        meaning: &Meaning,
        (text, at): (&str, Timestamp),
    ) -> Happened {
        let backend = meaning.field("to").and_then(|to| self.backend(to));
        let details = json!({"source": source, "backend": backend});
        let of = (BACKEND, kind, backend.map(|_| observed));
        let backend = backend.unwrap_or_default().to_owned();
        self.happened(at, of, backend, (meaning.level, text.to_owned(), details))
    }

    /// The address of the backend that a log names: the same one, or the only one with that port, since hosts are
    /// scrubbed from lines.
    fn backend(&self, to: &str) -> Option<&str> {
        let all = || self.backends.values().map(String::as_str);
        if let Some(same) = all().find(|address| *address == to) {
            return Some(same);
        }
        let to = to.trim_end_matches(|c: char| !c.is_ascii_digit());
        let (_, port) = to.rsplit_once(':')?;
        let has_port = |it: &&str| it.rsplit_once(':').is_some_and(|(_, its)| its == port);
        let mut found = all().filter(has_port);
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    }

    /// The coordinator's heartbeat; `None` while it is not there.
    pub fn heartbeat(&self, now: Timestamp) -> Option<Happened> {
        if self.is_up != Some(true) || self.is_open() == Some(false) {
            return None;
        }
        let details = json!({
            "type": "heartbeat", "status": "healthy", "model": self.model,
            "rpc_backends": self.backends.len(),
            "rpc_addresses": self.backends.values().collect::<Vec<_>>(),
            "uptime_seconds": self.started.map(|started| now.since(started).as_secs()),
            "restart_count": self.restarts,
        });
        let of = (COORDINATOR, "status", Some("rpc_backend_connect"));
        let message = format!("coordinator {} is there", self.place());
        Some(self.happened(now, of, self.place(), (Level::Info, message, details)))
    }

    /// The addresses of the backends whose ports are open.
    pub fn active(&self) -> Vec<&str> {
        self.backends_that(Some(true))
    }

    /// The addresses of the backends whose ports are closed.
    pub fn silent(&self) -> Vec<&str> {
        self.backends_that(Some(false))
    }

    /// The addresses of the backends of whose ports nothing is known: nobody asked yet, or they can't be asked.
    pub fn unknown(&self) -> Vec<&str> {
        self.backends_that(None)
    }

    fn backends_that(&self, is_open: Option<bool>) -> Vec<&str> {
        let of = self.backends.iter().filter(|(name, _)| self.open.get(*name).copied() == is_open);
        of.map(|(_, address)| address.as_str()).collect()
    }

    /// The addresses of all backends.
    pub fn configured(&self) -> impl Iterator<Item = &str> {
        self.backends.values().map(String::as_str)
    }

    /// `host:port` of the coordinator, or the program's name.
    fn place(&self) -> String {
        self.coordinator
            .as_ref()
            .map_or_else(|| self.program.clone(), |(address, _)| address.clone())
    }

    fn happened(
        &self,
        at: Timestamp,
        (component, event_type, observed): (&'static str, &'static str, Option<&'static str>),
        backend: String,
        (level, message, details): (Level, String, Value),
    ) -> Happened {
        let mut details = into_map(details);
        details.insert("program".to_owned(), json!(self.program));
        Happened { at, component, event_type, observed, backend, level, message, details }
    }
}

/// The registry's heartbeat over the backends of all systems: all of them, those that answer, and those that don't. Of
/// the others nothing is known.
pub fn registry(
    configured: &BTreeSet<String>,
    active: &BTreeSet<String>,
    silent: &BTreeSet<String>,
    now: Timestamp,
) -> Happened {
    let silent: Vec<&String> = silent.difference(active).collect();
    let is_known = |it: &&String| active.contains(*it) || silent.contains(it);
    let unknown: Vec<&String> = configured.iter().filter(|it| !is_known(it)).collect();
    let status = match (active.len(), silent.len(), unknown.len()) {
        (_, 0, 0) => "healthy",
        (0, _, 0) => "offline",
        (0, 0, _) => "unknown",
        _ => "degraded",
    };
    let details = json!({
        "type": "heartbeat", "model": "rpc_backends", "status": status,
        "rpc_backends": active.len(), "rpc_addresses": active, "silent_addresses": silent,
        "unknown_addresses": unknown,
        "total_configured": configured.len(), "total_active": active.len(),
    });
    let level = if status == "healthy" { Level::Info } else { Level::Warning };
    Happened {
        at: now,
        component: BACKEND,
        event_type: "status",
        observed: Some("rpc_backend_connect"),
        backend: REGISTRY.to_owned(),
        level,
        message: format!("{} of {} RPC backends answer", active.len(), configured.len()),
        details: into_map(details),
    }
}

/// Whose output a log of the profile has.
pub fn source(log: &str) -> &'static str {
    if log == "backend" { BACKEND } else { COORDINATOR }
}

/// The members of an object that are not null.
fn into_map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { return Map::new() };
    map.into_iter().filter(|(_, value)| !value.is_null()).collect()
}

#[cfg(test)]
mod tests;
