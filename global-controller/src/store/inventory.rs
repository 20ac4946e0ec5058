//! What clusters report.

use super::{Change, Error, Tx};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    NamespaceName,
    id::{ClusterId, OrgId},
    inventory::{NamespaceRecord, ServiceKey, ServiceRecord},
};

/// The last update of a cluster's inventory that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InventoryMark {
    /// The agent's process.
    pub(crate) epoch: String,
    /// Its count.
    pub(crate) sequence: i64,
}

impl Tx {
    /// The last update stored; the outer `None` where there is no such cluster. Other updates of the same cluster wait.
    pub(crate) async fn inventory_mark(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
    ) -> Result<Option<Option<InventoryMark>>, Error> {
        let row = sqlx::query!(
            "SELECT inventory_epoch, inventory_sequence FROM clusters
             WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL FOR NO KEY UPDATE",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row.map(|row| match (row.inventory_epoch, row.inventory_sequence) {
            (Some(epoch), Some(sequence)) => Some(InventoryMark { epoch, sequence }),
            _ => None,
        }))
    }

    /// Notes the update that is stored with this transaction.
    pub(crate) async fn set_inventory_mark(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        mark: &InventoryMark,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE clusters SET inventory_epoch = $3, inventory_sequence = $4 WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid(),
            mark.epoch,
            mark.sequence
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Stores namespaces; those whose record is another one now are changes.
    pub(crate) async fn upsert_namespaces(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        namespaces: &BTreeMap<NamespaceName, NamespaceRecord>,
    ) -> Result<(), Error> {
        if namespaces.is_empty() {
            return Ok(());
        }
        let (names, records) = columns(namespaces, |name| name.to_string())?;
        let changed = sqlx::query_scalar!(
            "INSERT INTO inventory_namespaces (org_id, cluster_id, name, record)
             SELECT $1, $2, line.name, line.record FROM unnest($3::text[], $4::jsonb[]) AS line(name, record)
             ON CONFLICT (org_id, cluster_id, name) DO UPDATE SET record = EXCLUDED.record
             WHERE inventory_namespaces.record IS DISTINCT FROM EXCLUDED.record
             RETURNING name",
            org.as_uuid(),
            cluster.as_uuid(),
            &names,
            &records
        )
        .fetch_all(self.conn())
        .await?;
        self.namespaces_changed(org, cluster, changed)
    }

    /// Removes namespaces: the named ones, or (where `whole`) all but the named ones.
    pub(crate) async fn remove_namespaces(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        names: &[String],
        whole: bool,
    ) -> Result<(), Error> {
        if names.is_empty() && !whole {
            return Ok(());
        }
        let removed = sqlx::query_scalar!(
            "DELETE FROM inventory_namespaces
             WHERE org_id = $1 AND cluster_id = $2 AND (name = ANY($3)) <> $4 RETURNING name",
            org.as_uuid(),
            cluster.as_uuid(),
            names,
            whole
        )
        .fetch_all(self.conn())
        .await?;
        self.namespaces_changed(org, cluster, removed)
    }

    /// Stores services; those whose record is another one now are changes.
    pub(crate) async fn upsert_services(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        services: &BTreeMap<ServiceKey, ServiceRecord>,
    ) -> Result<(), Error> {
        if services.is_empty() {
            return Ok(());
        }
        let (keys, records) = columns(services, |key| key.to_string())?;
        let changed = sqlx::query_scalar!(
            "INSERT INTO inventory_services (org_id, cluster_id, key, record)
             SELECT $1, $2, line.key, line.record FROM unnest($3::text[], $4::jsonb[]) AS line(key, record)
             ON CONFLICT (org_id, cluster_id, key) DO UPDATE SET record = EXCLUDED.record
             WHERE inventory_services.record IS DISTINCT FROM EXCLUDED.record
             RETURNING key",
            org.as_uuid(),
            cluster.as_uuid(),
            &keys,
            &records
        )
        .fetch_all(self.conn())
        .await?;
        self.services_changed(org, cluster, changed)
    }

    /// Removes services: the named ones, or (where `whole`) all but the named ones.
    pub(crate) async fn remove_services(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        keys: &[String],
        whole: bool,
    ) -> Result<(), Error> {
        if keys.is_empty() && !whole {
            return Ok(());
        }
        let removed = sqlx::query_scalar!(
            "DELETE FROM inventory_services
             WHERE org_id = $1 AND cluster_id = $2 AND (key = ANY($3)) <> $4 RETURNING key",
            org.as_uuid(),
            cluster.as_uuid(),
            keys,
            whole
        )
        .fetch_all(self.conn())
        .await?;
        self.services_changed(org, cluster, removed)
    }

    /// How many services and namespaces the cluster has.
    pub(crate) async fn inventory_size(&mut self, org: OrgId, cluster: ClusterId) -> Result<i64, Error> {
        let count = sqlx::query_scalar!(
            r#"SELECT (SELECT count(*) FROM inventory_services WHERE org_id = $1 AND cluster_id = $2)
                    + (SELECT count(*) FROM inventory_namespaces WHERE org_id = $1 AND cluster_id = $2) AS "count!""#,
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_one(self.conn())
        .await?;
        Ok(count)
    }

    fn namespaces_changed(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        names: Vec<String>,
    ) -> Result<(), Error> {
        for name in names {
            let name = NamespaceName::parse(&name).map_err(|_| Error::corrupt("namespace", &name))?;
            self.changed(org, Change::Namespace(cluster, name));
        }
        Ok(())
    }

    fn services_changed(&mut self, org: OrgId, cluster: ClusterId, keys: Vec<String>) -> Result<(), Error> {
        for key in keys {
            let key = ServiceKey::try_from(key.clone()).map_err(|_| Error::corrupt("service", &key))?;
            self.changed(org, Change::Service(cluster, key));
        }
        Ok(())
    }
}

/// A map as two columns.
fn columns<K, V: Serialize>(
    map: &BTreeMap<K, V>,
    name: impl Fn(&K) -> String,
) -> Result<(Vec<String>, Vec<serde_json::Value>), Error> {
    let mut seen = BTreeSet::new();
    let mut out = (Vec::with_capacity(map.len()), Vec::with_capacity(map.len()));
    for (key, record) in map {
        let key = name(key);
        let record = serde_json::to_value(record).map_err(|_| Error::corrupt("record", &key))?;
        if seen.insert(key.clone()) {
            out.0.push(key);
            out.1.push(record);
        }
    }
    Ok(out)
}
