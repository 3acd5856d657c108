use std::fs;

use super::*;
use crate::artifact::ENTRIES_MAX;
use crate::artifact::dag::{DIRECTORY_MESSAGE, Link, Version, encode, file_message, shard_message};

/// A folder to fetch into, and the blocks to send; the last one is the root.
struct Case {
    dir: tempfile::TempDir,
    blocks: Vec<(BlockId, Bytes)>,
}

impl Case {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), blocks: Vec::new() }
    }

    fn raw(&mut self, bytes: &[u8]) -> BlockId {
        let id = BlockId::of(Codec::Raw, bytes);
        self.blocks.push((id, Bytes::copy_from_slice(bytes)));
        id
    }

    fn node(&mut self, links: &[(&[u8], BlockId)], message: &[u8]) -> BlockId {
        let links: Vec<_> =
            links.iter().map(|&(name, id)| Link { id, name, dag_bytes: 0 }).collect();
        let block = encode(&links, message, Version::V1);
        let id = BlockId::of(Codec::DagPb, &block);
        self.blocks.push((id, block.into()));
        id
    }

    /// Sends the blocks root first and returns the result.
    fn fetch(&self, bytes_max: u64) -> Result<(u64, Kind), AssembleError> {
        self.fetch_as(self.blocks.iter().rev(), bytes_max)
    }

    fn fetch_as<'a>(
        &self,
        blocks: impl Iterator<Item = &'a (BlockId, Bytes)>,
        bytes_max: u64,
    ) -> Result<(u64, Kind), AssembleError> {
        let root = self.blocks.last().unwrap().0;
        let mut archive = car::header(root, Version::V1);
        for (id, block) in blocks {
            archive.extend_from_slice(&car::section_head(*id, Version::V1, block.len()));
            archive.extend_from_slice(block);
        }
        let mut pieces = Some(Bytes::from(archive));
        let done =
            receive(root, Staging::new(&self.dest())?, bytes_max, Arc::default(), || pieces.take());
        let left = fs::read_dir(self.dir.path()).unwrap().count();
        assert_eq!(left, usize::from(done.is_ok()), "something was left behind");
        done
    }

    fn dest(&self) -> std::path::PathBuf {
        self.dir.path().join("dest")
    }
}

fn refusal(done: &Result<(u64, Kind), AssembleError>) -> &str {
    match done {
        Err(AssembleError::Final(Error::Unsupported { reason, .. })) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hostile_names_are_refused_and_nothing_appears() {
    for name in [&b".."[..], b".", b"", b"a/b", b"/etc/passwd", b"a\0b", b"\xff", &[b'x'; 256]] {
        let mut case = Case::new();
        let leaf = case.raw(b"gotcha");
        case.node(&[(name, leaf)], &DIRECTORY_MESSAGE);
        assert!(refusal(&case.fetch(99)).contains("name"), "{name:?}");
    }
    let mut case = Case::new();
    let leaf = case.raw(b"gotcha");
    case.node(&[(b"a", leaf), (b"a", leaf)], &DIRECTORY_MESSAGE);
    assert_eq!(refusal(&case.fetch(99)), "two entries of one name");
}

#[test]
fn an_object_that_explodes_is_refused_while_it_is_small() {
    // Each folder holds the one below twice: 2^40 files from forty blocks.
    let mut case = Case::new();
    let mut below = case.raw(b"x");
    for _ in 0..40 {
        below = case.node(&[(b"a", below), (b"b", below)], &DIRECTORY_MESSAGE);
    }
    assert!(refusal(&case.fetch(u64::MAX)).contains("30000"));
    // The same with a file: 2^50 bytes from fifty blocks.
    let mut case = Case::new();
    let mut below = case.raw(b"x");
    for level in 0..50 {
        let message = file_message(&[1 << level, 1 << level]);
        below = case.node(&[(b"", below), (b"", below)], &message);
    }
    let done = case.fetch(1 << 30);
    assert!(matches!(done, Err(AssembleError::Final(Error::TooLarge { .. }))), "{done:?}");
    assert!(refusal(&case.fetch(u64::MAX)).starts_with("too many"));
}

#[test]
fn links_and_lies_about_lengths_are_refused() {
    let mut case = Case::new();
    case.node(&[], b"\x08\x04\x12\x0b/etc/passwd");
    assert_eq!(refusal(&case.fetch(99)), "a symbolic link by itself");
    for (target, is_inside) in [
        ("b/c", true),
        ("../a", true),
        ("./x/../../top", true),
        ("../../x", false),
        ("/etc", false),
    ] {
        let mut case = Case::new();
        let length = u8::try_from(target.len()).unwrap();
        let message = [&[8, 4, 0x12, length][..], target.as_bytes()].concat();
        let link = case.node(&[], &message);
        let below = case.node(&[(b"link", link)], &DIRECTORY_MESSAGE);
        case.node(&[(b"dir", below)], &DIRECTORY_MESSAGE);
        let done = case.fetch(99);
        if is_inside {
            done.unwrap();
            let made = fs::read_link(case.dest().join("dir/link")).unwrap();
            assert_eq!(made.to_str(), Some(target));
        } else {
            assert!(refusal(&done).contains("leads out"), "{target}");
        }
    }
    // Nothing is written through a link, whatever else has its name.
    let mut case = Case::new();
    let leaf = case.raw(b"x");
    let link = case.node(&[], b"\x08\x04\x12\x01d");
    let dir = case.node(&[(b"x", leaf)], &DIRECTORY_MESSAGE);
    case.node(&[(b"a", link), (b"a", dir)], &DIRECTORY_MESSAGE);
    assert_eq!(refusal(&case.fetch(99)), "two entries of one name");
    let mut case = Case::new();
    let leaf = case.raw(b"four");
    case.node(&[(b"", leaf)], &file_message(&[5]));
    assert!(refusal(&case.fetch(99)).contains("as long as its parent says"));
    let mut case = Case::new();
    let dir = case.node(&[], &DIRECTORY_MESSAGE);
    case.node(&[(b"", dir)], &file_message(&[5]));
    assert!(refusal(&case.fetch(99)).contains("does not belong"));
}

#[test]
fn what_is_not_supported_is_said_and_never_called_wrong() {
    let mut case = Case::new();
    let leaf = case.raw(b"x");
    case.node(&[(b"", leaf)], b"\x08\x03");
    assert!(refusal(&case.fetch(99)).contains("a metadata node"));
    let mut case = Case::new();
    let identity = [&[0x0a, 6, 1, 0x55, 0, 2][..], b"hi", &[0x12, 1, b'a']].concat();
    let block =
        [&[0x12, u8::try_from(identity.len()).unwrap()][..], &identity, b"\x0a\x02\x08\x01"];
    let block = block.concat();
    case.blocks.push((BlockId::of(Codec::DagPb, &block), block.into()));
    assert!(refusal(&case.fetch(99)).contains("an identity CID"));
}

#[test]
fn an_input_is_everybodys_to_read_and_run_in_its_container() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut case = Case::new();
    let leaf = case.raw(b"x");
    let below = case.node(&[(b"file", leaf)], &DIRECTORY_MESSAGE);
    case.node(&[(b"dir", below)], &DIRECTORY_MESSAGE);
    case.fetch(99).unwrap();
    let mode = |path: &str| fs::metadata(case.dest().join(path)).unwrap().permissions().mode();
    assert_eq!((mode("dir") & 0o777, mode("dir/file") & 0o777), (0o755, 0o755));
}

#[test]
fn an_object_of_too_many_entries_is_refused_with_the_number() {
    let mut case = Case::new();
    let leaf = case.raw(b"x");
    let names: Vec<String> = (0..=ENTRIES_MAX).map(|n| format!("{n:05}")).collect();
    let (mut links, shard) = (Vec::new(), shard_message(&[1]));
    // In shards, as a directory with thousands of entries is written.
    for (slot, names) in (0_u8..).zip(names.chunks(2000)) {
        let prefixed: Vec<String> = names.iter().map(|name| format!("00{name}")).collect();
        let entries: Vec<_> = prefixed.iter().map(|name| (name.as_bytes(), leaf)).collect();
        links.push((format!("{slot:02X}"), case.node(&entries, &shard)));
    }
    let links: Vec<_> = links.iter().map(|(name, id)| (name.as_bytes(), *id)).collect();
    case.node(&links, &shard);
    let done = case.fetch(99_999);
    assert_eq!(refusal(&done), "more than 30000 files and folders in one object");
}

#[test]
fn links_in_a_sharded_directory_are_held_to_the_same() {
    for (target, is_inside) in [("file", true), ("../file", false)] {
        let mut case = Case::new();
        let leaf = case.raw(b"x");
        let length = u8::try_from(target.len()).unwrap();
        let link = case.node(&[], &[&[8, 4, 0x12, length][..], target.as_bytes()].concat());
        case.node(&[(b"00file", leaf), (b"01link", link)], &shard_message(&[3]));
        let done = case.fetch(99);
        if is_inside {
            done.unwrap();
            assert_eq!(fs::read_to_string(case.dest().join("link")).unwrap(), "x");
        } else {
            assert!(refusal(&done).contains("leads out"), "{done:?}");
        }
    }
}

#[test]
fn order_and_repetition_of_blocks_make_no_difference() {
    let mut case = Case::new();
    let (one, two) = (case.raw(b"one."), case.raw(b"two."));
    let half = case.node(&[(b"", one), (b"", one)], &file_message(&[4, 4]));
    let file = case.node(&[(b"", half), (b"", two), (b"", half)], &file_message(&[8, 4, 8]));
    case.node(&[(b"again", half), (b"file", file), (b"one", one)], &DIRECTORY_MESSAGE);
    let orders: [Vec<_>; 3] = [
        case.blocks.iter().rev().collect(),
        case.blocks.iter().collect(),
        case.blocks.iter().rev().chain(&case.blocks).collect(),
    ];
    for order in orders {
        assert_eq!(case.fetch_as(order.into_iter(), 32).unwrap(), (32, Kind::Directory));
        let read = |name| fs::read_to_string(case.dest().join(name)).unwrap();
        assert_eq!(read("file"), "one.one.two.one.one.");
        assert_eq!((read("again"), read("one")), ("one.one.".into(), "one.".into()));
        fs::remove_dir_all(case.dest()).unwrap();
    }
    let done = case.fetch(31);
    assert!(matches!(done, Err(AssembleError::Final(Error::TooLarge { limit_bytes: 31 }))));
    let done = case.fetch_as(case.blocks.iter().rev().take(3), 32);
    assert!(matches!(done, Err(AssembleError::Incomplete)), "{done:?}");
}

#[test]
fn blocks_that_nobody_wants_fill_no_memory() {
    let mut early = Early::default();
    for n in 0_u32..20_000 {
        let block = [&n.to_le_bytes()[..], &[0; 2000]].concat();
        early.keep(BlockId::of(Codec::Raw, &block), &block);
    }
    assert!(early.bytes <= EARLY_BYTES_MAX && early.order.len() <= EARLY_MAX);
}
