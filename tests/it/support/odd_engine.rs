//! A socket in front of an engine that tells other things of it than it says itself.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What is told in place of what: of one length, so that an answer's length stays true.
pub(crate) const NO_MEMORY_LIMIT: (&str, &str) =
    (r#""MemoryLimit":true,"SwapLimit":"#, r#""MemoryLimit":false,"SwapLimi":"#);

/// Serves as long as the test runs.
#[derive(Debug)]
pub(crate) struct OddEngine {
    dir: TempDir,
}

impl OddEngine {
    /// Passes everything on to the engine at this address, and answers with `said.0` replaced.
    pub(crate) fn start(host: &str, said: (&'static str, &'static str)) -> Self {
        assert_eq!(said.0.len(), said.1.len());
        let engine = PathBuf::from(host.strip_prefix("unix://").expect("a socket"));
        let dir = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(dir.path().join("odd.sock")).expect("a socket");
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let engine = engine.clone();
                std::thread::spawn(move || serve(client, &engine, said));
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

/// An answer of the engine's `/info` comes in one piece up to the place that matters.
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
