//! Finds what comes after a file that was rotated, and what is left of one that is gone or was truncated.
//!
//! Must hold: no file is found twice, and none that was written before the one that it shall follow.

use std::cmp::Ordering;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::family::{Age, Relative, relatives};
use super::open::{self, Facts, Key, Refusal};
use super::position::{GUARD_MAX, HEAD_MAX, Mark};
use super::source::Source;

/// The fewest first bytes by which a copy is known again that is shorter than what was read.
const HEAD_MIN: u16 = 64;

/// A file that comes next.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) file: File,
    pub(super) facts: Facts,
    /// A copy that was made before a file was truncated.
    pub(super) is_copy: bool,
    /// Compressed files lie between the one before and this one.
    pub(super) skips_packed: bool,
}

/// What the next file comes after.
#[derive(Debug)]
pub(super) struct After<'a> {
    pub(super) age: Age,
    /// When it was written to while it was at the path, as far as was seen.
    pub(super) placed: u64,
    pub(super) is_copy: bool,
    /// The file itself, if it is still there.
    pub(super) source: Option<&'a Source>,
}

/// The file that was written after this one: one that was rotated meanwhile, or the one at the path.
pub(super) fn next(path: &Path, after: &After<'_>, known: &[Key]) -> Result<Next, Refusal> {
    // First the path: what is rotated while the folder is listed comes after this one, at a later look.
    let at_path = open::open(path);
    let limit = at_path.as_ref().ok().map(|(_, facts)| *facts);
    // Without the right to list the folder, the path is all that can be known.
    let all = relatives(path).unwrap_or_default();
    let comes_next = |it: &&Relative| {
        let age = Age::of(&it.facts);
        let is_older = |limit: Facts| age.order(Age::of(&limit)) != Ordering::Greater;
        !it.is_packed
            && !known.contains(&it.facts.key())
            && limit.is_none_or(|limit| limit.id != it.facts.id)
            && age.order(after.age) != Ordering::Less
            && age.born.is_none_or(|born| born >= after.placed)
            && (after.is_copy || limit.is_none_or(is_older))
    };
    for relative in all.iter().filter(comes_next) {
        let Some((file, facts)) = relative.open() else { continue };
        let own = after.source.filter(|_| !after.is_copy).map(Source::file);
        let whole = if after.is_copy { at_path.as_ref().ok().map(|(file, _)| file) } else { own };
        if facts.size > 0 && whole.is_some_and(|whole| is_part_of(&file, facts.size, whole)) {
            continue;
        }
        let skips_packed = has_packed(&all, after, &facts);
        return Ok(Next { file, facts, is_copy: after.is_copy, skips_packed });
    }
    let (file, facts) = at_path?;
    if known.contains(&facts.key()) && !after.is_copy {
        return Err(Refusal::Missing);
    }
    Ok(Next { skips_packed: has_packed(&all, after, &facts), file, facts, is_copy: false })
}

/// Whether a file that was written after the one and before the other is there compressed only. A file that is
/// compressed just now is there twice, and one that was compressed keeps its time.
fn has_packed(all: &[Relative], after: &After<'_>, before: &Facts) -> bool {
    all.iter().filter(|it| it.is_packed).any(|it| {
        let is_between =
            it.facts.modified > after.age.modified && it.facts.modified <= before.modified;
        is_between && !it.path.with_extension("").exists()
    })
}

/// Whether a file was compressed since a place was written down.
pub(super) fn was_packed(path: &Path, mark: &Mark) -> bool {
    let all = relatives(path).unwrap_or_default();
    all.iter().any(|it| it.is_packed && it.facts.modified >= mark.modified)
}

/// Whether a file is a copy of the beginning of another: one that somebody made, or that is made just now and the other
/// is truncated next.
fn is_part_of(part: &File, size: u64, whole: &File) -> bool {
    let is_same = |from: u64, length: usize| {
        let (mut own, mut others) = (vec![0; length], vec![0; length]);
        let read = |file: &File, bytes: &mut [u8]| file.read_exact_at(bytes, from).is_ok();
        read(part, &mut own) && read(whole, &mut others) && own == others
    };
    let short = usize::try_from(size).unwrap_or(usize::MAX);
    let guard = short.min(GUARD_MAX);
    is_same(0, short.min(HEAD_MAX)) && is_same(size - guard as u64, guard)
}

/// The copy that was made of a file before it was truncated, and whether it has what follows the place.
pub(super) fn copy_of(path: &Path, mark: &Mark, known: &[Key]) -> Option<(File, Facts, bool)> {
    for relative in relatives(path).ok()? {
        let facts = relative.facts;
        // A copy of what was in the file before has not been written to since.
        let is_new = facts.born.unwrap_or(0).max(facts.modified) >= mark.modified;
        if relative.is_packed
            || !is_new
            || facts.id.inode == mark.inode
            || known.contains(&facts.key())
        {
            continue;
        }
        let Some((file, facts)) = relative.open() else { continue };
        if mark.head.length > 0 && facts.size >= mark.offset && mark.fits(&file) {
            return Some((file, facts, true));
        }
        if facts.size < mark.offset && mark.head.length >= HEAD_MIN && mark.fits_head(&file) {
            return Some((file, facts, false));
        }
    }
    None
}

/// The copy that was made of the file at the path, if it was then truncated: where so little was read of the file that
/// what is in it now may look the same. Files that were renamed are older than the one at the path; copies are newer.
pub(super) fn unnoticed_copy(
    path: &Path,
    own_file: &File,
    mark: &Mark,
    known: &[Key],
) -> Option<(File, Facts)> {
    let own = mark.born.filter(|_| mark.is_weak())?;
    let is_at_path = || open::look(path).is_ok_and(|facts| facts.id.inode == mark.inode);
    if !is_at_path() {
        return None;
    }
    let all = relatives(path).ok()?;
    let is_copy = |it: &&Relative| {
        let since =
            it.facts.born.filter(|born| *born > own && *born >= mark.modified.max(mark.placed));
        !it.is_packed && since.is_some() && !known.contains(&it.facts.key())
    };
    let copies = all.iter().filter(is_copy).filter_map(Relative::open);
    let found = copies.into_iter().find(|(file, facts)| {
        facts.size > 0 && mark.fits(file) && !is_part_of(file, facts.size, own_file)
    });
    // Else they may be newer since it was rotated just now.
    found.filter(|_| is_at_path())
}

/// The file at the path, if it is that of the place, with another inode: it was copied and the original removed.
pub(super) fn moved(path: &Path, mark: &Mark) -> Option<(File, Facts)> {
    let own = mark.is_distinctive().then(|| open::open(path).ok()).flatten();
    own.filter(|(file, _)| mark.fits(file))
}
