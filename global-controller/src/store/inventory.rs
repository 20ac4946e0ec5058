//! What clusters report.

use super::{Change, Error, Tx};
use crate::sequence::Mark;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use tombolo_model::{
    NamespaceName,
    id::{ClusterId, OrgId},
    inventory::{NamespaceRecord, ServiceKey, ServiceRecord},
};

/// How much a cluster has told in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InventorySize {
    /// Namespaces.
    pub(crate) namespaces: i64,
    /// Services.
    pub(crate) services: i64,
    /// Names of pods; none where they were not asked for.
    pub(crate) pods: i64,
    /// As it is stored.
    pub(crate) bytes: i64,
}

impl Tx {
    /// The last update stored; the outer `None` where there is no such cluster. Other updates of the same cluster wait.
    pub(crate) async fn inventory_mark(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
    ) -> Result<Option<Option<Mark>>, Error> {
        let row = sqlx::query!(
            "SELECT inventory_epoch, inventory_sequence FROM clusters
             WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL FOR NO KEY UPDATE",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row.map(|row| match (row.inventory_epoch, row.inventory_sequence) {
            (Some(epoch), Some(sequence)) => Some(Mark { epoch, sequence }),
            _ => None,
        }))
    }

    /// Notes the update that is stored with this transaction.
    pub(crate) async fn set_inventory_mark(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        mark: &Mark,
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
        for some in chunks(namespaces) {
            self.upsert_some_namespaces(org, cluster, &some).await?;
        }
        Ok(())
    }

    async fn upsert_some_namespaces(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        some: &[(&NamespaceName, &NamespaceRecord)],
    ) -> Result<(), Error> {
        let (names, records) = columns(some)?;
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

    /// Stores services; those whose record is another one now are changes. From when a ServiceExport counts ([`counts_from`]) is settled
    /// when it is first told, and stays while its cluster says that it is the same one.
    pub(crate) async fn upsert_services(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        services: &BTreeMap<ServiceKey, ServiceRecord>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        for some in chunks(services) {
            self.upsert_some_services(org, cluster, &some, now).await?;
        }
        Ok(())
    }

    async fn upsert_some_services(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        some: &[(&ServiceKey, &ServiceRecord)],
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let (keys, records) = columns(some)?;
        let exports: Vec<Option<i64>> = some
            .iter()
            .map(|(_, record)| Some(counts_from(record.export.as_ref()?.created_s, now.timestamp())))
            .collect();
        let changed = sqlx::query_scalar!(
            "INSERT INTO inventory_services AS old (org_id, cluster_id, key, record, export_s)
             SELECT $1, $2, line.key, line.record, line.export_s
               FROM unnest($3::text[], $4::jsonb[], $5::bigint[]) AS line(key, record, export_s)
             ON CONFLICT (org_id, cluster_id, key) DO UPDATE SET record = EXCLUDED.record, export_s =
               CASE WHEN old.record->'export'->'created_s' = EXCLUDED.record->'export'->'created_s'
                    THEN old.export_s ELSE EXCLUDED.export_s END
             WHERE old.record IS DISTINCT FROM EXCLUDED.record
             RETURNING key",
            org.as_uuid(),
            cluster.as_uuid(),
            &keys,
            &records,
            &exports as &[Option<i64>]
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

    /// How much the cluster has told; names of pods are counted where `pods`. What is compressed is counted as what it was: a thousand
    /// pods of one kind become very short.
    pub(crate) async fn inventory_size(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        pods: bool,
    ) -> Result<InventorySize, Error> {
        let size = sqlx::query_as!(
            InventorySize,
            r#"WITH records AS (
                 SELECT record, true AS service FROM inventory_services WHERE org_id = $1 AND cluster_id = $2
                 UNION ALL
                 SELECT record, false FROM inventory_namespaces WHERE org_id = $1 AND cluster_id = $2)
               SELECT count(*) FILTER (WHERE service) AS "services!",
                      count(*) FILTER (WHERE NOT service) AS "namespaces!",
                      coalesce(sum((SELECT count(*) FROM jsonb_object_keys(record->'pods')))
                               FILTER (WHERE $3 AND service AND record ? 'pods'), 0)::bigint AS "pods!",
                      coalesce(sum(CASE WHEN pg_column_compression(record) IS NULL THEN pg_column_size(record)
                                        ELSE octet_length(record::text) END), 0)::bigint AS "bytes!"
               FROM records"#,
            org.as_uuid(),
            cluster.as_uuid(),
            pods
        )
        .fetch_one(self.conn())
        .await?;
        Ok(size)
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

/// How long before it was told a ServiceExport may have been made, in seconds: as long as a cluster may be cut off and lose nothing by it.
const TOLD_LATE: i64 = 3600;

/// From when a ServiceExport counts that is first told now, in seconds since 1970. The oldest decides, and each cluster says how old its own
/// are: one that says 1970 must not decide for all, nor does a clock that is ahead make one lose for ever.
fn counts_from(created_s: i64, now_s: i64) -> i64 {
    created_s.clamp(now_s.saturating_sub(TOLD_LATE), now_s)
}

/// How many records are stored at a time: as JSON in memory, they are several times as large as they came.
const CHUNK: usize = 1000;

/// The pairs of a map, some at a time.
fn chunks<K, V>(map: &BTreeMap<K, V>) -> impl Iterator<Item = Vec<(&K, &V)>> {
    let mut pairs = map.iter();
    std::iter::from_fn(move || {
        Some(pairs.by_ref().take(CHUNK).collect()).filter(|some: &Vec<_>| !some.is_empty())
    })
}

/// Pairs as two columns.
fn columns<K: ToString, V: Serialize>(
    pairs: &[(&K, &V)],
) -> Result<(Vec<String>, Vec<serde_json::Value>), Error> {
    let mut out = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
    for (key, record) in pairs {
        let key = key.to_string();
        out.1.push(serde_json::to_value(record).map_err(|_| Error::corrupt("record", &key))?);
        out.0.push(key);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_as_old_as_its_cluster_says_within_an_hour() {
        let now = 1_800_000_000;
        for (told, counts) in [
            (now - 5, now - 5),
            (now - TOLD_LATE, now - TOLD_LATE),
            (0, now - TOLD_LATE),
            (i64::MIN, now - TOLD_LATE),
            (now + 60, now),
            (i64::MAX, now),
        ] {
            assert_eq!(counts_from(told, now), counts, "{told}");
        }
        assert_eq!(counts_from(0, i64::MIN), i64::MIN, "whatever the clock says");
    }
}
