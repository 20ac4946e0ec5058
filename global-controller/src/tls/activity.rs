//! Whether requests are under way on a connection: until the body of the last answer is sent, or given up.

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Counts the requests of a connection. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    count: watch::Sender<usize>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Which answers wait for their reader, since when.
#[derive(Debug, Default)]
struct Waiting {
    /// The number of the next answer.
    next: u64,
    since: BTreeMap<u64, Instant>,
}

impl Activity {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { count: watch::Sender::new(0), waiting: Arc::default() }
    }

    /// A request, for as long as what this gives lives.
    pub(super) fn begin(&self) -> Busy {
        self.count.send_modify(|count| *count += 1);
        let mut waiting = lock(&self.waiting);
        waiting.next += 1;
        Busy { activity: self.clone(), id: waiting.next }
    }

    /// Waits until nothing was under way for this long.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut count = self.count.subscribe();
        loop {
            // the sender is ours, so neither can fail
            let _ = count.wait_for(|count| *count == 0).await;
            if tokio::time::timeout(limit, count.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }

    /// Waits until an answer has waited for its reader for this long, and at most as long again: one who asks and takes
    /// nothing (an HTTP/2 window of zero) would have us hold the answers for ever.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let (oldest, now) = (lock(&self.waiting).since.values().min().copied(), Instant::now());
            if oldest.is_some_and(|oldest| oldest + limit <= now) {
                return;
            }
            tokio::time::sleep_until(oldest.unwrap_or(now) + limit).await;
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Busy {
    activity: Activity,
    id: u64,
}

impl Busy {
    /// The body of its answer, which ends it.
    pub(super) fn until_sent(self, body: Body) -> Body {
        self.waits(true);
        Body::new(Tracked { body, busy: self })
    }

    /// For its reader, or for us.
    fn waits(&self, for_reader: bool) {
        let mut waiting = lock(&self.activity.waiting);
        if for_reader {
            waiting.since.insert(self.id, Instant::now());
        } else {
            waiting.since.remove(&self.id);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.waits(false);
        self.activity.count.send_modify(|count| *count -= 1);
    }
}

struct Tracked {
    body: Body,
    busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    /// Whoever sends asks for more only when the reader took what went before.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.busy.waits(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn is_idle_once_the_last_answer_was_sent() {
        let activity = Activity::new();
        let began = Instant::now();
        activity.idle(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT, "a connection without a request is idle too");

        let (one, two) = (activity.begin(), activity.begin());
        let body = one.until_sent(Body::from("text"));
        assert_eq!(body.size_hint().exact(), Some(4));
        drop(two);
        assert!(timeout(LIMIT * 10, activity.idle(LIMIT)).await.is_err(), "an answer is under way");
        drop(body);
        let began = Instant::now();
        activity.idle(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
    }
    #[tokio::test(start_paused = true)]
    async fn is_stalled_once_an_answer_is_not_taken() {
        let activity = Activity::new();
        let busy = activity.begin();
        assert!(
            timeout(LIMIT * 10, activity.stalled(LIMIT)).await.is_err(),
            "we are not done with the answer"
        );
        let began = Instant::now();
        let body = busy.until_sent(Body::from("text"));
        activity.stalled(LIMIT).await;
        assert!((LIMIT..=LIMIT * 2).contains(&began.elapsed()), "nobody took it");
        drop(body);
        assert!(timeout(LIMIT * 10, activity.stalled(LIMIT)).await.is_err(), "it was given up");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_has_no_more_to_say_yet_is_not_stalled() {
        let activity = Activity::new();
        let (sender, mut lines) = tokio::sync::mpsc::channel::<Bytes>(1);
        let stream = futures::stream::poll_fn(move |cx| {
            lines.poll_recv(cx).map(|line| line.map(Ok::<_, axum::Error>))
        });
        let mut body = activity.begin().until_sent(Body::from_stream(stream));
        sender.send(Bytes::from_static(b"line")).await.unwrap();
        std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap();
        activity.stalled(LIMIT).await;
        let pending = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx).is_pending()));
        assert!(pending.await, "all was taken");
        assert!(timeout(LIMIT * 10, activity.stalled(LIMIT)).await.is_err(), "now it waits for us");
    }
}
