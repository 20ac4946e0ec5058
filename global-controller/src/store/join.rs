//! One-time tokens, from the side of those who use them.

use super::{Change, Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::{
    ClusterName, Locality, OrgName, TrustDomain,
    id::{ClusterId, OnboardingTokenId, OrgId},
};

/// A token, and whom it lets in.
#[derive(Clone, Debug)]
pub(crate) struct JoinTokenRow {
    /// Its id.
    pub(crate) id: OnboardingTokenId,
    /// The organization.
    pub(crate) org: OrgId,
    /// The organization's name.
    pub(crate) org_name: OrgName,
    /// The organization's trust domain.
    pub(crate) trust_domain: TrustDomain,
    /// The one cluster that may join with it.
    pub(crate) cluster: ClusterId,
    /// Its name.
    pub(crate) cluster_name: ClusterName,
    /// When the token ends.
    pub(crate) expires_at: DateTime<Utc>,
    /// When it was used.
    pub(crate) used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub(crate) revoked_at: Option<DateTime<Utc>>,
    /// When the cluster joined before.
    pub(crate) joined_at: Option<DateTime<Utc>>,
}

impl Tx {
    /// The token with this hash, whatever its organization: the token is what says which one it is.
    pub(crate) async fn join_token(&mut self, hash: &[u8; 32]) -> Result<Option<JoinTokenRow>, Error> {
        let row = sqlx::query!(
            "SELECT t.id, t.org_id, o.name AS org_name, o.trust_domain, t.cluster_id, c.name AS cluster_name,
                    t.expires_at, t.used_at, t.revoked_at, c.joined_at
             FROM onboarding_tokens t
             JOIN clusters c ON c.org_id = t.org_id AND c.id = t.cluster_id
             JOIN organizations o ON o.id = t.org_id
             WHERE t.hash = $1",
            hash.as_slice()
        )
        .fetch_optional(self.conn())
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(JoinTokenRow {
            id: OnboardingTokenId::new(row.id),
            org: OrgId::new(row.org_id),
            org_name: OrgName::parse(&row.org_name).map_err(|_| Error::corrupt("name", &row.org_name))?,
            trust_domain: TrustDomain::parse(&row.trust_domain)
                .map_err(|_| Error::corrupt("trust domain", &row.trust_domain))?,
            cluster: ClusterId::new(row.cluster_id),
            cluster_name: ClusterName::parse(&row.cluster_name)
                .map_err(|_| Error::corrupt("cluster name", &row.cluster_name))?,
            expires_at: row.expires_at,
            used_at: row.used_at,
            revoked_at: row.revoked_at,
            joined_at: row.joined_at,
        }))
    }

    /// Marks the token as used; `false` where another one was first.
    pub(crate) async fn use_join_token(
        &mut self,
        org: OrgId,
        token: OnboardingTokenId,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let done = sqlx::query!(
            "UPDATE onboarding_tokens SET used_at = $3
             WHERE org_id = $1 AND id = $2 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > $3",
            org.as_uuid(),
            token.as_uuid(),
            now
        )
        .execute(self.conn())
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes that the cluster joined, in good standing whatever was before. The newcomer's inventory begins anew; until it
    /// comes, what the one before reported stays.
    pub(crate) async fn joined(
        &mut self,
        org: OrgId,
        cluster: ClusterId,
        (locality, nodes): (&Locality, &Locality),
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        sqlx::query!(
            "UPDATE clusters
             SET joined_at = $3, revoked_at = NULL, updated_at = $3, version = version + 1,
                 region = coalesce($4, region, $6),
                 zone = CASE WHEN $4::text IS NOT NULL THEN $5
                             WHEN region IS NULL THEN coalesce($5, zone, $7)
                             ELSE coalesce($5, zone) END,
                 inventory_epoch = NULL, inventory_sequence = NULL
             WHERE org_id = $1 AND id = $2",
            org.as_uuid(),
            cluster.as_uuid(),
            now,
            locality.region,
            locality.zone,
            nodes.region,
            nodes.zone
        )
        .execute(self.conn())
        .await?;
        self.changed(org, Change::Cluster(cluster));
        Ok(())
    }
}
