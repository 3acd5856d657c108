//! Rules on the text of one file: its length, its head, what must not occur in it.

use super::Finding;
use super::source::{Source, Token};

/// A file longer than this, without its tests, holds more than one idea.
const PRODUCTION_LINES_MAX: usize = 400;

/// Macros that mark unfinished work.
const UNDONE: &[&str] = &["todo", "unimplemented", "dbg"];

/// Paths that exist on one machine only, written in pieces so that this file passes its own rule.
const FOREIGN: &[&str] = &[
    concat!("/work", "/shared"),
    concat!("/work", "/."),
    concat!("/tmp/", "wt/"),
    concat!("/tmp/", "tools"),
    concat!("../", "shared/"),
    concat!("/root/", ".cargo"),
    concat!("/home/", "user"),
];

/// Checks one Rust file against the rules.
pub(crate) fn check(source: &Source, found: &mut Vec<Finding>) {
    length(source, found);
    head(source, found);
    undone(source, found);
    skipped_tests(source, found);
    sleeps(source, found);
}

/// Finds paths of one machine, in any kind of file.
pub(crate) fn foreign_paths(path: &str, text: &str, found: &mut Vec<Finding>) {
    for (number, line) in (1..).zip(text.lines()) {
        for foreign in FOREIGN.iter().filter(|foreign| line.contains(**foreign)) {
            found.push(Finding::new(path, number, format!("`{foreign}` is a path of one machine")));
        }
    }
}

fn length(source: &Source, found: &mut Vec<Finding>) {
    let lines = source.production_lines();
    if lines > PRODUCTION_LINES_MAX {
        let what = format!("{lines} lines before its tests, at most {PRODUCTION_LINES_MAX}");
        found.push(Finding::new(&source.path, 1, what));
    }
}

/// A `tests.rs` needs no head: its module has one.
fn head(source: &Source, found: &mut Vec<Finding>) {
    let is_tests = source.path.starts_with("src/") && source.path.ends_with("/tests.rs");
    if !is_tests && !source.first_line.starts_with("//!") {
        found.push(Finding::new(&source.path, 1, "no `//!` head that says what this file is"));
    }
}

fn undone(source: &Source, found: &mut Vec<Finding>) {
    for pair in source.tokens.windows(2) {
        if UNDONE.contains(&pair[0].text.as_str()) && pair[1].text == "!" {
            let what = format!("`{}!` stands for work that isn't done", pair[0].text);
            found.push(Finding::new(&source.path, pair[0].line, what));
        }
    }
}

fn skipped_tests(source: &Source, found: &mut Vec<Finding>) {
    let is_attribute =
        |w: &[Token], name: &str| w[0].text == "#" && w[1].text == "[" && w[2].text == name;
    for window in source.tokens.windows(3) {
        for name in ["ignore", "should_panic"] {
            if is_attribute(window, name) {
                let what = format!("`#[{name}]`: a test runs, and says what it expects");
                found.push(Finding::new(&source.path, window[0].line, what));
            }
        }
    }
}

/// Only `support` may sleep, in its bounded waits for a value. The simulation has its own clock, whose
/// seconds cost nothing. A function that defines a clock's `sleep` doesn't sleep itself.
fn sleeps(source: &Source, found: &mut Vec<Finding>) {
    let simulated = source.path.starts_with("tests/sim/");
    if simulated || source.path.starts_with("tests/") && source.path.contains("/support/") {
        return;
    }
    let defines = |line| {
        let is_it = |pair: &[Token]| {
            pair[0].text == "fn" && pair[1].text.starts_with("sleep") && pair[1].line == line
        };
        source.tokens.windows(2).any(is_it)
    };
    let in_tests = source.paths.iter().filter(|named| source.is_test(named.line));
    for named in in_tests.filter(|named| !defines(named.line)) {
        if named.segments.last().is_some_and(|last| last == "sleep" || last == "sleep_until") {
            let what = "a test sleeps: wait on a value (`eventually`) or move a clock";
            found.push(Finding::new(&source.path, named.line, what));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        check(&Source::parse(path, text), &mut found);
        found.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_good_file_is_good() {
        let text = "//! Head.\nfn f() { clock.sleep(); }\n#[cfg(test)]\nmod tests {\n#[test]\nfn a() {}\n}";
        assert!(found("src/bus/mod.rs", text).is_empty());
    }

    #[test]
    fn a_long_file_is_found_but_its_tests_do_not_count() {
        let long = format!("//! Head.\n{}", "fn f() {}\n".repeat(400));
        assert_eq!(found("src/x.rs", &long), ["401 lines before its tests, at most 400"]);
        let tests =
            format!("//! Head.\n#[cfg(test)]\nmod tests {{\n{}}}", "fn f() {}\n".repeat(500));
        assert!(found("src/x.rs", &tests).is_empty());
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(found("src/x.rs", "\nuse std::fmt;").len(), 1);
        assert!(found("src/x/tests.rs", "use super::*;").is_empty());
    }

    #[test]
    fn work_that_is_not_done_is_found() {
        for name in UNDONE {
            let text = format!("//! x\nfn f() {{ {name}!(\"x\") }}");
            assert_eq!(found("src/x.rs", &text).len(), 1, "{name}");
        }
        assert!(found("src/x.rs", "//! x\n// todo!() is what we never write").is_empty());
    }

    #[test]
    fn a_test_that_does_not_run_is_found() {
        assert_eq!(found("tests/it/x.rs", "//! x\n#[test]\n#[ignore]\nfn f() {}").len(), 1);
        assert_eq!(found("tests/it/x.rs", "//! x\n#[ignore = \"slow\"]\nfn f() {}").len(), 1);
        assert_eq!(
            found("tests/it/x.rs", "//! x\n#[should_panic(expected = \"x\")]\nfn f() {}").len(),
            1
        );
    }

    #[test]
    fn a_test_that_sleeps_is_found() {
        let text = "//! x\nasync fn f() { tokio::time::sleep(D).await }";
        assert_eq!(found("tests/it/x.rs", text).len(), 1);
        assert!(found("src/bus/mod.rs", text).is_empty(), "the program may wait");
        assert!(found("tests/it/support/tools.rs", text).is_empty());
        let imported = "//! x\n#[cfg(test)]\nmod tests { use std::thread::sleep; }";
        assert_eq!(found("src/x.rs", imported).len(), 1);
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        let mut found = Vec::new();
        foreign_paths("README.md", &format!("see {} for more", FOREIGN[0]), &mut found);
        foreign_paths("README.md", "see docs/protocol.md\n", &mut found);
        assert_eq!(found.len(), 1);
    }
}
