//! Checks that `.env.example` and `src/config` name the same settings: a setting that nobody can find, or
//! one without effect, is a trap.

use std::collections::BTreeSet;

use super::Finding;
use super::source::Source;

const EXAMPLE: &str = ".env.example";

/// Compares the settings that `config` reads with those that `.env.example` shows.
pub(crate) fn check(config: &[Source], example: &str, found: &mut Vec<Finding>) {
    let shown: BTreeSet<&str> = example.lines().filter_map(setting_of).collect();
    let mut read = BTreeSet::new();
    for source in config {
        let literals = source.literals.iter().filter(|literal| !source.is_test(literal.line));
        for literal in literals.filter(|literal| is_setting(&literal.text)) {
            let is_new = read.insert(literal.text.as_str());
            if is_new && !shown.contains(literal.text.as_str()) {
                let what = format!("`{}` is missing in {EXAMPLE}", literal.text);
                found.push(Finding::new(&source.path, literal.line, what));
            }
        }
    }
    for (number, line) in (1..).zip(example.lines()) {
        if let Some(name) = setting_of(line).filter(|name| !read.contains(name)) {
            found.push(Finding::new(
                EXAMPLE,
                number,
                format!("`{name}` is read nowhere in src/config"),
            ));
        }
    }
}

/// The setting that a line shows, as `NATS_URL=…` or `# NATS_URL=…`.
fn setting_of(line: &str) -> Option<&str> {
    let line = line.strip_prefix('#').unwrap_or(line).trim_start();
    line.split_once('=').map(|(name, _)| name).filter(|name| is_setting(name))
}

/// Whether the text has the form of a setting's name: capitals with an underscore. Variables that cargo
/// sets during a build are not settings.
fn is_setting(text: &str) -> bool {
    let is_capital = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.contains('_')
        && !text.starts_with("CARGO_")
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.ends_with(|c: char| c != '_')
        && text.chars().all(is_capital)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &str, example: &str) -> Vec<String> {
        let mut found = Vec::new();
        check(&[Source::parse("src/config/mod.rs", config)], example, &mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn settings_shown_and_read_are_good() {
        let config = "fn f() { env.required(\"NATS_URL\"); env.flag(\"JOB_SLOTS\"); say(\"A b\", env!(\"CARGO_PKG_NAME\")) }";
        assert!(
            found(config, "# Where jobs come from.\nNATS_URL=nats://x\n# JOB_SLOTS=2\n").is_empty()
        );
    }

    #[test]
    fn a_setting_that_is_not_shown_is_found() {
        let wanted = ["src/config/mod.rs:1: `NATS_URL` is missing in .env.example"];
        assert_eq!(found("fn f() { env.required(\"NATS_URL\") }", ""), wanted);
    }

    #[test]
    fn a_setting_that_does_nothing_is_found() {
        let wanted = [".env.example:2: `OLD_NAME` is read nowhere in src/config"];
        assert_eq!(found("", "\nOLD_NAME=1"), wanted);
    }
}
