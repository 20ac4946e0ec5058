//! Which of several replicas writes: the one that holds the Lease `tombolo-agent` of the agent's namespace. It writes the
//! objects of the cluster and the kept state, renews the intermediate, and reports to the controller. All of them answer
//! DNS and feed gateways.
//!
//! A holder that can't reach the API server does not know whether it still is one, so it writes nothing. It goes on
//! reporting unless another replica says that it holds the Lease: where the API server is away for all, nobody can take
//! it, and the controller should not lose sight of the cluster.

mod decide;
mod elect;

pub use elect::Election;

use tokio::sync::watch;

/// What this replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Standing {
    /// Another one holds the Lease, or nobody.
    #[default]
    Following,
    /// It holds the Lease.
    Leading,
    /// It held the Lease when the API server was last heard of.
    Orphaned,
}

impl Standing {
    /// Whether it may write what all replicas share.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Leading)
    }
}

/// The standing of this replica, and that of the others as far as they say.
#[derive(Clone, Debug)]
pub struct Standings {
    own: watch::Receiver<Standing>,
    another_leads: watch::Receiver<bool>,
}

impl Standings {
    /// Of a replica with others beside it.
    #[must_use]
    pub const fn new(own: watch::Receiver<Standing>, another_leads: watch::Receiver<bool>) -> Self {
        Self { own, another_leads }
    }

    /// Of an agent without replicas: it leads, always.
    #[must_use]
    pub fn alone() -> Self {
        // What was sent is kept without the senders.
        Self { own: watch::channel(Standing::Leading).1, another_leads: watch::channel(false).1 }
    }

    /// What this replica is now.
    #[must_use]
    pub fn own(&self) -> Standing {
        *self.own.borrow()
    }

    /// Whether this replica speaks to the controller now.
    #[must_use]
    pub fn speaks(&self) -> bool {
        match self.own() {
            Standing::Leading => true,
            Standing::Orphaned => !*self.another_leads.borrow(),
            Standing::Following => false,
        }
    }

    /// Tells whether this replica may write, for as long as it is polled.
    pub async fn tell(mut self, writes: watch::Sender<bool>) {
        loop {
            let now = self.own.borrow_and_update().writes();
            writes.send_if_modified(|old| std::mem::replace(old, now) != now);
            self.changed().await;
        }
    }

    /// Waits until this replica's standing changes. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.own.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Does `work` while this replica may write; anew each time it may again. What is under way when it may no more is
    /// dropped.
    pub async fn while_writing<F: Future<Output = ()>>(self, work: impl FnMut() -> F) {
        self.whenever(|standings| standings.own().writes(), work).await;
    }

    /// Does `work` while this replica speaks to the controller, as [`Self::while_writing`].
    pub async fn while_speaking<F: Future<Output = ()>>(self, work: impl FnMut() -> F) {
        self.whenever(Self::speaks, work).await;
    }

    async fn whenever<F: Future<Output = ()>>(
        mut self,
        is: impl Fn(&Self) -> bool,
        mut work: impl FnMut() -> F,
    ) {
        loop {
            self.until(|standings| is(standings)).await;
            let ended = self.clone();
            tokio::select! {
                () = ended_when(ended, &is) => {}
                () = work() => return,
            }
        }
    }

    async fn until(&mut self, is: impl Fn(&Self) -> bool) {
        loop {
            // Seen before it is asked, so that no change is missed.
            self.own.borrow_and_update();
            self.another_leads.borrow_and_update();
            if is(self) {
                return;
            }
            // Nobody changes it any more where both senders are gone.
            tokio::select! {
                Ok(()) = self.own.changed() => {}
                Ok(()) = self.another_leads.changed() => {}
                else => std::future::pending().await,
            }
        }
    }
}

async fn ended_when(mut standings: Standings, is: impl Fn(&Standings) -> bool) {
    standings.until(|standings| !is(standings)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{sync::Arc, time::Duration};
    use tombolo_runtime::task;
    use tombolo_testkit::wait::until;

    #[tokio::test]
    async fn work_is_done_while_one_leads() {
        const SOON: Duration = Duration::from_secs(10);
        let (own, seen) = watch::channel(Standing::Following);
        let (another, others) = watch::channel(false);
        let standings = Standings::new(seen, others);
        // Counts up for each beginning, down for each end.
        let (begun, running) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        struct Held(Arc<AtomicU32>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let counts = (Arc::clone(&begun), Arc::clone(&running));
        let work = task::spawn("work", async move {
            let work = || {
                counts.0.fetch_add(1, Ordering::SeqCst);
                counts.1.fetch_add(1, Ordering::SeqCst);
                let held = Held(Arc::clone(&counts.1));
                async move {
                    let _held = held;
                    std::future::pending().await
                }
            };
            standings.while_speaking(work).await;
        });
        let now = || async { (begun.load(Ordering::SeqCst), running.load(Ordering::SeqCst)) };
        for (standing, other, expected) in [
            (Standing::Leading, false, (1, 1)),
            (Standing::Orphaned, false, (1, 1)),
            (Standing::Orphaned, true, (1, 0)),
            (Standing::Leading, true, (2, 1)),
            (Standing::Following, false, (2, 0)),
        ] {
            another.send_replace(other);
            own.send_replace(standing);
            until("the work", SOON, now, |count| *count == expected).await;
        }
        work.abort();
        assert!(Standings::alone().speaks() && Standings::alone().own().writes());
    }
}
