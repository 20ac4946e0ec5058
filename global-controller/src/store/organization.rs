//! Organizations: the tenants.

use super::{Error, Tx};
use chrono::{DateTime, Utc};
use tombolo_model::{Generation, OrgName, TrustDomain, id::OrgId};

/// An organization as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrganizationRow {
    pub(crate) id: OrgId,
    pub(crate) name: OrgName,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) generation: Generation,
    pub(crate) created_at: DateTime<Utc>,
}

struct Row {
    id: uuid::Uuid,
    name: String,
    trust_domain: String,
    generation: i64,
    created_at: DateTime<Utc>,
}

impl TryFrom<Row> for OrganizationRow {
    type Error = Error;
    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: OrgId::new(row.id),
            name: OrgName::parse(&row.name).map_err(|_| Error::corrupt("organization's name", &row.name))?,
            trust_domain: TrustDomain::parse(&row.trust_domain)
                .map_err(|_| Error::corrupt("trust domain", &row.trust_domain))?,
            generation: super::generation(row.generation)?,
            created_at: row.created_at,
        })
    }
}

impl Tx {
    /// The organization with this name.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn organization_by_name(
        &mut self,
        name: &OrgName,
    ) -> Result<Option<OrganizationRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, trust_domain, generation, created_at FROM organizations WHERE name = $1",
            name.as_str()
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// The organization with this id.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn organization_by_id(&mut self, id: OrgId) -> Result<Option<OrganizationRow>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, trust_domain, generation, created_at FROM organizations WHERE id = $1",
            id.as_uuid()
        )
        .fetch_optional(self.conn())
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Organizations by name, those after `after`; only the one with the id `only`, where that is given.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn list_organizations(
        &mut self,
        only: Option<OrgId>,
        after: Option<&str>,
        limit: i64,
    ) -> Result<Vec<OrganizationRow>, Error> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, name, trust_domain, generation, created_at FROM organizations
               WHERE ($1::uuid IS NULL OR id = $1) AND ($2::text IS NULL OR name COLLATE "C" > $2)
               ORDER BY name COLLATE "C" LIMIT $3"#,
            only.map(|id| id.as_uuid()),
            after,
            limit
        )
        .fetch_all(self.conn())
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Stores a new organization, at generation 1.
    ///
    /// # Errors
    /// [`Error::Duplicate`] for a name or a trust domain that is taken.
    pub(crate) async fn insert_organization(&mut self, org: &OrganizationRow) -> Result<(), Error> {
        sqlx::query!(
            "INSERT INTO organizations (id, name, trust_domain, generation, created_at) VALUES ($1, $2, $3, $4, $5)",
            org.id.as_uuid(),
            org.name.as_str(),
            org.trust_domain.as_str(),
            super::bigint(org.generation),
            org.created_at
        )
        .execute(self.conn())
        .await?;
        Ok(())
    }

    /// Deletes an organization with everything that refers to it.
    ///
    /// # Errors
    /// As any query.
    pub(crate) async fn delete_organization(&mut self, id: OrgId) -> Result<(), Error> {
        sqlx::query!("DELETE FROM organizations WHERE id = $1", id.as_uuid()).execute(self.conn()).await?;
        Ok(())
    }
}
