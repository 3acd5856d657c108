//! Each way in which logrotate is used, with a reader that is there and one that comes back after several rotations.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lamda_node::host::tail::{GapWhy, Position, Read, Tail};

use super::config;
use crate::support::tools::{eventually, tool};

/// How long a test waits for a line that was written.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that writes to a log, what rotates it, and what was read.
struct Rotated {
    dir: tempfile::TempDir,
    path: PathBuf,
    /// What the program keeps open over a rotation; else it opens its log for each write.
    kept: Option<File>,
    written: Vec<String>,
    read: Vec<String>,
    gaps: Vec<GapWhy>,
    position: Option<Position>,
}

impl Rotated {
    fn by(rules: &str, keeps_open: bool) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.log");
        let text = format!("{} {{\nsu root root\nrotate 20\n{rules}\n}}\n", path.display());
        std::fs::write(dir.path().join("rules"), text).expect("its rules");
        let kept = keeps_open.then(|| append(&path));
        Self {
            dir,
            path,
            kept,
            written: Vec::new(),
            read: Vec::new(),
            gaps: Vec::new(),
            position: None,
        }
    }

    /// Writes some lines, then has the log rotated, which fails while a file has the same date.
    fn write_and_rotate(&mut self) {
        self.write();
        eventually("logrotate rotates", PATIENCE, || {
            let mut command = Command::new(tool("logrotate"));
            command.arg("-f").arg("-s").arg(self.dir.path().join("state"));
            let output = command.arg(self.dir.path().join("rules")).output().expect("it runs");
            output.status.success().then_some(())
        });
    }

    fn write(&mut self) {
        let mut file = match &self.kept {
            Some(file) => file.try_clone().expect("its log"),
            None => append(&self.path),
        };
        for _ in 0..25 {
            let line = format!("line {} of a program that writes on", self.written.len());
            writeln!(file, "{line}").expect("it writes");
            self.written.push(line);
        }
    }

    /// Reads until everything is there that was written.
    async fn read(&mut self, tail: &mut Tail) {
        while self.read.len() < self.written.len() {
            let next = tokio::time::timeout(PATIENCE, tail.next()).await;
            let missing = format!("{} of {}", self.read.len(), self.written.len());
            match next.unwrap_or_else(|_| panic!("nothing comes: {missing}")) {
                Read::Lines { lines, position } => {
                    let text = |bytes| String::from_utf8(bytes).expect("text");
                    self.read.extend(lines.into_iter().map(|line| text(line.bytes)));
                    self.position = Some(position);
                }
                Read::Gap { why, position, .. } => {
                    self.gaps.push(why);
                    self.position = Some(position);
                }
                Read::Open { position } => self.position = Some(position),
                Read::Trouble { .. } => {}
            }
        }
    }
}

fn append(path: &PathBuf) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a log")
}

/// The lines once each and in order, and the gaps that were told.
async fn read_over(rules: &str, keeps_open: bool) -> Vec<GapWhy> {
    let mut log = Rotated::by(rules, keeps_open);
    log.write();
    let mut tail = Tail::new(config(&log.path), None);
    log.read(&mut tail).await;
    for _ in 0..3 {
        log.write_and_rotate();
        log.read(&mut tail).await;
    }
    log.write();
    log.read(&mut tail).await;
    drop(tail);
    for _ in 0..4 {
        log.write_and_rotate();
    }
    log.write();
    let mut tail = Tail::new(config(&log.path), log.position.take());
    log.read(&mut tail).await;
    assert_eq!(log.read, log.written, "{rules}");
    log.gaps
}

#[tokio::test]
async fn files_that_logrotate_renames_lose_and_double_nothing() {
    for rules in ["create", "nocreate", "create\nextension .log"] {
        assert_eq!(read_over(rules, false).await, [], "{rules}");
    }
}

#[tokio::test]
async fn files_that_logrotate_dates_lose_and_double_nothing() {
    let dated = "create\ndateext\ndateformat -%Y%m%d-%H%M%S";
    assert_eq!(read_over(dated, false).await, []);
}

#[tokio::test]
async fn files_that_logrotate_copies_and_truncates_lose_and_double_nothing_that_was_copied() {
    let gaps = read_over("copytruncate", true).await;
    // Nobody can know what is written between the copy and the truncation.
    assert!(!gaps.is_empty() && gaps.iter().all(|why| *why == GapWhy::Truncated), "{gaps:?}");
}

#[tokio::test]
async fn what_logrotate_compressed_while_nobody_read_is_a_gap() {
    let mut log = Rotated::by("create\ncompress", false);
    log.write();
    let mut tail = Tail::new(config(&log.path), None);
    log.read(&mut tail).await;
    drop(tail);
    log.write_and_rotate();
    log.write_and_rotate();
    let (lost, before) = (log.written.len(), log.read.len());
    log.written.truncate(before);
    log.write();
    let mut tail = Tail::new(config(&log.path), log.position.take());
    log.read(&mut tail).await;
    assert_eq!(log.read, log.written);
    assert_eq!((log.gaps, lost > before), (vec![GapWhy::Compressed], true));
}
