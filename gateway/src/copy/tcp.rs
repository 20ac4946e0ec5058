//! A TCP connection as an [`End`].

use super::{Broken, End, Received, buffer};
use crate::socket;
use bytes::{Buf as _, Bytes};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::AsyncWrite as _,
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// How long a reset waits for the application to take what was sent before it.
const FLUSH: Duration = Duration::from_secs(2);
/// The longest pause between two looks at the send queue.
const LOOK: Duration = Duration::from_millis(50);

/// A connection of an application.
#[derive(Debug)]
pub struct TcpEnd {
    stream: TcpStream,
    // A write may take the socket's error with it: the read after it would then look like an orderly end.
    broken: bool,
    reset: Option<Reset>,
}

#[derive(Debug)]
struct Reset {
    until: Instant,
    pause: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl TcpEnd {
    /// Takes a connection over: no delay, and keep-alives that find a machine that vanished.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        socket::prepare(&stream);
        socket::bound(&stream);
        Self::accepted(stream)
    }

    /// The same for one that has all that from its listener.
    #[must_use]
    pub fn accepted(stream: TcpStream) -> Self {
        Self { stream, broken: false, reset: None }
    }

    /// One whose error was taken off the socket already: what there is to read comes, and then the reset.
    #[must_use]
    pub fn broken(stream: TcpStream) -> Self {
        Self { broken: true, ..Self::new(stream) }
    }

    fn broke(&mut self) -> Broken {
        self.broken = true;
        Broken::Reset
    }
}

impl End for TcpEnd {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        // A read that does not fill the buffer does not say that there is no more: one ends at urgent data, too.
        loop {
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Err(self.broke()));
            }
            let stream = &self.stream;
            let read = buffer::read(|into| Poll::Ready(stream.try_read_buf(into)));
            return Poll::Ready(match ready!(read) {
                Ok(Some(data)) => Ok(Received::Data(data)),
                Ok(None) if self.broken => Err(Broken::Reset),
                Ok(None) => Ok(Received::Eof),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => Err(self.broke()),
            });
        }
    }

    // The kernel looks after it.
    fn poll_gather(&mut self, _cx: &mut Context<'_>) {}

    fn consumed(&mut self, _bytes: usize) {}

    fn gathered(&self) -> usize {
        0
    }

    fn queued(&self) -> usize {
        0
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        while !data.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, data)) {
                Ok(written) => data.advance(written),
                Err(_) => return Poll::Ready(Err(self.broke())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match ready!(Pin::new(&mut self.stream).poll_shutdown(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) => Poll::Ready(Err(self.broke())),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.broken {
            let reset = self.reset.get_or_insert_with(|| Reset {
                until: Instant::now() + FLUSH,
                pause: Duration::from_millis(1),
                sleep: Box::pin(sleep(Duration::ZERO)),
            });
            // The kernel says nothing when the other side has everything: look, with growing pauses.
            while socket::unsent(&self.stream) > 0 && Instant::now() < reset.until {
                ready!(reset.sleep.as_mut().poll(cx));
                reset.sleep.as_mut().reset(Instant::now() + reset.pause);
                reset.pause = (reset.pause * 2).min(LOOK);
            }
        }
        self.abort();
        Poll::Ready(())
    }

    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<Broken> {
        // The next write finds it; the read side, which is polled all the time, mostly earlier.
        Poll::Pending
    }

    fn abort(&mut self) {
        socket::reset_on_close(&self.stream);
    }
}
