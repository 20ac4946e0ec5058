//! The receiving half of a stream, from its head on.

use super::{RESET, broken};
use crate::copy::{Broken, Received, WHOLE};
use bytes::{Bytes, BytesMut};
use h2::{RecvStream, StreamId};
use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

/// Pieces up to this size are put together where there are several.
const SMALL: usize = 4096;
/// As much is put together at most for one step.
const GATHER: usize = 64 * 1024;

/// What comes on a stream.
#[derive(Debug)]
pub struct Reader {
    recv: RecvStream,
    ahead: VecDeque<Bytes>,
    crumbs: BytesMut,
    /// Bytes in the two.
    gathered: usize,
    ended: Option<Result<Received, Broken>>,
}

impl Reader {
    /// Of this stream.
    #[must_use]
    pub fn new(recv: RecvStream) -> Self {
        Self { recv, ahead: VecDeque::new(), crumbs: BytesMut::new(), gathered: 0, ended: None }
    }

    pub(super) fn id(&self) -> StreamId {
        self.recv.stream_id()
    }

    /// Bytes that came off the tunnel and were not given out yet.
    pub(crate) const fn gathered(&self) -> usize {
        self.gathered
    }

    /// Takes what has come off the tunnel without making room for more, and puts small pieces together. For while the
    /// other end takes nothing: what waits inside HTTP/2 is counted by the frame there, and too many small ones end
    /// the tunnel for all. The stream's window bounds what waits here.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none()
            && let Poll::Ready(next) = self.poll_next(cx)
        {
            // what waits for long is no small part of a buffer that others had the rest of
            self.keep(next, WHOLE);
        }
    }

    fn keep(&mut self, next: Result<Received, Broken>, small: usize) {
        match next {
            Ok(Received::Data(data)) => {
                self.gathered += data.len();
                if data.len() <= small {
                    self.crumbs.extend_from_slice(&data);
                } else {
                    self.sweep();
                    self.ahead.push_back(data);
                }
            }
            end => self.ended = Some(end),
        }
    }

    fn sweep(&mut self) {
        if !self.crumbs.is_empty() {
            self.ahead.push_back(self.crumbs.split().freeze());
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        loop {
            return Poll::Ready(match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => Ok(Received::Data(data)),
                Some(Err(error)) => Err(broken(&error)),
                None => match ready!(self.recv.poll_trailers(cx)) {
                    Ok(Some(trailers)) if trailers.contains_key(RESET) => Err(Broken::Reset),
                    Ok(_) => Ok(Received::Eof),
                    Err(error) => Err(broken(&error)),
                },
            });
        }
    }

    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        if self.gathered == 0 && self.ended.is_none() {
            let first = ready!(self.poll_next(cx));
            match &first {
                Ok(Received::Data(data)) if data.len() <= SMALL => {}
                _ => return Poll::Ready(first),
            }
            // One small piece passes as it is; of several that are there already one larger is made.
            let Poll::Ready(second) = self.poll_next(cx) else { return Poll::Ready(first) };
            self.keep(first, SMALL);
            self.keep(second, SMALL);
            while self.ended.is_none()
                && self.crumbs.len() < GATHER
                && self.ahead.is_empty()
                && let Poll::Ready(next) = self.poll_next(cx)
            {
                self.keep(next, SMALL);
            }
        }
        self.sweep();
        match (self.ahead.pop_front(), &self.ended) {
            (Some(data), _) => {
                self.gathered -= data.len();
                Poll::Ready(Ok(Received::Data(data)))
            }
            (None, Some(Ok(_))) => Poll::Ready(Ok(Received::Eof)),
            (None, Some(Err(broken))) => Poll::Ready(Err(broken.clone())),
            (None, None) => self.poll_next(cx),
        }
    }

    pub(super) fn consumed(&mut self, bytes: usize) {
        // Fails only where the stream is gone, and its window with it.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }
}
