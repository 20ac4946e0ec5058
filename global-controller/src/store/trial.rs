//! Orders that clusters are asked to try.

use super::{Change, Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::{
    id::{ClusterId, OrgId},
    install::{InstallSpec, Trial},
};

impl Tx {
    /// Asks a cluster to try an order, in place of one that it did not answer yet; which number it has.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn set_trial(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        spec: &InstallSpec,
        ends_at: DateTime<Utc>,
    ) -> Result<u64, Error> {
        let number = sqlx::query_scalar!(
            "UPDATE clusters SET trials = trials + 1, trial_ends_at = $4,
                    trial = jsonb_build_object('number', trials + 1, 'spec', $3::jsonb)
             WHERE org_id = $1 AND id = $2 RETURNING trials",
            org.as_uuid(),
            cluster.as_uuid(),
            serde_json::json!(spec),
            ends_at
        )
        .fetch_one(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        u64::try_from(number).map_err(|_| Error::corrupt("number of a trial", &number))
    }

    /// What a cluster is asked to try.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn trial(&mut self, org: OrgId, cluster: ClusterId) -> Result<Option<Trial>, Error> {
        let trial = sqlx::query_scalar!(
            "SELECT trial FROM clusters WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?
        .flatten();
        trial.map(serde_json::from_value).transpose().map_err(|e| Error::corrupt("trial", &e))
    }

    /// Ends a trial: it was answered.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn end_trial(&mut self, org: OrgId, cluster: ClusterId) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE clusters SET trial = NULL, trial_ends_at = NULL WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        Ok(())
    }

    /// Ends the trials that nobody answered in time.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn expire_trials(&mut self, now: DateTime<Utc>) -> Result<usize, Error> {
        let rows = sqlx::query!(
            "UPDATE clusters SET trial = NULL, trial_ends_at = NULL WHERE trial_ends_at < $1 RETURNING org_id, id",
            now
        )
        .fetch_all(self.conn())
        .await?;
        for row in &rows {
            self.changed(OrgId::new(row.org_id), Change::Cluster(ClusterId::new(row.id)));
        }
        Ok(rows.len())
    }
}
