//! A session, the connection below it, and what waits on either side of it.

use super::{adapter::Out, spare::Use};
use rustls::Connection;
use std::{
    io::{self, BufRead as _, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// The largest read: some records of the largest size.
const READ: usize = 64 * 1024;
/// Reads of one turn: what came is passed on while it is warm, and others get theirs.
const TURN: u32 = 2;
/// As much is gathered for one record, and no record holds more.
const PIECE: usize = 16 * 1024;

/// A connection with its session.
///
/// What waits is bounded: [`PIECE`] that is not sealed, and what rustls lets wait of what is (64 KiB by default); then writers wait. Of
/// what comes, at most [`READ`] waits that the session was not given.
pub(super) struct Line<T> {
    io: T,
    session: Connection,
    /// Bytes as they came; the session was given those before `taken`.
    arrived: Vec<u8>,
    taken: usize,
    /// Not sealed yet.
    gathered: Vec<u8>,
    /// Whether somebody says when to write.
    corked: bool,
    /// Reads of this turn.
    reads: u32,
    /// Why the session takes nothing any more.
    failed: Option<rustls::Error>,
    /// The connection takes nothing any more: found at the end of a turn, and told to whoever writes next.
    lost: Option<io::ErrorKind>,
    /// This side said that it sends no more.
    finished: bool,
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<T> Line<T> {
    pub(super) fn new(io: T, session: Connection) -> Self {
        Self {
            io,
            session,
            arrived: Vec::new(),
            taken: 0,
            gathered: Vec::new(),
            corked: false,
            reads: 0,
            failed: None,
            lost: None,
            finished: false,
        }
    }

    /// Whether the kernel has all that was written.
    pub(super) fn is_clear(&self) -> bool {
        self.gathered.is_empty() && !self.session.wants_write()
    }

    /// From now until the end of the turn, what is flushed is gathered still.
    pub(super) fn begin_turn(&mut self) {
        self.corked = true;
        self.reads = 0;
    }

    /// Gives what is opened. Whether nothing more will come.
    fn give(&mut self, into: &mut ReadBuf<'_>) -> io::Result<bool> {
        while into.remaining() > 0 {
            let length = match self.session.reader().into_first_chunk() {
                Ok([]) => return Ok(true),
                Ok(chunk) => {
                    let length = chunk.len().min(into.remaining());
                    into.put_slice(&chunk[..length]);
                    length
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            self.session.reader().consume(length);
        }
        Ok(false)
    }

    /// Gives the session what came, until it has something opened; whether there was anything to give.
    fn feed(&mut self) -> io::Result<bool> {
        let before = self.taken;
        while self.taken < self.arrived.len() && self.session.wants_read() {
            let took = self.session.read_tls(&mut &self.arrived[self.taken..])?;
            if took == 0 {
                return Err(io::Error::other("the session takes nothing"));
            }
            self.taken += took;
            if let Err(error) = self.session.process_new_packets() {
                self.failed = Some(error);
                self.taken = self.arrived.len();
                break;
            }
        }
        Ok(self.taken > before)
    }

    /// Where nothing is left to give to the session, the next connection may have the buffer.
    fn rest(&mut self) {
        if self.taken == self.arrived.len() && self.arrived.capacity() > 0 {
            Use::Arrived.give_back(&mut self.arrived);
            self.taken = 0;
        }
    }

    /// Whether anything may be written.
    fn sound(&self) -> io::Result<()> {
        match (&self.failed, self.lost) {
            (_, Some(kind)) => Err(kind.into()),
            (Some(error), None) => Err(invalid(error.clone())),
            (None, None) => Ok(()),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Line<T> {
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_opened(cx, into);
        self.rest();
        polled
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        loop {
            let over = self.give(into);
            if into.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            let given = into.filled().len() > before;
            match (over, &self.failed) {
                // What went wrong is found again behind what was given.
                (Err(_), _) | (Ok(true), _) | (_, Some(_)) if given => return Poll::Ready(Ok(())),
                (_, Some(error)) => return Poll::Ready(Err(invalid(error.clone()))),
                (Err(error), None) => return Poll::Ready(Err(error)),
                (Ok(true), None) => {
                    // nothing behind the peer's last word counts
                    self.taken = self.arrived.len();
                    return Poll::Ready(Ok(()));
                }
                (Ok(false), None) => {}
            }
            let fed = self.feed()?;
            if self.failed.is_some() {
                // The peer hears why, where it takes it at once.
                let _ = self.poll_out(cx);
            }
            if fed {
                continue;
            }
            if given {
                return Poll::Ready(Ok(()));
            }
            if self.corked && self.reads >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 {
                // The session says what an end means here.
                self.session.read_tls(&mut io::empty())?;
            }
        }
    }

    /// Reads, where the session was given all that came.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.arrived.capacity() == 0 {
            self.arrived = Use::Arrived.take(READ);
        }
        self.arrived.clear();
        self.taken = 0;
        self.reads += 1;
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.arrived)
    }

    /// Writes what is sealed.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Out { io: &mut self.io, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals all that was gathered. The session takes a bounded amount more than the kernel.
    fn poll_seal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut sealed = 0;
        let polled = loop {
            match self.session.writer().write(&self.gathered[sealed..]) {
                Ok(length) => sealed += length,
                Err(error) => break Poll::Ready(Err(error)),
            }
            if sealed == self.gathered.len() {
                break Poll::Ready(Ok(()));
            }
            if !self.session.wants_write() {
                break Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match self.poll_out(cx) {
                Poll::Ready(Ok(())) => {}
                other => break other,
            }
        };
        if sealed == self.gathered.len() {
            Use::Gathered.give_back(&mut self.gathered);
        } else {
            self.gathered.drain(..sealed);
        }
        polled
    }

    /// Seals what was gathered, and writes all.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.failed.is_none() && !self.finished {
            ready!(self.poll_seal(cx))?;
        }
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// What was gathered goes out.
    pub(super) fn end_turn(&mut self, cx: &mut Context<'_>) {
        if self.lost.is_none()
            && let Poll::Ready(Err(error)) = self.poll_all(cx)
        {
            self.lost = Some(error.kind());
            cx.waker().wake_by_ref();
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.sound()?;
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut taken = 0;
        for slice in slices {
            let mut data = &slice[..];
            while !data.is_empty() {
                if self.gathered.len() >= PIECE {
                    match self.poll_seal(cx) {
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        // What was sealed of it has made room.
                        Poll::Pending if self.gathered.len() < PIECE => {}
                        Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                if self.gathered.capacity() == 0 {
                    self.gathered = Use::Gathered.take(PIECE);
                }
                let (now, later) = data.split_at(data.len().min(PIECE - self.gathered.len()));
                self.gathered.extend_from_slice(now);
                taken += now.len();
                data = later;
            }
        }
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.lost {
            return Poll::Ready(Err(kind.into()));
        }
        if self.corked { Poll::Ready(Ok(())) } else { self.poll_all(cx) }
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.lost {
            return Poll::Ready(Err(kind.into()));
        }
        if !self.finished {
            if self.failed.is_none() {
                ready!(self.poll_seal(cx))?;
                self.session.send_close_notify();
            }
            self.finished = true;
        }
        ready!(self.poll_out(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
