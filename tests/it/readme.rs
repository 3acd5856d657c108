//! README.md's table of settings has every setting and no other. A test in `src/config` compares the
//! settings with `.env.example`, so this one uses that file.

use std::collections::BTreeSet;

#[test]
fn every_setting_stands_in_the_readmes_table() {
    let readme = include_str!("../../README.md");
    let (_, table) = readme.split_once("\n## Settings\n").expect("the section");
    let table = table.split("\n## ").next().expect("its text");
    let told: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name))
        .collect();

    let is_name = |name: &&str| {
        let capital = |c: char| c.is_ascii_uppercase() || c == '_';
        name.contains('_') && name.chars().all(capital)
    };
    let shown: BTreeSet<&str> = include_str!("../../.env.example")
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .filter_map(|line| line.split_once('=').map(|(name, _)| name))
        .filter(is_name)
        .collect();
    assert_eq!(told, shown);
}
