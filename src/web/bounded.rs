//! A server for clients that are not trusted to behave: it bounds how many there are, how long each stays and how
//! much it sends.
//!
//! Invariant: whatever clients do, the server holds at most so many connections, and each ends in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// What a server grants its clients.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at a time; more of them wait in the kernel's queue.
    pub connections: usize,
    /// How long a connection may last, its answers included.
    pub lifetime: Duration,
    /// How many bytes a client may send over a connection.
    pub request_bytes: usize,
}

/// Serves `app` on `listener` within these bounds until the returned future is dropped.
pub async fn serve_within(listener: TcpListener, app: Router, bounds: Bounds) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(bounds.connections));
    axum::serve(Bounded { listener, places, bounds }, app).await
}

#[derive(Debug)]
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    bounds: Bounds,
}

impl Listener for Bounded {
    type Io = Guest;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        stream.set_nodelay(true).ok();
        let end = Box::pin(tokio::time::sleep_until(Instant::now() + self.bounds.lifetime));
        (Guest { stream, _place: place, end, left: self.bounds.request_bytes }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A client's connection.
#[derive(Debug)]
struct Guest {
    stream: TcpStream,
    _place: Option<OwnedSemaphorePermit>,
    end: Pin<Box<Sleep>>,
    /// How many more bytes it may send.
    left: usize,
}

impl Guest {
    /// `Err` once its time is over; else its task is woken when that is so.
    fn is_in_time(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_in_time(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let got = buffer.filled().len() - before;
        match self.left.checked_sub(got) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_in_time(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_in_time(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
