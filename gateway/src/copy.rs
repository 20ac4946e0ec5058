//! Carries bytes between two ends, both ways, as they come: server-first protocols, half-close each way, and resets
//! that deliver first what was sent before them.
//!
//! An [`End`] is a TCP connection, a stream of a tunnel, or a TLS session inside a stream. One task drives both
//! directions of a connection; while nothing moves it holds no buffer. Bytes are taken from one end only when the
//! other has room, so that a slow reader slows its writer through HTTP/2 flow control and TCP alike.

pub mod any;
mod buffer;
pub mod stream;
pub mod tcp;
pub mod tls;

#[cfg(test)]
mod tests;

use crate::{budget::Waiting, error::Refusal};
use bytes::Bytes;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// What came from an end.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, in order.
    Data(Bytes),
    /// It will send no more; it may still receive.
    Eof,
}

/// An end that takes and gives no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Reset by whoever is behind it.
    Reset,
    /// The way to it is lost, with the cause for people.
    Lost(String),
    /// Whoever is behind it does not believe whom it talks to.
    Refused(Refusal),
}

/// One end of a connection. All methods are of one task.
pub trait End {
    /// The next bytes. What was sent before a reset comes before `Err`.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>>;
    /// The other end takes nothing now: looks after what keeps coming, without making room for more.
    fn poll_gather(&mut self, cx: &mut Context<'_>);
    /// So many of the bytes received were passed on: there is room for more.
    fn consumed(&mut self, bytes: usize);
    /// Bytes that came, and were not given out yet.
    fn gathered(&self) -> usize;
    /// Bytes that may wait in this process to go out to it, while it takes no more.
    fn queued(&self) -> usize;
    /// Takes bytes off the front of `data` until it is empty.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>>;
    /// Nothing more is to be sent for now: what waits to be gathered goes out.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
    /// Nothing more will be sent, ever (half-close).
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>>;
    /// Delivers what was sent, waits for that a bounded time, and signals a reset after it. The end is of no use then.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Ready when the end is found broken while there is nothing to send to it.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken>;
    /// Signals a reset at once; what was not delivered is lost.
    fn abort(&mut self);
}

/// Bytes carried so far.
#[derive(Debug, Default)]
pub struct Progress {
    up: AtomicU64,
    down: AtomicU64,
}

impl Progress {
    /// Bytes to the server.
    pub fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }
    /// Bytes to the client.
    pub fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that called.
    Client,
    /// The one that was called.
    Server,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both ends said that they send no more.
    Clean,
    /// An end broke; the other was told.
    Broken {
        /// Which.
        side: Side,
        /// How.
        how: Broken,
    },
}

/// How long the last bytes of a broken end are offered to the other one.
const REST: Duration = Duration::from_secs(60);
/// How long the other one may take none of them. The reset is not behind them then: TCP's own overtakes as well.
const STUCK: Duration = Duration::from_secs(1);

/// How long an end may take to deliver what was sent before its reset.
const RESET: Duration = Duration::from_secs(3);

/// What waits in a piece up to this size holds no larger buffer that others have parts of.
const WHOLE: usize = 32 * 1024;

/// Chunks moved in one turn before other tasks of the thread get theirs.
const TURN: u32 = 32;

#[derive(Debug)]
enum Direction {
    /// `waiting`: how many bytes do, as far as the sink took no more when it was last asked.
    Open {
        pending: Option<Bytes>,
        dirty: bool,
        waiting: usize,
    },
    Finishing,
    Done,
}

impl Direction {
    const fn new() -> Self {
        Self::Open { pending: None, dirty: false, waiting: 0 }
    }

    /// Bytes that wait for the sink.
    fn waiting(&self, sink: &impl End) -> usize {
        match self {
            Self::Open { waiting, .. } => *waiting,
            Self::Finishing => sink.queued(),
            Self::Done => 0,
        }
    }
}

/// Which end of a direction broke.
enum Fault {
    Source(Broken),
    Sink(Broken),
}

/// Carries bytes between the two ends until both directions are done or one end breaks. What waits is counted.
///
/// Cancel safe in that no byte is sent twice; a cancelled copy can't be taken up again.
pub async fn copy(
    client: &mut impl End,
    server: &mut impl End,
    progress: &Progress,
    waiting: &mut Waiting,
) -> Ending {
    let (mut up, mut down) = (Direction::new(), Direction::new());
    let (side, fault) = {
        let both = poll_fn(|cx| {
            let first = poll_direction(cx, client, server, &mut up, &progress.up, TURN);
            if let Poll::Ready(Err(fault)) = first {
                return Poll::Ready(Some((Side::Client, fault)));
            }
            let second = poll_direction(cx, server, client, &mut down, &progress.down, TURN);
            if let Poll::Ready(Err(fault)) = second {
                return Poll::Ready(Some((Side::Server, fault)));
            }
            waiting.set(up.waiting(server) + down.waiting(client));
            if first.is_ready() && second.is_ready() { Poll::Ready(None) } else { Poll::Pending }
        });
        match both.await {
            None => return Ending::Clean,
            Some(fault) => fault,
        }
    };
    // `side` is the source of the direction that broke.
    match (side, fault) {
        (Side::Client, Fault::Source(how)) => {
            reset(server).await;
            Ending::Broken { side: Side::Client, how }
        }
        (Side::Server, Fault::Source(how)) => {
            reset(client).await;
            Ending::Broken { side: Side::Server, how }
        }
        // An end that takes no more may have sent something before it broke: that is delivered still.
        (Side::Client, Fault::Sink(how)) => {
            reset_behind_rest(server, client, &mut down, &progress.down).await;
            Ending::Broken { side: Side::Server, how }
        }
        (Side::Server, Fault::Sink(how)) => {
            reset_behind_rest(client, server, &mut up, &progress.up).await;
            Ending::Broken { side: Side::Client, how }
        }
    }
}

/// Resets an end behind what was sent to it, or at once where it does not take that.
async fn reset(sink: &mut impl End) {
    if timeout(RESET, poll_fn(|cx| sink.poll_reset(cx))).await.is_err() {
        sink.abort();
    }
}

/// Moves what a broken end had sent, and resets the other one behind it.
async fn reset_behind_rest(
    source: &mut impl End,
    sink: &mut impl End,
    state: &mut Direction,
    moved: &AtomicU64,
) {
    let until = Instant::now() + REST;
    loop {
        let before = moved.load(Ordering::Relaxed);
        let rest = poll_fn(|cx| poll_rest(cx, source, sink, state, moved));
        if timeout(STUCK, rest).await.is_ok() {
            return reset(sink).await;
        }
        if moved.load(Ordering::Relaxed) == before || Instant::now() >= until {
            return sink.abort();
        }
    }
}

/// Moves what a broken end had sent; ready when there is no more of it.
fn poll_rest(
    cx: &mut Context<'_>,
    source: &mut impl End,
    sink: &mut impl End,
    state: &mut Direction,
    moved: &AtomicU64,
) -> Poll<()> {
    // A broken source that has nothing to give at once will give nothing at all.
    match state {
        Direction::Done | Direction::Finishing => Poll::Ready(()),
        Direction::Open { .. } => match poll_direction(cx, source, sink, state, moved, u32::MAX) {
            Poll::Pending if matches!(state, Direction::Open { pending: Some(_), .. }) => Poll::Pending,
            Poll::Pending | Poll::Ready(_) => Poll::Ready(()),
        },
    }
}

fn poll_direction(
    cx: &mut Context<'_>,
    source: &mut impl End,
    sink: &mut impl End,
    state: &mut Direction,
    moved: &AtomicU64,
    mut turn: u32,
) -> Poll<Result<(), Fault>> {
    loop {
        match state {
            Direction::Open { pending: Some(data), dirty, waiting } => {
                let before = data.len();
                let sent = sink.poll_send(cx, data);
                let done = before - data.len();
                if done > 0 {
                    source.consumed(done);
                    moved.fetch_add(done as u64, Ordering::Relaxed);
                    *dirty = true;
                }
                if sent.is_pending() {
                    if *waiting == 0 && data.len() < WHOLE {
                        *data = Bytes::copy_from_slice(data);
                    }
                    source.poll_gather(cx);
                    *waiting = data.len() + source.gathered() + sink.queued();
                }
                ready!(sent).map_err(Fault::Sink)?;
                *state = Direction::Open { pending: None, dirty: true, waiting: 0 };
                turn -= 1;
                if turn == 0 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            Direction::Open { pending, dirty, .. } => match source.poll_recv(cx) {
                Poll::Ready(Ok(Received::Data(data))) => *pending = Some(data),
                Poll::Ready(Ok(Received::Eof)) => *state = Direction::Finishing,
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(Fault::Source(broken))),
                Poll::Pending => {
                    if *dirty && let Poll::Ready(flushed) = sink.poll_flush(cx) {
                        flushed.map_err(Fault::Sink)?;
                        *dirty = false;
                    }
                    if let Poll::Ready(broken) = sink.poll_broken(cx) {
                        return Poll::Ready(Err(Fault::Sink(broken)));
                    }
                    return Poll::Pending;
                }
            },
            Direction::Finishing => {
                ready!(sink.poll_finish(cx)).map_err(Fault::Sink)?;
                *state = Direction::Done;
            }
            Direction::Done => return Poll::Ready(Ok(())),
        }
    }
}
