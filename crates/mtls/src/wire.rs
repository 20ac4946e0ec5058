//! A TLS connection that reads much and writes much at once: for tunnels, which carry many streams.
//!
//! What is written is gathered until its driver says that there is no more for now ([`Cork`]); then it is sealed in records as
//! long as can be, and written with one system call. What comes is read into one large buffer, which a connection on which
//! nothing moves does not hold. The session, its keys, its records and its alerts are rustls'.

mod adapter;
mod line;
mod spare;

use line::Line;
use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

/// A connection; see the module.
pub struct Wire<T>(Arc<Mutex<Line<T>>>);

/// Writes out what a wire has gathered.
pub struct Cork<T>(Arc<Mutex<Line<T>>>);

impl<T> fmt::Debug for Wire<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire")
    }
}
impl<T> fmt::Debug for Cork<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cork")
    }
}

fn lock<T>(line: &Mutex<Line<T>>) -> MutexGuard<'_, Line<T>> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Wire<T> {
    /// The connection whose handshake is done ([`crate::connect`], [`crate::accept`]). Until its cork is first used, it writes when it is
    /// flushed, as any other one.
    #[must_use]
    pub fn over(tls: impl Into<TlsStream<T>>) -> (Self, Cork<T>) {
        let (io, session) = match tls.into() {
            TlsStream::Client(tls) => {
                let (io, session) = tls.into_inner();
                (io, session.into())
            }
            TlsStream::Server(tls) => {
                let (io, session) = tls.into_inner();
                (io, session.into())
            }
        };
        let line = Arc::new(Mutex::new(Line::new(io, session)));
        (Self(line.clone()), Cork(line))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_read(cx, into)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_shutdown(cx)
    }
}

impl<T> Cork<T> {
    /// Whether the kernel has all that was written.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        lock(&self.0).is_clear()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Cork<T> {
    /// Polls what writes to the wire, and then writes out what that has gathered. From the first call on nothing else writes.
    ///
    /// Where the kernel takes no more, the task is woken when it does.
    pub fn poll<R>(&self, cx: &mut Context<'_>, writer: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        lock(&self.0).begin_turn();
        let polled = writer(cx);
        if polled.is_pending() {
            lock(&self.0).end_turn(cx);
        }
        polled
    }
}
