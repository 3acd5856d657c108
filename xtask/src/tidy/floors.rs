//! The floors of ARCHITECTURE.md: a module imports only from lower floors, adapters and services don't
//! import each other, and a vendor's crate is named only in the modules that use it.

use std::path::Path;

use anyhow::Context as _;

use super::Finding;
use super::source::{Named, Source};

/// The modules of each floor, lowest first.
const FLOORS: [(&str, &[&str]); 6] = [
    (
        "base",
        &[
            "backoff",
            "clock",
            "failpoint",
            "proxy",
            "report",
            "secret",
            "seldom",
            "supervise",
            "text",
        ],
    ),
    ("domain", &["fleet", "ids", "job", "node", "reputation", "usage", "watch"]),
    ("instruments", &["http", "sql", "web"]),
    (
        "adapters",
        &[
            "artifact",
            "bus",
            "chain",
            "container",
            "dht",
            "gpu",
            "gswarm",
            "host",
            "journal",
            "notify",
            "push",
            "telemetry",
        ],
    ),
    ("services", &["agent", "hub", "monitor", "sidecar"]),
    ("edges", &["cli", "config", "main"]),
];

/// The only imports allowed within a floor: the left module may name the right one.
const SIDEWAYS: &[(&str, &str)] = &[
    ("backoff", "clock"),
    ("clock", "text"),
    ("proxy", "secret"),
    ("secret", "text"),
    ("supervise", "backoff"),
    ("supervise", "clock"),
    ("supervise", "report"),
    ("fleet", "ids"),
    ("job", "ids"),
    ("job", "node"),
    ("job", "usage"),
    ("node", "ids"),
    ("reputation", "ids"),
    ("reputation", "job"),
    ("reputation", "node"),
    ("usage", "ids"),
    ("usage", "node"),
    ("watch", "fleet"),
    ("watch", "ids"),
    ("watch", "usage"),
    ("main", "cli"),
    ("main", "config"),
    ("cli", "config"),
];

const EDGES: &[&str] = &["cli", "config", "main"];

/// Vendors' crates, and the modules that may name each.
const VENDORS: &[(&str, &[&str])] = &[
    ("alloy", &["chain"]),
    ("anyhow", EDGES),
    ("axum", &["web"]),
    ("async_nats", &["bus"]),
    ("bollard", &["container"]),
    ("clap", &["cli", "main"]),
    ("indicatif", &["cli"]),
    ("jiff", &["fleet", "watch"]),
    ("lettre", &["notify"]),
    ("libp2p_core", &["dht"]),
    ("libp2p_identity", &["dht"]),
    ("libp2p_noise", &["dht"]),
    ("nkeys", &["bus"]),
    ("nvml_wrapper", &["gpu"]),
    ("prometheus_client", &["telemetry"]),
    ("redis", &["push"]),
    ("regex", &["watch"]),
    ("reqwest", &["http"]),
    ("rmp", &["dht"]),
    ("rusqlite", &["sql"]),
    ("serde_saphyr", &["config"]),
    ("toml", &["config", "watch"]),
    ("tower", &["web"]),
    ("yamux", &["dht"]),
];

/// What a pure module must not name: the domain decides; it doesn't act, wait or log.
const IMPURE: &[&str] = &[
    "tokio",
    "tracing",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::io",
    "SystemTime::now",
    "Instant::now",
];

const DOMAIN: usize = 1;

/// The top-level modules that exist: `src/x.rs` and `src/x/`.
pub(crate) fn top_modules(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root.join("src")).context("src")? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        if name != "lib" {
            found.push(name);
        }
    }
    Ok(found)
}

/// Checks the imports of one file in `src/` against the floors.
pub(crate) fn check(source: &Source, modules: &[String], found: &mut Vec<Finding>) {
    let Some(place) = place_of(&source.path) else { return };
    let Some(own) = place.first() else { return };
    let Some(floor) = floor_of(own) else {
        let what = format!("module `{own}` has no floor: add it to xtask/src/tidy/floors.rs");
        found.push(Finding::new(&source.path, 1, what));
        return;
    };
    for named in &source.paths {
        let (target, is_test) = (target_of(named, &place, modules), source.is_test(named.line));
        let broken = target
            .and_then(|target| broken_floor(own, floor, &target))
            .or_else(|| broken_vendor(own, named))
            .or_else(|| (!is_test).then(|| broken_purity(own, floor, named)).flatten());
        if let Some(what) = broken {
            found.push(Finding::new(&source.path, named.line, what));
        }
    }
}

/// The place of a file: `src/bus/intake.rs` is `[bus, intake]`; `src/lib.rs` lists all modules and has none.
pub(crate) fn place_of(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    (inner != "lib").then(|| inner.split('/').map(str::to_owned).collect())
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, modules)| modules.contains(&module))
}

/// The module of ours that a path leads to, if any.
fn target_of(named: &Named, place: &[String], modules: &[String]) -> Option<String> {
    let first = named.segments.first()?;
    let ups = named.segments.iter().take_while(|segment| *segment == "super").count();
    let target = match first.as_str() {
        "crate" | "lamda_node" => named.segments.get(1)?,
        "super" if ups == place.len() => named.segments.get(ups)?,
        _ => return None,
    };
    let is_ours = modules.contains(target) || floor_of(target).is_some();
    is_ours.then(|| target.clone())
}

fn broken_floor(own: &str, floor: usize, target: &str) -> Option<String> {
    let below = floor_of(target)?;
    if own == target || below < floor || SIDEWAYS.contains(&(own, target)) {
        return None;
    }
    let (from, to) = (FLOORS[floor].0, FLOORS[below].0);
    Some(if below == floor {
        format!("`{own}` names `{target}`: {from} never import each other")
    } else {
        format!("`{own}` ({from}) names `{target}` ({to}): imports go down only")
    })
}

fn broken_vendor(own: &str, named: &Named) -> Option<String> {
    let first = named.segments.first()?;
    let (vendor, homes) = VENDORS.iter().find(|(vendor, _)| vendor == first)?;
    let is_path = named.segments.len() > 1;
    (is_path && !homes.contains(&own))
        .then(|| format!("`{own}` names `{vendor}`, which belongs to {}", homes.join(", ")))
}

/// Only the edges may read the environment; the domain is pure.
fn broken_purity(own: &str, floor: usize, path: &Named) -> Option<String> {
    let path = path.segments.join("::");
    let is_in = |what: &str| path == what || path.starts_with(&format!("{what}::"));
    if is_in("std::env") && !EDGES.contains(&own) {
        return Some(format!("`{own}` reads the environment: only config, cli and main may"));
    }
    let impure = IMPURE.iter().find(|what| is_in(what) || path.ends_with(&format!("::{what}")))?;
    (floor == DOMAIN).then(|| format!("`{own}` names `{impure}`: the domain decides, no more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let modules = ["agent", "artifact", "bus", "chain", "cli", "clock", "job", "node"];
        let modules: Vec<String> = modules.iter().map(|name| (*name).to_owned()).collect();
        let mut found = Vec::new();
        check(&Source::parse(path, text), &modules, &mut found);
        found.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn imports_that_go_down_are_good() {
        assert!(
            found("src/agent/act.rs", "use crate::{bus::Bus, job::Id, clock::Clock};").is_empty()
        );
        assert!(
            found("src/bus/intake.rs", "use super::subjects;\nuse crate::bus::Error;").is_empty()
        );
        assert!(found("src/job/spec.rs", "use crate::node::Address;").is_empty());
        assert!(found("src/main.rs", "use lamda_node::cli;").is_empty());
    }

    #[test]
    fn an_import_that_goes_up_is_found() {
        let up = "`bus` (adapters) names `agent` (services): imports go down only";
        assert_eq!(found("src/bus/mod.rs", "use crate::{\n    job, agent::Agent};"), [up]);
        assert_eq!(found("src/bus/mod.rs", "fn f() { crate::agent::run() }"), [up]);
        assert_eq!(found("src/bus/mod.rs", "use super::agent::Agent;"), [up]);
        assert_eq!(found("src/bus/intake.rs", "use super::super::agent;"), [up]);
    }

    #[test]
    fn an_import_of_a_like_is_found() {
        let like = "`bus` names `chain`: adapters never import each other";
        assert_eq!(found("src/bus/publish.rs", "use crate::chain::Evm;"), [like]);
        assert_eq!(found("src/node/mod.rs", "use crate::job;").len(), 1, "job -> node, not back");
    }

    #[test]
    fn a_vendor_outside_its_home_is_found() {
        let wanted = ["`agent` names `bollard`, which belongs to container"];
        assert_eq!(found("src/agent/act.rs", "use bollard::Docker;"), wanted);
        assert_eq!(found("src/agent/act.rs", "type D = bollard::Docker;"), wanted);
        assert!(found("src/bus/mod.rs", "use async_nats::Client;").is_empty());
    }

    #[test]
    fn the_environment_belongs_to_the_edges() {
        assert_eq!(found("src/bus/mod.rs", "use std::{env, fmt};").len(), 1);
        assert_eq!(found("src/bus/mod.rs", "fn f() { std::env::var(\"X\"); }").len(), 1);
        assert!(found("src/cli/run.rs", "use std::env;").is_empty());
        assert!(found("src/bus/mod.rs", "const X: &str = env!(\"X\");").is_empty());
    }

    #[test]
    fn the_domain_is_pure() {
        assert_eq!(found("src/job/mod.rs", "use tokio::sync::mpsc;").len(), 1);
        assert_eq!(found("src/job/mod.rs", "use std::{fmt, fs};").len(), 1);
        assert_eq!(found("src/job/mod.rs", "fn f() { tracing::info!(\"x\") }").len(), 1);
        assert_eq!(found("src/job/mod.rs", "fn f() { std::time::Instant::now(); }").len(), 1);
        let test = "#[cfg(test)]\nmod tests {\n    fn f() { std::fs::read(\"x\"); }\n}";
        assert!(found("src/job/mod.rs", test).is_empty(), "its tests may read a vector");
    }

    #[test]
    fn a_module_without_a_floor_is_found() {
        let what = "module `utils` has no floor: add it to xtask/src/tidy/floors.rs";
        assert_eq!(found("src/utils/mod.rs", ""), [what]);
    }
}
