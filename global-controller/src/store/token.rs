//! API tokens, by hash alone.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;
use tombolo_model::id::{OrgId, TokenId};
use utoipa::ToSchema;

/// What a token may do. `owner` is of the installation: organizations and their tokens, no tenant's data. The others
/// are of one organization, each may do what the one before may: `viewer` reads, `editor` changes, `admin` also
/// makes and revokes tokens, lets a cluster that has joined join anew, and chooses registries and annotations of load balancers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    Viewer,
    Editor,
    Admin,
    Owner,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Viewer, Self::Editor, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }
}
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An API token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) id: TokenId,
    pub(crate) org: Option<OrgId>,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) created_by: String,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    pub(crate) last_used_at: Option<DateTime<Utc>>,
}

struct Row {
    id: uuid::Uuid,
    org_id: Option<uuid::Uuid>,
    name: String,
    role: String,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for TokenRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: TokenId::new(row.id),
            org: row.org_id.map(OrgId::new),
            name: row.name,
            role: Role::parse(&row.role).ok_or_else(|| Error::corrupt("role", &row.role))?,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

impl Tx {
    /// The token with this hash, revoked or not. The one query that does not name an organization: it finds it out.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn api_token_by_hash(&mut self, hash: &[u8; 32]) -> Result<Option<TokenRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, org_id, name, role, created_at, created_by, expires_at, revoked_at, last_used_at
             FROM api_tokens WHERE hash = $1",
            hash.as_slice()
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Lets one transaction at a time change the installation's tokens, and counts those that open something: they are
    /// not revoked, and do not end by themselves.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn lock_owner_tokens(&mut self) -> Result<usize, Error> {
        let rows = sqlx::query!(
            "SELECT id, expires_at FROM api_tokens WHERE org_id IS NULL AND revoked_at IS NULL ORDER BY id FOR UPDATE"
        )
        .fetch_all(self.conn())
        .await?;
        Ok(rows.iter().filter(|row| row.expires_at.is_none()).count())
    }

    /// Notes that a token was used.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn touch_api_token(&mut self, id: TokenId, now: DateTime<Utc>) -> Result<(), Error> {
        sqlx::query!("UPDATE api_tokens SET last_used_at = $2 WHERE id = $1", id.as_uuid(), now)
            .execute(self.conn())
            .await?;
        Ok(())
    }

    /// Stores a new token.
    ///
    /// # Errors
    /// [`Error::Duplicate`] for a name that is taken.
    pub(crate) async fn insert_api_token(&mut self, token: &TokenRow, hash: &[u8; 32]) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO api_tokens (id, org_id, name, role, hash, created_at, created_by, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            token.id.as_uuid(),
            token.org.map(|id| id.as_uuid()),
            token.name,
            token.role.as_str(),
            hash.as_slice(),
            token.created_at,
            token.created_by,
            token.expires_at
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// The token of this name that stands: of an organization, or of the installation.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn api_token(
        &mut self,
        org: Option<OrgId>,
        name: &str,
    ) -> Result<Option<TokenRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, org_id, name, role, created_at, created_by, expires_at, revoked_at, last_used_at
             FROM api_tokens WHERE org_id IS NOT DISTINCT FROM $1 AND name = $2 AND revoked_at IS NULL",
            org.map(|id| id.as_uuid()),
            name
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Tokens that stand, by name, those after `after`.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_api_tokens(
        &mut self,
        org: Option<OrgId>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<TokenRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, org_id, name, role, created_at, created_by, expires_at, revoked_at, last_used_at
               FROM api_tokens
               WHERE org_id IS NOT DISTINCT FROM $1 AND revoked_at IS NULL
                 AND ($2::text IS NULL OR name COLLATE "C" > $2)
               ORDER BY name COLLATE "C" LIMIT $3"#,
            org.map(|id| id.as_uuid()),
            after,
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn revoke_api_token(
        &mut self,
        org: Option<OrgId>,
        id: TokenId,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE api_tokens SET revoked_at = $3
             WHERE org_id IS NOT DISTINCT FROM $1 AND id = $2 AND revoked_at IS NULL",
            org.map(|id| id.as_uuid()),
            id.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Whether a token is still good.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn api_token_stands(&mut self, id: TokenId, now: DateTime<Utc>) -> Result<bool, Error> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT 1 FROM api_tokens WHERE id = $1 AND revoked_at IS NULL
                              AND (expires_at IS NULL OR expires_at > $2)) AS "stands!""#,
            id.as_uuid(),
            now
        )
        .fetch_one(self.conn())
        .await?;
        Ok(row.stands)
    }
}
