//! Looks at real processes, and at folders laid out as `/proc`.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::clock::SystemClock;
use crate::watch::checks::{Answer, Checks, judge};

/// A program of the test's own, killed with all that it began.
struct Program(Child);

impl Program {
    /// A shell whose command line has the mark, and that began another process.
    fn start(mark: &str) -> Self {
        let script = format!("sleep 600 & : {mark}; wait");
        let mut command = Command::new("sh");
        command.args(["-c", &script, mark]).process_group(0).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        self.0.wait().ok();
    }
}

fn by(pattern: &str) -> Vec<By> {
    vec![By::Command { pattern: Pattern::new(pattern).unwrap(), except: None }]
}

fn take(programs: &[Vec<By>]) -> Look {
    Look::take(&SystemClock, programs)
}

/// Looks until the program has so many processes.
fn until(programs: &[Vec<By>], count: usize) -> Found {
    let begun = std::time::Instant::now();
    loop {
        let found = take(programs).found(0);
        if found.pids.len() == count {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{found:?}");
        std::thread::yield_now();
    }
}

fn mark(name: &str) -> String {
    format!("lamda-seed-{name}-{}", std::process::id())
}

#[test]
fn a_program_is_found_by_its_command_line_with_all_that_it_began() {
    let mark = mark("tree");
    let before = SystemClock.now();
    let program = Program::start(&mark);
    let found = until(&[by(&mark)], 2);
    assert_eq!((found.is_there, found.pids[0]), (Ok(true), program.0.id()));
    assert_eq!(found.first.unwrap().0, program.0.id());
    let started = found.started.unwrap();
    assert!(started.plus(Duration::from_secs(2)) >= before, "{started} {before}");
    assert!(started <= SystemClock.now().plus(Duration::from_secs(2)));
    let uses = found.uses;
    assert_eq!((uses.processes, uses.threads), (Ok(2), Ok(2)));
    assert!(uses.resident_bytes.unwrap() > 4096 && uses.files.unwrap() >= 6, "{uses:?}");
    assert!(uses.cpu_ms.unwrap() < 10_000);
    let first = found.first;
    drop(program);
    let gone = take(&[by(&mark)]).found(0);
    assert_eq!((gone.is_there, gone.first, gone.pids.len()), (Ok(false), None, 0));
    assert_eq!(gone.uses.resident_bytes, Err(Unknown::Gone), "not 0");
    let _again = Program::start(&mark);
    assert_ne!(until(&[by(&mark)], 2).first, first, "a new one is another one");
}

#[test]
fn what_only_starts_a_program_does_not_count() {
    let mark = mark("deny");
    let _program = Program::start(&mark);
    let pattern = Pattern::new(&mark).unwrap();
    let except = Some(Pattern::new("sleep 600").unwrap());
    until(&[by(&mark)], 2);
    let found = take(&[vec![By::Command { pattern, except }]]).found(0);
    assert_eq!(found.is_there, Ok(false));
}

#[test]
fn a_pid_file_means_its_process_unless_the_number_was_given_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pid");
    let program = Program::start(&mark("file"));
    let look = || take(&[vec![By::PidFile(path.clone())]]).is_there(0);
    assert_eq!(look(), Ok(false), "no file");
    std::fs::write(&path, format!("{}\n", program.0.id())).unwrap();
    assert_eq!(look(), Ok(true));
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let yesterday = std::time::UNIX_EPOCH
        + Duration::from_millis(SystemClock.now().unix_ms())
            .saturating_sub(Duration::from_hours(24));
    file.set_modified(yesterday).unwrap();
    assert_eq!(look(), Ok(false), "the file is older than the process");
    std::fs::write(&path, "x".repeat(1000)).unwrap();
    assert_eq!(look(), Ok(false), "no number");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("x.pid", &path).unwrap();
    assert_eq!(look(), Err(Unknown::Failed), "what can't be read says nothing");
}

/// A clock that stands still.
#[derive(Debug, Default)]
pub(super) struct Stopped(std::sync::atomic::AtomicU64);

impl Stopped {
    /// Lets time pass.
    pub(super) fn wait(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), std::sync::atomic::Ordering::Relaxed);
    }
}

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000).plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    async fn sleep(&self, span: Duration) {
        self.wait(span);
    }
}

/// A folder laid out as `/proc`: number, name, parent, command line and groups of each process.
pub(super) fn laid_out(processes: &[(u32, &str, u32, &str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (pid, name, parent, command, groups) in processes {
        let folder = dir.path().join(pid.to_string());
        std::fs::create_dir(&folder).unwrap();
        let size = if command.is_empty() { 0 } else { 4096 };
        let stat = format!(
            "{pid} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 10 20 0 0 20 0 3 0 {pid} {size} 7 1"
        );
        std::fs::write(folder.join("stat"), stat).unwrap();
        std::fs::write(folder.join("cmdline"), command.replace(' ', "\0")).unwrap();
        std::fs::write(folder.join("cgroup"), groups).unwrap();
    }
    dir
}

#[test]
fn a_unit_and_a_container_are_all_processes_of_their_groups() {
    let id = "0123456789abcdef0123456789abcdef";
    let docker = format!("0::/system.slice/docker-{id}.scope\n");
    let proc = laid_out(&[
        (1, "systemd", 0, "init", "0::/init.scope\n"),
        (2, "kthreadd", 0, "", "0::/\n"),
        (3, "x) y", 2, "", "0::/\n"),
        (10, "a", 1, "a", "0::/system.slice/a.service\n"),
        (11, "b", 10, "b", "0::/system.slice/a.service/sub\n"),
        (12, "c", 1, "c", "0::/system.slice/aa.service\n"),
        (20, "d", 12, "d", &docker),
    ]);
    let programs = [vec![By::Unit("a.service".to_owned())], vec![By::Container(id.to_owned())]];
    let look = Look::take_at(proc.path(), &[], &SystemClock, &programs);
    assert_eq!((look.found(0).pids, look.found(1).pids), (vec![10, 11], vec![20]));
    assert_eq!(look.found(0).uses.threads, Ok(6));
    assert_eq!(look.sight(), Ok(()));
}

#[test]
fn where_processes_are_hidden_a_program_that_is_not_seen_is_unknown_and_not_gone() {
    let hidden = laid_out(&[(10, "a", 1, "python a", "")]);
    let look = Look::take_at(hidden.path(), &[], &SystemClock, &[by("a$"), by("b$")]);
    assert_eq!((look.is_there(0), look.is_there(1)), (Ok(true), Err(Unknown::Denied)));
    let none = Look::take_at(Path::new("/nonexistent"), &[], &SystemClock, &[by("a")]);
    assert_eq!(none.is_there(0), Err(Unknown::Gone));
    assert_eq!(none.is_there(7), Err(Unknown::Gone), "a program that was not asked for");
}

#[test]
fn a_command_line_that_is_too_long_to_be_read_is_unknown_if_what_was_read_does_not_match() {
    let long = format!("java -cp {} Main", "/lib/x.jar:".repeat(1_000));
    let longer = format!("java -cp {} Late", "/lib/x.jar:".repeat(20_000));
    let proc = laid_out(&[
        (1, "init", 0, "init", ""),
        (2, "kthreadd", 0, "", ""),
        (10, "java", 1, &long, ""),
    ]);
    let programs = [by("Main$"), by("Late$"), by("^java"), vec![By::Unit("x".to_owned())]];
    let look = Look::take_at(proc.path(), &[], &SystemClock, &programs);
    assert_eq!((look.is_there(0), look.is_there(1)), (Ok(true), Ok(false)));
    std::fs::write(proc.path().join("10/cmdline"), longer.replace(' ', "\0")).unwrap();
    let look = Look::take_at(proc.path(), &[], &SystemClock, &programs);
    let cut = Err(Unknown::NotSupported);
    assert_eq!((look.is_there(0), look.is_there(1)), (cut, cut));
    assert_eq!((look.is_there(2), look.is_there(3)), (Ok(true), Ok(false)));
}

#[test]
fn in_a_container_that_no_file_tells_of_a_program_that_is_not_seen_is_unknown() {
    let mounts = |kind: &str| {
        format!("1 0 0:9 / / rw - {kind} none rw\n2 1 0:5 / /proc rw - proc proc rw\n")
    };
    let is_there = |processes: &[_], kind: &str| {
        let proc = laid_out(processes);
        std::fs::create_dir(proc.path().join("self")).unwrap();
        std::fs::write(proc.path().join("self/mountinfo"), mounts(kind)).unwrap();
        Look::take_at(proc.path(), &[], &SystemClock, &[by("launcher")]).is_there(0)
    };
    // A pod whose containers share their processes.
    let pod = [(1, "pause", 0, "/pause", ""), (10, "sh", 1, "sh", "")];
    assert_eq!(is_there(&pod, "overlay"), Err(Unknown::NotSupported));
    // A live system has such a root, too.
    let live = [(1, "init", 0, "init", ""), (2, "kthreadd", 0, "", "")];
    assert_eq!(is_there(&live, "overlay"), Ok(false));
}

#[test]
fn processes_that_name_each_other_as_parents_and_torn_files_end_the_look_all_the_same() {
    let proc = laid_out(&[
        (1, "init", 0, "init", ""),
        (2, "kthreadd", 0, "", ""),
        (10, "a", 11, "run a", ""),
        (11, "b", 10, "run b", ""),
        (12, "c", 12, "run c", ""),
    ]);
    std::fs::create_dir(proc.path().join("13")).unwrap();
    std::fs::write(proc.path().join("14"), "").unwrap();
    let look = Look::take_at(proc.path(), &[], &SystemClock, &[by("run"), by("run b")]);
    assert_eq!(look.found(0).pids, [10, 11, 12]);
    assert_eq!(look.found(1).pids, [11, 10]);
}

#[test]
fn a_session_is_there_while_its_process_is_and_holds_what_was_begun_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("S-rig");
    std::fs::create_dir(&folder).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("10.gensyn")).unwrap();
    let _stale = std::os::unix::net::UnixListener::bind(folder.join("99.old")).unwrap();
    let proc = laid_out(&[
        (1, "init", 0, "init", ""),
        (2, "kthreadd", 0, "", ""),
        (10, "screen", 1, "SCREEN", ""),
        (11, "bash", 10, "bash", ""),
        (12, "python", 11, "python -m launcher", ""),
        (13, "python", 1, "python -m other", ""),
        (14, "screen", 1, "SCREEN -dmS hidden sh", ""),
    ]);
    let folders = [dir.path().to_owned()];
    let programs = [by("launcher"), by("other"), vec![By::Session("gensyn".to_owned())]];
    let look = Look::take_at(proc.path(), &folders, &SystemClock, &programs);
    let (sessions, may_hide) = look.sessions_in(&folders);
    let names: Vec<&str> = sessions.iter().map(|session| session.name.as_str()).collect();
    assert_eq!((names, may_hide), (vec!["gensyn", "hidden"], false));
    assert_eq!((look.is_within(0, &sessions), look.is_within(1, &sessions)), (Ok(true), Ok(false)));
    assert_eq!(look.found(2).pids, [10, 11, 12]);
}

#[test]
fn a_session_that_is_not_there_is_unknown_only_while_one_without_a_name_hides_its_socket() {
    let shut = tempfile::tempdir().unwrap();
    // A folder that can't be listed, also by root.
    std::os::unix::fs::symlink("loop", shut.path().join("loop")).unwrap();
    let folders = [shut.path().join("loop")];
    let programs = [vec![By::Session("gensyn".to_owned())]];
    let mut processes = vec![
        (1, "init", 0, "init", ""),
        (2, "kthreadd", 0, "", ""),
        (10, "screen", 1, "SCREEN -S other", ""),
        (11, "screen", 1, "screen -r other", ""),
    ];
    let take = |processes: &[_]| {
        Look::take_at(laid_out(processes).path(), &folders, &SystemClock, &programs).is_there(0)
    };
    assert_eq!(take(&processes), Ok(false));
    processes.push((12, "screen", 1, "SCREEN", ""));
    assert_eq!(take(&processes), Err(Unknown::Denied));
}

#[test]
fn a_logs_age_is_that_of_its_last_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("swarm.log");
    let now = SystemClock.now();
    assert_eq!(log_age(&path, now), Ok(None));
    std::fs::write(&path, "x").unwrap();
    let age = log_age(&path, now.plus(Duration::from_secs(400))).unwrap().unwrap();
    assert!((395..=400).contains(&age.as_secs()), "{age:?}");
    assert_eq!(log_age(dir.path(), now), Err(Unknown::NotSupported));
    std::os::unix::fs::symlink("loop", dir.path().join("loop")).unwrap();
    assert_eq!(log_age(&dir.path().join("loop"), now), Err(Unknown::Failed));
}

#[test]
fn the_facts_of_this_machine_lead_to_the_originals_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (mark, log) = (mark("facts"), dir.path().join("x.log"));
    std::fs::write(&log, "x").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let checks = Checks::read(|name| {
        Some(match name {
            "ALLOW_REGEX" | "SCREEN_NAME" => mark.clone(),
            "DENY_REGEX" => "no such program".to_owned(),
            "PORT" => port.clone(),
            "LOG_FILE" => log.display().to_string(),
            _ => return None,
        })
    })
    .unwrap();
    let answer = || judge(&checks, &facts(&checks, &SystemClock));
    let down = |answer: Answer| match answer {
        Answer::Down(reason) => reason.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(down(answer()), "no_screen_no_proc");
    let _program = Program::start(&mark);
    until(&[by(&mark)], 2);
    assert_eq!(answer(), Answer::Up);
    drop(listener);
    assert_eq!(down(answer()), format!("port_closed_{port}"));
}

#[test]
fn a_look_at_all_processes_of_this_machine_is_cheap() {
    let programs: Vec<Vec<By>> = (0..8).map(|number| by(&format!("no-{number}"))).collect();
    let begun = std::time::Instant::now();
    let look = take(&programs);
    let took = begun.elapsed();
    assert!(!look.processes.is_empty());
    let most = Duration::from_millis(50)
        + Duration::from_micros(500) * u32::try_from(look.processes.len()).unwrap();
    assert!(took < most, "{} processes took {took:?}", look.processes.len());
}
