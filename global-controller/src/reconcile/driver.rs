//! The loop.

use super::{
    liveness::Liveness,
    read::{Read, read},
};
use crate::{
    metrics::Reconciled,
    publish::{Settle, View},
    store::{self, Store, change::CHANNEL},
    vips::Pools,
};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use thiserror::Error;
use tokio::{sync::Notify, time::Instant};
use tombolo_model::{Generation, id::OrgId};
use tombolo_runtime::{clock::Clock, drain, telemetry};

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
        listener.listen(CHANNEL).await?;
        hint.notify_one();
        while listener.try_recv().await?.is_some() {
            hint.notify_one();
        }
        Ok(())
    }

    /// Brings every organization that is behind up to date.
    async fn pass(&self) -> Result<(), PassError> {
        let stored = self.store.begin().await?.generations().await?;
        let held = self.view.generations();
        for org in held.keys().filter(|org| !stored.iter().any(|(id, _)| id == *org)) {
            self.view.remove(*org);
        }
        let mut failed = None;
        for (org, generation) in stored {
            if held.get(&org).is_some_and(|held| *held >= generation) && self.view.settle(org).is_none() {
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

    async fn catch_up(&self, org: OrgId) -> Result<(), PassError> {
        let held = self.view.with(org, |compiled, generation| {
            (generation, compiled.world().clusters.keys().copied().collect::<BTreeSet<_>>())
        });
        let mut tx = self.store.begin_snapshot().await?;
        let found =
            read(&mut tx, org, held.as_ref().map(|(g, clusters)| (*g, clusters)), &self.pools).await?;
        drop(tx);
        let publish = |source| PassError::Publish { org, source };
        let (told, generation) = match found {
            Read::Gone => {
                self.view.remove(org);
                return Ok(());
            }
            Read::Current => return Ok(()),
            Read::Whole(world, generation) => {
                (self.view.put(world, generation).map_err(publish)?, generation)
            }
            Read::Parts(changes, generation) => {
                (self.view.apply(org, changes, generation).map_err(publish)?, generation)
            }
        };
        self.metrics.published.inc_by(told.len() as u64);
        let now = self.now();
        for cluster in told {
            self.liveness.published(org, cluster, generation, now);
        }
        tracing::debug!(org.id = %org, snapshot.generation = %generation, "published");
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
        // a name may be back by now: then the next round sees that
        let mut released = 0;
        if generation == settle.generation {
            released = tx.release_vips(org, &settle.released, now).await?;
        }
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
