//! Which feeds are open at this replica, and how far their clusters follow: kept here, and written to the database when
//! something changed. A heartbeat costs no write; that this replica lives is one write every few seconds.

use crate::store::{
    self, Store,
    status::{FeedRow, Progress, Said},
};
use chrono::{DateTime, TimeDelta, Utc};
use prometheus_client::metrics::histogram::Histogram;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tombolo_model::{
    Generation,
    id::{ClusterId, OrgId},
};
use tombolo_runtime::{clock::Clock, drain, telemetry};
use uuid::Uuid;

/// How often this replica says that it lives.
const LIVES: Duration = Duration::from_secs(4);

/// After this long without a word a replica's feeds do not count as open.
pub(crate) const SILENT: TimeDelta = TimeDelta::seconds(15);

/// News is gathered for this long before it is written.
const GATHER: Duration = Duration::from_millis(100);

/// At most this often it is looked whether an acknowledgement that was not worth a write is one by now.
const LOOK: Duration = Duration::from_secs(1);

/// How long it is remembered how a cluster follows that is not fed here, as one that moved to another replica, was removed, or went with
/// its organization. As long as its channel is kept: without that, its next feed begins with a snapshot anyway.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);

#[derive(Debug, Default)]
struct State {
    /// Open now.
    open: BTreeSet<FeedRow>,
    /// To be written as open, or as closed.
    opened: BTreeSet<FeedRow>,
    closed: BTreeMap<FeedRow, DateTime<Utc>>,
    progress: BTreeMap<(OrgId, ClusterId), Progress>,
    follows: BTreeMap<(OrgId, ClusterId), Follow>,
    /// Somebody acknowledged more than was noted, since it was looked last.
    unlooked: bool,
    /// When that was.
    looked: Option<Instant>,
}

impl State {
    /// Forgets how clusters follow that were not fed here for long.
    fn sweep(&mut self, now: Instant) {
        let Self { open, follows, .. } = self;
        follows.retain(|(org, cluster), follow| {
            let fed = has_feed(open, *org, *cluster);
            follow.unfed = if fed { None } else { follow.unfed.or(Some(now)) };
            follow.unfed.is_none_or(|since| now.duration_since(since) < REMEMBERED)
        });
    }

    /// Clusters fed here that acknowledged more than was noted of them. Another replica may have published a later generation than
    /// this one for the same news, where it read several commits at once: what is stored says then that they are behind.
    fn ahead(&self) -> Vec<Said> {
        let mut fed: Vec<_> = self.open.iter().map(|feed| (feed.org, feed.cluster)).collect();
        fed.dedup();
        let follows = fed.into_iter().filter_map(|key| Some((key, self.follows.get(&key)?)));
        follows
            .filter(|(_, follow)| follow.acknowledged > follow.noted && !follow.refused)
            .map(|((org, cluster), follow)| Said { org, cluster, generation: follow.acknowledged })
            .collect()
    }
}

/// Whether one of these is a feed of this cluster.
fn has_feed(open: &BTreeSet<FeedRow>, org: OrgId, cluster: ClusterId) -> bool {
    let first = FeedRow { org, cluster, id: Uuid::nil() };
    open.range(first..).next().is_some_and(|feed| (feed.org, feed.cluster) == (org, cluster))
}

/// How a cluster follows what is published here.
#[derive(Debug, Default)]
struct Follow {
    /// The last generation with something new for it.
    published: Generation,
    /// Since when something waits to be applied.
    waits: Option<Instant>,
    /// The last generation that was noted as applied.
    noted: Generation,
    /// The last generation that was acknowledged, noted or not.
    acknowledged: Generation,
    /// Whether the last answer was a refusal.
    refused: bool,
    /// When it was first seen to have no feed here; none while it has one.
    unfed: Option<Instant>,
}

/// What writes statuses of clusters in one transaction, in as many passes, each of which goes by the clusters' ids.
struct Writes<'a> {
    /// Of clusters that silent replicas fed.
    orphans: &'a BTreeSet<(OrgId, ClusterId)>,
    closed: &'a BTreeMap<FeedRow, DateTime<Utc>>,
    progress: &'a BTreeMap<(OrgId, ClusterId), Progress>,
}

impl Writes<'_> {
    /// Whose statuses to lock at once before the first pass, so that two replicas cannot wait for each other; none where there is
    /// one pass at most, which has its order anyway.
    fn lock_first(&self) -> Option<BTreeSet<(OrgId, ClusterId)>> {
        let passes = [!self.orphans.is_empty(), !self.closed.is_empty(), !self.progress.is_empty()];
        if passes.into_iter().filter(|pass| *pass).count() < 2 {
            return None;
        }
        let closed = self.closed.keys().map(|feed| (feed.org, feed.cluster));
        Some(self.orphans.iter().copied().chain(closed).chain(self.progress.keys().copied()).collect())
    }
}

/// What is known of the clusters that are fed here.
#[derive(Debug)]
pub(crate) struct Liveness {
    replica: Uuid,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    news: Notify,
    lag: Histogram,
}

impl Liveness {
    /// Of this replica. `lag` is told how long clusters take to apply what is published, in seconds.
    pub(crate) fn new(replica: Uuid, clock: Arc<dyn Clock>, lag: Histogram) -> Arc<Self> {
        Arc::new(Self { replica, clock, state: Mutex::default(), news: Notify::new(), lag })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().into()
    }

    /// A feed is open, for as long as what this gives lives.
    pub(crate) fn open(self: &Arc<Self>, org: OrgId, cluster: ClusterId) -> FeedHold {
        let feed = FeedRow { org, cluster, id: Uuid::now_v7() };
        let mut state = self.lock();
        state.open.insert(feed);
        state.opened.insert(feed);
        drop(state);
        self.news.notify_one();
        FeedHold { liveness: Arc::clone(self), feed }
    }

    /// Whether a feed of this cluster is open here.
    pub(crate) fn is_fed(&self, org: OrgId, cluster: ClusterId) -> bool {
        has_feed(&self.lock().open, org, cluster)
    }

    /// A generation with something new for this cluster was published here.
    pub(crate) fn published(
        &self,
        org: OrgId,
        cluster: ClusterId,
        generation: Generation,
        at: DateTime<Utc>,
    ) {
        let mut state = self.lock();
        let follow = state.follows.entry((org, cluster)).or_default();
        if generation <= follow.published {
            return;
        }
        follow.published = generation;
        // what waits since longer ago is the lag
        follow.waits.get_or_insert_with(Instant::now);
        state.progress.entry((org, cluster)).or_default().published = Some((generation, at));
        drop(state);
        self.news.notify_one();
    }

    /// The agent applied a generation, and refused a newer one where it says so. Generations that had nothing new for it
    /// are acknowledged too, and not worth a write, but where what is stored waits for one ([`State::ahead`]).
    pub(crate) fn applied(
        &self,
        org: OrgId,
        cluster: ClusterId,
        generation: Generation,
        refused: Option<String>,
    ) {
        let now = self.now();
        let mut state = self.lock();
        let follow = state.follows.entry((org, cluster)).or_default();
        let was_refused = std::mem::replace(&mut follow.refused, refused.is_some());
        let more = generation > follow.acknowledged;
        follow.acknowledged = follow.acknowledged.max(generation);
        let new = follow.noted == Generation::ZERO || follow.noted < follow.published.min(generation);
        if !new && !was_refused && refused.is_none() {
            state.unlooked |= more;
            return;
        }
        follow.noted = generation;
        if generation >= follow.published
            && let Some(since) = follow.waits.take()
        {
            self.lag.observe(since.elapsed().as_secs_f64());
        }
        let progress = state.progress.entry((org, cluster)).or_default();
        progress.applied = Some((generation, now));
        progress.refused = Some(refused);
        drop(state);
        self.news.notify_one();
    }

    /// Writes what is new, until the draining is over: feeds that end meanwhile are written too.
    pub(crate) async fn run(self: Arc<Self>, store: Store, stop: drain::Watch) {
        let mut lived = None;
        loop {
            let wait = if stop.is_draining() && self.lock().open.is_empty() {
                break;
            } else if stop.is_draining() {
                GATHER
            } else {
                LOOK
            };
            tokio::select! {
                biased;
                () = stop.cut() => break,
                () = stop.signaled(), if !stop.is_draining() => continue,
                () = self.news.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(wait) => {}
            }
            if let Err(error) = self.write(&store, &mut lived).await {
                tracing::warn!(
                    error = telemetry::chain(&error),
                    "cannot write which clusters are connected; trying again"
                );
                tokio::time::sleep(Duration::from_millis(500)).await;
                self.news.notify_one();
            }
        }
        self.end_all();
        let last = async {
            self.write(&store, &mut lived).await?;
            let mut tx = store.begin().await?;
            tx.replica_ends(self.replica).await?;
            tx.commit().await.map(drop)
        };
        if let Err(error) = last.await {
            tracing::warn!(error = telemetry::chain(&error), "cannot say goodbye to the database");
        }
    }

    /// Feeds that are cut off end with this replica: their clusters were seen until now.
    fn end_all(&self) {
        let now = self.now();
        let mut state = self.lock();
        let open = std::mem::take(&mut state.open);
        state.closed.extend(open.into_iter().map(|feed| (feed, now)));
    }

    async fn write(&self, store: &Store, lived: &mut Option<Instant>) -> Result<(), store::Error> {
        let due = lived.is_none_or(|at| at.elapsed() >= LIVES);
        let (mut opened, closed, progress, ahead) = {
            let mut state = self.lock();
            let state = &mut *state;
            // what others publish meanwhile is found the next time that this replica says that it lives
            let may = due || state.looked.is_none_or(|at| at.elapsed() >= LOOK);
            let look = may && (std::mem::take(&mut state.unlooked) || due);
            if look {
                state.looked = Some(Instant::now());
            }
            if due {
                state.sweep(Instant::now());
            }
            (
                std::mem::take(&mut state.opened),
                std::mem::take(&mut state.closed),
                std::mem::take(&mut state.progress),
                if look { state.ahead() } else { Vec::new() },
            )
        };
        let news = due || !opened.is_empty() || !closed.is_empty() || !progress.is_empty();
        if !news && ahead.is_empty() {
            return Ok(());
        }
        let done = async {
            let now = self.now();
            let mut tx = store.begin().await?;
            // to have looked is no reason for a write
            if news && tx.replica_lives(self.replica, now).await? {
                // we were forgotten, and our feeds with us
                opened.extend(self.lock().open.iter().copied());
            }
            let silent = if due { tx.lock_silent(now - SILENT).await? } else { Vec::new() };
            let orphans = if silent.is_empty() { BTreeSet::new() } else { tx.fed_by(&silent).await? };
            let writes = Writes { orphans: &orphans, closed: &closed, progress: &progress };
            if let Some(rows) = writes.lock_first() {
                tx.lock_statuses(&rows).await?;
            }
            if !silent.is_empty() {
                tx.forget_replicas(&silent).await?;
            }
            for feed in opened.iter().filter(|feed| !closed.contains_key(feed)) {
                tx.open_feed(*feed, self.replica, now).await?;
            }
            for (feed, at) in &closed {
                tx.close_feed(*feed, *at).await?;
            }
            // a refusal is seldom
            if progress.values().any(Progress::refuses) {
                for ((org, cluster), progress) in &progress {
                    tx.set_progress(*org, *cluster, progress).await?;
                }
            } else if !progress.is_empty() {
                tx.set_progresses(&progress).await?;
            }
            let caught_up = if ahead.is_empty() { Vec::new() } else { tx.catch_up(&ahead, now).await? };
            tx.commit().await?;
            Ok(caught_up)
        };
        match done.await {
            Ok(caught_up) => {
                if due {
                    *lived = Some(Instant::now());
                }
                self.noted(&caught_up);
                Ok(())
            }
            Err(error) => {
                self.put_back(opened, closed, progress);
                Err(error)
            }
        }
    }

    /// These were noted as applied.
    fn noted(&self, caught_up: &[Said]) {
        let mut state = self.lock();
        for said in caught_up {
            if let Some(follow) = state.follows.get_mut(&(said.org, said.cluster)) {
                follow.noted = follow.noted.max(said.generation);
            }
        }
    }

    /// What could not be written is written next time, under what came meanwhile.
    fn put_back(
        &self,
        opened: BTreeSet<FeedRow>,
        closed: BTreeMap<FeedRow, DateTime<Utc>>,
        progress: BTreeMap<(OrgId, ClusterId), Progress>,
    ) {
        let mut state = self.lock();
        state.unlooked = true;
        state.opened.extend(opened);
        state.closed.extend(closed);
        for (key, old) in progress {
            let new = state.progress.entry(key).or_default();
            new.published = new.published.or(old.published);
            new.applied = new.applied.or(old.applied);
            new.refused = new.refused.take().or(old.refused);
        }
    }
}

/// Says that a feed is open; dropped, that it ended.
#[derive(Debug)]
pub(crate) struct FeedHold {
    liveness: Arc<Liveness>,
    feed: FeedRow,
}

impl Drop for FeedHold {
    fn drop(&mut self) {
        let now = self.liveness.now();
        let mut state = self.liveness.lock();
        state.open.remove(&self.feed);
        state.closed.insert(self.feed, now);
        drop(state);
        self.liveness.news.notify_one();
    }
}

#[cfg(test)]
mod tests;
