//! A proxy in front of a TCP server that can cut, silence and restore its connections. It runs on its own
//! threads, so that a test may block.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::acceptor::Acceptor;

/// The state of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It carries everything.
    Whole,
    /// Connections are closed at once.
    Cut,
    /// Connections are accepted and stay open, and no byte is passed on.
    Silent,
}

/// The proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Both ends of every connection, to shut them down.
    open: Vec<TcpStream>,
    is_over: bool,
}

impl TcpProxy {
    /// Listens on a free port for the server at this loopback port.
    pub(crate) fn start(upstream: u16) -> Self {
        let state = State { line: Line::Whole, open: Vec::new(), is_over: false };
        let shared = Arc::new(Shared { upstream, state: state.into(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = Acceptor::start(move |client| accepting.accept(&client));
        Self { acceptor, shared }
    }

    /// Where clients connect, `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        self.acceptor.address().to_string()
    }

    /// Closes all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.shared.set(Line::Cut);
        self.shared.end_all();
    }

    /// Passes nothing on in either direction, and closes nothing.
    pub(crate) fn silence(&self) {
        self.shared.set(Line::Silent);
    }

    /// Passes everything on again, also what was sent during the silence.
    pub(crate) fn mend(&self) {
        self.shared.set(Line::Whole);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        self.shared.end_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, line: Line) {
        self.lock().line = line;
        self.changed.notify_all();
    }

    fn end_all(&self) {
        for stream in self.lock().open.drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    fn accept(self: &Arc<Self>, client: &TcpStream) {
        let mut state = self.lock();
        if state.is_over || state.line == Line::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.upstream)) else { return };
        let copies = [client, &server].map(|end| end.try_clone().expect("a descriptor"));
        state.open.extend(copies);
        drop(state);
        for (from, to) in [(client, &server), (&server, client)] {
            let (from, to) = (from.try_clone(), to.try_clone());
            let (from, to) = (from.expect("a descriptor"), to.expect("a descriptor"));
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.carry(from, to));
        }
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            let mut state = self.lock();
            while state.line == Line::Silent && !state.is_over {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let carries = state.line == Line::Whole && !state.is_over;
            drop(state);
            if !carries || to.write_all(&piece[..count]).is_err() {
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}
