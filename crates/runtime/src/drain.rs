//! Ending in order: stop accepting, wait for what is under way to a deadline, then cut.
//!
//! Whoever accepts or carries something holds a [`Watch`]. While one is held the drain waits, so a watch goes with the connection that it is for
//! (or is dropped, if nothing has to be waited for).

use std::time::Duration;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// How long a cut connection may take to end.
const AFTER_CUT: Duration = Duration::from_secs(1);

/// A new pair: the one who drains, and the first watch.
#[must_use]
pub fn channel() -> (Drain, Watch) {
    let drain = Drain {
        start: CancellationToken::new(),
        cut: CancellationToken::new(),
        end: CancellationToken::new(),
        held: TaskTracker::new(),
    };
    let watch = drain.watch();
    (drain, watch)
}

/// Starts the draining, and waits for it.
#[derive(Clone, Debug)]
pub struct Drain {
    start: CancellationToken,
    cut: CancellationToken,
    end: CancellationToken,
    held: TaskTracker,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All watches were dropped in time.
    All,
    /// The deadline passed with this many watches held; they were told to cut.
    Cut(usize),
}

impl Drain {
    /// Another watch.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch {
            start: self.start.clone(),
            cut: self.cut.clone(),
            end: self.end.clone(),
            _held: self.held.token(),
        }
    }

    /// Tells all watches that it begins. Does not wait; calling it twice changes nothing.
    pub fn start(&self) {
        self.start.cancel();
    }

    /// Starts, and waits until all watches are dropped, `deadline` at most. After that, tells the rest to cut, and gives them a second.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.start();
        self.held.close();
        let left = match tokio::time::timeout(deadline, self.held.wait()).await {
            Ok(()) => 0,
            Err(_) => self.held.len(),
        };
        if left > 0 {
            self.cut.cancel();
            let _ = tokio::time::timeout(AFTER_CUT, self.held.wait()).await;
        }
        self.end.cancel();
        if left == 0 { Drained::All } else { Drained::Cut(left) }
    }
}

/// Learns of the draining, and holds it up while it lives. Each clone counts.
#[derive(Clone, Debug)]
pub struct Watch {
    start: CancellationToken,
    cut: CancellationToken,
    end: CancellationToken,
    _held: TaskTrackerToken,
}

impl Watch {
    /// Waits until the draining begins: stop accepting, tell peers, finish what is under way. Cancel-safe.
    pub async fn signaled(&self) {
        self.start.cancelled().await;
    }
    /// Waits until the deadline has passed: end now, whatever is under way. Cancel-safe.
    pub async fn cut(&self) {
        self.cut.cancelled().await;
    }
    /// Begins with the draining, and holds nothing up.
    pub(crate) fn draining(&self) -> CancellationToken {
        self.start.clone()
    }
    /// Ends with the draining, and holds nothing up.
    pub(crate) fn ended(&self) -> CancellationToken {
        self.end.clone()
    }
    /// Whether the draining has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.start.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn waits_for_all_watches() {
        let (drain, watch) = channel();
        let second = watch.clone();
        drop(watch);
        let waiting = crate::task::spawn("drain", drain.clone().drain(LONG));
        second.signaled().await;
        assert!(second.is_draining() && !waiting.is_finished());
        drop(second);
        assert_eq!(waiting.await.unwrap(), Drained::All);
    }

    #[tokio::test]
    async fn cuts_after_the_deadline() {
        let (drain, watch) = channel();
        let held = crate::task::spawn("held", async move { watch.cut().await });
        assert_eq!(drain.drain(Duration::from_millis(10)).await, Drained::Cut(1));
        held.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_held_ends_at_once() {
        let (drain, watch) = channel();
        drop(watch);
        assert_eq!(drain.drain(LONG).await, Drained::All);
    }
}
