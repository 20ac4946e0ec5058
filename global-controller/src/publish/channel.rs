//! The state of one cluster, and who waits for its next one.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{sync::watch, time::Instant};
use tombolo_compile::ClusterChange;
use tombolo_model::{
    Generation,
    snapshot::{ClusterResource, Resources},
};
use tombolo_wire::{
    message::{Digest, FeedLine},
    session::Publisher,
};

/// How many changes back a receiver may be and still be sent a delta.
const HISTORY: usize = 512;

/// How many feeds of one cluster may be open at a time: one, and a few that nobody has seen die yet.
const FEEDS: usize = 16;

/// What a cluster is told, as this replica has it.
#[derive(Debug)]
pub(crate) struct Channel {
    publisher: Mutex<Publisher<ClusterResource>>,
    newest: watch::Sender<Generation>,
    feeds: AtomicUsize,
    used: Mutex<Instant>,
}

impl Channel {
    /// A channel with a first state.
    pub(super) fn new(generation: Generation, resources: Resources<ClusterResource>) -> Arc<Self> {
        let mut publisher = Publisher::new(HISTORY);
        publisher.publish(generation, resources);
        Arc::new(Self {
            publisher: Mutex::new(publisher),
            newest: watch::Sender::new(generation),
            feeds: AtomicUsize::new(0),
            used: Mutex::new(Instant::now()),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Publisher<ClusterResource>> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next generation; where nothing changes for this cluster, only its number. Whether there is something to send.
    pub(super) fn advance(&self, generation: Generation, change: Option<ClusterChange>) -> bool {
        let changed = {
            let mut publisher = self.lock();
            match change {
                Some(ClusterChange::Whole(resources)) => publisher.publish(generation, resources),
                Some(ClusterChange::Parts { upserts, removes }) => {
                    publisher.update(generation, upserts, removes)
                }
                // the feeds of a cluster that is gone end by its peer's standing
                Some(ClusterChange::Gone) | None => {
                    publisher.update(generation, Resources::new(), std::collections::BTreeSet::new())
                }
            }
        };
        if changed {
            self.newest.send_replace(generation);
        }
        changed
    }

    /// Registers a feed, for as long as the guard lives; `None` where there are too many.
    pub(super) fn attach(self: &Arc<Self>) -> Option<FeedGuard> {
        let guard = FeedGuard { channel: Arc::clone(self) };
        // an increment that is one too many is taken back by the guard
        (self.feeds.fetch_add(1, Ordering::AcqRel) < FEEDS).then_some(guard)
    }

    /// How many feeds are open.
    pub(super) fn feeds(&self) -> usize {
        self.feeds.load(Ordering::Acquire)
    }

    /// The generation of the last change.
    pub(super) fn changed_at(&self) -> Generation {
        *self.newest.borrow()
    }

    /// Since when nobody is fed here; none while somebody is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.feeds.load(Ordering::Acquire) == 0)
            .then(|| *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A feed's hold on its channel.
#[derive(Debug)]
pub struct FeedGuard {
    channel: Arc<Channel>,
}

impl FeedGuard {
    /// The first lines after the greeting, and the generation that they lead to.
    pub fn open(&self, resume: Option<(Generation, Digest)>) -> (Vec<FeedLine<ClusterResource>>, Generation) {
        let publisher = self.channel.lock();
        (publisher.open(resume), publisher.generation())
    }

    /// What is new since `sent`, and the generation that it leads to.
    pub fn since(&self, sent: Generation) -> Option<(FeedLine<ClusterResource>, Generation)> {
        let publisher = self.channel.lock();
        Some((publisher.since(sent)?, publisher.generation()))
    }

    /// A line that says that we live, and the generation that it leads to.
    pub fn beat(&self, sent: Generation) -> (FeedLine<ClusterResource>, Generation) {
        let publisher = self.channel.lock();
        (publisher.beat(sent), publisher.generation())
    }

    /// The generation of the last change.
    pub fn changed_at(&self) -> Generation {
        self.channel.changed_at()
    }

    /// Tells of each generation that has something new.
    pub fn watch(&self) -> watch::Receiver<Generation> {
        self.channel.newest.subscribe()
    }
}

impl Drop for FeedGuard {
    fn drop(&mut self) {
        *self.channel.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.channel.feeds.fetch_sub(1, Ordering::AcqRel);
    }
}
