//! Enforces `deny.toml` with `cargo metadata`: licences, banned crates, sources. What needs the advisory
//! database, and so a network, is left to `cargo deny check`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The lists of `deny.toml` that are enforced here.
#[derive(Debug)]
struct Policy {
    licences: Vec<String>,
    banned: Vec<String>,
}

/// Checks every package of the build against `deny.toml`.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let policy = Policy::parse(&text);
    ensure!(!policy.licences.is_empty(), "deny.toml allows no licence at all");
    let found: Vec<String> =
        packages(root)?.iter().filter_map(|package| refused(&policy, package)).collect();
    for line in &found {
        println!("{line}");
    }
    ensure!(found.is_empty(), "deny.toml: {} packages are refused", found.len());
    Ok(())
}

/// The packages that are built for this platform.
fn packages(root: &Path) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .context("cargo can't be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata failed: {said}");
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let built: Vec<&Value> = list(&metadata["resolve"]["nodes"]).map(|node| &node["id"]).collect();
    let is_built = |package: &&Value| built.contains(&&package["id"]);
    Ok(list(&metadata["packages"]).filter(is_built).cloned().collect())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Why a package is not allowed in the build; `None` if it is.
fn refused(policy: &Policy, package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    if policy.banned.iter().any(|banned| banned == name) {
        return Some(format!("{name} is banned"));
    }
    // A package of this repository has no source.
    if let Some(source) = package["source"].as_str().filter(|source| *source != REGISTRY) {
        return Some(format!("{name} comes from {source}"));
    }
    let licence = package["license"].as_str().unwrap_or_default();
    let is_allowed = |name: &str| policy.licences.iter().any(|allowed| allowed == name);
    (!satisfied(licence, &is_allowed)).then(|| format!("{name} is under `{licence}`"))
}

impl Policy {
    /// Reads the two lists; every entry must be on a line of its own.
    fn parse(text: &str) -> Self {
        let section = |head: &str| {
            let body = text.split_once(head).map_or("", |(_, rest)| rest);
            body.lines().take_while(|line| !line.starts_with('[')).collect::<Vec<_>>()
        };
        let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
        let is_entry = |line: &&&str| line.starts_with("  \"") || line.starts_with("  {");
        let entries =
            |lines: Vec<&str>| lines.iter().filter(is_entry).filter_map(|l| quoted(l)).collect();
        Self { licences: entries(section("\n[licenses]")), banned: entries(section("\n[bans]")) }
    }
}

/// Whether the allowed licences satisfy an SPDX expression; `/` is an old form of `OR`.
fn satisfied(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let good = any_of(&words, &mut at, is_allowed);
    good && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut good = all_of(words, at, is_allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= all_of(words, at, is_allowed);
    }
    good
}

fn all_of(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut good = one(words, at, is_allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(words, at, is_allowed);
    }
    good
}

fn one(words: &[&str], at: &mut usize, is_allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let good = any_of(words, at, is_allowed);
        *at += 1;
        return good;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return is_allowed(&format!("{word} WITH {exception}"));
    }
    is_allowed(word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "[graph]\n\n[licenses]\nallow = [\n  \"MIT\",\n  \"Apache-2.0 WITH X\",\n]\n\n[bans]\ndeny = [\n  { name = \"openssl-sys\" },\n]\n";

    fn verdict(package: &Value) -> Option<String> {
        refused(&Policy::parse(TEXT), package)
    }

    #[test]
    fn expressions_are_read_as_spdx_has_them() {
        let is_mit = |name: &str| name == "MIT";
        for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0/MIT", "(MIT OR A) AND MIT", "A AND B OR MIT"]
        {
            assert!(satisfied(good, &is_mit), "{good}");
        }
        for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR A) AND B", "MIT WITH X", "MIT MIT"] {
            assert!(!satisfied(bad, &is_mit), "{bad}");
        }
    }

    #[test]
    fn a_package_under_an_unknown_licence_is_refused() {
        let package = |licence: &str| json!({"name": "x", "source": REGISTRY, "license": licence});
        assert_eq!(verdict(&package("MIT OR GPL-3.0")), None);
        assert_eq!(verdict(&package("Apache-2.0 WITH X")), None);
        assert_eq!(verdict(&package("GPL-3.0")).as_deref(), Some("x is under `GPL-3.0`"));
        assert!(verdict(&json!({"name": "x", "source": REGISTRY, "license": null})).is_some());
    }

    #[test]
    fn a_banned_package_and_a_foreign_source_are_refused() {
        let banned = json!({"name": "openssl-sys", "source": REGISTRY, "license": "MIT"});
        assert_eq!(verdict(&banned).as_deref(), Some("openssl-sys is banned"));
        let foreign = json!({"name": "x", "source": "git+https://example.org/x", "license": "MIT"});
        assert!(verdict(&foreign).is_some());
    }
}
