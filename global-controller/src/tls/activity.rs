//! Whether requests are under way on a connection: until the body of the last answer is sent, or given up.

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::sync::watch;

/// Counts the requests of a connection. Clones share the count.
#[derive(Clone, Debug)]
pub(super) struct Activity(watch::Sender<usize>);

impl Activity {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// A request, for as long as what this gives lives.
    pub(super) fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count += 1);
        Busy(self.0.clone())
    }

    /// Waits until nothing was under way for this long.
    pub(super) async fn idle(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // the sender is ours, so neither can fail
            let _ = count.wait_for(|count| *count == 0).await;
            if tokio::time::timeout(limit, count.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct Busy(watch::Sender<usize>);

impl Busy {
    /// The body of its answer, which ends it.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(Tracked { body, _busy: self })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Tracked {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
}
