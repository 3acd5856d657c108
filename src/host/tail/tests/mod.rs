//! The losses that other readers of logs are known for, and what each rule is for.

mod model;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::follow::{Follower, Step};
use super::*;

struct Case {
    dir: tempfile::TempDir,
    path: PathBuf,
    reader: Follower,
    now: Instant,
    position: Option<Position>,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let reader = Follower::new(config(&path), None);
        Self { dir, path, reader, now: Instant::now(), position: None }
    }

    /// A reader that has read this text.
    fn after(text: &str) -> Self {
        let mut case = Self::new();
        case.append(text);
        case.told();
        case
    }

    fn append(&self, text: &str) -> File {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rename(&self, to: &str) {
        fs::rename(&self.path, self.beside(to)).unwrap();
    }

    /// All that is told until there is nothing to do: lines as text, gaps and trouble in angle brackets.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..1_000 {
            let read = match self.reader.step(self.now) {
                Step::Told(read) => *read,
                Step::Again => continue,
                Step::Idle(_) => return told,
            };
            let position = match read {
                Read::Open { position } => position,
                Read::Lines { lines, position } => {
                    told.extend(lines.iter().map(|it| String::from_utf8_lossy(&it.bytes).into()));
                    position
                }
                Read::Gap { bytes, why, position } => {
                    told.push(format!("<{why:?} {bytes:?}>"));
                    position
                }
                Read::Trouble { what } => {
                    let folder = format!("{}/", self.dir.path().display());
                    told.push(format!("<{}>", what.replace(&folder, "")));
                    continue;
                }
            };
            self.position = Some(position);
        }
        panic!("there is always more to do: {told:?}");
    }

    /// The same, with the number of bytes that were cut in place of a long line.
    fn told_cut(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..10_000 {
            match self.reader.step(self.now) {
                Step::Told(read) => {
                    let position = match *read {
                        Read::Open { position } => position,
                        Read::Lines { lines, position } => {
                            told.extend(lines.iter().map(|it| match it.cut {
                                0 => String::from_utf8_lossy(&it.bytes).into(),
                                cut => format!("<{} kept, {cut} cut>", it.bytes.len()),
                            }));
                            position
                        }
                        Read::Gap { bytes, why, position } => {
                            told.push(format!("<{why:?} {bytes:?}>"));
                            position
                        }
                        Read::Trouble { what } => {
                            told.push(what);
                            continue;
                        }
                    };
                    self.position = Some(position);
                }
                Step::Again => {}
                Step::Idle(_) => return told,
            }
        }
        panic!("there is always more to do: {told:?}");
    }

    fn later(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.told()
    }

    /// Ends the reader at once; another one goes on where it said that it was.
    fn kill(&mut self) {
        let text = serde_json::to_string(&self.position).unwrap();
        assert!(text.len() < 4096, "{text}");
        self.reader = Follower::new(config(&self.path), serde_json::from_str(&text).unwrap());
    }
}

fn config(path: &Path) -> Config {
    Config { start: Start::Beginning, ..Config::new(path.to_owned()) }
}

/// So much text that no other file looks the same.
fn much(word: &str) -> String {
    (0..40).fold(String::new(), |text, number| format!("{text}{word} line {number}\n"))
}

#[test]
fn the_last_line_waits_for_its_end() {
    let mut case = Case::after("one\ntw");
    assert_eq!(case.later(Duration::from_mins(1)), [""; 0]);
    case.append("o\n");
    assert_eq!(case.told(), ["two"]);
}

#[test]
fn a_progress_bar_that_rests_is_told() {
    let mut case = Case::after("\r 1%\r 2%");
    assert_eq!(case.told(), [""; 0]);
    assert_eq!(case.later(Duration::from_secs(1)), [" 2%"]);
    case.append("\r 3%\nnext\n");
    assert_eq!(case.told(), [" 3%", "next"]);
}

#[test]
fn it_begins_where_it_is_told_to() {
    let mut case = Case::new();
    case.append("one\ntwo\nthree\nfo");
    let mut begun = |start| {
        case.reader = Follower::new(Config { start, ..config(&case.path) }, None);
        case.told();
        case.position.as_ref().map(Position::offset)
    };
    assert_eq!(begun(Start::End), Some(14), "a line that has not ended is read whole");
    assert_eq!(begun(Start::LastLines(0)), Some(14));
    case.reader = Follower::new(Config { start: Start::LastLines(2), ..config(&case.path) }, None);
    assert_eq!(case.told(), ["two", "three"]);
    case.reader = Follower::new(Config { start: Start::LastLines(9), ..config(&case.path) }, None);
    assert_eq!(case.told(), ["one", "two", "three"]);
}

#[test]
fn a_place_at_the_end_is_kept_over_a_kill_before_the_first_line() {
    let mut case = Case::new();
    case.append("old\n");
    case.reader = Follower::new(Config { start: Start::End, ..config(&case.path) }, None);
    assert_eq!(case.told(), [""; 0]);
    case.kill();
    case.append("new\n");
    assert_eq!(case.told(), ["new"]);
}

#[test]
fn a_program_may_write_to_a_renamed_file_for_as_long_as_it_likes() {
    let mut case = Case::after("one\n");
    let mut program = case.append("");
    case.rename("x.log.1");
    case.append("");
    assert_eq!(case.told(), [""; 0]);
    for _ in 0..5 {
        program.write_all(b"late\n").unwrap();
        assert_eq!(case.later(Duration::from_secs(100_000)), ["late"]);
        case.kill();
    }
    case.append("new\n");
    assert_eq!(case.told(), ["new"]);
    program.write_all(b"very late\n").unwrap();
    assert_eq!(case.later(Duration::from_secs(50)), ["very late"]);
    assert_eq!(case.later(Duration::from_secs(61)), [""; 0]);
    assert_eq!(case.reader.retired.len(), 0, "it has rested, and the program writes elsewhere");
}

#[test]
fn the_half_line_at_the_end_of_a_rotated_file_is_not_lost() {
    let mut case = Case::after("one\nha");
    case.rename("x.log.1");
    case.append("new\n");
    assert_eq!(case.told(), ["new"]);
    assert_eq!(case.later(Duration::from_secs(61)), ["ha"]);
}

#[test]
fn several_rotations_while_nobody_read_are_read_in_order() {
    let mut case = Case::after(&much("a"));
    for (name, text) in [("x.log-20260101", "b\n"), ("x.log.old", "c\n"), ("x-20260103.log", "d\n")]
    {
        case.rename(name);
        case.append(text);
    }
    fs::write(case.beside("x-other.log"), "not of this log\n").unwrap();
    case.kill();
    assert_eq!(case.told(), ["b", "c", "d"]);
}

#[test]
fn a_file_that_was_truncated_and_has_grown_past_the_place_is_noticed() {
    // Promtail's loss: it compares sizes only.
    let mut case = Case::after(&much("before"));
    for is_killed in [false, true] {
        let text = format!("again {is_killed}\n");
        fs::write(&case.path, text.repeat(100)).unwrap();
        if is_killed {
            case.kill();
        }
        let told = case.told();
        assert_eq!(told[0], "<Truncated None>");
        assert_eq!((told.len(), told[1].as_str()), (101, text.trim_end()));
    }
}

#[test]
fn a_file_that_begins_alike_or_ends_alike_before_the_place_is_noticed() {
    let same = much("the same");
    for (first, second, what) in [
        (format!("{same}first run\n"), format!("{same}other run\nmore\n"), "the first bytes"),
        (format!("first run\n{same}"), format!("other run\n{same}more\n"), "the last bytes"),
    ] {
        for is_killed in [false, true] {
            let mut case = Case::after(&first);
            fs::write(&case.path, &second).unwrap();
            if is_killed {
                case.kill();
            }
            let told = case.told();
            assert_eq!((told[0].as_str(), told.len()), ("<Truncated None>", 43), "{what}");
        }
    }
}

#[test]
fn a_power_cut_that_takes_the_end_of_a_file_does_not_double_the_rest() {
    let mut case = Case::new();
    for part in 0..200 {
        case.append(&much(&format!("part {part}")));
        case.told();
    }
    let mut position: serde_json::Value = serde_json::to_value(&case.position).unwrap();
    position["boot"] = "another one".into();
    let size = fs::metadata(&case.path).unwrap().len();
    OpenOptions::new().write(true).open(&case.path).unwrap().set_len(size - 3_000).unwrap();
    for _ in 0..3 {
        case.append("\nafter the power cut\n");
        let position = serde_json::from_value(position.clone()).unwrap();
        case.reader = Follower::new(config(&case.path), Some(position));
        let told = case.told();
        assert_eq!(told[0], "<Truncated None>");
        assert!(told.len() < 1_000, "of 8000 lines {} come again", told.len());
        assert_eq!(told.last().unwrap(), "after the power cut");
        // Now beyond the place, too.
        case.append(&much("more").repeat(4));
    }
    // In the same boot it is a program that begins anew, with what may be the same text.
    position["boot"] = super::super::boot_id().into();
    case.reader =
        Follower::new(config(&case.path), Some(serde_json::from_value(position).unwrap()));
    assert!(case.told().len() > 7_000);
}

#[test]
fn small_files_that_look_alike_are_told_apart() {
    // Vector's loss: a fingerprint of the first line.
    let mut case = Case::after("start\n");
    case.rename("x.log.1");
    case.append("start\nnew\n");
    case.kill();
    assert_eq!(case.told(), ["start", "new"]);
    fs::remove_file(&case.path).unwrap();
    case.append("start\nnew\nnewer\n");
    case.kill();
    assert_eq!(case.told(), ["<Gone None>", "start", "new", "newer"]);
}

#[test]
fn another_file_with_the_same_inode_is_not_taken_for_the_old_one() {
    // Vector's loss: the device and the inode alone. File systems often give the inode of a removed file again.
    let mut case = Case::after("start\nold\n");
    let mut position: serde_json::Value = serde_json::to_value(&case.position).unwrap();
    fs::remove_file(&case.path).unwrap();
    case.append("start\nold\nnew\n");
    position["current"]["inode"] = fs::metadata(&case.path).unwrap().ino().into();
    case.reader =
        Follower::new(config(&case.path), Some(serde_json::from_value(position).unwrap()));
    assert_eq!(case.told(), ["<Gone None>", "start", "old", "new"]);
}

#[test]
fn where_no_one_knows_when_a_file_was_created_its_text_decides() {
    let mut case = Case::after(&much("a"));
    let mut position: serde_json::Value = serde_json::to_value(&case.position).unwrap();
    position["current"].as_object_mut().unwrap().remove("born");
    let position: Position = serde_json::from_value(position).unwrap();
    case.append("more\n");
    case.reader = Follower::new(config(&case.path), Some(position.clone()));
    assert_eq!(case.told(), ["more"]);
    fs::write(&case.path, much("b")).unwrap();
    case.reader = Follower::new(config(&case.path), Some(position));
    assert_eq!(case.told().len(), 41, "a gap and all lines");
}

#[test]
fn the_rest_of_a_truncated_file_is_read_from_its_copy() {
    let mut case = Case::after(&much("a"));
    case.append("rest\n");
    for number in 1..3 {
        fs::copy(&case.path, case.beside(&format!("x.log.{}", 3 - number))).unwrap();
        fs::write(&case.path, format!("epoch {number}\n")).unwrap();
    }
    assert_eq!(case.told(), ["rest", "<Truncated None>", "epoch 1", "<Truncated None>", "epoch 2"]);
}

#[test]
fn bytes_before_a_hole_are_counted() {
    // A program that doesn't append goes on where it was.
    let mut case = Case::new();
    let mut program = File::create(&case.path).unwrap();
    program.write_all(much("a").as_bytes()).unwrap();
    case.told();
    program.write_all(b"lost\n").unwrap();
    OpenOptions::new().write(true).open(&case.path).unwrap().set_len(0).unwrap();
    assert_eq!(case.told(), [""; 0]);
    program.write_all(b"new\n").unwrap();
    assert_eq!(case.told(), ["<Truncated Some(5)>", "new"]);
    program.write_all(b"newer\n").unwrap();
    case.kill();
    assert_eq!(case.told(), ["newer"]);
}

#[test]
fn a_compressed_file_is_a_gap() {
    let mut case = Case::after(&much("a"));
    fs::remove_file(&case.path).unwrap();
    fs::write(case.beside("x.log.1.gz"), "packed").unwrap();
    case.append("new\n");
    case.kill();
    assert_eq!(case.told(), ["<Compressed None>", "new"]);
}

#[test]
fn a_compressed_file_between_two_others_is_a_gap() {
    for is_killed in [false, true] {
        let mut case = Case::after(&much("a"));
        case.rename("x.log.2");
        // gzip gives its file the time of the original.
        let modified = case.append("lost\n").metadata().unwrap().modified().unwrap();
        File::create(case.beside("x.log.1.gz")).unwrap().set_modified(modified).unwrap();
        fs::remove_file(&case.path).unwrap();
        case.append("new\n");
        if is_killed {
            case.kill();
        }
        assert_eq!(case.told(), ["<Compressed None>", "new"]);
    }
}

#[test]
fn a_copy_that_somebody_made_is_not_read() {
    let mut case = Case::after(&much("a"));
    fs::copy(&case.path, case.beside("x.log.bak")).unwrap();
    case.append("b\n");
    case.rename("x.log.1");
    case.append("c\n");
    assert_eq!(case.told(), ["b", "c"]);
}

#[test]
fn a_log_that_was_moved_with_its_folder_is_known_again() {
    let mut case = Case::after(&much("a"));
    case.append("more\n");
    let text = fs::read(&case.path).unwrap();
    fs::remove_file(&case.path).unwrap();
    fs::write(case.beside("x.log.other"), "").unwrap();
    fs::write(&case.path, text).unwrap();
    case.kill();
    assert_eq!(case.told(), ["more"]);
}

#[test]
fn a_link_is_followed_to_another_file() {
    let mut case = Case::new();
    fs::write(case.beside("run-1.txt"), "one\n").unwrap();
    fs::write(case.beside("run-2.txt"), "two\n").unwrap();
    symlink(case.beside("run-1.txt"), &case.path).unwrap();
    assert_eq!(case.told(), ["one"]);
    fs::remove_file(&case.path).unwrap();
    symlink(case.beside("run-2.txt"), &case.path).unwrap();
    assert_eq!(case.told(), ["two"]);
}

#[test]
fn what_is_no_file_is_told_once_and_over_when_it_is() {
    let mut case = Case::new();
    assert_eq!(case.told(), ["<the log x.log is not there>"]);
    fs::create_dir(&case.path).unwrap();
    assert_eq!(case.told(), ["<the log x.log is a directory, not a file>"]);
    assert_eq!(case.later(Duration::from_mins(1)), [""; 0]);
    fs::remove_dir(&case.path).unwrap();
    symlink("x.log", &case.path).unwrap();
    assert_eq!(case.told(), ["<the log x.log is a loop of links>"]);
    fs::remove_file(&case.path).unwrap();
    symlink("/dev/zero", &case.path).unwrap();
    assert_eq!(case.told(), ["<the log x.log is a device, not a file>"]);
    fs::remove_file(&case.path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &case.path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert_eq!(case.told(), ["<the log x.log is a FIFO, not a file>"]);
    fs::remove_file(&case.path).unwrap();
    case.append("a line\n");
    assert_eq!(case.told(), ["a line"]);
    assert_eq!(
        open::Refusal::from(std::io::Error::from_raw_os_error(13)).sentence(Path::new("/x")),
        "the log /x may not be read by this user"
    );
}

#[test]
fn a_moment_without_a_file_is_no_trouble() {
    let mut case = Case::after("one\n");
    case.rename("x.log.1");
    assert_eq!(case.told(), [""; 0]);
    assert_eq!(case.later(Duration::from_secs(2)), ["<the log x.log is not there>"]);
    case.append("two\n");
    assert_eq!(case.told(), ["two"]);
}

#[test]
fn any_bytes_are_lines() {
    let mut case = Case::new();
    fs::write(&case.path, b"\0\0 nul\n\xff\xfe\n\n").unwrap();
    assert_eq!(case.told(), ["\0\0 nul", "\u{fffd}\u{fffd}", ""]);
}

#[test]
fn a_position_that_was_tampered_with_is_refused() {
    let mut case = Case::after("one\n");
    case.told();
    let text = serde_json::to_string(&case.position).unwrap();
    let hash = text.split("\"hash\":\"").nth(1).unwrap().get(..32).unwrap();
    let bad = text.replace(hash, "xyz");
    assert!(serde_json::from_str::<Position>(&bad).is_err());
}

#[tokio::test]
async fn lines_come_as_they_are_written_and_a_dropped_wait_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    fs::write(&path, "").unwrap();
    // The interval is so long that only the kernel can have told of it.
    let config = Config { poll: Duration::from_mins(10), ..config(&path) };
    let mut tail = Tail::new(config, None);
    assert!(matches!(tail.next().await, Read::Open { .. }));
    let mut found = Vec::new();
    for number in 0..50 {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        writeln!(file, "{number}").unwrap();
        if number % 10 == 9 {
            fs::rename(&path, dir.path().join(format!("x.log.{number}"))).unwrap();
            fs::write(&path, "").unwrap();
        }
        while found.len() <= number {
            let wait =
                tokio::time::timeout(Duration::from_micros(fastrand::u64(..3_000)), tail.next());
            if let Ok(Read::Lines { lines, .. }) = wait.await {
                found.extend(lines.into_iter().map(|it| String::from_utf8(it.bytes).unwrap()));
            }
        }
    }
    assert_eq!(found, (0..50).map(|it| it.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_the_kernels_help_the_intervals_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.log");
    fs::write(&path, "").unwrap();
    let config = Config { poll: Duration::from_millis(5), inotify: false, ..config(&path) };
    let mut tail = Tail::new(config, None);
    assert!(matches!(tail.next().await, Read::Open { .. }));
    fs::write(&path, "one\n").unwrap();
    assert!(matches!(tail.next().await, Read::Lines { .. }));
}

#[test]
fn the_half_line_at_the_end_of_a_copy_is_not_lost() {
    for is_killed in [false, true] {
        let mut case = Case::after(&much("a"));
        case.append("rest\nha");
        fs::copy(&case.path, case.beside("x.log.1")).unwrap();
        fs::write(&case.path, "lf\nnew\n").unwrap();
        if is_killed {
            case.kill();
        }
        assert_eq!(case.told(), ["rest", "ha", "<Truncated None>", "lf", "new"], "{is_killed}");
        case.kill();
        assert_eq!(case.told(), [""; 0]);
    }
}

#[test]
fn a_file_that_cannot_be_read_at_first_is_begun_where_the_configuration_says() {
    let mut case = Case::new();
    fs::write(case.beside("y.log"), "old\n").unwrap();
    symlink("x.log", &case.path).unwrap();
    case.reader = Follower::new(Config { start: Start::End, ..config(&case.path) }, None);
    assert_eq!(case.told(), ["<the log x.log is a loop of links>"]);
    fs::remove_file(&case.path).unwrap();
    fs::rename(case.beside("y.log"), &case.path).unwrap();
    assert_eq!(case.told(), [""; 0]);
    case.append("new\n");
    assert_eq!(case.told(), ["new"]);
}

#[test]
fn the_last_lines_of_a_file_of_very_long_ones_are_as_many_as_the_last_mib_has() {
    let mut case = Case::new();
    let long = "x".repeat(400_000);
    for number in 0..6 {
        case.append(&format!("{number} {long}\n"));
    }
    let mut begun = |count| {
        let start = Start::LastLines(count);
        case.reader = Follower::new(Config { start, ..config(&case.path) }, None);
        case.told().iter().map(|line| line[..1].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(begun(1), ["5"]);
    assert_eq!(begun(9), ["4", "5"]);
    assert_eq!(begun(0), [""; 0]);
    fs::write(&case.path, "x".repeat(2 << 20)).unwrap();
    case.reader = Follower::new(Config { start: Start::LastLines(9), ..config(&case.path) }, None);
    assert_eq!(case.told(), [""; 0]);
    case.append("end\nnew\n");
    assert_eq!(case.told(), ["end", "new"], "a line that began before is read from here on");
}

/// Makes both files anew until a clock can't tell which came first; `false` if it always can.
fn at_once(first: (&Path, &str), second: (&Path, &str)) -> bool {
    (0..1_000).any(|_| {
        let born = [first, second].map(|(path, text)| {
            fs::remove_file(path).ok();
            let mut file = File::create_new(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.metadata().unwrap().created().ok()
        });
        born[0] == born[1]
    })
}

#[test]
fn copies_that_no_clock_tells_apart_are_read_once_each() {
    let mut case = Case::after(&much("a"));
    let (first, second) = (case.beside("x.log.2"), case.beside("x.log.1"));
    let rest = much("a") + "rest\n";
    if !at_once((&first, &rest), (&second, "epoch 1\n")) {
        return;
    }
    let modified = fs::metadata(&second).unwrap().modified().unwrap();
    File::options().write(true).open(&first).unwrap().set_modified(modified).unwrap();
    fs::write(&case.path, "epoch 2\n").unwrap();
    let told = case.told();
    assert_eq!(told, ["rest", "<Truncated None>", "epoch 1", "<Truncated None>", "epoch 2"]);
}

/// The position as a file system would give it that does not know when a file was created.
fn birthless(position: Option<&Position>) -> serde_json::Value {
    let mut position = serde_json::to_value(position).unwrap();
    position["current"].as_object_mut().unwrap().remove("born");
    position
}

#[test]
fn the_file_of_another_program_with_a_reused_inode_is_not_read() {
    for text in ["", &*much("a")] {
        let mut case = Case::after(text);
        case.append("");
        case.told();
        let mut position = birthless(case.position.as_ref());
        fs::remove_file(&case.path).unwrap();
        let other = case.beside("other.txt");
        fs::write(&other, "a secret\n").unwrap();
        position["current"]["inode"] = fs::metadata(&other).unwrap().ino().into();
        case.append("new\n");
        let position = serde_json::from_value(position).unwrap();
        case.reader = Follower::new(config(&case.path), Some(position));
        assert_eq!(case.told(), ["<Gone None>", "new"]);
    }
}

#[test]
fn a_rotated_file_that_is_gone_after_a_kill_is_a_gap() {
    for is_truncated in [false, true] {
        let mut case = Case::after("one\nha");
        case.rename("x.log.1");
        case.append(&much("a"));
        case.told();
        fs::remove_file(case.beside("x.log.1")).unwrap();
        if is_truncated {
            fs::write(&case.path, "").unwrap();
        }
        case.kill();
        let gone = if is_truncated { [""; 0].as_slice() } else { &["<Gone Some(2)>"] };
        assert_eq!(case.told(), gone);
        case.append("b\n");
        let more = if is_truncated { ["<Truncated Some(2)>", "b"].as_slice() } else { &["b"] };
        assert_eq!(case.told(), more);
        case.kill();
        assert_eq!(case.told(), [""; 0], "it is told once");
    }
}

#[test]
fn the_half_line_of_a_rotated_file_waits_until_a_truncated_one_has_text() {
    let mut case = Case::after("one\nha");
    case.rename("x.log.2");
    case.append("two\n");
    assert_eq!(case.told(), ["two"]);
    case.rename("x.log.1");
    case.append("three\n");
    assert_eq!(case.told(), ["three"]);
    fs::write(&case.path, "").unwrap();
    assert_eq!(case.told(), [""; 0]);
    assert_eq!(case.later(Duration::from_secs(61)), [""; 0]);
    case.append("four\n");
    let mut told = case.told();
    told.extend(case.later(Duration::from_secs(61)));
    assert_eq!(told, ["<Truncated None>", "four", "ha"]);
}

/// Bytes of a line that has no end: more than what is kept of one, and than what is read at once.
const ENDLESS: u64 = 20 << 20;

#[test]
fn what_is_cut_of_a_line_without_an_end_is_counted_as_soon_as_its_file_is_rotated() {
    for how in ["rename", "copy", "truncate", "rename killed", "copy killed"] {
        let mut case = Case::after(&much("a"));
        case.append(&"x".repeat(usize::try_from(ENDLESS).unwrap()));
        assert_eq!(case.told_cut(), [""; 0], "{how}");
        match how {
            "copy" | "copy killed" => {
                fs::copy(&case.path, case.beside("x.log.1")).unwrap();
                fs::write(&case.path, "").unwrap();
            }
            "truncate" => fs::write(&case.path, "").unwrap(),
            _ => case.rename("x.log.1"),
        }
        case.append("new\n");
        if how.ends_with("killed") {
            case.kill();
        }
        let cut = format!("<{LINE_BYTES_MAX} kept, {} cut>", ENDLESS - LINE_BYTES_MAX as u64);
        let wanted = match how {
            "rename" | "rename killed" => vec![cut, "new".to_owned()],
            _ => vec![cut, "<Truncated None>".to_owned(), "new".to_owned()],
        };
        assert_eq!(case.told_cut(), wanted, "{how}");
        case.kill();
        assert_eq!(case.later(Duration::from_secs(61)), [""; 0], "{how}: it is told once");
    }
}

#[test]
fn what_was_seen_and_not_read_before_a_truncation_is_counted() {
    for is_killed in [false, true] {
        let mut case = Case::after("one\n");
        // More than one look takes.
        case.append(&much("a").repeat(2_000));
        let size = fs::metadata(&case.path).unwrap().len();
        let Step::Told(read) = case.reader.step(case.now) else { panic!("there is more") };
        let Read::Lines { position, .. } = *read else { panic!("lines come first") };
        let had = position.offset();
        case.position = Some(position);
        fs::write(&case.path, "new\n").unwrap();
        if is_killed {
            case.kill();
        }
        let told = case.told();
        let (gaps, lines): (Vec<_>, Vec<_>) = told.iter().partition(|it| it.starts_with('<'));
        // What was read already comes, but for a killed reader; the last of it is half a line.
        let read: u64 = lines.iter().map(|line| line.len() as u64 + 1).sum::<u64>() - 4;
        let lost = size - had - read.saturating_sub(1);
        assert!(lost > 100_000, "it was truncated before all of it was read");
        assert_eq!(gaps, [&format!("<Truncated Some({lost})>")], "killed: {is_killed}");
        assert_eq!(told.last().map(String::as_str), Some("new"));
    }
}
