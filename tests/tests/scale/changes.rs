//! Changes on their way: each is told by who made it, and seen by all that are affected.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tombolo_model::{
    ClusterName,
    snapshot::{ClusterResource, ResourceKey, Resources},
};

/// A service of a cluster has so many ready endpoints now.
pub(crate) struct Change {
    /// The name that shows it.
    pub(crate) key: ResourceKey,
    /// The cluster.
    pub(crate) cluster: ClusterName,
    /// Ready endpoints.
    pub(crate) ready: u32,
}

struct Open {
    change: Change,
    began: Instant,
    left: BTreeSet<usize>,
}

/// How long changes took.
#[derive(Default)]
pub(crate) struct Seen {
    /// Until each cluster had it in force.
    pub(crate) each: Vec<Duration>,
    /// Until the last one had.
    pub(crate) everywhere: Vec<Duration>,
}

/// All that are on their way, by group: clusters of one see nothing of another.
pub(crate) struct Changes {
    groups: Vec<Mutex<Vec<Open>>>,
    seen: Mutex<Seen>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many endpoints of a name are ready in a cluster, as a state has it.
fn ready(state: &Resources<ClusterResource>, key: &ResourceKey, cluster: &ClusterName) -> Option<u32> {
    let ClusterResource::Name(name) = state.get(key)? else { return None };
    Some(name.targets.iter().find(|target| target.cluster == *cluster)?.ready)
}

impl Changes {
    pub(crate) fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Mutex::default()).collect(), seen: Mutex::default() }
    }

    /// Whether a change of this name in this cluster is on its way.
    pub(crate) fn is_open(&self, group: usize, key: &ResourceKey, cluster: &ClusterName) -> bool {
        lock(&self.groups[group])
            .iter()
            .any(|open| open.change.key == *key && open.change.cluster == *cluster)
    }

    /// A change is made now, that these clusters are to see.
    pub(crate) fn begin(&self, group: usize, change: Change, all: impl Iterator<Item = usize>) {
        let open = Open { change, began: Instant::now(), left: all.collect() };
        lock(&self.groups[group]).push(open);
    }

    /// A cluster has this state in force.
    pub(crate) fn look(&self, group: usize, cluster: usize, state: &Resources<ClusterResource>) {
        let now = Instant::now();
        let mut group = lock(&self.groups[group]);
        let mut seen = Seen::default();
        group.retain_mut(|open| {
            let there = || ready(state, &open.change.key, &open.change.cluster) == Some(open.change.ready);
            if open.left.contains(&cluster) && there() {
                open.left.remove(&cluster);
                seen.each.push(now - open.began);
                if open.left.is_empty() {
                    seen.everywhere.push(now - open.began);
                }
            }
            !open.left.is_empty()
        });
        drop(group);
        if !seen.each.is_empty() {
            let mut all = lock(&self.seen);
            all.each.append(&mut seen.each);
            all.everywhere.append(&mut seen.everywhere);
        }
    }

    /// How many are on their way.
    pub(crate) fn open(&self) -> usize {
        self.groups.iter().map(|group| lock(group).len()).sum()
    }

    /// Forgets what is on its way: how many there were.
    pub(crate) fn give_up(&self) -> usize {
        self.groups.iter().map(|group| std::mem::take(&mut *lock(group)).len()).sum()
    }

    /// What came since the last time.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *lock(&self.seen))
    }
}
