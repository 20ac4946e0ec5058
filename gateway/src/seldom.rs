//! What seldom has something to do, beside what is polled for each packet.

use futures::task::AtomicWaker;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// A future that is polled only where it was woken itself, not with each wake of its task.
pub(crate) struct Seldom<'a, F> {
    future: Pin<&'a mut F>,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<'a, F> Seldom<'a, F> {
    /// It is polled once in any case.
    pub(crate) fn new(future: Pin<&'a mut F>) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: Waker::from(bell.clone()), bell }
    }
}

impl<F: Future> Future for Seldom<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        // Registered before it is looked at: a bell that rings in between wakes the task.
        this.bell.task.register(cx.waker());
        if !this.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.as_mut().poll(&mut Context::from_waker(&this.waker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, future::poll_fn, pin::pin};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn is_polled_when_it_was_woken_and_not_else() {
        let (notify, polls) = (Notify::new(), Cell::new(0));
        let mut waits = pin!(notify.notified());
        let counted = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            waits.as_mut().poll(cx)
        });
        let mut counted = pin!(counted);
        let mut seldom = Seldom::new(counted.as_mut());
        for _ in 0..5 {
            assert!(futures::poll!(&mut seldom).is_pending());
        }
        assert_eq!(polls.get(), 1);
        notify.notify_one();
        // its own wake reaches the task
        seldom.await;
        assert_eq!(polls.get(), 2);
    }
}
