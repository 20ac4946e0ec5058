//! Intermediates of clusters: which ones peers believe.

use super::{Change, Error, Tx};
use chrono::{DateTime, Utc};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, TrustDomain,
    id::{ClusterId, OrgId},
    snapshot::{CaFingerprint, TrustBundleSpec},
};
use uuid::Uuid;

/// Which intermediates of a cluster are believed once a new one is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// The new one alone.
    This,
    /// The one in use too, while the new one takes its place.
    Overlap,
}

impl Keep {
    const fn most(self) -> i64 {
        match self {
            Self::This => 1,
            Self::Overlap => 2,
        }
    }
}

/// An intermediate that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether it is the last one that was issued.
    pub(crate) newest: bool,
}

/// An intermediate.
#[derive(Clone, Debug)]
pub(crate) struct IntermediateRow {
    /// The SHA-256 of its public key.
    pub(crate) fingerprint: CaFingerprint,
    /// Its serial number, hex.
    pub(crate) serial: String,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    /// From when it is good.
    pub(crate) not_before: DateTime<Utc>,
    /// Until when.
    pub(crate) not_after: DateTime<Utc>,
    /// The root that signed it.
    pub(crate) root: Uuid,
}

impl Tx {
    /// Stores an intermediate, and takes older ones out of trust. A key that asks again (an answer that was lost on the
    /// way) keeps one record. `false`, and nothing is changed, where its key was revoked: that is for ever.
    pub(crate) async fn insert_intermediate(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        row: &IntermediateRow,
        (keep, now): (Keep, DateTime<Utc>),
    ) -> Result<bool, Error> {
        let done = sqlx::query!(
            "INSERT INTO cluster_intermediates AS i
                (org_id, cluster_id, fingerprint, serial, certificate, not_before, not_after, issued_at, root_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (org_id, cluster_id, fingerprint) DO UPDATE
             SET serial = EXCLUDED.serial, certificate = EXCLUDED.certificate, not_before = EXCLUDED.not_before,
                 not_after = EXCLUDED.not_after, issued_at = EXCLUDED.issued_at, root_id = EXCLUDED.root_id,
                 number = DEFAULT
             WHERE i.revoked_at IS NULL",
            org.as_uuid(),
            cluster.as_uuid(),
            row.fingerprint.as_bytes().as_slice(),
            row.serial,
            row.certificate,
            row.not_before,
            row.not_after,
            now,
            row.root
        )
        .execute(self.conn())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE cluster_intermediates SET revoked_at = $3
             WHERE org_id = $1 AND cluster_id = $2 AND revoked_at IS NULL AND fingerprint NOT IN (
                SELECT fingerprint FROM cluster_intermediates
                WHERE org_id = $1 AND cluster_id = $2 AND revoked_at IS NULL
                ORDER BY number DESC LIMIT $4)",
            org.as_uuid(),
            cluster.as_uuid(),
            now,
            keep.most()
        )
        .execute(self.conn())
        .await?;
        Ok(true)
    }

    /// How an intermediate stands; none where it, or its cluster, is believed no more.
    pub(crate) async fn standing(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        fingerprint: &CaFingerprint,
        now: DateTime<Utc>,
    ) -> Result<Option<Standing>, Error> {
        let newest = sqlx::query_scalar!(
            r#"SELECT NOT EXISTS (SELECT 1 FROM cluster_intermediates n
                WHERE n.org_id = i.org_id AND n.cluster_id = i.cluster_id AND n.revoked_at IS NULL
                  AND n.number > i.number) AS "newest!"
             FROM cluster_intermediates i JOIN clusters c ON c.org_id = i.org_id AND c.id = i.cluster_id
             WHERE i.org_id = $1 AND i.cluster_id = $2 AND i.fingerprint = $3
               AND i.revoked_at IS NULL AND i.not_after > $4 AND c.revoked_at IS NULL"#,
            org.as_uuid(),
            cluster.as_uuid(),
            fingerprint.as_bytes().as_slice(),
            now
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(newest.map(|newest| Standing { newest }))
    }

    /// Takes a cluster out of every peer's trust: its intermediates and its unused tokens with it. `false` where there is
    /// no such cluster, or it is revoked already.
    pub(crate) async fn revoke_cluster(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let done = sqlx::query!(
            "UPDATE clusters SET revoked_at = $3, updated_at = $3, version = version + 1
             WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL",
            org.as_uuid(),
            cluster.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query!(
            "UPDATE cluster_intermediates SET revoked_at = $3
             WHERE org_id = $1 AND cluster_id = $2 AND revoked_at IS NULL",
            org.as_uuid(),
            cluster.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        sqlx::query!(
            "UPDATE onboarding_tokens SET revoked_at = $3
             WHERE org_id = $1 AND cluster_id = $2 AND revoked_at IS NULL AND used_at IS NULL",
            org.as_uuid(),
            cluster.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        Ok(true)
    }

    /// Takes intermediates that are over out of the bundles, everywhere. How many there were.
    pub(crate) async fn expire_intermediates(&mut self, now: DateTime<Utc>) -> Result<usize, Error> {
        let rows = sqlx::query!(
            "UPDATE cluster_intermediates SET revoked_at = $1
             WHERE revoked_at IS NULL AND not_after < $1 RETURNING org_id, cluster_id",
            now
        )
        .fetch_all(self.conn())
        .await?;
        for row in &rows {
            self.changed(OrgId::new(row.org_id), Change::Cluster(ClusterId::new(row.cluster_id)));
        }
        Ok(rows.len())
    }

    /// Whom to believe in an organization at this moment.
    pub(crate) async fn trust_bundle(
        &mut self,
        org: OrgId,
        trust_domain: &TrustDomain,
    ) -> Result<TrustBundleSpec, Error> {
        let roots = self.root_certificates(org).await?;
        let rows = sqlx::query!(
            "SELECT c.name, i.fingerprint FROM cluster_intermediates i
             JOIN clusters c ON c.org_id = i.org_id AND c.id = i.cluster_id
             WHERE i.org_id = $1 AND i.revoked_at IS NULL AND c.revoked_at IS NULL",
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        let mut clusters: BTreeMap<ClusterName, BTreeSet<CaFingerprint>> = BTreeMap::new();
        for row in rows {
            let name =
                ClusterName::parse(&row.name).map_err(|_| Error::corrupt("cluster name", &row.name))?;
            clusters.entry(name).or_default().insert(fingerprint(&row.fingerprint)?);
        }
        Ok(TrustBundleSpec { trust_domain: trust_domain.clone(), roots, clusters })
    }
}

/// A fingerprint as it is stored.
pub(super) fn fingerprint(stored: &[u8]) -> Result<CaFingerprint, Error> {
    <[u8; 32]>::try_from(stored).map(CaFingerprint::new).map_err(|_| Error::corrupt("fingerprint", &stored))
}
