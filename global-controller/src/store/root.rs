//! Roots of organizations.

use super::{Change, Error, Tx};
use crate::ca::rotation::{ClusterState, RootState};
use chrono::{DateTime, Utc};
use tombolo_model::{ClusterName, Generation, id::OrgId};
use uuid::Uuid;

/// A root, its key sealed.
#[derive(Clone, Debug)]
pub(crate) struct RootRow {
    /// Its id.
    pub(crate) id: Uuid,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
    /// Its key, sealed for this organization.
    pub(crate) key_sealed: Vec<u8>,
    /// From when it is good.
    pub(crate) not_before: DateTime<Utc>,
    /// Until when.
    pub(crate) not_after: DateTime<Utc>,
}

impl Tx {
    /// Stores a root, of which the given generation tells. The first one of an organization signs at once.
    pub(crate) async fn insert_root(
        &mut self,
        org: OrgId,
        root: &RootRow,
        (since, now): (Generation, DateTime<Utc>),
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO trust_roots
                (org_id, id, certificate, key_sealed, signing, not_before, not_after, created_at, since_generation)
             VALUES ($1, $2, $3, $4, NOT EXISTS (SELECT 1 FROM trust_roots WHERE org_id = $1), $5, $6, $7, $8)",
            org.as_uuid(),
            root.id,
            root.certificate,
            root.key_sealed,
            root.not_before,
            root.not_after,
            now,
            super::bigint(since)
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Roots);
        Ok(())
    }

    /// The root that signs.
    pub(crate) async fn signing_root(&mut self, org: OrgId) -> Result<Option<RootRow>, Error> {
        let row = sqlx::query_as!(
            RootRow,
            "SELECT id, certificate, key_sealed, not_before, not_after
             FROM trust_roots WHERE org_id = $1 AND signing",
            org.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row)
    }

    /// The certificates of all roots that peers believe. The first is the one that signs: agents whose intermediate is of
    /// another one ask for a new intermediate.
    pub(crate) async fn root_certificates(&mut self, org: OrgId) -> Result<Vec<String>, Error> {
        let rows = sqlx::query_scalar!(
            "SELECT certificate FROM trust_roots WHERE org_id = $1 ORDER BY signing DESC, id",
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows)
    }

    /// From now on this root signs, and no other one.
    pub(crate) async fn sign_with_root(&mut self, org: OrgId, root: Uuid) -> Result<(), Error> {
        // one after the other, for no two may sign at any moment
        sqlx::query!("UPDATE trust_roots SET signing = false WHERE org_id = $1 AND signing", org.as_uuid())
            .execute(self.conn())
            .await?;
        sqlx::query!(
            "UPDATE trust_roots SET signing = true WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            root
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Roots);
        Ok(())
    }

    /// Nobody believes this root any more. Its key goes with it.
    pub(crate) async fn delete_root(&mut self, org: OrgId, root: Uuid) -> Result<(), Error> {
        sqlx::query!(
            "DELETE FROM trust_roots WHERE org_id = $1 AND id = $2 AND NOT signing",
            org.as_uuid(),
            root
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Roots);
        Ok(())
    }

    /// Organizations with more than one root.
    pub(crate) async fn rotating(&mut self) -> Result<Vec<OrgId>, Error> {
        let rows = sqlx::query_scalar!("SELECT org_id FROM trust_roots GROUP BY org_id HAVING count(*) > 1")
            .fetch_all(self.conn())
            .await?;
        Ok(rows.into_iter().map(OrgId::new).collect())
    }

    /// What the steps of a rotation depend on: the roots, and how far each cluster in good standing is.
    pub(crate) async fn rotation(
        &mut self,
        org: OrgId,
    ) -> Result<(Vec<RootState>, Vec<ClusterState>), Error> {
        let roots = sqlx::query!(
            "SELECT id, signing, since_generation FROM trust_roots WHERE org_id = $1 ORDER BY id",
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        let roots = roots.into_iter().map(|row| {
            let since = super::generation(row.since_generation)?;
            Ok(RootState { id: row.id, signing: row.signing, since })
        });
        let roots = roots.collect::<Result<_, Error>>()?;
        let clusters = sqlx::query!(
            r#"SELECT c.name, coalesce(s.applied_generation, 0) AS "applied!", s.signs_since, i.root_id AS "root?"
             FROM clusters c
             LEFT JOIN cluster_status s ON s.org_id = c.org_id AND s.cluster_id = c.id
             LEFT JOIN cluster_intermediates i ON i.org_id = c.org_id AND i.cluster_id = c.id
                AND i.fingerprint = s.signs_with AND i.revoked_at IS NULL
             WHERE c.org_id = $1 AND c.revoked_at IS NULL
               AND EXISTS (SELECT 1 FROM cluster_intermediates j
                   WHERE j.org_id = c.org_id AND j.cluster_id = c.id AND j.revoked_at IS NULL)
             ORDER BY c.name"#,
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        let clusters = clusters.into_iter().map(|row| {
            Ok(ClusterState {
                name: ClusterName::parse(&row.name).map_err(|_| Error::corrupt("cluster name", &row.name))?,
                applied: super::generation(row.applied)?,
                signs_under: row.root.zip(row.signs_since),
            })
        });
        Ok((roots, clusters.collect::<Result<_, Error>>()?))
    }
}
