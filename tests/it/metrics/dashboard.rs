//! The dashboard for Grafana: its form, and that a real Prometheus that scrapes a node has data for each of its panels.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Told;
use crate::support::prometheus::{Page, Prometheus};
use crate::support::tools::eventually;
use crate::support::world::PATIENCE;

const TEXT: &str = include_str!("../../../deploy/grafana/lamda-node.json");

/// The kinds of panels that Grafana 10 has and that the dashboard uses.
const KINDS: [&str; 5] = ["row", "stat", "timeseries", "state-timeline", "table"];

fn dashboard() -> Value {
    serde_json::from_str(TEXT).expect("JSON")
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_else(|| panic!("{key} of {of}"))
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("{key} of {of}"))
}

/// The titles and expressions of its panels, as Grafana would ask them of all nodes.
fn expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = list(&dashboard, "panels").iter();
    let of = |panel: &Value| {
        let title = text(panel, "title").to_owned();
        let targets = list(panel, "targets").to_owned();
        targets.into_iter().map(move |target| {
            let expression = text(&target, "expr").replace("$instance", ".*");
            (title.clone(), expression.replace("$__rate_interval", "30s"))
        })
    };
    panels.flat_map(of).collect()
}

/// The names of the node's families in an expression.
fn families(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("lamda_") || word.starts_with("process_")).collect()
}

#[test]
fn the_dashboard_of_the_metrics_has_the_form_that_grafana_reads() {
    let dashboard = dashboard();
    assert!(number(&dashboard, "schemaVersion") >= 36);
    assert!(!text(&dashboard, "uid").is_empty() && !text(&dashboard, "title").is_empty());
    assert!(dashboard.get("id").is_none(), "an id belongs to one Grafana");
    let variables: Vec<_> = list(&dashboard["templating"], "list").iter().collect();
    let names: Vec<_> = variables.iter().map(|variable| text(variable, "name")).collect();
    assert_eq!(names, ["datasource", "instance"]);
    assert_eq!(text(variables[0], "type"), "datasource");
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let (kind, place) = (text(panel, "type"), &panel["gridPos"]);
        assert!(KINDS.contains(&kind) && ids.insert(number(panel, "id")), "{panel}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| number(place, key));
        assert!(x + w <= 24 && w > 0 && h > 0, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} overlaps another", text(panel, "title"));
        }
        if kind == "row" {
            continue;
        }
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{panel}");
        let mut refs = BTreeSet::new();
        for target in list(panel, "targets") {
            assert!(refs.insert(text(target, "refId")), "{panel}");
            assert_eq!(text(&target["datasource"], "uid"), "${datasource}");
            let expression = text(target, "expr");
            assert!(expression.contains("instance=~\"$instance\""), "{expression}");
        }
        assert!(!refs.is_empty(), "{panel}");
    }
}

#[tokio::test]
async fn every_panel_of_the_metrics_dashboard_has_data_after_a_job() {
    let told = Told::start().await;
    // Before the job, so that there is a rate of what it did.
    let prometheus = Prometheus::of(&told.listen);
    assert_eq!(told.run_a_job()["status"], "completed");
    let ended = |page: &Page| page.value("lamda_runs_total") == Some(1.0);
    let page = Page::when(&told.listen, "the job is counted", ended);
    let there = page.families();
    let all = expressions();
    assert!(all.len() > 30, "{}", all.len());
    for (title, expression) in &all {
        let named = families(expression);
        assert!(!named.is_empty() && named.is_subset(&there), "{title}: {expression}");
        eventually(&format!("data of the panel {title:?}: {expression}"), PATIENCE, || {
            (!prometheus.ask(expression).is_empty()).then_some(())
        });
    }
    // Everything that the node tells is on a panel.
    let shown: BTreeSet<&str> = all.iter().flat_map(|(_, text)| families(text)).collect();
    assert_eq!(there, shown);
    // Prometheus may not have asked since the job's end.
    eventually("the joules of the job", PATIENCE, || {
        let sum = prometheus.ask("max(lamda_runs_gpu_energy_joules_total)");
        (sum.first()?["value"][1] == "42").then_some(())
    });
}
