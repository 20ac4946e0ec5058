//! Controller processes: each says every few seconds that it lives, and takes note of those that stopped saying so.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;
use tombolo_model::id::{ClusterId, OrgId};
use uuid::Uuid;

impl Tx {
    /// This replica lives. Whether the database did not know it.
    pub(crate) async fn replica_lives(&mut self, id: Uuid, now: DateTime<Utc>) -> Result<bool, Error> {
        let new = sqlx::query_scalar!(
            r#"INSERT INTO replicas (id, started_at, seen_at) VALUES ($1, $2, $2)
             ON CONFLICT (id) DO UPDATE SET seen_at = greatest(replicas.seen_at, EXCLUDED.seen_at)
             RETURNING (xmax = 0) AS "new!""#,
            id,
            now
        )
        .fetch_one(self.conn())
        .await?;
        Ok(new)
    }

    /// Replicas that were silent since `before`, locked: nobody else forgets them now, and none of them comes back meanwhile. One that
    /// says just now that it lives, or that another replica forgets just now, is passed over: nobody waits here for anybody.
    pub(crate) async fn lock_silent(&mut self, before: DateTime<Utc>) -> Result<Vec<Uuid>, Error> {
        let silent =
            sqlx::query_scalar!("SELECT id FROM replicas WHERE seen_at < $1 FOR UPDATE SKIP LOCKED", before);
        Ok(silent.fetch_all(self.conn()).await?)
    }

    /// The clusters whose feeds these replicas hold.
    pub(crate) async fn fed_by(&mut self, replicas: &[Uuid]) -> Result<BTreeSet<(OrgId, ClusterId)>, Error> {
        let rows = sqlx::query!("SELECT org_id, cluster_id FROM feeds WHERE replica_id = ANY($1)", replicas)
            .fetch_all(self.conn())
            .await?;
        Ok(rows.into_iter().map(|row| (OrgId::new(row.org_id), ClusterId::new(row.cluster_id))).collect())
    }

    /// Forgets replicas that are locked ([`Tx::lock_silent`]): the clusters whose feeds they held were last seen when they were.
    pub(crate) async fn forget_replicas(&mut self, silent: &[Uuid]) -> Result<(), Error> {
        let seen = sqlx::query_scalar!(
            "INSERT INTO cluster_status AS s (org_id, cluster_id, last_seen_at)
             SELECT f.org_id, f.cluster_id, max(r.seen_at) FROM feeds f JOIN replicas r ON r.id = f.replica_id
             WHERE r.id = ANY($1) GROUP BY f.org_id, f.cluster_id ORDER BY f.org_id, f.cluster_id
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET last_seen_at = greatest(s.last_seen_at, EXCLUDED.last_seen_at)
             RETURNING s.org_id",
            silent
        )
        .fetch_all(self.conn())
        .await?;
        for org in seen {
            self.shown(OrgId::new(org));
        }
        // their feeds go with them
        sqlx::query!("DELETE FROM replicas WHERE id = ANY($1)", silent).execute(self.conn()).await?;
        Ok(())
    }

    /// This replica ends: nobody needs to wait for its silence.
    pub(crate) async fn replica_ends(&mut self, id: Uuid) -> Result<(), Error> {
        sqlx::query!("DELETE FROM replicas WHERE id = $1", id).execute(self.conn()).await?;
        Ok(())
    }
}
