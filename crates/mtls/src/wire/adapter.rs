//! A connection of tokio as rustls writes to it: what can't be taken now would block.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::AsyncWrite;

pub(super) struct Out<'a, 'c, T> {
    pub(super) io: &'a mut T,
    pub(super) cx: &'a mut Context<'c>,
}

fn now<R>(polled: Poll<io::Result<R>>) -> io::Result<R> {
    match polled {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<T: AsyncWrite + Unpin> Write for Out<'_, '_, T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.io).poll_write(self.cx, data))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.io).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}
