//! What belongs to the installation as a whole.

use super::{Error, Store, Tx};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// The installation.
#[derive(Clone, Debug)]
pub(crate) struct InstallationRow {
    /// Its id.
    pub(crate) id: Uuid,
    /// The pool of virtual IPv4 addresses, as it was at the first start.
    pub(crate) vip_pool: String,
    /// The pool of virtual IPv6 addresses.
    pub(crate) vip6_pool: String,
    /// The authority of the controller's HTTPS, PEM.
    pub(crate) tls_ca: String,
    /// Its key, sealed.
    pub(crate) tls_ca_key: Vec<u8>,
}

impl Store {
    /// The installation; none before the first start was done.
    pub(crate) async fn installation(&self) -> Result<Option<InstallationRow>, Error> {
        let row = sqlx::query_as!(
            InstallationRow,
            "SELECT id, vip_pool, vip6_pool, tls_ca, tls_ca_key FROM installation"
        )
        .fetch_optional(self.pool())
        .await?;
        Ok(row)
    }
}

impl Tx {
    /// Makes the installation; `false` where another replica was first.
    pub(crate) async fn insert_installation(
        &mut self,
        row: &InstallationRow,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let done = sqlx::query!(
            "INSERT INTO installation (id, vip_pool, vip6_pool, tls_ca, tls_ca_key, created_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            row.id,
            row.vip_pool,
            row.vip6_pool,
            row.tls_ca,
            row.tls_ca_key,
            now
        )
        .execute(self.conn())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Stores the first owner token's hash.
    pub(crate) async fn insert_owner_token(
        &mut self,
        hash: &[u8; 32],
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO api_tokens (id, org_id, name, role, hash, created_at, created_by)
             VALUES ($1, NULL, 'owner', 'owner', $2, $3, 'first start')",
            Uuid::now_v7(),
            hash.as_slice(),
            now
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
