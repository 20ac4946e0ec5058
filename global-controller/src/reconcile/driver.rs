//! The loop.

use super::{
    liveness::Liveness,
    read::{Read, Stamp, read},
};
use crate::{
    app::audit,
    metrics::Reconciled,
    publish::{Settle, View},
    store::{
        self, Store,
        change::{CHANNEL, STATUS},
        lineage::Witness,
    },
    vips::Pools,
};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{sync::Notify, time::Instant};
use tombolo_model::{
    Generation,
    id::{ClusterId, OrgId},
};
use tombolo_runtime::{clock::Clock, drain, telemetry};
use uuid::Uuid;

/// A pass is made at least this often: a hint that was lost costs no more.
const PERIOD: Duration = Duration::from_secs(5);

/// How long after a failed pass the next one is tried.
const RETRY: Duration = Duration::from_millis(500);

/// Why a pass failed.
#[derive(Debug, Error)]
enum PassError {
    /// The database.
    #[error("the database could not be read or written")]
    Store {
        /// Why.
        #[from]
        source: store::Error,
    },
    /// What was read cannot be published.
    #[error("organization {org} could not be published")]
    Publish {
        /// Which.
        org: OrgId,
        /// Why.
        source: tombolo_mtls::Error,
    },
}

/// Keeps the view true.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) store: Store,
    pub(crate) view: View,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) pools: Pools,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Reconciled,
    /// The commits that led to the generations held.
    pub(crate) commits: Commits,
}

/// The commit that led to the generation held, by organization.
#[derive(Debug, Default)]
pub(crate) struct Commits(Mutex<HashMap<OrgId, Uuid>>);

impl Commits {
    fn get(&self, org: OrgId) -> Option<Uuid> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&org).copied()
    }

    fn set(&self, org: OrgId, commit: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(org, commit);
    }

    fn forget(&self, org: OrgId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&org);
    }
}

impl Driver {
    /// One pass: for the start, before anybody is served.
    ///
    /// # Errors
    /// The last thing that went wrong, for the log.
    pub(crate) async fn first(&self) -> anyhow::Result<()> {
        self.pass().await?;
        Ok(())
    }

    /// Runs until the draining begins.
    pub(crate) async fn run(self, stop: drain::Watch) {
        let hint = Notify::new();
        tokio::select! {
            biased;
            () = stop.signaled() => {}
            () = self.listen(&hint) => {}
            () = self.follow(&hint) => {}
        }
    }

    async fn follow(&self, hint: &Notify) {
        loop {
            let began = Instant::now();
            let passed = self.pass().await;
            self.metrics.passes.inc();
            self.metrics.seconds.observe(began.elapsed().as_secs_f64());
            let pause = match passed {
                Ok(()) => PERIOD,
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(error = telemetry::chain(&error), "reconciling failed; trying again");
                    RETRY
                }
            };
            // hints that came during the pass are one; the next pass reads everything that is newer
            let _ = tokio::time::timeout(pause, hint.notified()).await;
        }
    }

    /// Turns notifications into hints. Each new connection is one too: some may have been lost before it.
    async fn listen(&self, hint: &Notify) {
        loop {
            if let Err(error) = self.hear(hint).await {
                tracing::warn!(error = telemetry::chain(&error), "cannot listen for changes; trying again");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn hear(&self, hint: &Notify) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(self.store.pool()).await?;
        listener.listen_all([CHANNEL, STATUS]).await?;
        hint.notify_one();
        for org in self.view.generations().into_keys() {
            self.view.status(org);
        }
        while let Some(heard) = listener.try_recv().await? {
            match heard.channel() {
                STATUS => heard.payload().parse().map_or((), |org| self.view.status(org)),
                _ => hint.notify_one(),
            }
        }
        Ok(())
    }

    /// Brings every organization that is behind up to date.
    async fn pass(&self) -> Result<(), PassError> {
        let stored = self.store.begin().await?.generations().await?;
        let held = self.view.generations();
        for org in held.keys().filter(|org| !stored.iter().any(|(id, ..)| id == *org)) {
            self.forget(*org);
        }
        let mut failed = None;
        for (org, generation, commit) in stored {
            let current = held.get(&org) == Some(&generation) && self.commits.get(org) == Some(commit);
            if current && self.view.settle(org).is_none() {
                continue;
            }
            // one organization's trouble is not another's
            if let Err(error) = self.refresh(org).await {
                tracing::warn!(org.id = %org, error = telemetry::chain(&error), "an organization could not be brought up to date");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Reads an organization until there is nothing left to read or to tell the database.
    async fn refresh(&self, org: OrgId) -> Result<(), PassError> {
        // each round tells the database something, which makes a newer generation; other writers come in between
        for _ in 0..8 {
            self.catch_up(org).await?;
            let Some(settle) = self.view.settle(org) else { return Ok(()) };
            if !self.settle(org, &settle).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn forget(&self, org: OrgId) {
        self.view.remove(org);
        self.commits.forget(org);
    }

    async fn catch_up(&self, org: OrgId) -> Result<(), PassError> {
        let held = self.view.with(org, |compiled, generation| {
            (generation, compiled.world().clusters.keys().copied().collect::<BTreeSet<_>>())
        });
        // a generation without its commit is not known to be of this database
        let held = held.map(|(generation, clusters)| {
            (Stamp { generation, commit: self.commits.get(org).unwrap_or_default() }, clusters)
        });
        let found = self.read(org, held.as_ref()).await?;
        let found = match (found, &held) {
            (Read::Unknown, Some((stamp, _))) => {
                self.begin_epoch(org, stamp.generation).await?;
                // what is read now is newer, and has nothing to do with what is held
                self.read(org, held.as_ref()).await?
            }
            (found, _) => found,
        };
        let publish = |source| PassError::Publish { org, source };
        let (told, stamp) = match found {
            Read::Gone => {
                self.forget(org);
                return Ok(());
            }
            Read::Current | Read::Unknown => return Ok(()),
            Read::Whole(world, stamp) => (self.view.put(world, stamp.generation).map_err(publish)?, stamp),
            Read::Parts(changes, stamp) => {
                (self.view.apply(org, changes, stamp.generation).map_err(publish)?, stamp)
            }
        };
        self.commits.set(org, stamp.commit);
        let generation = stamp.generation;
        self.metrics.published.inc_by(told.len() as u64);
        let now = self.now();
        for cluster in told {
            self.liveness.published(org, cluster, generation, now);
        }
        tracing::debug!(org.id = %org, snapshot.generation = %generation, "published");
        Ok(())
    }

    async fn read(&self, org: OrgId, held: Option<&(Stamp, BTreeSet<ClusterId>)>) -> Result<Read, PassError> {
        let mut tx = self.store.begin_snapshot().await?;
        Ok(read(&mut tx, org, held.map(|(stamp, clusters)| (*stamp, clusters)), &self.pools).await?)
    }

    /// This replica holds a generation that the database never came to: it was restored from a backup while we ran.
    async fn begin_epoch(&self, org: OrgId, seen: Generation) -> Result<(), PassError> {
        let mut tx = self.store.begin().await?;
        let begun = tx.begin_epoch(org, (seen, Witness::Replica), self.now()).await?;
        if let Some((stored, next)) = begun {
            tx.insert_audit(&audit::restored(org, (stored, next), None, self.now())).await?;
            tx.commit().await?;
            tracing::warn!(
                org.id = %org,
                seen = %seen,
                stored = %stored,
                snapshot.generation = %next,
                "the database is older than what was published: a new epoch begins, and everything is told anew"
            );
        }
        Ok(())
    }

    /// Allocates and releases virtual IPs. Whether something was written.
    async fn settle(&self, org: OrgId, settle: &Settle) -> Result<bool, PassError> {
        let now = self.now();
        let mut tx = self.store.begin().await?;
        let Some(generation) = tx.lock_org(org).await? else { return Ok(false) };
        let done = tx.allocate_vips(org, &settle.needed, self.pools.last(), now).await?;
        if done.exhausted > 0 {
            self.metrics.vips_exhausted.set(i64::try_from(done.exhausted).unwrap_or(i64::MAX));
            tracing::error!(
                org.id = %org,
                names = done.exhausted,
                "the pool of virtual IPs is used up: these names get none; an installation with a larger --vip-pool is needed"
            );
        }
        // where a name may be back by now, the next round sees that
        let released = match settle.released_at(generation) {
            Some(names) => tx.release_vips(org, names, now).await?,
            None => 0,
        };
        let wrote = done.given > 0 || released > 0 || generation > settle.generation;
        let taken: Option<Generation> = tx.commit().await?.remove(&org);
        if let Some(generation) = taken {
            tracing::info!(org.id = %org, names = done.given, released, snapshot.generation = %generation, "virtual IPs settled");
        }
        Ok(wrote)
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now().into()
    }
}
