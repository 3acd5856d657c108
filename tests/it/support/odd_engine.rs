//! A socket in front of an engine that changes some of its answers.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;

/// A replacement: original and new text, of equal length so that an answer's length stays right.
pub(crate) const NO_MEMORY_LIMIT: (&str, &str) =
    (r#""MemoryLimit":true,"SwapLimit":"#, r#""MemoryLimit":false,"SwapLimi":"#);

/// As an engine's that was built without seccomp.
pub(crate) const NO_SECCOMP: (&str, &str) = ("name=seccomp,", "name=another,");

/// As an engine's that does not say how much a container has written.
pub(crate) const NO_LAYER_SIZE: (&str, &str) = (r#""SizeRw":"#, r#""SizeRx":"#);

/// No holder of the network `internet` says that its rules are in force.
pub(crate) const NO_RULES: (&str, &str) = ("ready\n", "rules\n");

/// Serves until the test's process ends.
#[derive(Debug)]
pub(crate) struct OddEngine {
    dir: TempDir,
}

impl OddEngine {
    /// Passes everything on to the engine at this address, and answers with `said.0` replaced by `said.1`.
    pub(crate) fn start(host: &str, said: (&'static str, &'static str)) -> Self {
        assert_eq!(said.0.len(), said.1.len());
        Self::serve_each(host, move |client, engine| serve(client, engine, said))
    }

    /// Passes on everything except pulls: a pull reports `word` for one layer, is silent for a while,
    /// and ends.
    pub(crate) fn start_slow_to(host: &str, word: &'static str, silence: Duration) -> Self {
        Self::serve_each(host, move |client, engine| serve_pulls(client, engine, word, silence))
    }

    /// Passes on everything; each start of a container first waits for so long.
    pub(crate) fn start_late(host: &str, wait: Duration) -> Self {
        Self::serve_each(host, move |client, engine| serve_starts(client, engine, wait))
    }

    /// Passes on everything, except that a log which is followed ends in good order before this word.
    pub(crate) fn start_short_of(host: &str, word: &'static str) -> Self {
        Self::serve_each(host, move |client, engine| serve_logs(client, engine, word))
    }

    /// Serves each connection on a thread of its own; `serve` gets it and the engine's socket.
    fn serve_each(host: &str, serve: impl Fn(UnixStream, &Path) + Copy + Send + 'static) -> Self {
        let engine = PathBuf::from(host.strip_prefix("unix://").expect("a socket"));
        let dir = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(dir.path().join("odd.sock")).expect("a socket");
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let engine = engine.clone();
                std::thread::spawn(move || serve(client, &engine));
            }
        });
        Self { dir }
    }

    /// For `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("odd.sock").display())
    }
}

fn serve(client: UnixStream, engine: &Path, said: (&'static str, &'static str)) {
    let Ok(engine) = UnixStream::connect(engine) else { return };
    let ends = (client.try_clone().expect("a socket"), engine.try_clone().expect("a socket"));
    std::thread::spawn(move || pass(ends.0, ends.1, None));
    pass(engine, client, Some(said));
}

fn serve_pulls(mut client: UnixStream, engine: &Path, word: &str, silence: Duration) {
    let Ok(mut engine) = UnixStream::connect(engine) else { return };
    let ends = (engine.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
    std::thread::spawn(move || pass(ends.0, ends.1, None));
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut piece) {
        let head = String::from_utf8_lossy(&piece[..count]);
        if head.starts_with("POST ") && head.contains("/images/create?") {
            let line = format!("{{\"status\":\"{word}\",\"id\":\"1\"}}\n");
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                        connection: close\r\n\r\n";
            client.write_all(format!("{head}{line}").as_bytes()).ok();
            // Silence in place of the layer's download.
            std::thread::park_timeout(silence);
            client.shutdown(Shutdown::Both).ok();
            return;
        }
        if engine.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn serve_starts(mut client: UnixStream, engine: &Path, wait: Duration) {
    let Ok(mut engine) = UnixStream::connect(engine) else { return };
    let ends = (engine.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
    std::thread::spawn(move || pass(ends.0, ends.1, None));
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut piece) {
        if piece.starts_with(b"POST /") && holds(&piece[..count], "/start") {
            std::thread::park_timeout(wait);
        }
        if engine.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

fn serve_logs(client: UnixStream, engine: &Path, word: &str) {
    let Ok(engine) = UnixStream::connect(engine) else { return };
    let is_followed = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_followed);
    let (mut asks, mut gets) =
        (client.try_clone().expect("a socket"), engine.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let mut piece = vec![0; 64 << 10];
        while let Ok(count @ 1..) = asks.read(&mut piece) {
            if holds(&piece[..count], "/logs?follow=true") {
                asked.store(true, Ordering::Relaxed);
            }
            if gets.write_all(&piece[..count]).is_err() {
                return;
            }
        }
    });
    let (mut engine, mut client) = (engine, client);
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = engine.read(&mut piece) {
        let is_short = is_followed.load(Ordering::Relaxed) && holds(&piece[..count], word);
        let bytes = if is_short { &b"0\r\n\r\n"[..] } else { &piece[..count] };
        if client.write_all(bytes).is_err() || is_short {
            break;
        }
    }
    client.shutdown(Shutdown::Both).ok();
}

fn holds(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|part| part == word.as_bytes())
}

/// Copies bytes, with `said` replaced. The text must come in one piece, as in the engine's `/info`.
fn pass(mut from: UnixStream, mut to: UnixStream, said: Option<(&str, &str)>) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        let bytes = &mut piece[..count];
        if let Some((word, other)) = said
            && let Some(at) = bytes.windows(word.len()).position(|part| part == word.as_bytes())
        {
            bytes[at..at + other.len()].copy_from_slice(other.as_bytes());
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
}
