//! Whichever kind of [`End`] a connection turned out to have.

use super::{Broken, End, Received, stream::StreamEnd, tcp::TcpEnd, tls::TlsEnd};
use bytes::Bytes;
use std::task::{Context, Poll};

/// One of the kinds.
#[derive(Debug)]
pub enum AnyEnd {
    /// An application's connection.
    Tcp(TcpEnd),
    /// A stream of a tunnel.
    Stream(StreamEnd),
    /// A workload's TLS session inside a stream.
    Tls(TlsEnd),
}

macro_rules! each {
    ($self:ident, $end:ident => $call:expr) => {
        match $self {
            AnyEnd::Tcp($end) => $call,
            AnyEnd::Stream($end) => $call,
            AnyEnd::Tls($end) => $call,
        }
    };
}

impl End for AnyEnd {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        each!(self, end => end.poll_recv(cx))
    }
    fn poll_gather(&mut self, cx: &mut Context<'_>) {
        each!(self, end => end.poll_gather(cx));
    }
    fn consumed(&mut self, bytes: usize) {
        each!(self, end => end.consumed(bytes));
    }
    fn gathered(&self) -> usize {
        each!(self, end => end.gathered())
    }
    fn queued(&self) -> usize {
        each!(self, end => end.queued())
    }
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        each!(self, end => end.poll_send(cx, data))
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        each!(self, end => end.poll_flush(cx))
    }
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        each!(self, end => end.poll_finish(cx))
    }
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        each!(self, end => end.poll_reset(cx))
    }
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        each!(self, end => end.poll_broken(cx))
    }
    fn abort(&mut self) {
        each!(self, end => end.abort());
    }
}
