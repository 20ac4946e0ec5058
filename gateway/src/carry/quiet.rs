//! Which connections a gateway that is about to end closes in order: those that are kept open, with nothing under way.
//!
//! Bytes do not say where an answer ends. So a connection counts as quiet only where the last bytes were the server's, all of them went on,
//! nothing came for a while, and the client has once sent something after bytes of the server: who does that does not wait for the
//! connection's end to know that an answer is whole. All others end with a reset, which nobody takes for the last byte.

use crate::copy::{Broken, End, Progress, Received, Side};
use bytes::Bytes;
use std::{
    future::poll_fn,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// Looks in the time after which a connection counts as quiet.
const LOOKS: u32 = 4;
/// How long both ends may take to say that they send no more.
const PARTING: Duration = Duration::from_secs(2);

/// The last bytes were the server's.
const ANSWERED: u8 = 1;
/// The client has sent something after bytes of the server.
const AGAIN: u8 = 2;
/// An end sends no more.
const HALF: u8 = 4;

/// Whose turn it is. Written by the connection's own task alone.
#[derive(Debug, Default)]
pub(super) struct Turns {
    state: AtomicU8,
    came: AtomicU64,
}

impl Turns {
    /// An end of the connection, whose turns are noted.
    pub(super) fn of<'a, E>(&'a self, side: Side, end: &'a mut E) -> Noted<'a, E> {
        Noted { end, side, turns: self }
    }

    fn note(&self, side: Side, received: &Received) {
        let before = self.state.load(Ordering::Relaxed);
        let after = match (side, received) {
            (_, Received::Eof) => before | HALF,
            (Side::Server, Received::Data(_)) => before | ANSWERED,
            (Side::Client, Received::Data(_)) if before & ANSWERED > 0 => (before | AGAIN) & !ANSWERED,
            (Side::Client, Received::Data(_)) => before,
        };
        self.state.store(after, Ordering::Relaxed);
        if let Received::Data(data) = received {
            self.came.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }

    /// Whether nothing is under way, as far as bytes tell, where so many went on.
    fn rests(&self, moved: u64) -> bool {
        self.state.load(Ordering::Relaxed) == ANSWERED | AGAIN && self.came.load(Ordering::Relaxed) == moved
    }
}

/// An end whose turns are noted.
#[derive(Debug)]
pub(super) struct Noted<'a, E> {
    end: &'a mut E,
    side: Side,
    turns: &'a Turns,
}

impl<E: End> End for Noted<'_, E> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, Broken>> {
        let received = ready!(self.end.poll_recv(cx));
        if let Ok(received) = &received {
            self.turns.note(self.side, received);
        }
        Poll::Ready(received)
    }
    fn poll_gather(&mut self, cx: &mut Context<'_>) {
        self.end.poll_gather(cx);
    }
    fn consumed(&mut self, bytes: usize) {
        self.end.consumed(bytes);
    }
    fn gathered(&self) -> usize {
        self.end.gathered()
    }
    fn queued(&self) -> usize {
        self.end.queued()
    }
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<Result<(), Broken>> {
        self.end.poll_send(cx, data)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.end.poll_flush(cx)
    }
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.end.poll_finish(cx)
    }
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.end.poll_reset(cx)
    }
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.end.poll_broken(cx)
    }
    fn abort(&mut self) {
        self.end.abort();
    }
}

/// Waits until the connection has been quiet for so long from now on. Cancel-safe.
pub(super) async fn quiet(turns: &Turns, progress: &Progress, long: Duration) {
    let came = || turns.came.load(Ordering::Relaxed);
    let (mut seen, mut since) = (came(), Instant::now());
    loop {
        sleep(long / LOOKS).await;
        if came() != seen {
            (seen, since) = (came(), Instant::now());
        } else if since.elapsed() >= long && turns.rests(progress.up() + progress.down()) {
            return;
        }
    }
}

/// Ends both sides in order, and waits a bounded time for them to do the same. Says whether nothing is lost: no bytes came
/// meanwhile, which nobody would take.
pub(super) async fn part(client: &mut impl End, server: &mut impl End) -> bool {
    let (mut of_client, mut of_server) = (Parting::default(), Parting::default());
    let both = poll_fn(|cx| {
        let (one, other) = (of_client.poll(cx, client), of_server.poll(cx, server));
        match (one, other) {
            (Poll::Ready(false), _) | (_, Poll::Ready(false)) => Poll::Ready(false),
            (Poll::Ready(true), Poll::Ready(true)) => Poll::Ready(true),
            _ => Poll::Pending,
        }
    });
    timeout(PARTING, both).await.unwrap_or(true)
}

/// How far one side is.
#[derive(Default)]
struct Parting {
    told: bool,
    over: bool,
}

impl Parting {
    /// Ready with whether nothing is lost.
    fn poll(&mut self, cx: &mut Context<'_>, end: &mut impl End) -> Poll<bool> {
        if !self.told
            && let Poll::Ready(told) = end.poll_finish(cx)
        {
            // One that broke sends no more either.
            (self.told, self.over) = (true, self.over || told.is_err());
        }
        while !self.over {
            match end.poll_recv(cx) {
                Poll::Ready(Ok(Received::Data(_))) => return Poll::Ready(false),
                Poll::Ready(Ok(Received::Eof) | Err(_)) => self.over = true,
                Poll::Pending => break,
            }
        }
        if self.told && self.over { Poll::Ready(true) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a connection rests on which this came, each piece of one byte: `c` from the client, `s` from the server, `.` an end of either.
    fn rests(course: &str, moved: u64) -> bool {
        let turns = Turns::default();
        for step in course.chars() {
            let byte = Received::Data(Bytes::from_static(b"x"));
            match step {
                'c' => turns.note(Side::Client, &byte),
                's' => turns.note(Side::Server, &byte),
                _ => turns.note(Side::Client, &Received::Eof),
            }
        }
        turns.rests(moved)
    }

    #[test]
    fn a_connection_rests_between_two_questions_and_at_no_other_time() {
        for course in ["cscs", "scs", "ccscss"] {
            assert!(rests(course, course.len() as u64), "{course}");
        }
        for course in ["", "c", "cs", "css", "s", "csc", "sc", "cscs.", "cscsc"] {
            let bytes = course.chars().filter(|step| *step != '.').count();
            assert!(!rests(course, bytes as u64), "{course}");
        }
        assert!(!rests("cscs", 3), "what came and did not go on is under way");
    }
}
