//! A TLS session inside a stream of a tunnel as an [`End`]: the workloads' own, end to end.

use super::{Broken, End, Received, buffer, stream::StreamEnd};
use crate::error::Refusal;
use bytes::{Buf as _, Bytes, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;
use tombolo_mtls::HandshakeError;

/// The most that one DATA frame's worth of TLS records gathers.
const GATHER: usize = 64 * 1024;

/// A stream of a tunnel as the transport of a TLS session.
#[derive(Debug)]
pub struct StreamIo {
    end: StreamEnd,
    unread: Bytes,
    broken: Option<Broken>,
}

impl StreamIo {
    /// The transport over this stream.
    #[must_use]
    pub fn new(end: StreamEnd) -> Self {
        Self { end, unread: Bytes::new(), broken: None }
    }

    /// The stream.
    pub fn end(&mut self) -> &mut StreamEnd {
        &mut self.end
    }
}

fn into_io(broken: Broken) -> io::Error {
    match broken {
        Broken::Reset => io::ErrorKind::ConnectionReset.into(),
        Broken::Lost(cause) => io::Error::new(io::ErrorKind::BrokenPipe, cause),
        Broken::Refused(refusal) => io::Error::new(io::ErrorKind::PermissionDenied, refusal),
    }
}

fn from_io(error: io::Error) -> Broken {
    match error.kind() {
        // The other workload's verdict on this one comes after its own handshake is done.
        io::ErrorKind::InvalidData => {
            Broken::Refused(Refusal::handshake(&HandshakeError::of(error), "the workload at the other end"))
        }
        // No close_notify: somebody cut the session, or the far end reset it.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Broken::Reset,
        _ => Broken::Lost(error.to_string()),
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            if let Some(broken) = &self.broken {
                return Poll::Ready(Err(into_io(broken.clone())));
            }
            match ready!(self.end.poll_recv(cx)) {
                Ok(Received::Data(data)) => self.unread = data,
                Ok(Received::Eof) => return Poll::Ready(Ok(())),
                Err(broken) => {
                    // A session reads ahead, and an error then hides what it has read: a handshake that is done
                    // would fail. So the error comes one turn after the bytes before it.
                    self.broken = Some(broken);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        let length = self.unread.len().min(into.remaining());
        into.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        self.end.consumed(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.end.poll_room(cx, data.len().min(GATHER))).map_err(into_io)?;
        self.end.send(Bytes::copy_from_slice(&data[..room])).map_err(into_io)?;
        Poll::Ready(Ok(room))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.end.poll_room(cx, all.min(GATHER))).map_err(into_io)?;
        let mut gathered = BytesMut::with_capacity(room);
        for slice in slices {
            let left = room - gathered.len();
            gathered.extend_from_slice(&slice[..slice.len().min(left)]);
        }
        self.end.send(gathered.freeze()).map_err(into_io)?;
        Poll::Ready(Ok(room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end.poll_finish(cx).map_err(into_io)
    }
}

/// A workload's TLS session inside a stream.
#[derive(Debug)]
pub struct TlsEnd {
    tls: Box<TlsStream<StreamIo>>,
}

impl TlsEnd {
    /// The session, after its handshake.
    pub fn new(tls: impl Into<TlsStream<StreamIo>>) -> Self {
        Self { tls: Box::new(tls.into()) }
    }

    fn stream(&mut self) -> &mut StreamEnd {
        self.tls.get_mut().0.end()
    }
}

impl End for TlsEnd {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        let tls = &mut self.tls;
        let read = buffer::read(|into| tokio_util::io::poll_read_buf(Pin::new(&mut **tls), cx, into));
        Poll::Ready(match ready!(read) {
            Ok(Some(data)) => Ok(Received::Data(data)),
            Ok(None) => Ok(Received::Eof),
            Err(error) => Err(from_io(error)),
        })
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>) {
        self.stream().poll_gather(cx);
    }

    // The session took them off the stream when it decrypted them; a chunk at most waits outside its window.
    fn consumed(&mut self, _bytes: usize) {}

    fn gathered(&self) -> usize {
        let (io, _) = self.tls.get_ref();
        io.unread.len() + io.end.gathered()
    }

    fn queued(&self) -> usize {
        self.tls.get_ref().0.end.queued()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        while !data.is_empty() {
            let written = ready!(Pin::new(&mut *self.tls).poll_write(cx, data)).map_err(from_io)?;
            data.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Pin::new(&mut *self.tls).poll_flush(cx).map_err(from_io)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Pin::new(&mut *self.tls).poll_shutdown(cx).map_err(from_io)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // No close_notify: the far end must not take this for an orderly end.
        let _ = ready!(Pin::new(&mut *self.tls).poll_flush(cx));
        self.stream().poll_reset(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.stream().poll_broken(cx)
    }

    fn abort(&mut self) {
        self.stream().abort();
    }
}
