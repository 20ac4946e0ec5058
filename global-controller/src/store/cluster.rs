//! Clusters, as people made them and as their agents left them.

use super::{Error, Tx, reach::Reaches};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::BTreeSet;
use tombolo_model::{
    ClusterName, Locality,
    id::{ClusterId, OrgId},
    intent::Labels,
};

/// How long after a replica's last sign of life its feeds still count.
pub(crate) const REPLICA_LIVES: TimeDelta = TimeDelta::seconds(15);

/// How a cluster stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterState {
    /// No agent ever joined as this cluster.
    Pending,
    /// Its agent follows a feed.
    Connected,
    /// Its agent joined, and follows none.
    Disconnected,
    /// It was removed: nobody trusts it any more.
    Revoked,
}

/// A cluster as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterRow {
    pub(crate) id: ClusterId,
    pub(crate) name: ClusterName,
    pub(crate) labels: Labels,
    pub(crate) locality: Locality,
    pub(crate) ingress: BTreeSet<String>,
    /// How other clusters reach it: by cluster and address.
    pub(crate) reached: Reaches,
    /// Rises with each edit.
    pub(crate) version: i64,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) updated_at: DateTime<Utc>,
    pub(crate) joined_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) state: ClusterState,
}

struct Row {
    id: uuid::Uuid,
    name: String,
    labels: serde_json::Value,
    region: Option<String>,
    zone: Option<String>,
    ingress: Vec<String>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    joined_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    connected: bool,
    reached: Option<serde_json::Value>,
}

impl TryFrom<Row> for ClusterRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        let state = match (row.revoked_at, row.joined_at, row.connected) {
            (Some(_), _, _) => ClusterState::Revoked,
            (None, None, _) => ClusterState::Pending,
            (None, Some(_), true) => ClusterState::Connected,
            (None, Some(_), false) => ClusterState::Disconnected,
        };
        Ok(Self {
            id: ClusterId::new(row.id),
            name: ClusterName::parse(&row.name).map_err(|_| Error::corrupt("cluster's name", &row.name))?,
            labels: serde_json::from_value(row.labels).map_err(|e| Error::corrupt("set of labels", &e))?,
            locality: Locality { region: row.region, zone: row.zone },
            ingress: row.ingress.into_iter().collect(),
            // what cannot be read is told anew within seconds
            reached: row.reached.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default(),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            joined_at: row.joined_at,
            revoked_at: row.revoked_at,
            state,
        })
    }
}

/// What people may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterEdit<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) locality: &'a Locality,
}

impl Tx {
    /// The cluster with this name, revoked or not.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn cluster(
        &mut self,
        org: OrgId,
        name: &ClusterName,
        now: DateTime<Utc>,
    ) -> Result<Option<ClusterRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT c.id, c.name, c.labels, c.region, c.zone, c.ingress, c.version, c.created_at, c.updated_at,
                      c.joined_at, c.revoked_at,
                      EXISTS (SELECT 1 FROM feeds f JOIN replicas r ON r.id = f.replica_id
                              WHERE f.org_id = c.org_id AND f.cluster_id = c.id AND r.seen_at > $3) AS "connected!",
                      (SELECT jsonb_object_agg(p.name, s.reaches -> c.name)
                       FROM cluster_status s JOIN clusters p ON p.org_id = s.org_id AND p.id = s.cluster_id
                       WHERE s.org_id = c.org_id AND p.revoked_at IS NULL AND s.reaches ? c.name) AS "reached"
               FROM clusters c WHERE c.org_id = $1 AND c.name = $2"#,
            org.as_uuid(),
            name.as_str(),
            now - REPLICA_LIVES
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Clusters by name, those after `after`; the revoked ones too where `revoked` says so.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_clusters(
        &mut self,
        org: OrgId,
        revoked: bool,
        after: Option<&str>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<ClusterRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"WITH page AS MATERIALIZED (
                 SELECT c.* FROM clusters c
                 WHERE c.org_id = $1 AND ($2 OR c.revoked_at IS NULL)
                   AND ($3::text IS NULL OR c.name COLLATE "C" > $3)
                 ORDER BY c.name COLLATE "C" LIMIT $4),
               -- what each cluster says of all is read once, not once for each of the page
               reached AS (
                 SELECT said.key AS name, jsonb_object_agg(p.name, said.value) AS by
                 FROM cluster_status s JOIN clusters p ON p.org_id = s.org_id AND p.id = s.cluster_id,
                      jsonb_each(s.reaches) said
                 WHERE s.org_id = $1 AND p.revoked_at IS NULL AND said.key IN (SELECT page.name FROM page)
                 GROUP BY said.key)
               SELECT c.id AS "id!", c.name AS "name!", c.labels AS "labels!", c.region, c.zone,
                      c.ingress AS "ingress!", c.version AS "version!", c.created_at AS "created_at!",
                      c.updated_at AS "updated_at!", c.joined_at, c.revoked_at,
                      EXISTS (SELECT 1 FROM feeds f JOIN replicas r ON r.id = f.replica_id
                              WHERE f.org_id = c.org_id AND f.cluster_id = c.id AND r.seen_at > $5) AS "connected!",
                      reached.by AS "reached?"
               FROM page c LEFT JOIN reached ON reached.name = c.name
               ORDER BY c.name COLLATE "C""#,
            org.as_uuid(),
            revoked,
            after,
            limit,
            now - REPLICA_LIVES
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Stores a new cluster. A revoked one of this name comes back as if new, under its old id: it has to join again.
    /// The id it got; `None` where one of this name stands.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn insert_cluster(
        &mut self,
        org: OrgId,
        id: ClusterId,
        name: &ClusterName,
        edit: &ClusterEdit<'_>,
        now: DateTime<Utc>,
    ) -> Result<Option<ClusterId>, Error> {
        let row = sqlx::query!(
            "INSERT INTO clusters (org_id, id, name, labels, region, zone, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
             ON CONFLICT ON CONSTRAINT clusters_name_key DO UPDATE
             SET labels = excluded.labels, region = excluded.region, zone = excluded.zone, ingress = '{}',
                 version = clusters.version + 1, created_at = excluded.created_at,
                 updated_at = excluded.updated_at, joined_at = NULL, revoked_at = NULL,
                 install = NULL, install_before = NULL,
                 inventory_epoch = NULL, inventory_sequence = NULL
             WHERE clusters.revoked_at IS NOT NULL
             RETURNING id",
            org.as_uuid(),
            id.as_uuid(),
            name.as_str(),
            serde_json::json!(edit.labels),
            edit.locality.region.as_deref(),
            edit.locality.zone.as_deref(),
            now
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row.map(|row| ClusterId::new(row.id)))
    }

    /// Changes what people may set.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn update_cluster(
        &mut self,
        org: OrgId,
        id: ClusterId,
        edit: &ClusterEdit<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE clusters SET labels = $3, region = $4, zone = $5, version = version + 1, updated_at = $6
             WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            id.as_uuid(),
            serde_json::json!(edit.labels),
            edit.locality.region.as_deref(),
            edit.locality.zone.as_deref(),
            now
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Forgets what a cluster reported: it begins anew.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn forget_reports(&mut self, org: OrgId, id: ClusterId) -> Result<(), Error> {
        let (org, id) = (org.as_uuid(), id.as_uuid());
        sqlx::query!("DELETE FROM inventory_services WHERE org_id = $1 AND cluster_id = $2", org, id)
            .execute(self.conn())
            .await?;
        sqlx::query!("DELETE FROM inventory_namespaces WHERE org_id = $1 AND cluster_id = $2", org, id)
            .execute(self.conn())
            .await?;
        sqlx::query!("DELETE FROM cluster_status WHERE org_id = $1 AND cluster_id = $2", org, id)
            .execute(self.conn())
            .await?;
        Ok(())
    }
}
