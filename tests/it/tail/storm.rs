//! A log that is renamed all the time, and a process that reads it and is killed again and again.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lamda_node::host::tail::{Position, Read, Tail};
use serde::{Deserialize, Serialize};

use super::config;
use crate::support::tools::{Running, eventually};

/// Names the folder to a process that reads for the storm.
const FOLDER: &str = "TAIL_STORM";

/// What happens to the log and to its reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    /// How often the reader is killed.
    pub(crate) kills: usize,
    /// How often the log is renamed between two kills.
    pub(crate) renames: usize,
    /// Lines in each file.
    pub(crate) lines: u64,
    /// Lines that the program writes in a second at most.
    pub(crate) a_second: u64,
}

/// How many lines the program writes at once.
const BATCH: u64 = 50;

/// How long the reader may need, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was read, and the place after it, in one write.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    lines: Vec<u64>,
    gaps: usize,
    position: Option<Position>,
}

/// The commits that were written whole, and their length.
fn commits(folder: &Path) -> (u64, Vec<Commit>) {
    let text = fs::read(folder.join("committed")).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let commits = lines.map(|line| serde_json::from_slice(line).expect("a commit")).collect();
    (whole as u64, commits)
}

/// How much was committed, whole or not.
fn length(folder: &Path) -> u64 {
    fs::metadata(folder.join("committed")).map_or(0, |meta| meta.len())
}

/// Reads and commits until it is killed, or has read so many lines.
async fn read_and_commit(folder: PathBuf, limit: usize) {
    let (whole, mut before) = commits(&folder);
    let position = before.pop().and_then(|commit| commit.position);
    let options = OpenOptions::new().append(true).create(true).open(folder.join("committed"));
    let mut file = options.expect("a file");
    file.set_len(whole).expect("half a commit is undone");
    let (mut tail, mut count) = (Tail::new(config(&folder.join("x.log")), position), 0);
    while count < limit {
        let commit = match tail.next().await {
            Read::Open { position } => {
                Commit { lines: Vec::new(), gaps: 0, position: Some(position) }
            }
            Read::Gap { position, .. } => {
                Commit { lines: Vec::new(), gaps: 1, position: Some(position) }
            }
            Read::Lines { lines, position } => {
                let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
                let lines = lines.iter().map(|line| number(&line.bytes).expect("a number"));
                Commit { lines: lines.collect(), gaps: 0, position: Some(position) }
            }
            // Between a rename and a create there may be no file for long, on a busy machine.
            Read::Trouble { .. } => continue,
        };
        count += commit.lines.len();
        let mut text = serde_json::to_vec(&commit).expect("a commit");
        text.push(b'\n');
        file.write_all(&text).expect("it is committed");
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a log")
}

/// Also the process that reads for the storm, which kills it.
#[tokio::test]
async fn a_process_commits_what_it_reads() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return read_and_commit(PathBuf::from(folder), usize::MAX).await;
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("x.log"), "1\n2\n3\n").expect("a log");
    read_and_commit(dir.path().to_owned(), 3).await;
    let read: Vec<u64> = commits(dir.path()).1.into_iter().flat_map(|it| it.lines).collect();
    assert_eq!(read, [1, 2, 3]);
}

fn reader(folder: &Path) -> Running {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["tail::storm::a_process_commits_what_it_reads", "--exact", "--nocapture"]);
    command.env(FOLDER, folder).stdout(Stdio::null());
    Running::start(&mut command)
}

#[test]
fn a_storm_of_renames_and_kills_loses_and_doubles_nothing() {
    Storm { kills: 25, renames: 8, lines: 500, a_second: u64::MAX }.loses_and_doubles_nothing();
}

/// A program that writes numbers at a pace, a line each.
struct Writer {
    file: File,
    number: u64,
    begun: Instant,
    a_second: u64,
}

impl Writer {
    fn write(&mut self, lines: u64) {
        for first in (0..lines).step_by(usize::try_from(BATCH).expect("a small number")) {
            let due = Duration::from_micros(self.number.saturating_mul(1_000_000) / self.a_second);
            std::thread::park_timeout(due.saturating_sub(self.begun.elapsed()));
            let batch = self.number..self.number + BATCH.min(lines - first);
            self.number = batch.end;
            let mut text = Vec::new();
            for number in batch {
                writeln!(text, "{number}").expect("memory takes it");
            }
            self.file.write_all(&text).expect("it writes");
        }
    }
}

impl Storm {
    /// Returns how many lines there were, and how long the program wrote.
    pub(crate) fn loses_and_doubles_nothing(self) -> (u64, Duration) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("x.log");
        let (file, a_second) = (append(&path), self.a_second);
        let mut reading = reader(dir.path());
        // A reader that never began has nothing to go on from.
        eventually("it begins", PATIENCE, || (commits(dir.path()).0 > 0).then_some(()));
        let mut program = Writer { file, number: 0, begun: Instant::now(), a_second };
        for kill in 0..self.kills {
            let before = length(dir.path());
            for rename in 0..self.renames {
                program.write(self.lines);
                let to = format!("x.log.{}", kill * self.renames + rename);
                fs::rename(&path, dir.path().join(to)).expect("it is renamed");
                program.file = append(&path);
            }
            eventually("it reads", PATIENCE, || (length(dir.path()) > before).then_some(()));
            drop(reading);
            reading = reader(dir.path());
        }
        let (number, took) = (program.number, program.begun.elapsed());
        let is_last = |commit: &Commit| commit.lines.last() == Some(&(number - 1));
        let all = eventually("it has read all", PATIENCE, || {
            Some(commits(dir.path()).1).filter(|all| all.iter().any(is_last))
        });
        let mut read: Vec<u64> = all.iter().flat_map(|it| it.lines.iter().copied()).collect();
        let gaps: usize = all.iter().map(|it| it.gaps).sum();
        let count = read.len() as u64;
        read.sort_unstable();
        read.dedup();
        assert_eq!((read.len() as u64, count, gaps), (number, number, 0), "read, doubled, gaps");
        (number, took)
    }
}
