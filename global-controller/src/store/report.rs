//! What a cluster's agent said last, and how far it follows; and the certificates of an organization. To show.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::{
    ClusterName, Generation,
    id::{ClusterId, OrgId},
    install::{InstallStatus, TrialStatus},
    snapshot::CaFingerprint,
};
use tombolo_wire::message::{GatewayReport, Problem};

/// What is known of a cluster's agent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReportRow {
    pub(crate) software: Option<String>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) gateways: Vec<GatewayReport>,
    pub(crate) reported_at: Option<DateTime<Utc>>,
    pub(crate) published: Generation,
    pub(crate) published_at: Option<DateTime<Utc>>,
    pub(crate) applied: Generation,
    pub(crate) applied_at: Option<DateTime<Utc>>,
    pub(crate) refused: Option<String>,
    /// How what it was told to install goes.
    pub(crate) install: Option<InstallStatus>,
    /// What it would do for the order that it tried last.
    pub(crate) trial: Option<TrialStatus>,
    /// When its last feed ended.
    pub(crate) last_seen_at: Option<DateTime<Utc>>,
}

/// A cluster's intermediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IntermediateRow {
    pub(crate) cluster: ClusterName,
    pub(crate) fingerprint: CaFingerprint,
    pub(crate) serial: String,
    pub(crate) certificate: String,
    pub(crate) not_before: DateTime<Utc>,
    pub(crate) not_after: DateTime<Utc>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

/// An organization's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootRow {
    pub(crate) certificate: String,
    pub(crate) signing: bool,
    pub(crate) not_before: DateTime<Utc>,
    pub(crate) not_after: DateTime<Utc>,
}

impl Tx {
    /// What is known of a cluster's agent; `None` before it ever spoke.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn cluster_report(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
    ) -> Result<Option<ReportRow>, Error> {
        let row = sqlx::query!(
            "SELECT software, problems, gateways, reported_at, published_generation, published_at,
                    applied_generation, applied_at, refused, last_seen_at, install, trial
             FROM cluster_status WHERE org_id = $1 AND cluster_id = $2",
            org.as_uuid(),
            cluster.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(ReportRow {
            software: row.software,
            problems: serde_json::from_value(row.problems).map_err(|e| Error::corrupt("problem", &e))?,
            gateways: serde_json::from_value(row.gateways)
                .map_err(|e| Error::corrupt("gateway report", &e))?,
            reported_at: row.reported_at,
            published: super::generation(row.published_generation)?,
            published_at: row.published_at,
            applied: super::generation(row.applied_generation)?,
            applied_at: row.applied_at,
            refused: row.refused,
            install: row
                .install
                .map(serde_json::from_value)
                .transpose()
                .map_err(|e| Error::corrupt("state of an installation", &e))?,
            trial: row
                .trial
                .map(serde_json::from_value)
                .transpose()
                .map_err(|e| Error::corrupt("answer to a trial", &e))?,
            last_seen_at: row.last_seen_at,
        }))
    }

    /// The organization's roots, the oldest first.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_roots(&mut self, org: OrgId) -> Result<Vec<RootRow>, Error> {
        let rows = sqlx::query_as!(
            RootRow,
            "SELECT certificate, signing, not_before, not_after FROM trust_roots
             WHERE org_id = $1 ORDER BY created_at, id",
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows)
    }

    /// Intermediates by cluster and fingerprint, those after `after`; of one cluster, where that is given; only those
    /// that peers trust at `standing`, where that is given.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_intermediates(
        &mut self,
        org: OrgId,
        cluster: Option<&str>,
        standing: Option<DateTime<Utc>>,
        after: Option<&(String, CaFingerprint)>,
        limit: i64,
    ) -> Result<Vec<IntermediateRow>, Error> {
        let (name, print) = after.map(|(n, p)| (n.as_str(), p.as_bytes().as_slice())).unzip();
        let rows = sqlx::query!(
            r#"SELECT c.name, i.fingerprint, i.serial, i.certificate, i.not_before, i.not_after, i.revoked_at
               FROM cluster_intermediates i JOIN clusters c ON c.org_id = i.org_id AND c.id = i.cluster_id
               WHERE i.org_id = $1 AND ($2::text IS NULL OR c.name = $2)
                 AND ($3::timestamptz IS NULL
                      OR (i.revoked_at IS NULL AND c.revoked_at IS NULL AND i.not_after > $3))
                 AND ($4::text IS NULL OR (c.name COLLATE "C", i.fingerprint) > ($4, $5))
               ORDER BY c.name COLLATE "C", i.fingerprint LIMIT $6"#,
            org.as_uuid(),
            cluster,
            standing,
            name,
            print,
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter()
            .map(|row| {
                let print: [u8; 32] = row
                    .fingerprint
                    .try_into()
                    .map_err(|bytes: Vec<u8>| Error::corrupt("fingerprint", &bytes.len()))?;
                Ok(IntermediateRow {
                    cluster: ClusterName::parse(&row.name)
                        .map_err(|_| Error::corrupt("cluster's name", &row.name))?,
                    fingerprint: CaFingerprint::new(print),
                    serial: row.serial,
                    certificate: row.certificate,
                    not_before: row.not_before,
                    not_after: row.not_after,
                    revoked_at: row.revoked_at,
                })
            })
            .collect()
    }
}
