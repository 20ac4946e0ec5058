//! The sender's side.

use crate::{
    digest::Sum,
    message::{Digest, FeedLine},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tombolo_model::{
    Generation,
    snapshot::{Resource, ResourceKey, Resources},
};

/// Resources of this many bytes go on one line; well under what a decoder takes, as one resource may be big too.
const LINE: usize = 4 * 1024 * 1024;

/// A state of the past, and the keys that changed from the one before it.
#[derive(Debug)]
struct Point {
    generation: Generation,
    digest: Digest,
    changed: BTreeSet<ResourceKey>,
}

/// Holds the newest state of one receiver (or of all who are told the same), and its last changes.
#[derive(Debug)]
pub struct Publisher<R> {
    generation: Generation,
    resources: Resources<R>,
    /// What each adds to the sum, and its size on a line.
    sums: BTreeMap<ResourceKey, (Sum, usize)>,
    sum: Sum,
    /// Oldest first; the last one is the state held now. Empty before the first publish.
    history: VecDeque<Point>,
    /// Keys in all of `history`.
    kept: usize,
    limit: usize,
    /// Resources of this many bytes go on one line.
    line: usize,
}

impl<R: Resource> Publisher<R> {
    /// A publisher without a state, that will keep deltas for up to `history_limit` changes.
    #[must_use]
    pub fn new(history_limit: usize) -> Self {
        Self {
            generation: Generation::ZERO,
            resources: BTreeMap::new(),
            sums: BTreeMap::new(),
            sum: Sum::default(),
            history: VecDeque::new(),
            kept: 0,
            limit: history_limit.max(1),
            line: LINE,
        }
    }

    /// The same, with shorter lines: a receiver's decoder may have a smaller limit.
    #[must_use]
    pub const fn with_line(mut self, bytes: usize) -> Self {
        self.line = bytes;
        self
    }

    /// The newest generation. Keep it beside each feed as what was sent, after every line of [`Self::open`],
    /// [`Self::since`] and [`Self::beat`].
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// The state.
    pub const fn resources(&self) -> &Resources<R> {
        &self.resources
    }

    /// The sum of the state.
    pub fn digest(&self) -> Digest {
        self.sum.digest()
    }

    /// Takes a whole new state. Returns whether there is something to send: nothing is where the content is the
    /// same, and where `generation` is not newer (a stale reader is harmless).
    pub fn publish(&mut self, generation: Generation, resources: Resources<R>) -> bool {
        let removes: BTreeSet<_> =
            self.resources.keys().filter(|key| !resources.contains_key(*key)).cloned().collect();
        self.update(generation, resources, removes)
    }

    /// Takes a change of the state: `upserts` now stand under their keys, `removes` are gone. Returns as [`Self::publish`].
    pub fn update(
        &mut self,
        generation: Generation,
        upserts: Resources<R>,
        removes: BTreeSet<ResourceKey>,
    ) -> bool {
        if generation <= self.generation {
            return false;
        }
        self.generation = generation;
        let mut changed = BTreeSet::new();
        for (key, value) in upserts {
            if self.resources.get(&key) == Some(&value) {
                continue;
            }
            let (sum, size) = Sum::and_size(&key, &value);
            let (old, _) = self.sums.insert(key.clone(), (sum, size)).unwrap_or_default();
            self.sum = self.sum.minus(old).plus(sum);
            self.resources.insert(key.clone(), value);
            changed.insert(key);
        }
        for key in removes {
            if self.resources.remove(&key).is_some() {
                let (old, _) = self.sums.remove(&key).unwrap_or_default();
                self.sum = self.sum.minus(old);
                changed.insert(key);
            }
        }
        if changed.is_empty() && !self.history.is_empty() {
            return false;
        }
        // Nobody asks what led to the first state that is remembered: that would be all of it.
        let changed = if self.history.is_empty() { BTreeSet::new() } else { changed };
        self.kept += changed.len();
        self.history.push_back(Point { generation, digest: self.sum.digest(), changed });
        self.trim();
        true
    }

    /// Old points go when they are too many, or when their keys are more than a delta is worth.
    fn trim(&mut self) {
        let most = self.resources.len() * 2 + 1024;
        while self.history.len() > self.limit || (self.kept > most && self.history.len() > 1) {
            let gone = self.history.pop_front();
            self.kept -= gone.map_or(0, |point| point.changed.len());
        }
    }

    /// The first lines of a feed after `Hello`, for a receiver that has the state it names.
    /// Before the first publish, and for a receiver that is ahead of this replica, that is a heartbeat only.
    pub fn open(&self, resume: Option<(Generation, Digest)>) -> Vec<FeedLine<R>> {
        match resume {
            _ if self.history.is_empty() => vec![self.heartbeat()],
            Some((at, _)) if at > self.generation => vec![self.heartbeat()],
            Some((_, digest)) if digest == self.digest() => vec![self.current()],
            Some((at, digest)) => {
                let point = self.history.iter().rposition(|point| point.digest == digest);
                point
                    .and_then(|point| self.delta(point, at))
                    .map_or_else(|| self.snapshot(), |line| vec![line])
            }
            None => self.snapshot(),
        }
    }

    /// What to send on a feed on which everything up to `sent` was sent. Nothing where the content did not change.
    /// Goodbye where it takes more than a line; the feed that is asked for then gets it from [`Self::open`].
    pub fn since(&self, sent: Generation) -> Option<FeedLine<R>> {
        let newest = self.history.back()?;
        if sent >= newest.generation {
            return None;
        }
        // A feed opened before the first publish, or so long ago that its point is gone, has no base.
        let point = self.history.iter().rposition(|point| point.generation <= sent);
        if let Some(line) = point.and_then(|point| self.delta(point, sent)) {
            return Some(line);
        }
        let mut lines = self.snapshot();
        match lines.len() {
            1 => lines.pop(),
            _ => Some(FeedLine::Goodbye { reason: "too much changed; ask again for all of it".to_owned() }),
        }
    }

    /// The line that says we live. Where the generation rose without a change of the content, it says so; where the content
    /// changed, too (a beat may come before the change was told), it is what [`Self::since`] gives: a newer number alone would
    /// name a state that the receiver does not have.
    pub fn beat(&self, sent: Generation) -> FeedLine<R> {
        match self.since(sent) {
            Some(line) => line,
            None if sent < self.generation && !self.history.is_empty() => self.current(),
            None => self.heartbeat(),
        }
    }

    fn heartbeat(&self) -> FeedLine<R> {
        FeedLine::Heartbeat { generation: self.generation }
    }

    fn current(&self) -> FeedLine<R> {
        FeedLine::Current { generation: self.generation, digest: self.digest() }
    }

    /// Everything: parts, and the line that ends them.
    fn snapshot(&self) -> Vec<FeedLine<R>> {
        let (generation, digest) = (self.generation, self.digest());
        let (mut lines, mut resources, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        for (key, value) in &self.resources {
            if bytes >= self.line {
                lines.push(FeedLine::Part { generation, resources: std::mem::take(&mut resources) });
                bytes = 0;
            }
            bytes += self.size(key);
            resources.insert(key.clone(), value.clone());
        }
        lines.push(FeedLine::Snapshot { generation, digest, resources });
        lines
    }

    fn size(&self, key: &ResourceKey) -> usize {
        self.sums.get(key).map_or(0, |(_, size)| *size)
    }

    /// From the state at `point` of the history, which the receiver calls `base`. Nothing where it would be more
    /// than the whole, or than a line.
    fn delta(&self, point: usize, base: Generation) -> Option<FeedLine<R>> {
        let changed: BTreeSet<_> = self.history.iter().skip(point + 1).flat_map(|p| &p.changed).collect();
        let bytes: usize = changed.iter().map(|key| self.size(key) + key.size()).sum();
        if changed.len() > self.resources.len() || bytes >= self.line {
            return None;
        }
        let (mut upserts, mut removes) = (BTreeMap::new(), BTreeSet::new());
        for key in changed {
            match self.resources.get(key) {
                Some(value) => drop(upserts.insert(key.clone(), value.clone())),
                None => drop(removes.insert(key.clone())),
            }
        }
        let (generation, digest) = (self.generation, self.digest());
        Some(FeedLine::Delta { base, generation, digest, upserts, removes })
    }
}
