//! How clusters are: what their agents say, how far they follow, which feeds are open.

use super::{
    Change, Error, Tx,
    reach::{self, Reaches},
};
use chrono::{DateTime, Utc};
use serde::Deserialize as _;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    Generation,
    id::{ClusterId, OrgId},
};
use tombolo_wire::message::AgentStatus;
use uuid::Uuid;

/// How far a cluster follows. Each field that is none leaves what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The last generation with something new for it, and when it was published.
    pub(crate) published: Option<(Generation, DateTime<Utc>)>,
    /// The last generation that it applied, and when it said so.
    pub(crate) applied: Option<(Generation, DateTime<Utc>)>,
    /// Why it refused one; the inner none where it refuses none any more.
    pub(crate) refused: Option<Option<String>>,
}

/// What a cluster acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The organization.
    pub(crate) org: OrgId,
    /// The cluster.
    pub(crate) cluster: ClusterId,
    /// The generation.
    pub(crate) generation: Generation,
}

/// An open feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FeedRow {
    /// The organization.
    pub(crate) org: OrgId,
    /// The cluster whose agent it feeds.
    pub(crate) cluster: ClusterId,
    /// Its id.
    pub(crate) id: Uuid,
}

/// Progress of many clusters, as columns.
#[derive(Default)]
struct Columns {
    org: Vec<Uuid>,
    cluster: Vec<Uuid>,
    published: Vec<Option<i64>>,
    published_at: Vec<Option<DateTime<Utc>>>,
    applied: Vec<Option<i64>>,
    applied_at: Vec<Option<DateTime<Utc>>>,
}

impl Progress {
    /// Whether a refusal is told.
    pub(crate) fn refuses(&self) -> bool {
        self.refused.as_ref().is_some_and(Option::is_some)
    }
}

/// What an agent said, as it is stored.
struct Columned {
    problems: Value,
    gateways: Value,
    install: Option<Value>,
    trial: Option<Value>,
    signs_with: Option<Vec<u8>>,
}

impl Columned {
    fn of(cluster: ClusterId, said: &AgentStatus) -> Result<Self, Error> {
        let json = |value: serde_json::Result<Value>| value.map_err(|_| Error::corrupt("status", &cluster));
        Ok(Self {
            problems: json(serde_json::to_value(&said.problems))?,
            gateways: json(serde_json::to_value(&said.gateways))?,
            install: said.install.as_ref().map(serde_json::to_value).map(json).transpose()?,
            trial: said.trial.as_ref().map(serde_json::to_value).map(json).transpose()?,
            signs_with: said.intermediate.as_ref().map(|print| print.as_bytes().to_vec()),
        })
    }
}

impl Tx {
    /// Whether an agent says just what it said last. When it said that is not looked at while its feed is open, so nothing needs to be written;
    /// that alone is why this does not lock: who reads too early writes once too often.
    pub(crate) async fn says_the_same(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        said: &AgentStatus,
    ) -> Result<bool, Error> {
        let row = sqlx::query!(
            "SELECT software, problems, gateways, install, trial, signs_with FROM cluster_status WHERE org_id = $1 AND cluster_id = $2",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(false) };
        let now = Columned::of(cluster, said)?;
        // how it reaches its peers is worked out of its gateways, and of nothing else that changes
        Ok(row.software.as_ref() == Some(&said.software)
            && row.signs_with == now.signs_with
            && row.install == now.install
            && (now.trial.is_none() || row.trial == now.trial)
            && row.problems == now.problems
            && row.gateways == now.gateways)
    }

    /// Stores what an agent said of its cluster.
    pub(crate) async fn set_status(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        said: &AgentStatus,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let Columned { problems, gateways, install, trial, signs_with } = Columned::of(cluster, said)?;
        let before = sqlx::query!(
            "SELECT software, problems, reaches, install, trial, signs_with, signs_since FROM cluster_status WHERE org_id = $1 AND cluster_id = $2 FOR UPDATE",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        // what cannot be read begins anew
        let reached = before.as_ref().map(|row| Reaches::deserialize(&row.reaches).unwrap_or_default());
        let reaches = serde_json::to_value(reach::reaches(&said.gateways, reached.as_ref(), now));
        let reaches = reaches.map_err(|_| Error::corrupt("status", &cluster))?;
        let signed = before.as_ref().filter(|row| row.signs_with == signs_with);
        let signs_since = signs_with.as_ref().and(signed.and_then(|row| row.signs_since).or(Some(now)));
        let same = before.is_some_and(|row| {
            row.software.as_ref() == Some(&said.software)
                && row.problems == problems
                && row.reaches == reaches
                && row.install == install
                && (trial.is_none() || row.trial == trial)
        });
        sqlx::query!(
            "INSERT INTO cluster_status AS s
                (org_id, cluster_id, software, problems, gateways, reaches, install, reported_at, trial, signs_with, signs_since)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET software = EXCLUDED.software, problems = EXCLUDED.problems, gateways = EXCLUDED.gateways,
                 reaches = EXCLUDED.reaches, install = EXCLUDED.install, reported_at = EXCLUDED.reported_at,
                 trial = coalesce(EXCLUDED.trial, s.trial), signs_with = EXCLUDED.signs_with,
                 signs_since = EXCLUDED.signs_since",
            org.as_uuid(),
            cluster.as_uuid(),
            said.software,
            problems,
            gateways,
            reaches,
            install,
            now,
            trial,
            signs_with,
            signs_since
        )
        .execute(self.conn())
        .await?;
        // counters change all the time; nobody is woken for them
        if !same {
            self.shown(org);
        }
        Ok(())
    }

    /// The addresses of a cluster's ingress gateways that are stored.
    pub(crate) async fn ingress(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
    ) -> Result<Option<BTreeSet<String>>, Error> {
        let row = sqlx::query_scalar!(
            "SELECT ingress FROM clusters WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row.map(|addresses| addresses.into_iter().collect()))
    }

    /// Stores the addresses of a cluster's ingress gateways.
    pub(crate) async fn set_ingress(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        ingress: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let addresses: Vec<String> = ingress.iter().cloned().collect();
        sqlx::query!(
            "UPDATE clusters SET ingress = $3 WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid(),
            &addresses
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        Ok(())
    }

    /// Locks the statuses of these clusters, made where there are none, in the order of their ids: for a transaction that then writes them
    /// in several passes. Two of those that took their rows pass by pass would wait for each other.
    pub(crate) async fn lock_statuses(&mut self, of: &BTreeSet<(OrgId, ClusterId)>) -> Result<(), Error> {
        let (orgs, clusters): (Vec<Uuid>, Vec<Uuid>) =
            of.iter().map(|(org, cluster)| (org.as_uuid(), cluster.as_uuid())).unzip();
        // a row that is there is locked, and not written
        sqlx::query!(
            "INSERT INTO cluster_status AS s (org_id, cluster_id)
             SELECT c.org_id, c.id FROM unnest($1::uuid[], $2::uuid[]) AS l(org_id, id)
             JOIN clusters c ON c.org_id = l.org_id AND c.id = l.id
             ORDER BY c.org_id, c.id
             ON CONFLICT (org_id, cluster_id) DO UPDATE SET refused = s.refused WHERE false",
            &orgs,
            &clusters
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Stores how far a cluster follows. Generations only rise, whichever replica writes last.
    pub(crate) async fn set_progress(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        progress: &Progress,
    ) -> Result<(), Error> {
        let published = progress.published.map(|(generation, at)| (super::bigint(generation), at)).unzip();
        let applied = progress.applied.map(|(generation, at)| (super::bigint(generation), at)).unzip();
        sqlx::query!(
            "INSERT INTO cluster_status AS s
                (org_id, cluster_id, published_generation, published_at, applied_generation, applied_at, refused)
             SELECT org_id, id, coalesce($3::bigint, 0), $4, coalesce($5::bigint, 0), $6, $8
             FROM clusters WHERE org_id = $1 AND id = $2
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET published_generation = greatest(s.published_generation, EXCLUDED.published_generation),
                 published_at = CASE WHEN EXCLUDED.published_generation > s.published_generation
                                     THEN EXCLUDED.published_at ELSE s.published_at END,
                 applied_generation = greatest(s.applied_generation, EXCLUDED.applied_generation),
                 applied_at = CASE WHEN EXCLUDED.applied_generation > s.applied_generation
                                   THEN EXCLUDED.applied_at ELSE s.applied_at END,
                 refused = CASE WHEN $7 THEN EXCLUDED.refused ELSE s.refused END",
            org.as_uuid(),
            cluster.as_uuid(),
            published.0,
            published.1,
            applied.0,
            applied.1,
            progress.refused.is_some(),
            progress.refused.clone().flatten()
        )
        .execute(self.conn())
        .await?;
        self.shown(org);
        Ok(())
    }

    /// Of clusters that acknowledged so much, those of which it is stored that they have yet to apply no more than that are noted as
    /// having applied it; which they were, and what. Nothing is written of the others, nor of one that refused something. A row that
    /// somebody else writes just now is passed over: it is waited for by nobody, and looked at the next time.
    pub(crate) async fn catch_up(&mut self, said: &[Said], now: DateTime<Utc>) -> Result<Vec<Said>, Error> {
        let orgs: Vec<Uuid> = said.iter().map(|said| said.org.as_uuid()).collect();
        let clusters: Vec<Uuid> = said.iter().map(|said| said.cluster.as_uuid()).collect();
        let generations: Vec<i64> = said.iter().map(|said| super::bigint(said.generation)).collect();
        let rows = sqlx::query!(
            "WITH behind AS (
                SELECT s.org_id, s.cluster_id FROM cluster_status s
                JOIN unnest($1::uuid[], $2::uuid[], $3::bigint[]) AS said(org_id, cluster_id, generation)
                  ON s.org_id = said.org_id AND s.cluster_id = said.cluster_id
                WHERE s.applied_generation < s.published_generation
                  AND s.published_generation <= said.generation AND s.refused IS NULL
                FOR UPDATE OF s SKIP LOCKED
             )
             UPDATE cluster_status AS s SET applied_generation = s.published_generation, applied_at = $4
             FROM behind WHERE s.org_id = behind.org_id AND s.cluster_id = behind.cluster_id
             RETURNING s.org_id, s.cluster_id, s.applied_generation",
            &orgs,
            &clusters,
            &generations,
            now
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter()
            .map(|row| {
                let org = OrgId::new(row.org_id);
                self.shown(org);
                let generation = super::generation(row.applied_generation)?;
                Ok(Said { org, cluster: ClusterId::new(row.cluster_id), generation })
            })
            .collect()
    }

    /// Stores how far many clusters follow, of which none refuses anything: as [`Tx::set_progress`], at once.
    pub(crate) async fn set_progresses(
        &mut self,
        all: &BTreeMap<(OrgId, ClusterId), Progress>,
    ) -> Result<(), Error> {
        let mut rows = Columns::default();
        for ((org, cluster), progress) in all {
            rows.org.push(org.as_uuid());
            rows.cluster.push(cluster.as_uuid());
            let (generation, at) = progress.published.map(|(g, at)| (super::bigint(g), at)).unzip();
            rows.published.push(generation);
            rows.published_at.push(at);
            let (generation, at) = progress.applied.map(|(g, at)| (super::bigint(g), at)).unzip();
            rows.applied.push(generation);
            rows.applied_at.push(at);
            self.shown(*org);
        }
        // in one order, so that two replicas cannot wait for each other
        sqlx::query!(
            "INSERT INTO cluster_status AS s
                (org_id, cluster_id, published_generation, published_at, applied_generation, applied_at)
             SELECT c.org_id, c.id, coalesce(l.published, 0), l.published_at, coalesce(l.applied, 0), l.applied_at
             FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::timestamptz[])
                AS l(org_id, id, published, published_at, applied, applied_at)
             JOIN clusters c ON c.org_id = l.org_id AND c.id = l.id
             ORDER BY c.org_id, c.id
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET published_generation = greatest(s.published_generation, EXCLUDED.published_generation),
                 published_at = CASE WHEN EXCLUDED.published_generation > s.published_generation
                                     THEN EXCLUDED.published_at ELSE s.published_at END,
                 applied_generation = greatest(s.applied_generation, EXCLUDED.applied_generation),
                 applied_at = CASE WHEN EXCLUDED.applied_generation > s.applied_generation
                                   THEN EXCLUDED.applied_at ELSE s.applied_at END,
                 refused = CASE WHEN EXCLUDED.applied_at IS NULL THEN s.refused END",
            &rows.org,
            &rows.cluster,
            &rows.published as &[Option<i64>],
            &rows.published_at as &[Option<DateTime<Utc>>],
            &rows.applied as &[Option<i64>],
            &rows.applied_at as &[Option<DateTime<Utc>>]
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Notes that a feed is open at this replica. Nothing where the cluster is no more.
    pub(crate) async fn open_feed(
        &mut self,
        feed: FeedRow,
        replica: Uuid,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO feeds (org_id, cluster_id, id, replica_id, connected_at)
             SELECT org_id, id, $3, $4, $5 FROM clusters WHERE org_id = $1 AND id = $2
             ON CONFLICT DO NOTHING",
            feed.org.as_uuid(),
            feed.cluster.as_uuid(),
            feed.id,
            replica,
            now
        )
        .execute(self.conn())
        .await?;
        self.shown(feed.org);
        Ok(())
    }

    /// Notes that a feed ended, and that its cluster was seen until now.
    pub(crate) async fn close_feed(&mut self, feed: FeedRow, now: DateTime<Utc>) -> Result<(), Error> {
        sqlx::query!(
            "DELETE FROM feeds WHERE org_id = $1 AND cluster_id = $2 AND id = $3",
            feed.org.as_uuid(),
            feed.cluster.as_uuid(),
            feed.id
        )
        .execute(self.conn())
        .await?;
        sqlx::query!(
            "INSERT INTO cluster_status AS s (org_id, cluster_id, last_seen_at)
             SELECT org_id, id, $3 FROM clusters WHERE org_id = $1 AND id = $2
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET last_seen_at = greatest(s.last_seen_at, EXCLUDED.last_seen_at)",
            feed.org.as_uuid(),
            feed.cluster.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        self.shown(feed.org);
        Ok(())
    }
}
