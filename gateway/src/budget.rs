//! What waits in this process for readers that do not read has a bound, of all connections together. A connection may have a
//! megabyte under way each way, so that a fast reader far away is served fast; most have nothing that waits. Where more waits than
//! there is memory for, the largest connections of whoever has most are cut, so that nobody takes what others need; and before that
//! comes to pass, peers are told to send less before it is read.
//!
//! While bytes move nothing is counted here. A connection whose sink takes no more says so, with two atomic additions.

use crate::{conns::Cut, reason::Reason};
use std::{
    collections::{BinaryHeap, HashMap},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tombolo_model::SpiffeId;
use tombolo_runtime::places::Source;

/// Of the memory that the process may have, one part in so many. What is counted may hold twice as much in larger buffers, and the kernel's
/// own count as well.
const PART: u64 = 4;
/// The least, in bytes, and the most, where nothing else is asked for.
const USUAL: std::ops::RangeInclusive<u64> = 16 << 20..=4 << 30;
/// Each step makes the windows so many times narrower, in bits.
const STEP: u8 = 2;
/// From width to width of one tunnel.
const PACE: Duration = Duration::from_secs(1);

/// As many bytes may wait in a process with so much memory, if nothing else was asked for.
#[must_use]
pub fn usual(memory: Option<u64>) -> usize {
    let part = memory.map_or(*USUAL.end(), |memory| memory / PART);
    usize::try_from(part.clamp(*USUAL.start(), *USUAL.end())).unwrap_or(usize::MAX)
}

/// To whom it is counted what waits: who opened the connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// A workload, or the gateway of another cluster for all of that cluster.
    Identity(SpiffeId),
    /// Who has no name.
    Address(Source),
}

/// Which connections are cut so that no more than `most` bytes wait: each time the largest one of whoever has most. Pure.
fn cut<K: Eq + Hash>(waiting: impl IntoIterator<Item = (K, u64, usize)>, most: usize) -> Vec<u64> {
    let mut by: HashMap<K, (usize, BinaryHeap<(usize, u64)>)> = HashMap::new();
    let mut all = 0;
    for (who, number, bytes) in waiting {
        let of = by.entry(who).or_default();
        of.0 += bytes;
        of.1.push((bytes, number));
        all += bytes;
    }
    let mut by: Vec<_> = by.into_values().collect();
    let mut cut = Vec::new();
    while all > most
        && let Some(of) = by.iter_mut().max_by_key(|of| of.0)
        && let Some((bytes @ 1.., number)) = of.1.pop()
    {
        of.0 -= bytes;
        all -= bytes;
        cut.push(number);
    }
    cut
}

/// How many times windows are to be made narrower, where so much waits. Pure. They grow again only when much less does.
fn step(now: u8, waiting: usize, most: usize) -> u8 {
    match waiting {
        _ if waiting >= most / 4 * 3 => 2,
        _ if waiting >= most / 2 => now.max(1),
        _ if waiting < most / 8 * 3 => 0,
        _ => now,
    }
}

/// Fewer bytes in one connection are not counted: they are a part of what every connection costs.
const GRAIN: usize = 4 << 10;

/// In place of a number of bytes: the connection was cut, and counts no more.
const GONE: usize = usize::MAX;

#[derive(Debug)]
struct Entry {
    who: Who,
    bytes: AtomicUsize,
    cut: Cut,
}

#[derive(Debug)]
struct Inner {
    most: usize,
    widest: u32,
    /// Of all entries together. It may be below zero for an instant.
    waiting: AtomicIsize,
    step: AtomicU8,
    window: watch::Sender<u32>,
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
}

/// The count of all that waits. Clones share it.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

impl Budget {
    /// Of so many bytes, for streams whose windows are this wide while there is room.
    #[must_use]
    pub fn new(most: usize, widest: u32) -> Self {
        Self(Arc::new(Inner {
            most,
            widest,
            waiting: AtomicIsize::new(0),
            step: AtomicU8::new(0),
            window: watch::Sender::new(widest),
            entries: Mutex::default(),
        }))
    }

    /// For one connection: nothing waits in it yet. It is cut by its ticket.
    #[must_use]
    pub fn connection(&self, who: Who, ticket: &crate::conns::Ticket) -> Waiting {
        Waiting {
            budget: self.clone(),
            who,
            number: ticket.number(),
            cut: ticket.cut(),
            entry: None,
            told: 0,
        }
    }

    /// Bytes that wait now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        usize::try_from(self.0.waiting.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// How wide the windows of a tunnel's streams are to be, now and later.
    #[must_use]
    pub fn windows(&self) -> Windows {
        let wanted = self.0.window.subscribe();
        let told = *wanted.borrow();
        Windows { wanted, told, after: Instant::now() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more or fewer wait.
    fn add(&self, bytes: isize) {
        let now = self.0.waiting.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let now = usize::try_from(now).unwrap_or(0);
        if now > self.0.most {
            self.make_room();
        }
        let before = self.0.step.load(Ordering::Relaxed);
        let step = step(before, now, self.0.most);
        if step != before
            && self.0.step.compare_exchange(before, step, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let window = self.0.widest >> (step * STEP);
            tracing::info!(waiting.bytes = now, window.bytes = window, "the windows of streams change");
            self.0.window.send_replace(window);
        }
    }

    /// Cuts more than is needed, lest each byte that comes is a look at everything.
    fn make_room(&self) {
        let entries = self.entries();
        if self.waiting() <= self.0.most {
            return;
        }
        let waiting = entries.iter().filter_map(|(number, entry)| {
            let bytes = entry.bytes.load(Ordering::Relaxed);
            (bytes != GONE).then_some((&entry.who, *number, bytes))
        });
        let cut = cut(waiting, self.0.most / 8 * 7);
        for entry in cut.iter().filter_map(|number| entries.get(number)) {
            let bytes = entry.bytes.swap(GONE, Ordering::Relaxed);
            self.0.waiting.fetch_sub(signed(bytes), Ordering::Relaxed);
            entry.cut.end(Reason::Overloaded);
        }
        tracing::warn!(
            connections.count = cut.len(),
            "nobody reads what waits here, and there is no room for more; cut"
        );
    }
}

fn signed(bytes: usize) -> isize {
    if bytes == GONE { 0 } else { isize::try_from(bytes).unwrap_or(isize::MAX) }
}

/// What waits in one connection; dropped, nothing does.
#[derive(Debug)]
pub struct Waiting {
    budget: Budget,
    who: Who,
    number: u64,
    cut: Cut,
    entry: Option<Arc<Entry>>,
    told: usize,
}

impl Waiting {
    /// So many bytes wait now.
    pub fn set(&mut self, bytes: usize) {
        let bytes = if bytes < GRAIN { 0 } else { bytes };
        if bytes == self.told {
            return;
        }
        self.told = bytes;
        let Self { budget, who, number, cut, entry, .. } = self;
        let entry = entry.get_or_insert_with(|| {
            let entry = Entry { who: who.clone(), bytes: AtomicUsize::new(0), cut: cut.clone() };
            let entry = Arc::new(entry);
            budget.entries().insert(*number, Arc::clone(&entry));
            entry
        });
        let here = |now| (now != GONE).then_some(bytes);
        if let Ok(before) = entry.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, here) {
            budget.add(signed(bytes) - signed(before));
        }
    }

    /// Bytes that wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.told
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.budget.entries().remove(&self.number);
            self.budget.add(-signed(entry.bytes.swap(GONE, Ordering::Relaxed)));
        }
    }
}

/// How wide the windows of one tunnel's streams are to be.
#[derive(Debug)]
pub struct Windows {
    wanted: watch::Receiver<u32>,
    told: u32,
    after: Instant,
}

impl Windows {
    /// As wide as the peer was told last.
    #[must_use]
    pub const fn told(&self) -> u32 {
        self.told
    }

    /// Waits until the peer is to be told something else. Cancel-safe.
    pub async fn change(&mut self) -> u32 {
        loop {
            let told = self.told;
            if self.wanted.wait_for(|window| *window != told).await.is_err() {
                return std::future::pending().await;
            }
            sleep_until(self.after).await;
            let window = *self.wanted.borrow();
            if window != told {
                return window;
            }
        }
    }

    /// The peer is told, or can't be told yet, because it has not taken what it was told before.
    pub fn tell(&mut self, window: u32, taken: bool) {
        if taken {
            self.told = window;
        }
        self.after = Instant::now() + PACE;
    }
}

#[cfg(test)]
mod tests;
