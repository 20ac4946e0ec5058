//! A stream of an HTTP/2 tunnel as an [`End`].

mod reader;

pub use reader::Reader;

use super::{Broken, End, Received};
use bytes::Bytes;
use futures::task::AtomicWaker;
use h2::SendStream;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
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

/// The trailer that says that the stream ends by a reset. An HTTP/2 reset would overtake the bytes before it.
pub const RESET: HeaderName = HeaderName::from_static("tombolo-reset");

/// A stream of a tunnel, after its head.
pub struct StreamEnd {
    send: SendStream<Bytes>,
    reader: Reader,
    // Kept as long as the stream: counts it, and keeps its tunnel.
    _hold: Box<dyn std::any::Any + Send + Sync>,
    finished: bool,
    /// Bytes given to the tunnel, and the most of them that it keeps.
    sent: usize,
    queue: usize,
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
        f.debug_struct("StreamEnd").field("stream", &self.reader.id()).finish_non_exhaustive()
    }
}

impl StreamEnd {
    /// Takes the two halves over; `hold` is dropped with them. Of what is sent, up to `queue` bytes may wait in the tunnel.
    pub fn new(
        send: SendStream<Bytes>,
        reader: Reader,
        queue: usize,
        hold: impl std::any::Any + Send + Sync,
    ) -> Self {
        Self {
            send,
            reader,
            _hold: Box::new(hold),
            finished: false,
            sent: 0,
            queue,
            last: Arc::default(),
            patience: None,
        }
    }

    /// A piece of the last frame that tells when the frame is gone.
    fn marked(&mut self, bytes: &'static [u8]) -> Bytes {
        self.finished = true;
        Bytes::from_owner(Marker(self.last.clone(), bytes))
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
        self.sent = self.sent.saturating_add(data.len());
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
        self.reader.poll_recv(cx)
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>) {
        self.reader.gather(cx);
    }

    fn consumed(&mut self, bytes: usize) {
        self.reader.consumed(bytes);
    }

    fn gathered(&self) -> usize {
        self.reader.gathered()
    }

    // The tunnel does not say. Where its peer's window is shut, it is nothing; where the peer reads nothing at all, all of it.
    fn queued(&self) -> usize {
        self.sent.min(self.queue / 2)
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

    // Done when the last of it has left the tunnel's queue: what waits there is this connection's.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.finished {
            let last = self.marked(b"");
            self.send.send_data(last, true).map_err(|error| broken(&error))?;
        }
        self.last.waker.register(cx.waker());
        if self.last.gone.load(Ordering::Acquire) { Poll::Ready(Ok(())) } else { Poll::Pending }
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
