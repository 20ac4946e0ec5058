//! Controller processes: each says every few seconds that it lives, and takes note of those that stopped saying so.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::id::OrgId;
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

    /// Forgets replicas that were silent since `before`: the clusters whose feeds they held were last seen when they were.
    /// How many there were.
    pub(crate) async fn forget_replicas(&mut self, before: DateTime<Utc>) -> Result<u64, Error> {
        let silent = sqlx::query_scalar!(
            "INSERT INTO cluster_status AS s (org_id, cluster_id, last_seen_at)
             SELECT f.org_id, f.cluster_id, max(r.seen_at) FROM feeds f JOIN replicas r ON r.id = f.replica_id
             WHERE r.seen_at < $1 GROUP BY f.org_id, f.cluster_id
             ON CONFLICT (org_id, cluster_id) DO UPDATE
             SET last_seen_at = greatest(s.last_seen_at, EXCLUDED.last_seen_at)
             RETURNING s.org_id",
            before
        )
        .fetch_all(self.conn())
        .await?;
        for org in silent {
            self.shown(OrgId::new(org));
        }
        // their feeds go with them
        let gone =
            sqlx::query!("DELETE FROM replicas WHERE seen_at < $1", before).execute(self.conn()).await?;
        Ok(gone.rows_affected())
    }

    /// This replica ends: nobody needs to wait for its silence.
    pub(crate) async fn replica_ends(&mut self, id: Uuid) -> Result<(), Error> {
        sqlx::query!("DELETE FROM replicas WHERE id = $1", id).execute(self.conn()).await?;
        Ok(())
    }
}
