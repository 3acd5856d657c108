//! The process that reads, so that it can be killed and its memory seen.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use lamda_node::host::tail::{Config, Position, Read, Start, Tail};
use serde::{Deserialize, Serialize};

/// The file with what was committed.
pub(crate) const COMMITTED: &str = "committed";

/// One commit: what was read, and the place after it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// First and last numbers of lines that follow on each other.
    pub(crate) runs: Vec<(u64, u64)>,
    /// Lines that are not whole.
    pub(crate) torn: u64,
    pub(crate) gaps: u64,
    pub(crate) position: Option<Position>,
}

/// The commits that were written whole.
pub(crate) fn commits(folder: &Path) -> (u64, Vec<Commit>) {
    let text = fs::read(folder.join(COMMITTED)).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let commits = lines.map(|line| serde_json::from_slice(line).expect("a commit")).collect();
    (whole as u64, commits)
}

/// Reads `x.log` in the folder and commits what it reads, until it is killed.
pub(crate) fn follow(folder: &Path) {
    let (whole, mut commits) = commits(folder);
    let position = commits.pop().and_then(|commit| commit.position);
    let options = OpenOptions::new().append(true).create(true).open(folder.join(COMMITTED));
    let mut file = options.expect("a file for commits");
    file.set_len(whole).expect("half a commit is undone");
    let config = Config { start: Start::Beginning, ..Config::new(folder.join("x.log")) };
    run(async move {
        let mut tail = Tail::new(config, position);
        loop {
            let commit = commit(tail.next().await);
            let mut text = serde_json::to_vec(&commit).expect("a commit");
            text.push(b'\n');
            file.write_all(&text).expect("it is committed");
        }
    });
}

fn commit(read: Read) -> Commit {
    match read {
        Read::Open { position } => Commit { position: Some(position), ..Commit::default() },
        Read::Gap { position, .. } => {
            Commit { position: Some(position), gaps: 1, ..Commit::default() }
        }
        Read::Lines { lines, position } => {
            let mut commit = Commit { position: Some(position), ..Commit::default() };
            for line in lines {
                let whole = Some(line.bytes).filter(|bytes| bytes.len() == LINE - 1);
                let text = whole.as_ref().and_then(|bytes| bytes.get(..8)).unwrap_or_default();
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                match (number, commit.runs.last_mut()) {
                    (None, _) => commit.torn += 1,
                    (Some(number), Some((_, last))) if *last + 1 == number => *last = number,
                    (Some(number), _) => commit.runs.push((number, number)),
                }
            }
            commit
        }
        Read::Trouble { what } => panic!("{what}"),
    }
}

/// The length of each line, its end included.
pub(crate) const LINE: usize = 100;

/// The line of this number.
pub(crate) fn line(number: u64) -> String {
    format!("{number:08} {}\n", "x".repeat(LINE - 10))
}

/// Reads one long line, and prints its length and the most memory this process had.
pub(crate) fn long(path: &Path) {
    let config = Config { start: Start::Beginning, ..Config::new(path.to_owned()) };
    let line = run(async move {
        let mut tail = Tail::new(config, None);
        loop {
            if let Read::Lines { lines, .. } = tail.next().await {
                return lines.into_iter().next();
            }
        }
    });
    let line = line.expect("a line");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 =
        most.and_then(|it| it.trim().split(' ').next()?.parse().ok()).expect("its memory");
    println!(
        "{{\"what\":\"long line\",\"kept\":{},\"cut\":{},\"rss_mib\":{:.1}}}",
        line.bytes.len(),
        line.cut,
        f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0,
    );
}

/// Runs this on one thread, files on another.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}
