//! Where the real parts' programs are: `.tools/bin` of this repository (scripts/test fills it),
//! else `PATH`. Also free ports and a bounded wait on a value.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The program of this name; ends the test by name where it is missing.
pub(crate) fn tool(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin").join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(own)
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)))
        .find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: scripts/test installs it"))
}

/// Below those that a client's end of a connection gets: none of them takes one in passing.
const PORTS: Range<u16> = 10_000..32_000;

/// A loopback port that is free, and that no other test is told of as long as this process lives:
/// the server that is to have it may take its time, and whoever came first would be taken for it.
pub(crate) fn free_port() -> u16 {
    // One UDP port of the same number each: nobody else uses those, and they go with the process.
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

/// Waits until `probe` gives a value, at most `limit`; ends the test with `what` where it doesn't.
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

/// A child process that ends with the test, asked first and killed after.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts `command`; ends the test by the program's name where it can't be started.
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
