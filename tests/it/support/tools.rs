//! The real parts' programs, in `.tools/bin` of this repository (scripts/test fills it) or in `PATH`; free
//! ports; bounded waits; and child processes.

use std::io::{Read, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The path of the program of this name; panics if it is missing.
pub(crate) fn tool(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(own)
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: scripts/test installs it"))
}

/// Below the range of ephemeral ports, so that no outgoing connection takes one.
const PORTS: Range<u16> = 10_000..32_000;

/// A free loopback port, which no other test gets while this process lives: a server that starts late
/// could otherwise be mistaken for another test's.
pub(crate) fn free_port() -> u16 {
    // A UDP port of the same number reserves each: nothing else uses it, and it ends with the process.
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    for _ in 0..1000 {
        let port = fastrand::u16(PORTS);
        let Ok(taken) = UdpSocket::bind(("127.0.0.1", port)) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free")
}

/// Waits until `probe` returns a value; panics with `what` after `limit`.
pub(crate) fn eventually<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A child process; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts `command`; panics with the program's name if it can't be started.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_owned();
        Self(
            command
                .spawn()
                .unwrap_or_else(|err| panic!("{} can't be started: {err}", name.display())),
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// No program that [`run_with_input`] runs takes longer, even on a busy machine.
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// Runs a command with `input` as its standard input until it ends, which must be soon.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let stdout = read_aside(running.0.stdout.take().expect("its output is piped"));
    let stderr = read_aside(running.0.stderr.take().expect("its output is piped"));
    let mut stdin = running.0.stdin.take().expect("its input is piped");
    // A program that needs no input may have ended already.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let what = format!("{} {:?} ends", command.get_program().display(), command.get_args());
    let status = eventually(&what, RUN_LIMIT, || {
        running.0.try_wait().expect("the program can be waited for")
    });
    let [stdout, stderr] = [stdout, stderr].map(|text| text.join().expect("its output"));
    Output { status, stdout, stderr }
}

/// Reads to the end on a thread of its own, so that a full pipe blocks nobody.
fn read_aside(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}
