//! Selects what of a folder is carried: its files, and what its links inside it lead to.
//!
//! An upload knows only files and their paths, so a link is carried as a copy of its target. Links
//! are resolved here, in the listing that was read before, never by the system. Invariants: nothing
//! outside the folder is ever reached; links that multiply each other are bounded in entries and
//! bytes; the same folder gives the same tree each time.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use super::item::{Item, Leaf, View};
use super::names;

/// Maximum length of a chain of links.
const HOPS_MAX: usize = 40;
/// Maximum number of path components resolved for all links of a folder: links that name each other
/// many times would otherwise be followed practically forever.
const PARTS_MAX: usize = 1_000_000;
const TOO_MUCH: &str = "a link to more than may be carried";
/// Maximum number of omissions reported by name.
const NOTES_MAX: usize = 16;

/// An entry of a folder's listing.
#[derive(Debug)]
pub(super) enum Found {
    File(u64),
    Folder(BTreeMap<String, Self>),
    /// A symbolic link with its target.
    Link(String),
}

/// Entries left out of an object, with reasons; the first few by name, the others counted.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    notes: Vec<(String, String)>,
    more: usize,
}

impl LeftOut {
    pub(super) fn note(&mut self, path: &[String], why: &str) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push((names::shown(&path.join("/")), why.to_owned()));
        } else {
            self.more += 1;
        }
    }

    /// The first omission: its path and reason.
    pub(super) fn first(&self) -> Option<&(String, String)> {
        self.notes.first()
    }

    /// One line per omission, for people.
    pub(super) fn told(&self) -> Vec<String> {
        let lines = self.notes.iter().map(|(path, why)| format!("{path}: {why}"));
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        lines.chain(more).collect()
    }
}

/// The part of `root` that is carried; `None` if there is no file in it. Links may add `entries_left`
/// files and folders: an object with more can't be fetched again.
pub(super) fn carried(
    root: &Found,
    view: &View,
    entries_left: usize,
    left_out: &mut LeftOut,
) -> Option<Item<Leaf>> {
    let bytes_left = view.bytes_max;
    let seen_as = Path::new(&view.seen_as);
    let (parts_left, open) = (PARTS_MAX, Vec::new());
    let mut carry = Carry { root, seen_as, left_out, bytes_left, entries_left, parts_left, open };
    carry.item(root, &mut At::default()).ok().flatten()
}

struct Carry<'a> {
    root: &'a Found,
    /// Path of the root as the links' author saw it.
    seen_as: &'a Path,
    left_out: &'a mut LeftOut,
    /// Bytes and entries that links may still add.
    bytes_left: u64,
    entries_left: usize,
    /// Path components that may still be resolved for links.
    parts_left: usize,
    /// Real paths of the folders being carried, each within the one before.
    open: Vec<Vec<String>>,
}

/// The path under which an entry is carried, its real path, and whether a link leads to it.
#[derive(Debug, Clone, Default)]
struct At {
    name: Vec<String>,
    real: Vec<String>,
    is_behind: bool,
}

/// Links would exceed the limit on what they add.
struct Full;

impl Carry<'_> {
    fn item(&mut self, found: &Found, at: &mut At) -> Result<Option<Item<Leaf>>, Full> {
        match found {
            Found::File(bytes) => self.file(*bytes, at).map(Some),
            Found::Folder(entries) => self.folder(entries, at),
            Found::Link(target) => Ok(self.link(target, at)),
        }
    }

    fn file(&mut self, bytes: u64, at: &At) -> Result<Item<Leaf>, Full> {
        if !at.is_behind {
            return Ok(Item::File(Leaf::plain(bytes)));
        }
        names::check_path(&at.name).map_err(|_| Full)?;
        self.entries_left = self.entries_left.checked_sub(1).ok_or(Full)?;
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Full)?;
        Ok(Item::File(Leaf::behind(bytes, at.real.clone())))
    }

    fn folder(
        &mut self,
        entries: &BTreeMap<String, Found>,
        at: &mut At,
    ) -> Result<Option<Item<Leaf>>, Full> {
        if at.is_behind {
            self.entries_left = self.entries_left.checked_sub(1).ok_or(Full)?;
            names::check_path(&at.name).map_err(|_| Full)?;
        }
        self.open.push(at.real.clone());
        let mut items = BTreeMap::new();
        let mut full = Ok(());
        for (name, found) in entries {
            at.name.push(name.clone());
            at.real.push(name.clone());
            match self.item(found, at) {
                Ok(Some(item)) => drop(items.insert(name.clone(), item)),
                Ok(None) => {}
                Err(Full) => full = Err(Full),
            }
            at.name.pop();
            at.real.pop();
            if full.is_err() {
                break;
            }
        }
        self.open.pop();
        full.map(|()| (!items.is_empty()).then_some(Item::Directory(items)))
    }

    fn link(&mut self, target: &str, at: &At) -> Option<Item<Leaf>> {
        let mut parent = at.real.clone();
        parent.pop();
        let (bytes_left, entries_left) = (self.bytes_left, self.entries_left);
        // The link's own entry is counted already, and what it leads to takes its place. One behind another
        // link is a copy: nothing of it was counted.
        if !at.is_behind {
            self.entries_left += 1;
        }
        let carried = self.follow(parent, target, HOPS_MAX).and_then(|real| {
            let found = find(self.root, &real).ok_or(NOTHING)?;
            if self.open.contains(&real) {
                return Err("a link to a folder that it is in");
            }
            let mut behind = At { name: at.name.clone(), real, is_behind: true };
            self.item(found, &mut behind).map_err(|Full| TOO_MUCH)
        });
        carried.unwrap_or_else(|why| {
            // A link that is not carried takes none of the allowed bytes and entries.
            self.bytes_left = bytes_left;
            self.entries_left = entries_left;
            self.left_out.note(&at.name, why);
            None
        })
    }

    /// Resolves a link to `target` in the folder `at`; returns the real path.
    fn follow(
        &mut self,
        mut at: Vec<String>,
        target: &str,
        hops: usize,
    ) -> Result<Vec<String>, &'static str> {
        let hops = hops.checked_sub(1).ok_or("a link that leads in a circle")?;
        let mut target = Path::new(target);
        if target.is_absolute() {
            target = target.strip_prefix(self.seen_as).map_err(|_| OUT)?;
            at.clear();
        }
        for part in target.components() {
            self.parts_left = self.parts_left.checked_sub(1).ok_or(TOO_MUCH)?;
            match part {
                Component::ParentDir => drop(at.pop().ok_or(OUT)?),
                Component::Normal(name) => {
                    let folder = at.clone();
                    at.push(name.to_str().ok_or(NOTHING)?.to_owned());
                    if let Found::Link(next) = find(self.root, &at).ok_or(NOTHING)? {
                        at = self.follow(folder, next, hops)?;
                    }
                }
                _ => {}
            }
        }
        Ok(at)
    }
}

const OUT: &str = "a link that leads out of it";
const NOTHING: &str = "a link to nothing that is in it";

fn find<'a>(root: &'a Found, path: &[String]) -> Option<&'a Found> {
    path.iter().try_fold(root, |found, name| match found {
        Found::Folder(entries) => entries.get(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::ENTRIES_MAX;

    fn folder(entries: impl IntoIterator<Item = (&'static str, Found)>) -> Found {
        Found::Folder(entries.into_iter().map(|(name, found)| (name.to_owned(), found)).collect())
    }

    fn link(to: &str) -> Found {
        Found::Link(to.to_owned())
    }

    fn carry(root: &Found, bytes_max: u64) -> (Vec<String>, Vec<String>) {
        let mut left_out = LeftOut::default();
        let view = View { seen_as: "/output".to_owned(), bytes_max };
        let item = carried(root, &view, ENTRIES_MAX, &mut left_out);
        let files = item.as_ref().map(Item::files).unwrap_or_default();
        let shown = files.into_iter().map(|(path, leaf)| match leaf.lies_at() {
            Some(real) => format!("{} = {}", path.join("/"), real.join("/")),
            None => path.join("/"),
        });
        (shown.collect(), left_out.told())
    }

    #[test]
    fn a_link_inside_is_a_copy_and_one_that_leads_out_is_named() {
        let root = folder([
            ("model.bin", Found::File(3)),
            ("deep", folder([("x", Found::File(1)), ("up", link("../model.bin"))])),
            ("latest", link("model.bin")),
            ("absolute", link("/output/deep/x")),
            ("twice", link("latest")),
            ("folder", link("deep")),
            ("through", link("folder/up")),
            ("out", link("../../etc/passwd")),
            ("shadow", link("/etc/shadow")),
            ("gone", link("nothing")),
            ("self", link("self")),
        ]);
        let (files, notes) = carry(&root, 100);
        assert_eq!(
            files,
            [
                "absolute = deep/x",
                "deep/up = model.bin",
                "deep/x",
                "folder/up = model.bin",
                "folder/x = deep/x",
                "latest = model.bin",
                "model.bin",
                "through = model.bin",
                "twice = model.bin",
            ]
        );
        assert_eq!(
            notes,
            [
                "gone: a link to nothing that is in it",
                "out: a link that leads out of it",
                "self: a link that leads in a circle",
                "shadow: a link that leads out of it",
            ]
        );
    }

    #[test]
    fn links_that_lead_back_or_multiply_are_bounded() {
        let root = folder([("a", folder([("x", Found::File(1)), ("up", link(".."))]))]);
        let (files, notes) = carry(&root, 100);
        assert_eq!(files, ["a/x"]);
        assert_eq!(notes, ["a/up: a link to a folder that it is in"]);
        // Each level holds the one below twice: 2^40 files if all were carried.
        let mut names: Vec<&'static str> = Vec::new();
        for level in 0..40 {
            names.push(Box::leak(format!("level{level:02}").into_boxed_str()));
        }
        let mut entries: Vec<(&'static str, Found)> =
            vec![("zero", folder([("x", Found::File(1))]))];
        for (at, name) in names.iter().enumerate() {
            let below =
                if at == 0 { "../zero".to_owned() } else { format!("../{}", names[at - 1]) };
            entries.push((*name, folder([("a", link(&below)), ("b", link(&below))])));
        }
        let (files, notes) = carry(&folder(entries), 1 << 40);
        assert!(files.len() <= ENTRIES_MAX + 1, "{}", files.len());
        assert!(notes.len() == NOTES_MAX + 1, "{notes:?}");
        // Links behind links multiply too: 300 times 300 copies of one file.
        let many = |to: &str| -> Vec<(&'static str, Found)> {
            let name = |at: usize| Box::leak(format!("link{at}").into_boxed_str()) as &str;
            (0..300).map(|at| (name(at), link(to))).collect()
        };
        let (mut root, inner) = (many("inner"), many("../x"));
        root.extend([("x", Found::File(0)), ("inner", folder(inner))]);
        let (files, notes) = carry(&folder(root), 100);
        assert!(files.len() <= ENTRIES_MAX + 601, "{}", files.len());
        assert!(notes.len() == NOTES_MAX + 1, "{notes:?}");
        // The copies have more bytes than links may add.
        let root = folder([("big", Found::File(60)), ("a", link("big")), ("b", link("big"))]);
        let (files, notes) = carry(&root, 100);
        assert_eq!(files, ["a = big", "big"]);
        assert_eq!(notes, ["b: a link to more than may be carried"]);
    }

    #[test]
    fn links_that_name_one_another_many_times_are_not_followed_for_ever() {
        let mut entries = vec![("deep", folder([("x", Found::File(1))])), ("last", link("deep"))];
        let names: [&'static str; 12] =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "last"];
        for pair in names.windows(2) {
            let target = format!("{}deep", format!("{}/../", pair[1]).repeat(100));
            entries.push((pair[0], link(&target)));
        }
        let (files, notes) = carry(&folder(entries), 100);
        assert!(files.contains(&"deep/x".to_owned()), "{files:?}");
        assert!(notes.contains(&format!("a: {TOO_MUCH}")), "{notes:?}");
    }
}
