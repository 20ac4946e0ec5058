//! A stream of an HTTP/2 tunnel as an [`End`].

use super::{Broken, End, Received};
use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};

/// How long a reset waits for a slow peer to take what was sent before it.
const FLUSH: Duration = Duration::from_secs(2);
/// Pieces up to this size are put together while the other end takes nothing.
const SMALL: usize = 4096;
/// As much is put together at most for one step.
const GATHER: usize = 64 * 1024;

/// The trailer that says that the stream ends by a reset. An HTTP/2 reset would overtake the bytes before it.
pub const RESET: HeaderName = HeaderName::from_static("tombolo-reset");

/// A stream of a tunnel, after its head.
pub struct StreamEnd {
    send: SendStream<Bytes>,
    recv: RecvStream,
    // Kept as long as the stream: counts it, and keeps its tunnel.
    _hold: Box<dyn std::any::Any + Send + Sync>,
    finished: bool,
    ahead: VecDeque<Bytes>,
    crumbs: BytesMut,
    ended: Option<Result<Received, Broken>>,
    last: Arc<Last>,
    patience: Option<Pin<Box<Sleep>>>,
}

/// Whether the last frame of a stream has left the queue of its tunnel. HTTP/2 as we have it forgets what is queued
/// when a stream is dropped before both sides are done, and says nothing when a queue is empty. So the last frame
/// carries a [`Marker`] in its payload (of DATA) or in a value (of trailers), which is dropped when the frame is
/// written, or forgotten.
#[derive(Debug, Default)]
struct Last {
    gone: AtomicBool,
    waker: AtomicWaker,
}

struct Marker(Arc<Last>, &'static [u8]);

impl AsRef<[u8]> for Marker {
    fn as_ref(&self) -> &[u8] {
        self.1
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

impl std::fmt::Debug for StreamEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamEnd").field("stream", &self.recv.stream_id()).finish_non_exhaustive()
    }
}

impl StreamEnd {
    /// Takes the two halves over; `hold` is dropped with them.
    pub fn new(send: SendStream<Bytes>, recv: RecvStream, hold: impl std::any::Any + Send + Sync) -> Self {
        Self {
            send,
            recv,
            _hold: Box::new(hold),
            finished: false,
            ahead: VecDeque::new(),
            crumbs: BytesMut::new(),
            ended: None,
            last: Arc::default(),
            patience: None,
        }
    }

    /// A piece of the last frame that tells when the frame is gone.
    fn marked(&mut self, bytes: &'static [u8]) -> Bytes {
        self.finished = true;
        Bytes::from_owner(Marker(self.last.clone(), bytes))
    }

    /// Takes what has come off the tunnel without making room for more, and puts small pieces together. For while the
    /// other end takes nothing: what waits inside HTTP/2 is counted by the frame there, and too many small ones end
    /// the tunnel for all. The stream's window bounds what waits here.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none()
            && let Poll::Ready(next) = self.poll_next(cx)
        {
            self.keep(next);
        }
    }

    fn keep(&mut self, next: Result<Received, Broken>) {
        match next {
            Ok(Received::Data(data)) if data.len() <= SMALL => self.crumbs.extend_from_slice(&data),
            Ok(Received::Data(data)) => {
                self.sweep();
                self.ahead.push_back(data);
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

    /// Room for up to `want` bytes; never zero.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<usize, Broken>> {
        while self.send.capacity() == 0 {
            self.send.reserve_capacity(want);
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(&error))),
                None => return Poll::Ready(Err(Broken::Reset)),
            }
        }
        Poll::Ready(Ok(self.send.capacity().min(want)))
    }

    /// Sends bytes that there is room for.
    pub(super) fn send(&mut self, data: Bytes) -> Result<(), Broken> {
        self.send.send_data(data, false).map_err(|error| broken(&error))
    }
}

/// What an error of a stream means.
fn broken(error: &h2::Error) -> Broken {
    // A reset of the one stream is the other end's; everything else took the tunnel with it.
    if error.is_reset() { Broken::Reset } else { Broken::Lost(error.to_string()) }
}

impl End for StreamEnd {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        if self.ahead.is_empty() && self.crumbs.is_empty() && self.ended.is_none() {
            let first = ready!(self.poll_next(cx));
            match &first {
                Ok(Received::Data(data)) if data.len() <= SMALL => {}
                _ => return Poll::Ready(first),
            }
            // One small piece passes as it is; of several that are there already one larger is made.
            let Poll::Ready(second) = self.poll_next(cx) else { return Poll::Ready(first) };
            self.keep(first);
            self.keep(second);
            while self.ended.is_none()
                && self.crumbs.len() < GATHER
                && self.ahead.is_empty()
                && let Poll::Ready(next) = self.poll_next(cx)
            {
                self.keep(next);
            }
        }
        self.sweep();
        match (self.ahead.pop_front(), &self.ended) {
            (Some(data), _) => Poll::Ready(Ok(Received::Data(data))),
            (None, Some(Ok(_))) => Poll::Ready(Ok(Received::Eof)),
            (None, Some(Err(broken))) => Poll::Ready(Err(broken.clone())),
            (None, None) => self.poll_next(cx),
        }
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>) {
        self.gather(cx);
    }

    fn consumed(&mut self, bytes: usize) {
        // Fails only where the stream is gone, and its window with it.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        while !data.is_empty() {
            let room = ready!(self.poll_room(cx, data.len()))?;
            self.send(data.split_to(room))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let last = self.marked(b"");
        Poll::Ready(self.send.send_data(last, true).map_err(|error| broken(&error)))
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // After END_STREAM nothing can follow but RST_STREAM: dropping the stream sends that.
        if !self.finished
            && let Ok(mut value) = HeaderValue::from_maybe_shared(self.marked(b"1"))
        {
            // Kept in no table of header compression.
            value.set_sensitive(true);
            let _ = self.send.send_trailers(HeaderMap::from_iter([(RESET, value)]));
        }
        self.last.waker.register(cx.waker());
        if self.last.gone.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.patience.get_or_insert_with(|| Box::pin(sleep(FLUSH))).as_mut().poll(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        Poll::Ready(match ready!(self.send.poll_reset(cx)) {
            Ok(_) => Broken::Reset,
            Err(error) => broken(&error),
        })
    }

    fn abort(&mut self) {
        self.finished = true;
        self.send.send_reset(h2::Reason::CANCEL);
    }
}
