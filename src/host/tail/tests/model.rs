//! A reader against a model: a random sequence of what programs, rotation and kills do, and the lines that were written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::follow::{Follower, Step};
use super::super::{Config, Position, Read, Start, open};

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Writes so many lines, and the first half of one more.
    Write(u8),
    /// Renames as logrotate numbers; the program opens a new file after so many more lines.
    Rotate {
        late: u8,
    },
    /// Renames as logrotate dates.
    RotateDated,
    CopyTruncate,
    /// The same, of a file of which something was read.
    CopyTruncateSeen,
    Truncate,
    /// The program starts again and overwrites its log.
    Overwrite,
    /// The program starts again and appends.
    Reopen,
    /// Somebody removes the log and the program makes a new one.
    Recreate,
    DropOldest,
    Compress,
    /// So many steps of the reader; the last result is not committed if the flag says so.
    Read {
        steps: u8,
        commits: bool,
    },
    Kill,
    Wait,
}

#[derive(Debug)]
struct World {
    dir: tempfile::TempDir,
    path: PathBuf,
    program: File,
    half: Vec<u8>,
    serial: u64,
    dates: u64,
    config: Config,
    reader: Follower,
    now: Instant,
    latest: Option<Position>,
    committed: Option<Position>,
    /// Lines that were given out and committed, and since.
    kept: Vec<Vec<u8>>,
    open: Vec<Vec<u8>>,
    gaps: usize,
    open_gaps: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let config =
            Config { start: Start::Beginning, inotify: false, ..Config::new(path.clone()) };
        let mut world = Self {
            program: append(&path),
            half: Vec::new(),
            serial: 0,
            dates: 0,
            reader: Follower::new(config.clone(), None),
            config,
            now: Instant::now(),
            latest: None,
            committed: None,
            kept: Vec::new(),
            open: Vec::new(),
            gaps: 0,
            open_gaps: 0,
            dir,
            path,
        };
        // What comes before the first look belongs to nobody.
        world.read(1);
        world.commit();
        world
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Write(count) => {
                self.write(count);
                let line = self.line();
                let (now, later) = line.split_at(line.len() / 2);
                self.program.write_all(now).unwrap();
                self.half = later.to_vec();
            }
            Op::Rotate { late } => {
                self.shift();
                std::fs::rename(&self.path, self.dir.path().join("x.log.1")).ok();
                self.write(late);
                self.reopen();
            }
            Op::RotateDated => {
                self.dates += 1;
                let name = format!("x.log-{:08}", 20_260_101 + self.dates);
                std::fs::rename(&self.path, self.dir.path().join(name)).ok();
                self.reopen();
            }
            Op::Read { steps, commits } => {
                self.read(steps);
                if commits {
                    self.commit();
                }
            }
            Op::Kill => {
                self.open.clear();
                self.latest = None;
                self.open_gaps = 0;
                self.reader = Follower::new(self.config.clone(), self.committed.clone());
            }
            Op::Wait => self.now += Duration::from_secs(61),
            Op::Reopen => self.reopen(),
            other => self.spoil(other),
        }
    }

    /// What is not a plain rotation.
    fn spoil(&mut self, op: Op) {
        match op {
            Op::CopyTruncate => {
                self.shift();
                std::fs::copy(&self.path, self.dir.path().join("x.log.1")).unwrap();
                self.tick();
                self.program.set_len(0).unwrap();
            }
            Op::CopyTruncateSeen => {
                self.see_some();
                self.run(Op::CopyTruncate);
            }
            Op::Truncate => {
                self.end_half();
                self.see_some();
                self.program.set_len(0).unwrap();
            }
            Op::Overwrite => {
                self.end_half();
                self.see_some();
                self.tick();
                File::create(&self.path).unwrap();
                self.program = append(&self.path);
            }
            Op::Recreate => {
                self.end_half();
                self.see_some();
                std::fs::remove_file(&self.path).unwrap();
                self.reopen();
            }
            Op::DropOldest => {
                let oldest = self.numbers().last().map(|number| self.numbered(*number));
                let born = |path: &PathBuf| open::look(path).unwrap().born;
                // What nobody had begun to read goes unnoticed.
                let read = self.committed.as_ref().map(|it| it.current.born);
                if let Some(oldest) = oldest.filter(|oldest| read == Some(born(oldest))) {
                    std::fs::remove_file(oldest).unwrap();
                }
            }
            Op::Compress => self.compress(),
            other => panic!("{other:?} is not one of these"),
        }
    }

    fn line(&mut self) -> Vec<u8> {
        self.serial += 1;
        line(self.serial).into_bytes()
    }

    fn write(&mut self, count: u8) {
        self.end_half();
        for _ in 0..count {
            let line = self.line();
            self.program.write_all(&line).unwrap();
        }
    }

    fn end_half(&mut self) {
        let half = std::mem::take(&mut self.half);
        self.program.write_all(&half).unwrap();
    }

    /// What comes and goes before anything of a file was read, nobody can notice.
    fn see_some(&mut self) {
        let facts = open::look(&self.path).unwrap();
        let is_it = |it: &Position| (it.inode(), it.current.born) == (facts.id.inode, facts.born);
        let has_seen = |it: &Position| is_it(it) && it.offset() > 0;
        if !self.committed.as_ref().is_some_and(has_seen) {
            self.write(1);
            self.read(50);
            self.commit();
        }
    }

    fn reopen(&mut self) {
        self.end_half();
        self.tick();
        self.program = append(&self.path);
    }

    /// Waits until the time of the file system has gone on: real rotations are further apart.
    fn tick(&self) {
        let born = |name: &str| {
            let path = self.dir.path().join(name);
            File::create(&path).unwrap();
            let at = std::fs::metadata(&path).unwrap().modified().unwrap();
            std::fs::remove_file(path).unwrap();
            at
        };
        let before = born("tick");
        while born("tick") == before {}
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.dir.path().join(format!("x.log.{number}"))
    }

    fn numbers(&self) -> Vec<u64> {
        let names = self.dir.path().read_dir().unwrap().map(|it| it.unwrap().file_name());
        let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix("x.log.")?.parse().ok();
        let mut found: Vec<u64> = names.filter_map(number).collect();
        found.sort_unstable();
        found
    }

    fn shift(&self) {
        for number in (1..100).rev() {
            for ending in ["", ".gz"] {
                let name = |number: u64| self.dir.path().join(format!("x.log.{number}{ending}"));
                // There are few of them.
                std::fs::rename(name(number), name(number + 1)).ok();
            }
        }
    }

    /// As gzip does: a new file with the time of the old one.
    fn compress(&self) {
        let Some(newest) = self.numbers().first().copied() else { return };
        let from = self.numbered(newest);
        let modified = std::fs::metadata(&from).unwrap().modified().unwrap();
        let to = File::create(self.dir.path().join(format!("x.log.{newest}.gz"))).unwrap();
        to.set_modified(modified).unwrap();
        std::fs::remove_file(from).unwrap();
    }

    fn read(&mut self, steps: u8) {
        for _ in 0..steps {
            self.now += Duration::from_millis(10);
            match self.reader.step(self.now) {
                Step::Told(read) => self.take(*read),
                Step::Again => {}
                Step::Idle(_) => break,
            }
        }
    }

    fn take(&mut self, read: Read) {
        let position = match read {
            Read::Open { position } => position,
            Read::Lines { lines, position } => {
                self.open.extend(lines.into_iter().map(|line| line.bytes));
                position
            }
            Read::Gap { position, .. } => {
                self.open_gaps += 1;
                position
            }
            Read::Trouble { .. } => return,
        };
        // As the database of a caller would keep it.
        let text = serde_json::to_string(&position).unwrap();
        self.latest = Some(serde_json::from_str(&text).unwrap());
    }

    fn commit(&mut self) {
        self.kept.append(&mut self.open);
        self.gaps += std::mem::take(&mut self.open_gaps);
        if let Some(latest) = self.latest.take() {
            self.committed = Some(latest);
        }
    }

    /// Reads all that there is; then the lost lines as runs, those that came twice, and the gaps told.
    fn end(mut self) -> Found {
        self.end_half();
        self.write(1);
        for _ in 0..10 {
            self.read(200);
            self.now += Duration::from_secs(61);
        }
        self.commit();
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        let (mut halves, mut fragments) = (Vec::new(), 0);
        for line in &self.kept {
            match serial_of(line) {
                Some(serial) => *times.entry(serial).or_default() += 1,
                None => halves.push(line),
            }
        }
        // A line that was half written when its file was copied and truncated comes in two.
        while let Some(half) = halves.pop() {
            let both = |other: &&Vec<u8>| {
                serial_of(&[half, &other[..]].concat()).or(serial_of(&[*other, &half[..]].concat()))
            };
            match halves.iter().enumerate().find_map(|(at, other)| Some((at, both(other)?))) {
                Some((at, serial)) => {
                    halves.remove(at);
                    *times.entry(serial).or_default() += 1;
                }
                None => fragments += 1,
            }
        }
        let doubled = times.iter().filter(|(_, times)| **times > 1).map(|(it, _)| *it).collect();
        let lost: BTreeSet<u64> = (1..=self.serial).filter(|it| !times.contains_key(it)).collect();
        let runs = lost.iter().filter(|it| !lost.contains(&(*it - 1))).count();
        Found { lost, runs, doubled, fragments, gaps: self.gaps }
    }
}

/// The line with this number, which either half of it tells: files that look alike are copies of each other.
fn line(serial: u64) -> String {
    let filling = 60 + usize::try_from(serial * 37 % 90).unwrap();
    format!("{serial:06} {}{serial:06}#\n", "x".repeat(filling))
}

/// The number of a line that is whole.
fn serial_of(text: &[u8]) -> Option<u64> {
    let serial = std::str::from_utf8(text.get(..6)?).ok()?.parse().ok()?;
    line(serial).trim_end().as_bytes().eq(text).then_some(serial)
}

#[derive(Debug)]
struct Found {
    lost: BTreeSet<u64>,
    runs: usize,
    doubled: Vec<u64>,
    fragments: usize,
    gaps: usize,
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).unwrap()
}

fn after(ops: &[Op]) -> Found {
    let mut world = World::new();
    for op in ops {
        world.run(*op);
    }
    world.end()
}

fn common() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_u8..12).prop_map(Op::Write),
        4 => (0_u8..6, any::<bool>()).prop_map(|(steps, commits)| Op::Read { steps, commits }),
        2 => Just(Op::Kill),
        1 => Just(Op::Reopen),
        1 => Just(Op::Wait),
    ]
}

fn renames() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => common(),
        2 => (0_u8..4).prop_map(|late| Op::Rotate { late }),
        1 => Just(Op::RotateDated),
    ]
}

fn copies() -> impl Strategy<Value = Op> {
    prop_oneof![6 => common(), 2 => Just(Op::CopyTruncate)]
}

fn losses() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => common(),
        2 => (0_u8..4).prop_map(|late| Op::Rotate { late }),
        1 => Just(Op::CopyTruncateSeen),
        1 => Just(Op::Truncate),
        1 => Just(Op::Overwrite),
        1 => Just(Op::Recreate),
        1 => Just(Op::DropOldest),
        1 => Just(Op::Compress),
    ]
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn renamed_files_and_kills_lose_and_double_nothing(ops in prop::collection::vec(renames(), 1..40)) {
        let found = after(&ops);
        prop_assert!(found.lost.is_empty() && found.doubled.is_empty(), "{found:?}");
        prop_assert_eq!((found.gaps, found.fragments), (0, 0));
    }

    #[test]
    fn copied_and_truncated_files_lose_and_double_nothing(ops in prop::collection::vec(copies(), 1..40)) {
        let found = after(&ops);
        prop_assert!(found.lost.is_empty() && found.doubled.is_empty(), "{found:?}");
        prop_assert_eq!(found.fragments, 0);
    }

    #[test]
    fn whatever_happens_each_loss_is_told_and_nothing_doubled(ops in prop::collection::vec(losses(), 1..40)) {
        let found = after(&ops);
        prop_assert!(found.doubled.is_empty(), "{found:?}");
        prop_assert!(found.runs <= found.gaps, "{found:?}");
    }
}
