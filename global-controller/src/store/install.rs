//! What clusters are to install.

use super::{Change, Error, Tx};
use tombolo_model::{
    id::{ClusterId, OrgId},
    install::{InstallOrder, InstallSpec, InstallStatus},
};

/// An order as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstallRow {
    /// What stands.
    pub(crate) order: InstallOrder,
    /// What stood before, where something was installed.
    pub(crate) before: Option<InstallSpec>,
}

impl Tx {
    /// What a cluster is to install; `None` where nobody ever said.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn install(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
    ) -> Result<Option<InstallRow>, Error> {
        let row = sqlx::query!(
            "SELECT install, install_before FROM clusters WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        let Some((Some(order), before)) = row.map(|row| (row.install, row.install_before)) else {
            return Ok(None);
        };
        Ok(Some(InstallRow {
            order: serde_json::from_value(order).map_err(|e| Error::corrupt("order to install", &e))?,
            before: before
                .map(serde_json::from_value)
                .transpose()
                .map_err(|e| Error::corrupt("earlier order to install", &e))?,
        }))
    }

    /// How installations go, by the names of the clusters.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn installing(&mut self, org: OrgId) -> Result<Vec<(String, InstallStatus)>, Error> {
        let rows = sqlx::query!(
            r#"SELECT c.name, s.install AS "install!" FROM cluster_status s
               JOIN clusters c ON c.org_id = s.org_id AND c.id = s.cluster_id
               WHERE s.org_id = $1 AND s.install IS NOT NULL AND c.revoked_at IS NULL"#,
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        // what cannot be read is told anew within seconds
        Ok(rows
            .into_iter()
            .filter_map(|row| Some((row.name, serde_json::from_value(row.install).ok()?)))
            .collect())
    }

    /// Stores what a cluster is to install.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn set_install(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        row: &InstallRow,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE clusters SET install = $3, install_before = $4 WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid(),
            serde_json::json!(row.order),
            row.before.as_ref().map(|before| serde_json::json!(before))
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        Ok(())
    }
}
