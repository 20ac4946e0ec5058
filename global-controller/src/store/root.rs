//! Roots of organizations.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::id::OrgId;
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
    /// Stores a root that signs from now on.
    pub(crate) async fn insert_root(
        &mut self,
        org: OrgId,
        root: &RootRow,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO trust_roots
                (org_id, id, certificate, key_sealed, signing, not_before, not_after, created_at)
             VALUES ($1, $2, $3, $4, true, $5, $6, $7)",
            org.as_uuid(),
            root.id,
            root.certificate,
            root.key_sealed,
            root.not_before,
            root.not_after,
            now
        )
        .execute(self.conn())
        .await?;
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

    /// The certificates of all roots that peers believe, oldest first.
    pub(crate) async fn root_certificates(&mut self, org: OrgId) -> Result<Vec<String>, Error> {
        let rows = sqlx::query_scalar!(
            "SELECT certificate FROM trust_roots WHERE org_id = $1 ORDER BY id",
            org.as_uuid()
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows)
    }
}
