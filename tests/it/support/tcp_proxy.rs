//! A proxy before a TCP server whose line can be cut and mended. It runs on threads of its own, so
//! that a test can be blocking or not.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What the line does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It carries everything.
    Whole,
    /// Connections end at once.
    Cut,
    /// Connections are taken and stay, and nothing moves.
    Silent,
}

/// The proxy; its connections are cut when it is dropped.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
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
    /// Both ends of every connection, to end them by.
    open: Vec<TcpStream>,
    is_over: bool,
}

impl TcpProxy {
    /// Stands before the server at this port of the loopback, on a free port.
    pub(crate) fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let state = State { line: Line::Whole, open: Vec::new(), is_over: false };
        let shared = Arc::new(Shared { upstream, state: state.into(), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accepting.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Where clients connect, `127.0.0.1:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.shared.set(Line::Cut);
        self.shared.end_all();
    }

    /// Lets nothing through in either direction, and tells nobody.
    pub(crate) fn silence(&self) {
        self.shared.set(Line::Silent);
    }

    /// Carries everything again, also what was sent into the silence.
    pub(crate) fn mend(&self) {
        self.shared.set(Line::Whole);
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        self.shared.end_all();
        // The acceptor looks once more.
        TcpStream::connect(self.address).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
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

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let Ok(client) = client else { continue };
            let mut state = self.lock();
            if state.is_over {
                return;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", self.upstream)) else { continue };
            let copies = [&client, &server].map(|end| end.try_clone().expect("a descriptor"));
            if state.line == Line::Cut {
                continue;
            }
            state.open.extend(copies);
            drop(state);
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone(), to.try_clone());
                let (from, to) = (from.expect("a descriptor"), to.expect("a descriptor"));
                let shared = Arc::clone(&self);
                std::thread::spawn(move || shared.carry(from, to));
            }
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
