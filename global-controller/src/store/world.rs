//! Everything that the compiler reads of an organization; all of it, or only the rows that changed.

use super::{Error, Tx, intermediate::fingerprint};
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, DnsLabel, Domain, Generation, Locality, NamespaceName, OrgName, TrustDomain,
    id::{ClusterId, GnsId, OrgId},
    install::{InstallOrder, Trial},
    intent::{Cluster, GlobalNamespace, Labels, MappingRule, Organization},
    inventory::{NamespaceRecord, ServiceKey, ServiceRecord},
};
use uuid::Uuid;

impl Tx {
    /// The organization, its generation, and the commit that led to it.
    pub(crate) async fn world_org(
        &mut self,
        org: OrgId,
    ) -> Result<Option<(Organization, Generation, Uuid)>, Error> {
        let row = sqlx::query!(
            "SELECT name, trust_domain, generation, commit_id FROM organizations WHERE id = $1",
            org.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(None) };
        let organization = Organization {
            id: org,
            name: OrgName::parse(&row.name).map_err(|_| Error::corrupt("name", &row.name))?,
            trust_domain: TrustDomain::parse(&row.trust_domain)
                .map_err(|_| Error::corrupt("trust domain", &row.trust_domain))?,
        };
        Ok(Some((organization, super::generation(row.generation)?, row.commit_id)))
    }

    /// Clusters in good standing, or those of the given ones.
    pub(crate) async fn world_clusters(
        &mut self,
        org: OrgId,
        only: Option<&[Uuid]>,
    ) -> Result<Vec<Cluster>, Error> {
        let rows = sqlx::query!(
            r#"SELECT id, name, labels AS "labels: Json<Labels>", region, zone, ingress,
                install AS "install: Json<InstallOrder>", trial AS "trial: Json<Trial>",
                array(SELECT i.fingerprint FROM cluster_intermediates i
                      WHERE i.org_id = c.org_id AND i.cluster_id = c.id AND i.revoked_at IS NULL) AS "prints!: Vec<Vec<u8>>"
             FROM clusters c
             WHERE org_id = $1 AND revoked_at IS NULL AND ($2::uuid[] IS NULL OR id = ANY($2))"#,
            org.as_uuid(),
            only
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Cluster {
                    id: ClusterId::new(row.id),
                    name: ClusterName::parse(&row.name)
                        .map_err(|_| Error::corrupt("cluster name", &row.name))?,
                    labels: row.labels.0,
                    locality: Locality { region: row.region, zone: row.zone },
                    intermediates: row.prints.iter().map(|p| fingerprint(p)).collect::<Result<_, _>>()?,
                    ingress: row.ingress.into_iter().collect::<BTreeSet<_>>(),
                    install: row.install.map(|order| Box::new(order.0)),
                    trial: row.trial.map(|trial| Box::new(trial.0)),
                })
            })
            .collect()
    }

    /// Global namespaces, or the given ones.
    pub(crate) async fn world_gns(
        &mut self,
        org: OrgId,
        only: Option<&[Uuid]>,
    ) -> Result<Vec<GlobalNamespace>, Error> {
        let rows = sqlx::query!(
            r#"SELECT id, name, domain, rules AS "rules: Json<Vec<MappingRule>>", capture FROM global_namespaces
             WHERE org_id = $1 AND ($2::uuid[] IS NULL OR id = ANY($2)) ORDER BY id"#,
            org.as_uuid(),
            only
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(GlobalNamespace {
                    id: GnsId::new(row.id),
                    name: DnsLabel::parse(&row.name).map_err(|_| Error::corrupt("name", &row.name))?,
                    domain: Domain::parse(&row.domain).map_err(|_| Error::corrupt("domain", &row.domain))?,
                    rules: row.rules.0,
                    capture: super::gns::capture(row.capture)?,
                })
            })
            .collect()
    }

    /// Namespaces of clusters: of all, or of the given clusters, or (where names are given too) just those.
    pub(crate) async fn world_namespaces(
        &mut self,
        org: OrgId,
        only: Option<Rows<'_>>,
    ) -> Result<BTreeMap<(ClusterId, NamespaceName), NamespaceRecord>, Error> {
        let rows = match only.map(Rows::columns) {
            // by its key each, whatever the planner thinks of the rest: a condition that may also mean all rows looks at all of them
            Some((clusters, Some(names))) => {
                sqlx::query_as!(
                    NamespaceRow,
                    r#"SELECT n.cluster_id, n.name, n.record AS "record: Json<NamespaceRecord>"
                     FROM unnest($2::uuid[], $3::text[]) AS wanted(cluster_id, name)
                     JOIN inventory_namespaces n
                       ON n.org_id = $1 AND n.cluster_id = wanted.cluster_id AND n.name = wanted.name"#,
                    org.as_uuid(),
                    clusters,
                    names
                )
                .fetch_all(self.conn())
                .await?
            }
            some => {
                sqlx::query_as!(
                    NamespaceRow,
                    r#"SELECT cluster_id, name, record AS "record: Json<NamespaceRecord>" FROM inventory_namespaces
                     WHERE org_id = $1 AND ($2::uuid[] IS NULL OR cluster_id = ANY($2))"#,
                    org.as_uuid(),
                    some.map(|(clusters, _)| clusters)
                )
                .fetch_all(self.conn())
                .await?
            }
        };
        rows.into_iter()
            .map(|row| {
                let name =
                    NamespaceName::parse(&row.name).map_err(|_| Error::corrupt("namespace", &row.name))?;
                Ok(((ClusterId::new(row.cluster_id), name), row.record.0))
            })
            .collect()
    }

    /// Services of clusters: of all, or of the given clusters, or (where keys are given too) just those.
    pub(crate) async fn world_services(
        &mut self,
        org: OrgId,
        only: Option<Rows<'_>>,
    ) -> Result<BTreeMap<(ClusterId, ServiceKey), ServiceRecord>, Error> {
        let rows = match only.map(Rows::columns) {
            // as with namespaces: by its key each
            Some((clusters, Some(keys))) => {
                sqlx::query_as!(
                    ServiceRow,
                    r#"SELECT s.cluster_id, s.key, s.record AS "record: Json<ServiceRecord>", s.export_s
                     FROM unnest($2::uuid[], $3::text[]) AS wanted(cluster_id, key)
                     JOIN inventory_services s
                       ON s.org_id = $1 AND s.cluster_id = wanted.cluster_id AND s.key = wanted.key"#,
                    org.as_uuid(),
                    clusters,
                    keys
                )
                .fetch_all(self.conn())
                .await?
            }
            some => {
                sqlx::query_as!(
                    ServiceRow,
                    r#"SELECT cluster_id, key, record AS "record: Json<ServiceRecord>", export_s FROM inventory_services
                     WHERE org_id = $1 AND ($2::uuid[] IS NULL OR cluster_id = ANY($2))"#,
                    org.as_uuid(),
                    some.map(|(clusters, _)| clusters)
                )
                .fetch_all(self.conn())
                .await?
            }
        };
        rows.into_iter()
            .map(|row| {
                let key =
                    ServiceKey::try_from(row.key.clone()).map_err(|_| Error::corrupt("service", &row.key))?;
                let mut record = row.record.0;
                if let (Some(export), Some(counts_from)) = (&mut record.export, row.export_s) {
                    export.created_s = counts_from;
                }
                Ok(((ClusterId::new(row.cluster_id), key), record))
            })
            .collect()
    }
}

/// Which rows of clusters' inventories.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rows<'a> {
    /// Everything of these clusters.
    Clusters(&'a [Uuid]),
    /// Just these, by cluster and name; the two are of one length.
    Named(&'a [Uuid], &'a [String]),
}

impl<'a> Rows<'a> {
    const fn columns(self) -> (&'a [Uuid], Option<&'a [String]>) {
        match self {
            Self::Clusters(clusters) => (clusters, None),
            Self::Named(clusters, names) => (clusters, Some(names)),
        }
    }
}

struct NamespaceRow {
    cluster_id: Uuid,
    name: String,
    record: Json<NamespaceRecord>,
}

struct ServiceRow {
    cluster_id: Uuid,
    key: String,
    record: Json<ServiceRecord>,
    export_s: Option<i64>,
}
