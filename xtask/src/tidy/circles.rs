//! No circle between files: if `a` imports `b`, `b` doesn't lead back to `a`. A module and the files below it
//! count as one: a parent names its children, and they name it.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::floors::place_of;
use super::source::{Named, Source};

type Place = Vec<String>;

/// The imports between the files of `src/`, without those of tests.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    named: BTreeMap<Place, (String, Vec<Named>)>,
}

impl Imports {
    /// Remembers what one file names.
    pub(crate) fn add(&mut self, source: &Source) {
        let Some(place) = place_of(&source.path) else { return };
        let is_test = place.iter().any(|name| name == "tests" || name == "search");
        if !is_test {
            let paths = source.paths.iter().filter(|named| !source.is_test(named.line));
            self.named.insert(place, (source.path.clone(), paths.cloned().collect()));
        }
    }

    /// Reports each import that leads back to its own file.
    pub(crate) fn check(&self, found: &mut Vec<Finding>) {
        let edges: BTreeMap<&Place, BTreeMap<&Place, usize>> =
            self.named.keys().map(|place| (place, self.imports_of(place))).collect();
        for (place, targets) in &edges {
            for (target, line) in targets {
                if leads_to(target, place, &edges) {
                    let what = format!(
                        "`{}` names `{}`, which leads back to it: move what both need to a third file",
                        place.join("::"),
                        target.join("::"),
                    );
                    found.push(Finding::new(&self.named[*place].0, *line, what));
                }
            }
        }
    }

    /// The other files that a file names, each with its first line.
    fn imports_of(&self, place: &Place) -> BTreeMap<&Place, usize> {
        let mut targets = BTreeMap::new();
        for named in &self.named[place].1 {
            let Some(path) = absolute(named, place) else { continue };
            let target = (1..=path.len())
                .rev()
                .find_map(|end| self.named.get_key_value(&path[..end]).map(|(target, _)| target));
            if let Some(target) = target.filter(|target| !are_related(target, place)) {
                targets.entry(target).or_insert(named.line);
            }
        }
        targets
    }
}

/// Whether one is a module above the other, or both are one.
fn are_related(one: &Place, other: &Place) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// A path from the root of the library; `None` for a path into another crate.
fn absolute(named: &Named, place: &Place) -> Option<Place> {
    let ups = named.segments.iter().take_while(|segment| *segment == "super").count();
    let rest = named.segments[ups..].iter().cloned();
    match named.segments.first()?.as_str() {
        "crate" => Some(named.segments[1..].to_vec()),
        "super" => {
            let base = place.get(..place.len().checked_sub(ups)?)?;
            Some(base.iter().cloned().chain(rest).collect())
        }
        _ => Some(place.iter().cloned().chain(rest).collect()),
    }
}

fn leads_to(from: &Place, to: &Place, edges: &BTreeMap<&Place, BTreeMap<&Place, usize>>) -> bool {
    let (mut open, mut seen) = (vec![from], BTreeSet::from([from]));
    while let Some(place) = open.pop() {
        if place == to {
            return true;
        }
        let next = edges.get(place).into_iter().flat_map(BTreeMap::keys);
        open.extend(next.filter(|next| seen.insert(*next)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut imports = Imports::default();
        for (path, text) in files {
            imports.add(&Source::parse(path, text));
        }
        let mut found = Vec::new();
        imports.check(&mut found);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_found() {
        let one = ("src/bus/one.rs", "use super::two::X;\n");
        let two = ("src/bus/two.rs", "use crate::bus::one::Y;\n");
        let found = found(&[one, two]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`bus::one` names `bus::two`"), "{found:?}");
    }

    #[test]
    fn a_longer_circle_is_found_and_a_parent_with_its_child_is_none() {
        let parent = ("src/bus/mod.rs", "use self::one::X;\n");
        let one = ("src/bus/one.rs", "use super::Error;\nuse super::two::X;\n");
        let two = ("src/bus/two.rs", "use super::three::X;\n");
        let three = ("src/bus/three.rs", "fn f() { super::one::call() }\n");
        assert_eq!(found(&[parent, one, two]), [""; 0]);
        assert_eq!(found(&[parent, one, two, three]).len(), 3);
    }

    #[test]
    fn a_test_may_name_what_it_tests() {
        let one = ("src/bus/one.rs", "use super::two::X;\n");
        let two = ("src/bus/two.rs", "#[cfg(test)]\nmod tests {\n    use crate::bus::one::Y;\n}\n");
        assert_eq!(found(&[one, two]), [""; 0]);
    }
}
