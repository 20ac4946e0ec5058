//! One-time tokens with which clusters join, by hash alone.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::id::{ClusterId, OnboardingTokenId, OrgId};

/// An onboarding token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OnboardingRow {
    pub(crate) id: OnboardingTokenId,
    pub(crate) cluster: ClusterId,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) created_by: String,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) used_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
}

struct Row {
    id: uuid::Uuid,
    cluster_id: uuid::Uuid,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

impl From<Row> for OnboardingRow {
    fn from(row: Row) -> Self {
        Self {
            id: OnboardingTokenId::new(row.id),
            cluster: ClusterId::new(row.cluster_id),
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            used_at: row.used_at,
            revoked_at: row.revoked_at,
        }
    }
}

impl Tx {
    /// Stores a new token.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn insert_onboarding_token(
        &mut self,
        org: OrgId,
        token: &OnboardingRow,
        hash: &[u8; 32],
    ) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO onboarding_tokens (org_id, id, cluster_id, hash, created_at, created_by, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            org.as_uuid(),
            token.id.as_uuid(),
            token.cluster.as_uuid(),
            hash.as_slice(),
            token.created_at,
            token.created_by,
            token.expires_at
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// A token of a cluster; locked, so that it is not used while it is revoked.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn onboarding_token(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        id: OnboardingTokenId,
    ) -> Result<Option<OnboardingRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, cluster_id, created_at, created_by, expires_at, used_at, revoked_at
             FROM onboarding_tokens WHERE org_id = $1 AND cluster_id = $2 AND id = $3 FOR UPDATE",
            org.as_uuid(),
            cluster.as_uuid(),
            id.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        Ok(row.map(Into::into))
    }

    /// Tokens of a cluster, the newest first, those before `before`.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_onboarding_tokens(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        before: Option<OnboardingTokenId>,
        limit: i64,
    ) -> Result<Vec<OnboardingRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, cluster_id, created_at, created_by, expires_at, used_at, revoked_at
             FROM onboarding_tokens
             WHERE org_id = $1 AND cluster_id = $2 AND ($3::uuid IS NULL OR id < $3)
             ORDER BY id DESC LIMIT $4",
            org.as_uuid(),
            cluster.as_uuid(),
            before.map(|id| id.as_uuid()),
            limit
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// How many tokens of a cluster could still be used.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn count_open_onboarding_tokens(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        now: DateTime<Utc>,
    ) -> Result<i64, Error> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "count!" FROM onboarding_tokens
               WHERE org_id = $1 AND cluster_id = $2 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $3"#,
            org.as_uuid(),
            cluster.as_uuid(),
            now
        )
        .fetch_one(self.conn())
        .await?;
        Ok(row.count)
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn revoke_onboarding_token(
        &mut self,
        org: OrgId,
        id: OnboardingTokenId,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE onboarding_tokens SET revoked_at = $3 WHERE org_id = $1 AND id = $2 AND revoked_at IS NULL",
            org.as_uuid(),
            id.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }
}
