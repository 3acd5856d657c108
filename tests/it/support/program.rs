//! The real binary with chosen settings, and what a finished run of it printed.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::tools::{Running, run_with_input, tool};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_lamda-node");

/// Account 0 of every development chain.
pub(crate) const ACCOUNT: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

/// The program in an empty folder, with these settings and no others.
pub(crate) struct Program {
    dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Program {
    /// With a data folder of its own, which may be set to another.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the program");
        let mut program = Self { dir, settings: Vec::new() };
        // Root's default is the same folder for everybody.
        program.set("DATA_DIR", &program.path("data"));
        for (name, value) in settings {
            program.set(name, value);
        }
        program
    }

    /// Sets one more; the last value of a name counts.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// A path in the program's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a file that only its owner can read, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file of the test's own");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).expect("its mode");
        self.path(name)
    }

    /// The program with these arguments, not started, without input.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).current_dir(self.dir.path()).env_clear();
        command.env("HOME", self.dir.path()).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same, with the files that it opens written to `trace` by strace, which ends with it.
    pub(crate) fn traced(&self, args: &[&str], trace: &Path) -> Command {
        let plain = self.command(args);
        let mut command = Command::new(tool("strace"));
        // The tracer is the grandchild, so that a kill ends the program.
        command.args(["-D", "-f", "-q", "-e", "trace=open,openat,openat2", "-o"]).arg(trace);
        command.arg(PROGRAM).args(args).current_dir(self.dir.path()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command until it ends, which must be soon.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.run_with_input(args, "")
    }

    /// Runs a command with `input` as its standard input until it ends, which must be soon.
    #[track_caller]
    pub(crate) fn run_with_input(&self, args: &[&str], input: &str) -> Ended {
        Ended(run_with_input(&mut self.command(args), input))
    }

    /// Starts a command that keeps running, and waits for its first line.
    pub(crate) fn start(&self, args: &[&str]) -> (Running, String) {
        let mut running = Running::start(self.command(args).stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = running.0.stdout.take().expect("its output is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        (running, line)
    }
}

/// A finished run.
pub(crate) struct Ended(pub(crate) Output);

impl Ended {
    /// Its exit code.
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().expect("no signal ended it")
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).expect("it prints UTF-8")
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).expect("it prints UTF-8")
    }

    /// Standard output, then standard error.
    pub(crate) fn both(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Standard output, which has one JSON object a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("a line of JSON");
        self.stdout().lines().map(parse).collect()
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code(), 0, "{}", self.both());
        self
    }

    /// The one JSON object that it printed; asserts that it succeeded.
    #[track_caller]
    pub(crate) fn object(&self) -> Value {
        assert_eq!(self.code(), 0, "{}", self.both());
        serde_json::from_str(&self.stdout()).expect("JSON")
    }

    /// Asserts that it ended with this code and gave this reason on standard error.
    #[track_caller]
    pub(crate) fn is_refused(&self, code: i32, why: &str) {
        assert_eq!(self.code(), code, "{}", self.both());
        assert!(self.stderr().contains(why), "{}", self.stderr());
    }

    /// Asserts that `verify` found its document not valid for this reason, and said so in one line.
    #[track_caller]
    pub(crate) fn is_not_valid(&self, why: &str) {
        let (said, stdout) = (self.both(), self.stdout());
        assert_eq!(self.code(), 1, "{said}");
        assert!(stdout.starts_with("NOT VALID: ") && stdout.contains(why), "{said}");
        assert_eq!(stdout.lines().count(), 1, "{said}");
    }
}
