//! A log that is rotated all the time, by a program that writes 50,000 lines a second, and a reader that is killed a
//! hundred times meanwhile: what it committed is compared with what was written.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::reader::{commits, line};

/// Lines in each millisecond.
const BATCH: u64 = 50;

/// Milliseconds between two rotations.
const EACH: u64 = 20;

const KILLS: u32 = 100;

/// How long the reader may need after the last line.
const PATIENCE: Duration = Duration::from_mins(1);

/// The log is renamed so often.
pub(crate) fn renames(count: u64) {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let (path, lines) = (dir.path().join("x.log"), count * EACH * BATCH);
    let folder = dir.path().to_owned();
    begin(dir.path());
    let writer = std::thread::spawn(move || {
        let mut file = append(&path);
        write_paced(lines, |number, text| {
            if number % (EACH * BATCH) == 0 && number > 0 {
                let to = folder.join(format!("x.log.{}", number / (EACH * BATCH)));
                fs::rename(&path, to).expect("it is renamed");
                file = append(&path);
            }
            file.write_all(text).expect("room");
        });
    });
    let kills = disturb(dir.path(), Duration::from_millis(count * EACH), &writer);
    writer.join().expect("it wrote");
    report("renames", dir.path(), lines, count, kills);
}

/// The log is copied and truncated so often, while the program writes.
pub(crate) fn copies(count: u64) {
    let dir = tempfile::tempdir_in(".").expect("a folder");
    let span = Duration::from_millis(count * EACH * 10);
    let (path, lines) = (dir.path().join("x.log"), count * EACH * 10 * BATCH);
    begin(dir.path());
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let copier = copier(&path, dir.path().to_owned(), count, std::sync::Arc::clone(&done));
    let writer = std::thread::spawn(move || {
        let mut file = append(&path);
        write_paced(lines, |_, text| file.write_all(text).expect("room"));
    });
    let kills = disturb(dir.path(), span, &writer);
    writer.join().expect("it wrote");
    done.store(true, Ordering::Relaxed);
    copier.join().expect("it copied");
    report("copies", dir.path(), lines, count, kills);
}

fn copier(
    path: &Path,
    folder: PathBuf,
    count: u64,
    done: std::sync::Arc<AtomicBool>,
) -> JoinHandle<()> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        for number in 0..count {
            std::thread::sleep(Duration::from_millis(EACH * 9));
            if done.load(Ordering::Relaxed) {
                return;
            }
            // As logrotate: what is written between the two is lost, and nobody can know how much.
            fs::copy(&path, folder.join(format!("x.log.{number}"))).expect("a copy");
            let file = OpenOptions::new().write(true).open(&path).expect("a log");
            file.set_len(0).expect("it is truncated");
        }
    })
}

fn append(path: &Path) -> File {
    OpenOptions::new().append(true).create(true).open(path).expect("a log")
}

/// Calls this with each millisecond's lines.
fn write_paced(lines: u64, mut write: impl FnMut(u64, &[u8])) {
    let begun = Instant::now();
    for first in (0..lines).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let due = begun + Duration::from_millis(first / BATCH);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let text: String = (first..first + BATCH).map(line).collect();
        write(first, text.as_bytes());
    }
}

/// Kills the reader again and again while the writer writes; then one reads to the end.
fn disturb(folder: &Path, span: Duration, writer: &JoinHandle<()>) -> u32 {
    let (begun, mut kills, mut reader) = (Instant::now(), 0, start(folder));
    while !writer.is_finished() && kills < KILLS {
        let due = begun + span / (KILLS + 2) * (kills + 1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        reader.kill().ok();
        reader.wait().ok();
        kills += 1;
        reader = start(folder);
    }
    while !writer.is_finished() {
        std::thread::sleep(Duration::from_millis(20));
    }
    settle(folder);
    reader.kill().ok();
    reader.wait().ok();
    kills
}

/// Waits until nothing is committed any more.
fn settle(folder: &Path) {
    let (begun, mut last) = (Instant::now(), 0);
    while begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_secs(3));
        let now = commits(folder).0;
        if now == last {
            return;
        }
        last = now;
    }
}

/// Has the reader find the log: what came before belongs to nobody.
fn begin(folder: &Path) {
    append(&folder.join("x.log"));
    let (begun, mut reader) = (Instant::now(), start(folder));
    while commits(folder).0 == 0 {
        assert!(begun.elapsed() < PATIENCE, "the reader begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    reader.kill().ok();
    reader.wait().ok();
}

fn start(folder: &Path) -> Child {
    let own = std::env::current_exe().expect("this program");
    Command::new(own).arg("--reader").arg(folder).spawn().expect("it starts")
}

fn report(what: &str, folder: &Path, lines: u64, rotations: u64, kills: u32) {
    let mut times = vec![0_u8; usize::try_from(lines).expect("a small number")];
    let (mut gaps, mut torn) = (0, 0);
    for commit in commits(folder).1 {
        gaps += commit.gaps;
        torn += commit.torn;
        for (first, last) in commit.runs {
            for number in first..=last {
                let index = usize::try_from(number).expect("a small number");
                times[index] = times[index].saturating_add(1);
            }
        }
    }
    let lost = times.len() - times.iter().filter(|times| **times > 0).count();
    let doubled = times.iter().filter(|times| **times > 1).count();
    let is_first = |pair: &&[u8]| pair[0] > 0 && pair[1] == 0;
    let runs = times.windows(2).filter(is_first).count();
    println!(
        "{{\"what\":\"{what}\",\"rotations\":{rotations},\"kills\":{kills},\"lines\":{lines},\"lost\":{lost},\
         \"lost_runs\":{runs},\"gaps\":{gaps},\"doubled\":{doubled},\"torn\":{torn}}}",
    );
}
